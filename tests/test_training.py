"""The loop of epochs: learning rates, seeds, unlabelled samples, and what it cannot train on; several
processes; and how exactly networks compute."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.core.errors import UserError
from src.core.precision import full_precision, precision
from src.core.seeds import seeded
from src.datasets.augmentation import CropFlip
from src.datasets.base import ImageSet, Shard
from src.ood import energy
from src.statistics.convergence import learning_rates
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
from src.training.distributed import DataParallelClassification, Processes
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
    made, build = [], loop.make_optimizer

    def recording(*arguments):
        optimizer = build(*arguments)
        optimizer.rates = []
        optimizer.register_step_pre_hook(
            lambda *_: optimizer.rates.append(optimizer.param_groups[0]["lr"])
        )
        made.append(optimizer)
        return optimizer

    monkeypatch.setattr(loop, "make_optimizer", recording)
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
    settings = Settings(1, 10, optimizer=name, weight_decay=0.25, learning_rate=0.5)
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


def image_set() -> ImageSet:
    return few_grey_images(11, 6, n_classes=11, augmentation=CropFlip(1))


def passes(images: ImageSet):
    return images.epoch(5, seed=1, epoch=1), images.batches(5)


@pytest.mark.parametrize("size", [2, 3])
def test_the_shares_of_all_processes_make_up_each_batch(size):
    """The last batch is one image: the others get it as well, so that no process waits for another in
    vain, but it counts once."""
    images, shares = image_set(), []
    for rank in range(size):
        images.shard = Shard(rank, size)
        shares.append([list(batches) for batches in passes(images)])
    for kind, whole in enumerate(passes(image_set())):
        of_ranks = zip(whole, *(share[kind] for share in shares), strict=True)
        for (pixels, labels), *parts in of_ranks:
            for rank, (own_pixels, own_labels) in enumerate(parts):
                if rank < len(labels):
                    assert torch.equal(own_pixels, pixels[rank::size])
                    assert torch.equal(own_labels, labels[rank::size])
                else:
                    assert torch.equal(own_pixels, pixels[:1]) and own_labels.tolist() == [-1]


def test_an_image_that_does_not_count_has_no_place_in_the_sums():
    images, model = image_set(), nn.Sequential(nn.Flatten(), nn.Linear(36, 11))
    task = DataParallelClassification(model, Processes())
    (whole,) = evaluate(task, images.batches(5)).values()
    parts = []
    for rank in range(2):
        images.shard = Shard(rank, 2)
        (score,) = evaluate(task, images.batches(5)).values()
        parts.append(score)
    n = 3 + 3 + 1, 2 + 2 + 0
    for name in ("accuracy", "loss"):
        together = sum(getattr(score, name) * k for score, k in zip(parts, n, strict=True)) / 11
        assert together == pytest.approx(getattr(whole, name), rel=1e-6)


def test_gradients_of_unequal_shares_average_to_those_of_the_whole_batch(monkeypatch):
    monkeypatch.setattr("src.training.distributed.DistributedDataParallel", lambda model: model)
    monkeypatch.setattr(
        "src.training.distributed.add_up", lambda n_samples: torch.full_like(n_samples, 5)
    )
    model, images, labels = nn.Linear(4, 3), torch.randn(5, 4), torch.arange(5) % 3
    gradients = []
    for rank in range(2):  # shares of 3 and 2
        task = DataParallelClassification(model, Processes(rank, 2))
        (group,) = task.losses(images[rank::2], labels[rank::2], training=True)
        gradients += torch.autograd.grad(group.losses.sum(), model.weight)
    (expected,) = torch.autograd.grad(F.cross_entropy(model(images), labels), model.weight)
    torch.testing.assert_close(sum(gradients) / 2, expected)


@pytest.mark.parametrize("context", [precision(gpu=-1, amp="none"), full_precision("cpu")])
def test_tf32_is_off(context):
    def allowed():
        return torch.get_float32_matmul_precision() != "highest", torch.backends.cudnn.allow_tf32

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        with context:
            assert allowed() == (False, False)
        assert allowed() == (True, True)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_what_is_measured_is_summed_in_single_precision():
    logits = torch.randn(1, 300, 10, dtype=torch.bfloat16)
    group = classification_losses(logits, torch.zeros(300, dtype=torch.long))
    exact = classification_losses(logits.float(), torch.zeros(300, dtype=torch.long))
    assert torch.equal(group.losses, exact.losses)
    assert torch.equal(energy(logits[0]), energy(logits[0].float()))


def test_loss_and_accuracy_are_noted_after_every_so_many_batches(images, capsys):
    task = DataParallelClassification(make_network(), Processes(), note_every=2)
    list(train(task, images, images, Settings(2, 4)))  # epochs of five batches
    lines = [line for line in capsys.readouterr().err.splitlines() if "accuracy" in line]
    assert [line.partition(":")[0] for line in lines] == 2 * ["batch 2", "batch 4"]
