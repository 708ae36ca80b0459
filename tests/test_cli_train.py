"""exec_train.py and exec_eval.py as a user runs them."""

import gc
import itertools
import os
import re
import subprocess
from pathlib import Path

import pytest

from src import __version__
from src.results import run as runs
from src.training import Settings, loop
from tests.commands import (
    ON_DIGITS,
    error_line,
    names_in,
    read_csv,
    read_json,
    run,
    says,
    words,
)

pytestmark = pytest.mark.usefixtures("in_tmp_path")

SPLITS = ("train", "val")
ARGUMENTS = ["small_cnn", "-d", "digits", "-gpu", "-1", "-b", "64"]


def train(*arguments, status: int = 0):
    """Train `small_cnn` on the digits."""
    return run("exec_train.py", *ARGUMENTS, *arguments, status=status)


def test_trains_and_evaluates(tmp_path):
    options = ["-e", "3", "-sf", "2", "-dir", "models/a", "-rlre", "2", "-epoch-size", "128"]
    lines = run("exec_train.py", *ARGUMENTS, *options).out.splitlines()
    folder = tmp_path / "models" / "a"
    files = {"config.txt", "run.json", "training_logs.csv", "model_2.pt", "model_3.pt"}
    assert names_in(folder) == files
    number = r"\d+\.\d+(e-\d+)?"
    for line, (epoch, split) in zip(lines, itertools.product("123", SPLITS), strict=True):
        assert re.fullmatch(rf"Epoch #{epoch} {split} loss: {number}, accuracy: {number}", line)
    rows = read_csv(folder / "training_logs.csv")
    assert list(rows[0]) == ["train_acc", "train_loss", "val_acc", "val_loss"] and len(rows) == 3
    config = read_json(folder / "config.txt")
    assert (config["n_epochs"], config["reduce_lr_epochs"]) == (3, [2])
    made_with = read_json(folder / "run.json")
    assert "exec_train.py small_cnn" in made_with["command"] and made_with["suite"] == __version__

    out = run("exec_eval.py", "models/a/model_3.pt", *ARGUMENTS).out
    assert out == f"Clean accuracy: {float(rows[-1]['val_acc']):.2%}\n"


@pytest.mark.slow
def test_nobody_reads_the_output(tmp_path):
    command = words("exec_train.py", *ARGUMENTS, "-e", "1", "-dir", "m")
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as nobody:
        done = subprocess.run(command, cwd=tmp_path, stdout=nobody)
    assert done.returncode == 0 and "model_1.pt" in names_in(tmp_path / "m")


def test_a_save_frequency_of_0_saves_the_last_epoch(tmp_path):
    train("-e", "2", "-sf", "0", "-dir", "last", "-epoch-size", "64")
    train("-e", "0", "-dir", "none")
    for folder, checkpoint in (("last", "model_2.pt"), ("none", "model_0.pt")):
        assert [path.name for path in (tmp_path / folder).glob("*.pt")] == [checkpoint]


def test_the_recipe_of_resi(monkeypatch):
    """SGD 0.1, cosine to 0 over 200 epochs, weight decay 5e-4, batches of 128."""
    given = []
    monkeypatch.setattr(
        loop, "train", lambda *arguments, **_: given.append(arguments[-1]) or iter(())
    )
    recipe = "-e 200 -o sgd -lr 0.1 -sched cosine -wd 5e-4 -b 128 -s 3 -dir m".split()
    run("exec_train.py", "resnet18", *ON_DIGITS, *recipe)
    expected = Settings(200, 128, "sgd", 0.1, 5e-4, "cosine", [], seed=3)
    assert given == [expected]


def test_an_interrupted_run_with_interventions_goes_on_and_a_config_repeats_it(
    tmp_path, monkeypatch
):
    """Labels and dots are those from before; -s draws others."""
    changes = ["--shortcut", "0.75", "--label-noise", "0.5", "-epoch-size", "256"]
    train("-e", "3", "-dir", "whole", *changes)
    report = runs.report_epoch

    def stop(epoch, log):
        report(epoch, log)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "report_epoch", stop)
        train("-e", "3", "-dir", "stopped", *changes, status=130)
    other = ["--label-noise", "0.25", "--resume"]
    refused = train("-e", "3", "-dir", "stopped", *changes, *other, status=2).err
    assert says(refused, "label_noise", "was 0.5", "now 0.25")
    train("-e", "3", "-dir", "stopped", *changes, "--resume")
    run("exec_train.py", "--config", "whole/config.txt", "-dir", "again")
    anew = ["-dir", "other", "-s", "1"]
    run("exec_train.py", "--config", "whole/config.txt", *anew)
    weights, *same, other = (
        (tmp_path / folder / "model_3.pt").read_bytes()
        for folder in ("whole", "stopped", "again", "other")
    )
    assert same == [weights, weights] and other != weights
    logs = [
        (tmp_path / folder / "training_logs.csv").read_bytes() for folder in ("whole", "stopped")
    ]
    assert logs[0] == logs[1]
    images = [read_json(f"{folder}/config.txt") for folder in ("whole", "other")]
    assert images[0]["train_images_sha256"] != images[1]["train_images_sha256"]
    assert images[0]["test_images_sha256"] == images[1]["test_images_sha256"]


def test_a_run_of_other_options_is_written_over_on_demand(tmp_path):
    few = ["-epoch-size", "64", "-dir", "m"]
    train("-e", "1", "-s", "1", *few)
    refused = error_line("exec_train.py", *ARGUMENTS, "-e", "1", "-s", "7", *few)
    assert says(refused, "seed was 1, now 7", "--overwrite")
    train("-e", "1", "-s", "7", *few, "--overwrite")
    assert read_json("m/config.txt")["seed"] == 7


def test_an_error_in_the_training_leaves_no_lock():
    train("-e", "1", "-epoch-size", "128", "-dir", "a", "-o", "sgd", "-lr", "1e30", status=2)
    gc.collect()  # as at the end of a process
    assert not [name for name in names_in(Path("a")) if name.endswith(".lock")]


@pytest.mark.parametrize(
    ("options", "further", "said"),
    [
        (
            ["-e", "1", "-epoch-size", "128"],
            ["-lr", "100"],
            ("of the network diverged", "2.30 for equal probabilities", "lower the learning rate"),
        ),
        (
            ["-e", "2", "-epoch-size", "64", "-rlre", "1"],
            ["-rlre", "1", "2"],
            ("-rlre 2 has no effect: there are 2 epochs",),
        ),
    ],
)
def test_settings_that_defeat_a_training_run_are_warned_of(options, further, said):
    assert said[0] not in train(*options, "-dir", "a").err
    assert says(train(*options, *further, "-dir", "b").err, *said)
