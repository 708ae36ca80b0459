"""exec_train.py and exec_eval.py as a user runs them."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import exec_eval
import exec_train
from src.checkpoints import load_state
from tests.conftest import ROOT, few_images

ARGUMENTS = ["small_cnn", "-d", "digits", "-gpu", "-1", "-b", "64"]


def files(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_trains_and_evaluates(run_script, run_here, tmp_path):
    out = run_script(
        "exec_train.py", *ARGUMENTS, "-e", "3", "-sf", "2", "-dir", "models/a", "-rlre", "2", "--grad-clip", "5"
    )
    folder = tmp_path / "models" / "a"
    assert files(folder) == {"config.txt", "run.json", "training_logs.csv", "model_2.pt", "model_3.pt"}

    lines = out.splitlines()
    number = r"\d+\.\d+(e-\d+)?"
    for epoch in (1, 2, 3):
        for split in ("train", "val"):
            assert re.fullmatch(rf"Epoch #{epoch} {split} loss: {number}, accuracy: {number}", lines.pop(0))
    header, *rows = (folder / "training_logs.csv").read_text().splitlines()
    assert header == "train_acc,train_loss,val_acc,val_loss" and len(rows) == 3

    config = json.loads((folder / "config.txt").read_text())
    assert config["n_epochs"] == 3 and config["reduce_lr_epochs"] == [2] and config["save_dir"] == "models/a"
    run = json.loads((folder / "run.json").read_text())
    assert run["command"].startswith("exec_train.py small_cnn") or "exec_train.py" in run["command"]

    out = run_here("exec_eval.py", "models/a/model_3.pt", *ARGUMENTS)
    val_acc = float(rows[-1].split(",")[2])
    assert out == f"Clean accuracy: {val_acc:.2%}\n"


@pytest.mark.slow
def test_nobody_reads_the_output(tmp_path):
    command = [sys.executable, ROOT / "exec_train.py", *ARGUMENTS, "-e", "2", "-dir", "m"]
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as nobody:
        done = subprocess.run(command, cwd=tmp_path, stdout=nobody, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0 and re.fullmatch(
        r"epoch 1/2: \d+\.\d s an epoch, about 0:\d\d:\d\d left\nwrote m\n", done.stderr
    )
    assert "model_2.pt" in files(tmp_path / "m")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*command, "-s", "1", "--overwrite"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True
        )
    line = "exec_train.py: error: cannot print the results: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_the_same_command_twice_makes_the_same_files(tmp_path, capsys):
    for name in ("a", "b"):
        assert exec_train.main([*ARGUMENTS, "-e", "1", "-dir", str(tmp_path / name)]) == 0
    for name in ("model_1.pt", "training_logs.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert exec_train.main([*ARGUMENTS, "-e", "1", "-s", "1", "-dir", str(tmp_path / "c")]) == 0
    assert (tmp_path / "a" / "model_1.pt").read_bytes() != (tmp_path / "c" / "model_1.pt").read_bytes()


@pytest.mark.parametrize(("frequency", "saved"), [("0", {3}), ("1", {1, 2, 3}), ("2", {2, 3}), ("5", {3})])
def test_save_frequency(tmp_path, frequency, saved, capsys):
    assert exec_train.main([*ARGUMENTS, "-e", "3", "-sf", frequency, "-dir", str(tmp_path)]) == 0
    assert {name for name in files(tmp_path) if name.endswith(".pt")} == {f"model_{epoch}.pt" for epoch in saved}


def test_no_epochs_leave_the_options_only(tmp_path, capsys):
    assert exec_train.main([*ARGUMENTS, "-e", "0", "-dir", str(tmp_path / "m")]) == 0
    assert files(tmp_path / "m") == {"config.txt", "run.json"}


@pytest.mark.parametrize(("optimizer", "scheduler"), [("adamw", "cosine"), ("sgd", "none")])
def test_optimizers_and_schedulers(tmp_path, optimizer, scheduler, capsys):
    arguments = [*ARGUMENTS, "-e", "2", "-o", optimizer, "-sched", scheduler, "-lr", "0.01", "-dir", str(tmp_path)]
    assert exec_train.main(arguments) == 0
    losses = [float(row.split(",")[1]) for row in (tmp_path / "training_logs.csv").read_text().splitlines()[1:]]
    assert losses[1] < losses[0]


def test_vision_transformers_take_other_image_sizes(tmp_path, capsys):
    arguments = ["vit_tiny_patch4_32", "-d", "digits", "-gpu", "-1", "-e", "1", "-b", "256", "-dir", str(tmp_path)]
    with few_images():
        assert exec_train.main(arguments) == 0
    assert load_state(tmp_path / "model_1.pt")["pos_embed"].shape == (1, 5, 192)
    assert exec_eval.main([str(tmp_path / "model_1.pt"), "vit_tiny_patch4_32", "-d", "digits", "-gpu", "-1"]) == 0


def test_reads_checkpoints_of_the_public_code(tmp_path, run_here):
    """Legacy format, images of CIFAR-10's shape: what the goldens of the evaluation are made of."""
    import torch

    from src.models import build_model
    from tests.golden_weights import load_golden_weights
    from tests.tiny_datasets import random_images

    arrays = {name: random_images(30, 32, 32, 3) if name[0] == "x" else np.arange(30) % 10
              for name in ("x_train", "y_train", "x_test", "y_test")}  # fmt: skip
    np.savez(tmp_path / "data.npz", **arrays)
    model = load_golden_weights(build_model("resnet18"), 0)
    torch.save(model.state_dict(), tmp_path / "det0.pt", _use_new_zipfile_serialization=False)
    out = run_here("exec_eval.py", "det0.pt", "resnet18", "-d", "data.npz", "-gpu", "-1")
    assert re.fullmatch(r"Clean accuracy: \d+\.\d\d%\n", out)


def test_a_finished_run_of_other_options_is_not_written_over(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train = [*ARGUMENTS, "-e", "1", "-dir", "m"]
    assert exec_train.main(train) == exec_train.main(train) == 0  # the same options may be run again
    before = (tmp_path / "m" / "model_1.pt").read_bytes()
    assert exec_train.main([*train, "-s", "1"]) == 2
    assert "seed was 0, now 1); choose another folder, or give --overwrite" in capsys.readouterr().err
    assert (tmp_path / "m" / "model_1.pt").read_bytes() == before
    assert exec_train.main([*train, "-s", "1", "--overwrite"]) == 0
    assert (tmp_path / "m" / "model_1.pt").read_bytes() != before
    assert "overwrite" not in json.loads((tmp_path / "m" / "config.txt").read_text())
    (tmp_path / "m" / "config.txt").unlink()  # unfinished runs are written over
    assert exec_train.main(train) == 0 and (tmp_path / "m" / "model_1.pt").read_bytes() == before


def test_a_finished_folder_of_the_public_code_is_finished(tmp_path, capsys):
    """It writes "" where no scheduler is used, and has no options that are new."""
    train = [*ARGUMENTS, "-e", "1", "-sched", "", "-dir", str(tmp_path)]
    options = vars(exec_train.parser().parse_args(train))
    public = {name: value for name, value in options.items() if name not in ("config", "resume", "amp", "tf32")}
    (tmp_path / "config.txt").write_text(json.dumps(public | {"scheduler": ""}))
    assert exec_train.main([*train, "--resume"]) == 0
    assert "nothing is left to do" in capsys.readouterr().err and files(tmp_path) == {"config.txt"}
