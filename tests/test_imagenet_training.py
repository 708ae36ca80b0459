"""misc/imagenet_train_main.py: two processes against one, its files, its options."""

import copy
import os
import subprocess

import pytest
import torch
import torch.nn.functional as F

from misc.imagenet_train_main import INSTEAD, SWITCHES
from src.checkpoints import load_state, save_state
from src.datasets import load_dataset
from src.models import build_model
from src.runtime import seeded
from src.training import Settings, recorded
from tests.commands import error_line, names_in, read_csv, read_json, run, words
from tests.tiny_datasets import write_imagenet

SCRIPT = "misc/imagenet_train_main.py"
DUMMY = ["-a", "small_cnn", "--dummy", "--dummy-size", "20", "--gpu", "-1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    write_imagenet(root, n_train=12, n_val=6)
    return root


def one_process_with_two_halves(root, batch_size: int, *, lr: float):
    """What two processes ought to make of `small_cnn`, whose BatchNorm sees halves, of which the first one's stays.

    (With few images a deep ResNet turns rounding errors into differences as large as its updates.)
    """
    with seeded(1):
        model = build_model("small_cnn", n_classes=1000)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    for images, labels in load_dataset("imagenet", root, train=True).epoch(batch_size, seed=1, epoch=1):
        halves = [copy.deepcopy(model).train() for _ in range(2)]
        optimizer.zero_grad()
        for rank, half in enumerate(halves):
            if len(labels[rank::2]):
                F.cross_entropy(half(images[rank::2]), labels[rank::2]).backward()
                for parameter, own in zip(model.parameters(), half.parameters(), strict=True):
                    share = own.grad * len(labels[rank::2]) / len(labels)
                    parameter.grad = share if parameter.grad is None else parameter.grad + share
        for buffer, own in zip(model.buffers(), halves[0].buffers(), strict=True):
            buffer.copy_(own)
        optimizer.step()
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "n_workers"), [(5, "0"), (11, "1")])
def test_two_processes_equal_one_that_averages(batch_size, n_workers, root, tmp_path):
    """Batches of 5, 5 and 2 in shares of 3 and 2, or of 1; batches of 11 and 1 in shares of 6 and 5, or 1 and none."""
    arguments = [root, "-a", "small_cnn", "--lr", "0.1", "-j", n_workers, "-b", batch_size]
    python, *command = words(SCRIPT, *arguments, "--gpu", "-1", "--epochs", "1", "--seed", "1", "-p", "0")
    torchrun = [python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*torchrun, *command], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2  # one process speaks
    folder = tmp_path / "models" / "imagenet" / "small_cnn_1"
    assert names_in(folder) == {"model_1.pt", "training_logs.csv", "config.txt", "run.json"}

    expected = one_process_with_two_halves(root, batch_size, lr=0.1)
    trained = load_state(folder / "model_1.pt")
    assert list(trained) == list(expected.state_dict())  # without the prefix module.
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-5, atol=5e-5, msg=name)

    # The validation is exact: 6 images, in shares of 3 and 2, then 1 and none, or in shares of 3
    expected.load_state_dict(trained)
    ((images, labels),) = load_dataset("imagenet", root, train=False).batches(6)
    with torch.no_grad():
        logits = expected(images)
    (log,) = read_csv(folder / "training_logs.csv")
    assert float(log["val_acc"]) == (logits.argmax(1) == labels).double().mean().item()
    assert float(log["val_loss"]) == pytest.approx(F.cross_entropy(logits, labels).item())


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
    """SGD 0.1, momentum 0.9, weight decay 1e-4, a tenth every 30 epochs; --weights gives the first weights."""
    with seeded(7):
        start = build_model("small_cnn", n_classes=1000)
    save_state(tmp_path / "start.pt", start.state_dict())

    def record(task, train_set, val_set, settings, **options):
        given.append(settings._replace(reduce_lr_epochs=[*settings.reduce_lr_epochs]))
        assert all(torch.equal(task.heads[0].state_dict()[key], value) for key, value in start.state_dict().items())
        return iter(())

    given = []
    monkeypatch.setattr(recorded, "train", record)
    run(SCRIPT, *DUMMY, "-dir", tmp_path / "m", "--weights", tmp_path / "start.pt")
    assert given == [Settings(90, 256, "sgd", 0.1, 1e-4, reduce_lr_epochs=[30, 60], momentum=0.9)]


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (["--dummy", "-e"], {}, "-e measures the accuracy of a checkpoint; give it as --weights FILE"),
        *((["--dummy", name, *(() if name in SWITCHES else "1")], {}, f"{name}: {instead}")
          for name, instead in INSTEAD.items()),
        (["--dummy", "-b", "1"], {"WORLD_SIZE": "2"}, "-b 1 are the images of all 2 processes; give more"),
        (["--dummy", "--gpu", "0"], {"LOCAL_WORLD_SIZE": "2"}, "--gpu 0: 2 processes cannot share one GPU"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_errors(arguments, environment, line, in_tmp_path, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert line in error_line(SCRIPT, "--gpu", "-1", *arguments)
    assert not os.listdir(in_tmp_path)
