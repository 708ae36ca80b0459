"""exec_train.py and exec_eval.py as a user runs them."""

import json
import math
import os
import re
import subprocess

import numpy as np
import pytest
import torch

from src import __version__
from src.checkpoints import load_state
from src.datasets import INTERVENTIONS
from tests.commands import ON_DIGITS, names_in, parser_of, read_csv, read_json, run, run_process, words
from tests.conftest import few_images

pytestmark = pytest.mark.usefixtures("in_tmp_path")

ARGUMENTS = ["small_cnn", "-d", "digits", "-gpu", "-1", "-b", "64"]


def train(*arguments, status: int = 0):
    """Train `small_cnn` on the digits."""
    return run("exec_train.py", *ARGUMENTS, *arguments, status=status)


def test_trains_and_evaluates(tmp_path):
    options = ["-e", "3", "-sf", "2", "-dir", "models/a", "-rlre", "2", "--grad-clip", "5"]
    lines = run_process("exec_train.py", *ARGUMENTS, *options).out.splitlines()
    folder = tmp_path / "models" / "a"
    assert names_in(folder) == {"config.txt", "run.json", "training_logs.csv", "model_2.pt", "model_3.pt"}

    number = r"\d+\.\d+(e-\d+)?"
    for epoch in (1, 2, 3):
        for split in ("train", "val"):
            assert re.fullmatch(rf"Epoch #{epoch} {split} loss: {number}, accuracy: {number}", lines.pop(0))
    rows = read_csv(folder / "training_logs.csv")
    assert list(rows[0]) == ["train_acc", "train_loss", "val_acc", "val_loss"] and len(rows) == 3

    config = read_json(folder / "config.txt")
    assert config["n_epochs"] == 3 and config["reduce_lr_epochs"] == [2] and config["save_dir"] == "models/a"
    made_with = read_json(folder / "run.json")
    assert "exec_train.py small_cnn" in made_with["command"] and made_with["suite"] == __version__

    out = run("exec_eval.py", "models/a/model_3.pt", *ARGUMENTS).out
    assert out == f"Clean accuracy: {float(rows[-1]['val_acc']):.2%}\n"


@pytest.mark.slow
def test_nobody_reads_the_output(tmp_path):
    command = words("exec_train.py", *ARGUMENTS, "-e", "2", "-dir", "m")
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as nobody:
        done = subprocess.run(command, cwd=tmp_path, stdout=nobody, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0 and re.fullmatch(
        r"epoch 1/2: \d+\.\d s an epoch, about 0:\d\d:\d\d left\nwrote m\n", done.stderr
    )
    assert "model_2.pt" in names_in(tmp_path / "m")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*command, "-s", "1", "--overwrite"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True
        )
    line = "exec_train.py: error: cannot print the results: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, line)


@pytest.mark.parametrize(("frequency", "saved"), [("0", {3}), ("1", {1, 2, 3}), ("2", {2, 3}), ("5", {3})])
def test_save_frequency(tmp_path, frequency, saved):
    train("-e", "3", "-sf", frequency, "-dir", tmp_path)
    assert {name for name in names_in(tmp_path) if name.endswith(".pt")} == {f"model_{epoch}.pt" for epoch in saved}


def test_no_epochs_write_the_fresh_network(tmp_path):
    train("-e", "0", "-dir", "m")
    assert names_in(tmp_path / "m") == {"config.txt", "run.json", "model_0.pt"}


@pytest.mark.parametrize(("optimizer", "scheduler"), [("adamw", "cosine"), ("sgd", "none")])
def test_optimizers_and_schedulers(optimizer, scheduler):
    train("-e", "2", "-o", optimizer, "-sched", scheduler, "-lr", "0.01", "-dir", "m")
    losses = [float(row["train_loss"]) for row in read_csv("m/training_logs.csv")]
    assert losses[1] < losses[0]


# Settings of ReSi, and interventions


