"""A user's own images go through every script: as an `.npz` file, and as a folder in the README's commands."""

import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.commands import ROOT, read_json, readme_blocks, run

pytestmark = pytest.mark.usefixtures("in_tmp_path")

DIGITS = ROOT / "src" / "datasets" / "embedded" / "digits.npz"
N = {"train": 60, "test": 40}


def write_files(root: Path) -> None:
    digits = np.load(DIGITS)
    images = {f"x_{split}": digits[f"{split}_images"][:n, 0] for split, n in N.items()}
    np.savez_compressed(
        root / "own.npz", **images, **{f"y_{split}": digits[f"{split}_labels"][:n] for split, n in N.items()}
    )
    np.savez(root / "ood.npz", **{name: array[:, ::-1] for name, array in images.items()})


def test_every_script_takes_a_file(tmp_path):
    write_files(tmp_path)
    own, ood, model = "own.npz", "ood.npz", "small_cnn"
    data = ["-gpu", "-1", "-d", own, "-b", "20"]

    run("exec_train.py", model, *data, "-e", "2", "-dir", "m")
    assert read_json("m/config.txt")["dataset"] == str(tmp_path / own)
    assert "Clean accuracy" in run("exec_eval.py", "m/model_2.pt", model, *data).out
    networks = ["m/model_2.pt", "m/model_2.pt", model, model]
    options = ["-i", "pinv", "-e", "1", "--mod-only-stitch", "-dir", "s"]
    run("exec_stitch.py", *networks, "pool1,pool2", "pool2", "rc2c_pre", *data, *options)
    options = ["-m", "repr_cls_resnet18", "-e", "1", "-fe", "1", "-dir", "d", "-ftidd", own, "-ftoodd", ood]
    run("exec_train_representation_classifier.py", "m/model_2.pt", model, "pool2", *data, *options)
    (entry,) = read_json("models/repr_cls_ood_detectors/meta.json").values()
    assert (entry["id_dataset"], entry["finetune_ood_dataset"]) == (str(tmp_path / own), str(tmp_path / ood))
    out = run("exec_eval_stitcher_ood.py", "results/s", *data, "-scd", ood, "-idd", own).out
    assert "mean ID energy" in out and "OOD detector sanity checks: ood (energy)\n" in out
    assert sum(path.name == "ood.npy" for path in tmp_path.rglob("*.npy")) == 1
    run("exec_probe.py", "m/model_2.pt", model, *data, "-l", "pool2", "-e", "1", "-o", "probes.csv")
    options = ["-n", "40", "-o", "similarity.csv"]
    run("exec_compute_low_rank_sim_metrics.py", *networks, "pool1", "pool2", *data, *options)
    assert (tmp_path / "probes.csv").exists() and (tmp_path / "similarity.csv").exists()


def test_a_network_of_images_that_were_normalised_otherwise_is_warned_of(tmp_path):
    write_files(tmp_path)
    arrays = dict(np.load("own.npz"))
    np.savez("normalised.npz", **arrays, mean=0.5, std=0.25)
    run("exec_train.py", "small_cnn", "-d", "normalised.npz", "-gpu", "-1", "-e", "1", "-dir", "of_normalised")
    for name, said in (("normalised.npz", 0), ("own.npz", 1)):
        err = run("exec_eval.py", "of_normalised/model_1.pt", "small_cnn", "-d", name, "-gpu", "-1").err
        assert err.count("normalised.npz: mean 0.5 and std 0.25; the images at hand: values in [0, 1]") == said


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path):
    """As they stand, one after the other."""
    (tmp_path / "src").symlink_to(ROOT / "src")  # the Python block reads the digits from there
    printed = ""
    for language, code in readme_blocks("Your own images"):
        if language == "python":
            exec(code, {})
        else:
            for line in filter(None, code.splitlines()):
                command, *arguments = shlex.split(line)
                if command == "python":
                    printed += run(*arguments).out
                else:
                    subprocess.run(["bash", "-c", line], check=True)
    assert "Clean accuracy" in printed and (tmp_path / "results" / "mine" / "ood_evaluation.csv").exists()
