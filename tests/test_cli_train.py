"""exec_train.py, exec_eval.py and the training on ImageNet."""

import gc
import itertools
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

from src import __version__
from src.core.seeds import seeded
from src.core.tensors import save_state
from src.models import build_model
from src.results import run as runs
from src.results.checkpoints import load_state
from src.training import Settings, loop
from tests.commands import (
    ON_DIGITS,
    error_line,
    module_of,
    names_in,
    read_csv,
    read_json,
    run,
    says,
    words,
)
from tests.tiny_datasets import write_imagenet

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


def test_says_that_nothing_is_resumed_the_accuracy_and_another_data_set():
    err = train("-e", "1", "-epoch-size", "64", "-dir", "m", "--resume").err
    accuracy = float(read_csv("m/training_logs.csv")[0]["val_acc"])
    assert "--resume: m has no run of these options to resume" in err
    assert err.endswith(f"wrote m: {accuracy:.2%} accuracy on the test inputs\n")
    network = ["exec_eval.py", "m/model_1.pt", "small_cnn", "-gpu", "-1", "-d"]
    assert "m/model_1.pt was trained on digits, and -d is mnist5k" in run(*network, "mnist5k").err
    Path("digits.npz").touch()
    err = run(*network, "digits").err
    assert "was trained on" not in err and "give -d ./digits.npz for yours" in err


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


SCRIPT = "misc/imagenet_train_main.py"
NO_BATCH_NORM = """
from torch import nn


def linear(n_classes):
    return nn.Sequential(nn.AvgPool2d(28), nn.Flatten(), nn.Linear(192, n_classes))
"""
DUMMY = ["-a", "small_cnn", "--dummy", "--dummy-size", "20", "--gpu", "-1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    write_imagenet(root, n_train=12, n_val=6)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "n_workers"), [(5, "0"), (11, "1")])
def test_two_processes_equal_one(batch_size, n_workers, root, tmp_path):
    """Batches of 5, 5 and 2 in shares of 3 and 2, or of 1; batches of 11 and 1 in shares of 6 and
    5, or 1 and none."""
    (tmp_path / "nets.py").write_text(NO_BATCH_NORM)
    arguments = [root, "-a", "nets.py:linear", "--lr", "0.1", "-j", n_workers, "-b", batch_size]
    arguments += ["--gpu", "-1", "--epochs", "1", "--seed", "1", "-p", "0"]
    python, *command = words(SCRIPT, *arguments)
    torchrun = [python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*torchrun, *command], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2  # one process speaks
    folder = tmp_path / "models" / "imagenet" / "nets.py:linear_1"
    assert names_in(folder) == {"model_1.pt", "training_logs.csv", "config.txt", "run.json"}
    run(SCRIPT, *arguments, "-dir", "alone", cwd=tmp_path)
    torch.testing.assert_close(
        load_state(folder / "model_1.pt"), load_state(tmp_path / "alone" / "model_1.pt")
    )
    (found,), (expected,) = (
        read_csv(path / "training_logs.csv") for path in (folder, tmp_path / "alone")
    )
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-5), name


def test_dummy_images_amp_and_evaluation(in_tmp_path):
    err = run(SCRIPT, *DUMMY, "--amp", "--epochs", "3", "-b", "10", "-sf", "2", "-p", "2").err
    assert err.count("batch 2: loss ") == 3
    folder = in_tmp_path / "models" / "imagenet" / "small_cnn_0"
    assert {path.name for path in folder.glob("*.pt")} == {"model_2.pt", "model_3.pt"}
    config = read_json(folder / "config.txt")
    assert config["arch"] == "small_cnn" and config["gpu"] == -1 and config["bf16"] is True
    accuracy = float(read_csv(folder / "training_logs.csv")[-1]["val_acc"])
    out = run(SCRIPT, *DUMMY, "-e", "-b", "1", "--resume", folder / "model_3.pt").out
    assert out == f"Clean accuracy: {accuracy:.2%}\n"


def test_the_recipe(tmp_path, monkeypatch):
    """SGD 0.1, weight decay 1e-4, a tenth every 30 epochs; --weights gives the first weights."""
    with seeded(7):
        start = build_model("small_cnn", n_classes=1000)
    save_state(tmp_path / "start.pt", start.state_dict())

    def record(task, train_set, val_set, settings, **options):
        given.append(settings._replace(reduce_lr_epochs=[*settings.reduce_lr_epochs]))
        assert all(
            torch.equal(task.head.state_dict()[key], value)
            for key, value in start.state_dict().items()
        )
        return iter(())

    given = []
    monkeypatch.setattr(loop, "train", record)
    run(SCRIPT, *DUMMY, "-dir", tmp_path / "m", "--weights", tmp_path / "start.pt")
    assert given == [Settings(90, 256, "sgd", 0.1, 1e-4, reduce_lr_epochs=[30, 60])]


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (["--dummy", "-e"], {}, "-e measures the accuracy of a checkpoint; give it as --weights FILE"),
        (["--dist-url", "x"], {}, "unrecognized arguments: --dist-url"),
        (["--dummy", "-b", "1"], {"WORLD_SIZE": "2"}, "-b 1 is the batch of all 2 processes together; give at least 2"),
        (["--dummy", "--gpu", "0"], {"LOCAL_WORLD_SIZE": "2"}, "--gpu 0: 2 processes cannot share one GPU"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_errors(arguments, environment, line, in_tmp_path, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert line in error_line(SCRIPT, "--gpu", "-1", *arguments)
    assert not os.listdir(in_tmp_path)


def test_the_models_of_a_training_from_misc_are_those_of_the_repository(tmp_path, monkeypatch):
    misc = tmp_path / "misc"
    misc.mkdir()
    monkeypatch.setattr(module_of(SCRIPT), "__file__", str(misc / "imagenet_train_main.py"))
    run(SCRIPT, *DUMMY, "--epochs", "0", cwd=misc)
    folder = tmp_path / "models" / "imagenet" / "small_cnn_0"
    assert (folder / "model_0.pt").exists() and not (misc / "models").exists()


def test_the_command_of_the_papers_readme_runs_word_by_word(root, in_tmp_path):
    """Its words in capitals have values, and further options make the training small."""
    command = (
        "imagenet_train_main.py path/to/imagenet -a tv_resnet18 -b 1024 --gpu GPU_ID --seed SEED"
    )
    Path("path/to").mkdir(parents=True)
    Path("path/to/imagenet").symlink_to(root)
    script, *arguments = command.replace("GPU_ID", "-1").replace("SEED", "3").split()
    run(f"misc/{script}", *arguments, "--epochs", "1", "-j", "0")
    assert Path("models/imagenet/tv_resnet18_3/model_1.pt").exists()
