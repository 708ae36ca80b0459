"""Images on disk go through the scripts: a user's own in a file or a folder, and those of
ImageNet."""

import os
import shutil
import signal
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from src.core.tensors import save_state
from src.models import build_model
from src.results import stitch_runs
from tests.commands import ROOT, error_line, read_json, run, says, start
from tests.tiny_datasets import write_imagenet


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
    out = run(
        "exec_eval_stitcher_ood.py",
        "results/s",
        *data,
        "-scd",
        ood,
        "-idd",
        own,
        "--detector",
        "mahalanobis",
    ).out
    assert says(out, "sanity checks", ": ood (mahalanobis)")
    assert {*np.load("results/s/energies_mahalanobis.npz")} == {
        "pool2/ood",
        "pool2/pool1",
        "pool2/pool2",
    }


@pytest.fixture
def imagenet(tmp_path):
    write_imagenet(tmp_path / "imagenet", n_train=6, n_val=6)
    data = ["-d", "imagenet", "-data", tmp_path / "imagenet", "-workers", "1", "-prefetch", "2"]
    return [*data, "-gpu", "-1", "-b", "4"]


@pytest.mark.slow
def test_an_interruption_is_answered_by_the_main_process_alone(imagenet, tmp_path):
    """Ctrl-C, `timeout`, containers and Slurm signal all processes: workers leave it to the main
    one, and end."""
    arguments = ["small_cnn", *imagenet, "-e", "100000", "-dir", "m"]
    process = start("exec_train.py", *arguments, cwd=tmp_path, start_new_session=True)
    for _ in range(4):  # the workers of both sets are there
        process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 128 + signal.SIGINT
    _, line = err.splitlines()  # behind the warning of few classes
    assert "interrupted by SIGINT" in line
    with pytest.raises(
        ProcessLookupError
    ):  # the workers have ended, too, and are collected by init
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)


BRIGHTNESS = """
import torch
from torch import nn

def net(n_classes, n_channels):
    '''Tells ten classes by their brightness; no training is needed.'''
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 10))
    means = (25 * torch.arange(10) + 10) / 255
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[0].bias.zero_()
        network[3].weight.copy_(means[:, None].expand(-1, 2))
        network[3].bias.copy_(-(means**2))
    return network
"""


@pytest.mark.parametrize(
    ("step", "shift", "accuracy", "words"),
    [(1, 0, "100.00%", ""), (3, 0, "20.00%", "close to"), (1, 1, "0.00%", "far below")],
)
def test_an_end_network_at_chance_is_warned_of_before_the_work(
    monkeypatch, step, shift, accuracy, words
):
    """Classes are as in training, or in another order."""
    Path("nets.py").write_text(BRIGHTNESS)
    labels = np.arange(200) % 10
    images = np.broadcast_to((25 * labels + 10)[:, None, None], (200, 8, 8)).astype(np.uint8)
    arrays = {"x_train": images, "x_test": images}
    arrays |= dict.fromkeys(("y_train", "y_test"), (labels * step + shift) % 10)
    np.savez("grey.npz", **arrays)
    data = ["-d", "grey.npz", "-gpu", "-1", "-b", "50"]
    said = run("exec_eval.py", "DEFAULT", "nets.py:net", *data)
    assert says(said.out, f" {accuracy}")
    assert says(said.err, f"{words} chance (10%)") == bool(words)
    networks = ["DEFAULT", "DEFAULT", "nets.py:net", "nets.py:net"]
    trained = ["0", "0", "rc2c_pre", *data, "-e", "1", "--mod-only-stitch", "-dir", "s"]
    monkeypatch.setattr(stitch_runs, "report_epoch", Mock(side_effect=KeyboardInterrupt))
    said = run("exec_stitch.py", *networks, *trained, status=130)
    assert says(said.err, "of 200 test inputs", f"{words} chance (10%)") == bool(words)


def test_few_test_images_and_networks_that_are_not_finite_are_named(in_tmp_path):
    digits = dict(np.load("own.npz"))
    one = digits | {"x_test": digits["x_test"][:1], "y_test": digits["y_test"][:1]}
    np.savez("one.npz", **one)
    said = run("exec_eval.py", "-", "small_cnn", "-d", "one.npz", "-gpu", "-1").err
    assert says(said, "not certainly above chance (100%)", "so few")
    state = build_model("small_cnn", n_channels=1).state_dict()
    save_state(Path("nan.pt"), {name: value * np.nan for name, value in state.items()})
    on = ["pool1", "pool2", "rc2c_pre", "-d", "own.npz", "-gpu", "-1", "-e", "0", "-i", "pinv"]
    line = error_line("exec_stitch.py", "-", "nan.pt", "small_cnn", "small_cnn", *on)
    assert says(line, "the logits of nan.pt are not finite")


def test_test_inputs_among_the_training_inputs_are_warned_of(in_tmp_path):
    digits = dict(np.load("own.npz"))
    assert "of the test inputs" not in train_on("own.npz", "clean").err
    digits["x_test"][:3] = digits["x_train"][5:8]
    np.savez("shared.npz", **digits)
    assert says(
        train_on("shared.npz", "shared").err,
        "shared.npz: 5% of the test inputs are among",
        "give other",
    )


def test_test_images_of_a_folder_among_the_training_images_are_warned_of(in_tmp_path):
    digits = np.load("own.npz")
    for split in ("train", "test"):
        for place, label in enumerate(digits[f"y_{split}"][:20] % 2):
            path = Path("folder", split, str(label), f"{place}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits[f"x_{split}"][place]).save(path)
    Path("folder", "dataset.yaml").write_text("size: 8\naugment: none\nchannels: 1\n")
    assert "of the test inputs" not in train_on("folder", "clean", "-workers", "0").err
    shutil.copy(next(Path("folder/train/0").iterdir()), "folder/test/0/copy.png")
    assert says(train_on("folder", "again", "-workers", "0").err, "5% of the test inputs are among")


def train_on(data: str, folder: str, *options: str):
    """Train for no epoch."""
    return run(
        "exec_train.py", "small_cnn", "-gpu", "-1", "-d", data, "-e", "0", "-dir", folder, *options
    )
