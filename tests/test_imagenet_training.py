"""misc/imagenet_train_main.py: two processes against one, its files, its options."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from src.core.seeds import seeded
from src.core.tensors import save_state
from src.models import build_model
from src.results.checkpoints import load_state
from src.training import Settings, loop
from tests.commands import error_line, module_of, names_in, read_csv, read_json, run, words
from tests.tiny_datasets import write_imagenet

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
