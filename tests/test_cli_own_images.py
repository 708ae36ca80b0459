"""A user's own images, as a folder and as an `.npz` file, go through every script; so do the README's commands."""

import json
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import exec_compute_low_rank_sim_metrics
import exec_eval
import exec_eval_stitcher_ood
import exec_probe
import exec_stitch
import exec_train
import exec_train_representation_classifier
from tests.conftest import ROOT

DIGITS = ROOT / "src" / "datasets" / "embedded" / "digits.npz"
N = {"train": 60, "test": 40}


def write_folder(root: Path) -> None:
    """Some of the digits, and as OOD data the same images upside down, without classes."""
    digits = np.load(DIGITS)
    for split, n in N.items():
        for i, (image, label) in enumerate(
            zip(digits[f"{split}_images"][:n, 0], digits[f"{split}_labels"], strict=False)
        ):
            for path in (root / "own" / split / str(label), root / "ood" / split):
                path.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image if "own" in path.parts else image[::-1].copy()).save(path / f"{i}.png")
    for name in ("own", "ood"):
        (root / name / "dataset.yaml").write_text("size: 8\nchannels: 1\naugment: none\nmean: [0]\nstd: [1]\n")


def write_files(root: Path) -> None:
    digits = np.load(DIGITS)
    images = {f"x_{split}": digits[f"{split}_images"][:n, 0] for split, n in N.items()}
    np.savez_compressed(
        root / "own.npz", **images, **{f"y_{split}": digits[f"{split}_labels"][:n] for split, n in N.items()}
    )
    np.savez(root / "ood.npz", **{name: array[:, ::-1] for name, array in images.items()})


@pytest.mark.parametrize(("write", "ending"), [(write_folder, ""), (write_files, ".npz")], ids=["folder", "file"])
def test_every_script_takes_them(write, ending, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    own, ood, model = f"own{ending}", f"ood{ending}", "small_cnn"
    cpu = ["-gpu", "-1", "-d", own, "-b", "20"]

    def run(script, *words: str) -> str:
        assert script.main([*words, *cpu]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    run(exec_train, model, "-e", "2", "-dir", "m")
    assert json.loads((tmp_path / "m" / "config.txt").read_text())["dataset"] == str(tmp_path / own)
    assert "Clean accuracy" in run(exec_eval, "m/model_2.pt", model)
    networks = ["m/model_2.pt", "m/model_2.pt", model, model]
    stitch = [*networks, "pool1,pool2", "pool2", "rc2c_pre", "-i", "pinv", "-e", "1", "--mod-only-stitch"]
    run(exec_stitch, *stitch, "-dir", "s")
    detector = ["m/model_2.pt", model, "pool2", "-m", "repr_cls_resnet18", "-e", "1", "-fe", "1", "-dir", "d"]
    run(exec_train_representation_classifier, *detector, "-ftidd", own, "-ftoodd", ood)
    entry = next(iter(json.loads(Path("models/repr_cls_ood_detectors/meta.json").read_text()).values()))
    assert (entry["id_dataset"], entry["finetune_ood_dataset"]) == (str(tmp_path / own), str(tmp_path / ood))
    out = run(exec_eval_stitcher_ood, "results/s", "-scd", ood, "-idd", own)
    assert "mean ID energy" in out and "OOD detector sanity checks: ood\n" in out
    assert sum(path.name == "ood.npy" for path in tmp_path.rglob("*.npy")) == 1
    run(exec_probe, "m/model_2.pt", model, "-l", "pool2", "-e", "1", "-o", "probes.csv")
    run(exec_compute_low_rank_sim_metrics, *networks, "pool1", "pool2", "-n", "40", "-o", "similarity.csv")
    assert (tmp_path / "probes.csv").exists() and (tmp_path / "similarity.csv").exists()


def test_a_config_with_a_path_repeats_a_run_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    assert exec_train.main(["small_cnn", "-d", "own.npz", "-gpu", "-1", "-e", "1", "-dir", str(tmp_path / "a")]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert exec_train.main(["--config", "../a/config.txt", "-dir", "b"]) == 0
    assert Path("b/model_1.pt").read_bytes() == (tmp_path / "a" / "model_1.pt").read_bytes()


def test_data_without_labels_or_of_no_path_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path)
    assert exec_train.main(["small_cnn", "-d", "ood", "-gpu", "-1", "-dir", "m"]) == 2
    assert "ood' has no labels; choose one that has" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        exec_train.main(["small_cnn", "-d", "owns", "-gpu", "-1", "-dir", "m"])
    assert stop.value.code == 2 and "argument -d/--dataset: unknown dataset 'owns'" in capsys.readouterr().err


def readme_blocks(title: str) -> list[tuple[str, str]]:
    """The Python and bash blocks of a section of the README, in their order: language and code."""
    section = (ROOT / "README.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    blocks = (block.partition("\n") for block in section.split("```")[1::2])
    return [(language, code) for language, _, code in blocks if language in ("bash", "python")]


def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, run_here):
    """As they stand, one after the other."""
    (tmp_path / "src").symlink_to(ROOT / "src")  # the Python block reads the digits from there
    monkeypatch.chdir(tmp_path)
    printed = ""
    for language, code in readme_blocks("Your own images"):
        if language == "python":
            exec(code, {})
        else:
            for line in filter(None, code.replace("\\\n", "").splitlines()):
                command, *arguments = shlex.split(line)
                if command == "python":
                    printed += run_here(*arguments)
                else:
                    subprocess.run(["bash", "-c", line], check=True)
    assert "Clean accuracy" in printed and (tmp_path / "results" / "mine" / "ood_evaluation.csv").exists()
