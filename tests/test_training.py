"""The loop of epochs: learning rates, seeds, unlabelled samples, and what it cannot train on."""

import math

import pytest
import torch
from torch import nn

from src.datasets.base import ImageSet
from src.ground.errors import UserError
from src.ground.runtime import seeded
from src.training import (
    NO_CLASS,
    Classification,
    Settings,
    classification_losses,
    evaluate,
    loop,
    predicted_classes,
    train,
)
from src.values import learning_rates
from tests.tiny_datasets import few_grey_images


@pytest.fixture
def images():
    return few_grey_images(20, 2, n_classes=2)


def make_network(*layers: nn.Module) -> nn.Module:
    with seeded(0):
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(4, 2))


@pytest.fixture
def optimizers(monkeypatch):
    """The optimizers that are made, each with the learning rates of its updates."""
    made, build = [], loop._optimizer

    def recording(*arguments):
        optimizer = build(*arguments)
        optimizer.rates = []
        optimizer.register_step_pre_hook(
            lambda *_: optimizer.rates.append(optimizer.param_groups[0]["lr"])
        )
        made.append(optimizer)
        return optimizer

    monkeypatch.setattr(loop, "_optimizer", recording)
    return made


COSINE = [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(5, 10, reduce_lr_epochs=[4, 2]), [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        (Settings(2, 10, reduce_lr_epochs=[1], reduce_lr_unit="updates"), [1, 0.1, 0.1, 0.1]),
        (Settings(1, 10, reduce_lr_epochs=[0], reduce_lr_unit="updates"), [0.1, 0.1]),
        (Settings(4, 10, scheduler="cosine"), [rate for rate in COSINE for _ in range(2)]),
    ],
    ids=["epochs", "updates", "from the start", "cosine"],
)
def test_learning_rates_of_all_updates(settings, expected, images, optimizers):
    list(
        train(Classification(make_network()), images, images, settings._replace(learning_rate=1.0))
    )
    assert optimizers[0].rates == pytest.approx(expected)
    if settings.reduce_lr_unit == "epochs":
        rates = learning_rates(
            settings.n_epochs,
            scheduler=settings.scheduler,
            reduce_lr_epochs=settings.reduce_lr_epochs,
        )
        assert rates == pytest.approx(expected[::2])


@pytest.mark.parametrize(
    ("name", "kind", "more"),
    [
        ("adam", torch.optim.Adam, {}),
        ("adamw", torch.optim.AdamW, {}),
        ("sgd", torch.optim.SGD, {"momentum": 0.9}),
    ],
)
def test_optimizers(name, kind, more, images, optimizers):
    settings = Settings(1, 10, optimizer=name, weight_decay=0.25, learning_rate=0.5, **more)
    list(train(Classification(make_network()), images, images, settings))
    (group,) = optimizers[0].param_groups
    assert type(optimizers[0]) is kind and (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    assert group.get("momentum") == more.get("momentum") and not group.get("nesterov")


def test_gradients_are_clipped_for_each_head(images):
    """A step of SGD without decay is the learning rate times the gradient."""
    task = Classification(make_network())
    before = [parameter.detach().clone() for parameter in task.head.parameters()]
    settings = Settings(1, 20, "sgd", learning_rate=1.0, weight_decay=0.0, grad_clip=1e-3)
    list(train(task, images, images, settings))
    steps = [after - was for after, was in zip(task.head.parameters(), before, strict=True)]
    assert torch.cat([step.flatten() for step in steps]).norm().item() == pytest.approx(
        1e-3, rel=1e-2
    )


@pytest.mark.parametrize(
    ("settings", "bias"),
    [({"learning_rate": 1e38, "optimizer": "sgd"}, 0.0), ({}, torch.nan)],
    ids=["diverging", "from the start"],
)
def test_a_loss_that_is_not_finite_stops_the_training(settings, bias, images):
    model = make_network()
    model[1].bias.data[0] = bias
    with pytest.raises(UserError, match="epoch 1, up to step 3: .*not finite"):
        list(train(Classification(model), images, images, Settings(3, 8, **settings)))


def test_unlabelled_samples_count_neither_in_the_loss_nor_in_the_accuracy():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [5.0, 0.0]]], requires_grad=True)
    group = classification_losses(logits, torch.tensor([0, 1, -1]))
    labelled = classification_losses(logits[:, :2], torch.tensor([0, 1]))
    assert group.n_samples == 2 and group.n_correct.tolist() == [2]
    torch.testing.assert_close(group.cross_entropies, labelled.cross_entropies)
    classification_losses(logits[:, 2:], torch.tensor([-1])).losses.sum().backward()
    assert not logits.grad.any()  # of a batch without a label


def test_no_class_is_predicted_where_logits_are_not_finite():
    """A logit of −∞ masks a class; with any other the largest is unknown."""
    inf, nan = torch.inf, torch.nan
    logits = torch.tensor([[1, nan], [inf, 0], [-inf, 2], [-inf, -inf], [3, 3.4e38]])
    assert predicted_classes(logits).tolist() == [NO_CLASS, NO_CLASS, 1, NO_CLASS, 1]
    labels = torch.tensor([-1, -1, 1, -1, 0])
    assert classification_losses(logits[None], labels).n_correct.tolist() == [1]
    assert classification_losses(logits[None], labels.clamp(min=0)).n_correct.isnan().all()


@pytest.mark.parametrize("bias", [torch.nan, torch.inf])
def test_an_accuracy_of_logits_that_are_not_finite_is_refused(bias, images):
    model = make_network()
    model[1].bias.data[0] = bias
    with pytest.raises(UserError, match="the logits of the network are not finite"):
        evaluate(Classification(model), images.batches(8))


def test_the_seed_counts_for_networks_that_drop_out():
    images = ImageSet(torch.ones(20, 1, 2, 2), torch.zeros(20, dtype=torch.long), n_classes=2)
    trained = []
    for seed in (0, 0, 1):
        torch.rand(7)  # the global generator is somewhere else each time
        model = make_network(nn.Dropout(0.5))
        task = Classification(model)
        list(train(task, images, images, Settings(1, 20, learning_rate=0.1, seed=seed)))
        trained.append(model[2].weight)
        scores = [evaluate(task, images.batches(20)) for _ in range(2)]
        assert scores[0] == scores[1]  # which drops nothing
    assert torch.equal(trained[0], trained[1]) and not torch.equal(trained[0], trained[2])
