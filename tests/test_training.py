"""The loop of epochs: learning rates, seeds, unlabelled samples, and what it cannot train on."""

import math

import pytest
import torch
from torch import nn

from src.errors import UserError
from src.training import Classification, Settings, classification_losses, loop, train
from tests.commands import MODEL, ON_DIGITS, error_line, run
from tests.conftest import few_images
from tests.tiny_datasets import few_grey_images


@pytest.fixture
def images():
    return few_grey_images(20, 2, n_classes=2)


COSINE = [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(5, 10, reduce_lr_epochs=[4, 2]), [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        (Settings(2, 10, reduce_lr_epochs=[1], reduce_lr_each="updates"), [1, 0.1, 0.1, 0.1]),
        (Settings(1, 10, reduce_lr_epochs=[0], reduce_lr_each="updates"), [0.1, 0.1]),
        (Settings(4, 10, scheduler="cosine"), [rate for rate in COSINE for _ in range(2)]),
    ],
    ids=["epochs", "updates", "from the start", "cosine"],
)
def test_learning_rates_of_all_updates(settings, expected, images, monkeypatch):
    rates, build = [], loop._optimizer

    def recording(*arguments):
        optimizer = build(*arguments)
        optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
        return optimizer

    monkeypatch.setattr(loop, "_optimizer", recording)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    list(train(Classification(model), images, images, settings._replace(learning_rate=1.0)))
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "bias"),
    [({"learning_rate": 1e38, "optimizer": "sgd"}, 0.0), ({}, torch.nan)],
    ids=["diverging", "from the start"],
)
def test_a_loss_that_is_not_finite_stops_the_training(settings, bias, images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    model[1].bias.data[0] = bias
    with pytest.raises(UserError, match="epoch 1, up to step 3: the loss of the network is not finite"):
        list(train(Classification(model), images, images, Settings(3, 8, **settings)))


def test_unlabelled_samples_count_neither_in_the_loss_nor_in_the_accuracy():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [5.0, 0.0]]])
    group = classification_losses(logits, torch.tensor([0, 1, -1]))
    labelled = classification_losses(logits[:, :2], torch.tensor([0, 1]))
    assert group.n_samples == 2 and group.n_correct.tolist() == [2]
    torch.testing.assert_close(group.cross_entropies, labelled.cross_entropies)


def test_the_seed_counts_for_networks_that_drop_out(tmp_path):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        torch.rand(7)  # the global generator is somewhere else each time
        with few_images(128):
            run("exec_train.py", "liu2020_wrn", *ON_DIGITS, "-e", "1", "-b", "512", "-s", seed, "-dir", tmp_path / name)
    one, two, three = ((tmp_path / name / "model_1.pt").read_bytes() for name in "abc")
    assert one == two != three


def test_a_batch_of_one_is_too_few_for_batch_norm(tmp_path):
    line = error_line("exec_train.py", MODEL, *ON_DIGITS, "-e", "1", "-b", "1436", "-dir", tmp_path)
    assert "a training batch has a single image, too few for BatchNorm; change -b" in line
