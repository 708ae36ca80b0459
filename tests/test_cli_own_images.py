"""A user's own images go through the scripts: as an `.npz` file, and as a folder in the README's commands."""

import shlex
import subprocess

import numpy as np
import pytest

from tests.commands import ROOT, read_json, readme_blocks, run


@pytest.fixture(autouse=True)
def files(in_tmp_path):
    """Digits in own.npz, and turned ones in ood.npz."""
    digits = np.load(ROOT / "src" / "datasets" / "embedded" / "digits.npz")
    images = {f"x_{split}": digits[f"{split}_images"][:60, 0] for split in ("train", "test")}
    labels = {f"y_{split}": digits[f"{split}_labels"][:60] for split in ("train", "test")}
    np.savez_compressed("own.npz", **images, **labels)
    np.savez("ood.npz", **{name: array[:, ::-1] for name, array in images.items()})


def test_files_go_through_training_stitching_and_evaluation(tmp_path):
    own, ood, model = "own.npz", "ood.npz", "small_cnn"
    data = ["-gpu", "-1", "-d", own, "-b", "20"]
    run("exec_train.py", model, *data, "-e", "1", "-dir", "m")
    assert read_json("m/config.txt")["dataset"] == str(tmp_path / own)
    networks = ["m/model_1.pt", "m/model_1.pt", model, model]
    options = ["-i", "pinv", "-e", "1", "--mod-only-stitch", "-dir", "s"]
    run("exec_stitch.py", *networks, "pool1,pool2", "pool2", "rc2c_pre", *data, *options)
    out = run("exec_eval_stitcher_ood.py", "results/s", *data, "-scd", ood, "-idd", own, "--detector", "knn").out
    assert "OOD detector sanity checks: ood (knn)\n" in out
    assert sum(path.name == "ood.npy" for path in tmp_path.rglob("*.npy")) == 1


def test_a_network_of_images_that_were_normalised_otherwise_is_warned_of():
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