def test_the_recipe_of_resi(monkeypatch):
    """SGD 0.1 with momentum 0.9, cosine to 0 over 200 epochs, weight decay 5e-4, batches of 128."""
    from src.training import loop, recorded

    rates = []

    def record(task, train_set, val_set, settings, **options):
        optimizer = loop._optimizer(list(task.heads[0].parameters()), settings)
        scheduler = loop._scheduler(optimizer, settings)
        (group,) = optimizer.param_groups
        assert type(optimizer) is torch.optim.SGD and settings.batch_size == 128
        assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 5e-4, False)
        for _ in range(settings.n_epochs):
            rates.append(group["lr"])
            optimizer.step()
            scheduler.step()
        return iter(())

    monkeypatch.setattr(recorded, "train", record)
    recipe = "-e 200 -o sgd -lr 0.1 --momentum 0.9 -sched cosine -wd 5e-4 -b 128 -dir m".split()
    run("exec_train.py", "resnet18", *ON_DIGITS, *recipe)
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * epoch / 200)) for epoch in range(200)])


def test_momentum_is_of_sgd(tmp_path):
    message = "exec_train.py: error: --momentum is of -o sgd, not of adam; give -o sgd or leave it out\n"
    assert train("-dir", tmp_path / "m", "--momentum", "0.9", status=2).err == message
    assert (
        "'1.5' is not a finite number at least 0 and at most 1" in train("-dir", "m", "--momentum", "1.5", status=2).err
    )


# Where the accuracies lie after four epochs; without an intervention those are 0.86 and 0.9 or more
INTERVENED = {
    "--label-noise 1": {"train": (0.05, 0.15), "val": (0.0, 0.25)},
    "--label-noise 0.5": {"train": (0.2, 0.52), "val": (0.5, 1.0)},
    "--shortcut 1": {"train": (0.8, 1.0), "val": (0.0, 0.5)},  # dots are learned, and those on test images mislead
    "--image-noise 10000": {"train": (0.5, 0.75), "val": (0.7, 1.0)},
}


@pytest.mark.parametrize(
    "option",
    [pytest.param(each, marks=() if each == "--shortcut 1" else pytest.mark.slow) for each in INTERVENED],
)
def test_interventions(option, tmp_path):
    settings = [*ON_DIGITS, "-e", "4", "-b", "32", "-lr", "0.003", "-dir", "m"]
    run_process("exec_train.py", "small_cnn", *settings, *option.split(), "--intervention-seed", "3")
    row = read_csv("m/training_logs.csv")[-1]
    for split, (low, high) in INTERVENED[option].items():
        assert low <= float(row[f"{split}_acc"]) <= high, split
    clean = run("exec_eval.py", "m/model_4.pt", "small_cnn", *ON_DIGITS).out  # only dots are on test images
    assert (clean == f"Clean accuracy: {float(row['val_acc']):.2%}\n") == ("--shortcut" not in option)
    config, name = read_json("m/config.txt"), option.split()[0].lstrip("-").replace("-", "_")
    assert config[name] == float(option.split()[1]) and config["intervention_seed"] == 3
    assert {config[other] for other in INTERVENTIONS if other != name} == {None}
    assert names_in(tmp_path / "m") == {"config.txt", "run.json", "training_logs.csv", "model_4.pt"}


def test_interventions_out_of_range(tmp_path):
    for option in ("--label-noise", "--shortcut"):
        assert (
            "'1.01' is not a finite number at least 0 and at most 1" in train("-dir", "m", option, "1.01", status=2).err
        )
    assert "'-1' is not a finite number at least 0" in train("-dir", "m", "--image-noise=-1", status=2).err


ALL = ["--shortcut", "0.75", "--label-noise", "0.5", "--image-noise", "1000"]


def test_a_config_repeats_interventions(tmp_path):
    train("-e", "1", "-dir", "a", *ALL, "--intervention-seed", "1")
    run("exec_train.py", "--config", "a/config.txt", "-dir", "b")
    train("-e", "1", "-dir", "c", *ALL)
    a, b, c = ((tmp_path / name / "model_1.pt").read_bytes() for name in "abc")
    assert a == b != c
    refused = train("-e", "1", "-dir", "a", *ALL, status=2).err
    assert "intervention_seed was 1, now 0" in refused


def test_an_interrupted_run_with_interventions_goes_on(tmp_path, monkeypatch):
    """Noise of an epoch is that of the epoch, and labels and dots are those from before."""
    from src.training import recorded

    train("-e", "3", "-dir", "whole", *ALL)
    report = recorded.report_epoch

    def stop(epoch, log):
        report(epoch, log)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recorded, "report_epoch", stop)
        assert "interrupted by SIGINT" in train("-e", "3", "-dir", "stopped", *ALL, status=130).err
    other = train("-e", "3", "-dir", "stopped", *ALL[:-1], "900", "--resume", status=2).err
    assert "image_noise was 1000.0, now 900.0" in other
    train("-e", "3", "-dir", "stopped", *ALL, "--resume")
    for name in ("model_3.pt", "training_logs.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()


def test_vision_transformers_take_other_image_sizes(tmp_path):
    name, data = "vit_tiny_patch4_32", ARGUMENTS[1:]
    with few_images():
        run("exec_train.py", name, *data, "-e", "1", "-b", "256", "-dir", "m")
    assert load_state(tmp_path / "m" / "model_1.pt")["pos_embed"].shape == (1, 5, 192)
    run("exec_eval.py", "m/model_1.pt", name, *data)


def test_reads_checkpoints_of_the_public_code(tmp_path):
    """Legacy format, images of CIFAR-10's shape: what the goldens of the evaluation are made of."""
    from src.models import build_model
    from tests.golden_weights import load_golden_weights
    from tests.tiny_datasets import random_images

    arrays = {name: random_images(30, 32, 32, 3) if name[0] == "x" else np.arange(30) % 10
              for name in ("x_train", "y_train", "x_test", "y_test")}  # fmt: skip
    np.savez(tmp_path / "data.npz", **arrays)
    model = load_golden_weights(build_model("resnet18"), 0)
    torch.save(model.state_dict(), tmp_path / "det0.pt", _use_new_zipfile_serialization=False)
    out = run("exec_eval.py", "det0.pt", "resnet18", "-d", "data.npz", "-gpu", "-1").out
    assert re.fullmatch(r"Clean accuracy: \d+\.\d\d%\n", out)


def test_a_finished_run_of_other_options_is_not_written_over(tmp_path):
    options = ["-e", "1", "-dir", "m"]
    for _ in range(2):  # the same options may be run again
        train(*options)
    model, config = tmp_path / "m" / "model_1.pt", tmp_path / "m" / "config.txt"
    before = model.read_bytes()
    refused = train(*options, "-s", "1", status=2).err
    assert "seed was 0, now 1); choose another folder, or give --overwrite" in refused
    assert model.read_bytes() == before
    train(*options, "-s", "1", "--overwrite")
    assert model.read_bytes() != before and "overwrite" not in read_json(config)
    config.unlink()  # unfinished runs are written over
    train(*options)
    assert model.read_bytes() == before


def test_a_finished_folder_of_the_public_code_is_finished(tmp_path):
    """It writes "" where no scheduler is used, and has no options that are new."""
    options = ["-e", "1", "-sched", "", "-dir", str(tmp_path)]
    written = vars(parser_of("exec_train.py").parse_args([*ARGUMENTS, *options]))
    public = {name: value for name, value in written.items() if name not in ("config", "resume", "amp", "tf32")}
    (tmp_path / "config.txt").write_text(json.dumps(public | {"scheduler": ""}))
    assert "nothing is left to do" in train(*options, "--resume").err and names_in(tmp_path) == {"config.txt"}
