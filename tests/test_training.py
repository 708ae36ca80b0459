"""Training: optimizers, losses, objectives and probes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.core.activations import pool
from src.core.errors import UserError
from src.core.inputs import InputSpec
from src.core.precision import full_precision, precision
from src.core.seeds import seeded
from src.datasets import load_dataset
from src.datasets.augmentation import CropFlip
from src.datasets.base import ImageSet, Shard
from src.low_rank import low_rank_approx
from src.models import Network
from src.ood import energy
from src.statistics.convergence import learning_rates
from src.stitching.objectives import feature_loss, functional_loss, hint_loss, soft_label_loss
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
from src.training.probes import Probes, decay_epochs, truncated_pools
from tests.goldens import numbers, random, tensor
from tests.tiny_datasets import few_grey_images
from tests.tiny_networks import Computed


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


LAYERS = ["l0", "l1", "l2", "l3"]


def golden(j: int) -> tuple[list, list]:
    return [
        [tensor("objectives", f"{side}/{name}") for name in LAYERS[j:]]
        for side in ("stitched", "end")
    ]


def test_equals_the_authors_functions():
    values = numbers("objectives")
    logits = [tensor("objectives", f"{side}/logits") for side in ("stitched", "end")]
    assert soft_label_loss(*logits).item() == pytest.approx(float(values["soft"]), rel=1e-12)
    for j in range(4):
        stitched, targets = golden(j)
        assert hint_loss(stitched[0], targets[0]).item() == pytest.approx(
            float(values[f"hint/{j}"]), rel=1e-12
        )
        assert functional_loss(stitched, targets).item() == pytest.approx(
            float(values[f"fula/{j}"]), rel=1e-12
        )


PAIRWISE = {
    "soft": (lambda h, g: soft_label_loss(h[0], g[0]), [(6, 10)]),
    "hint": (lambda h, g: hint_loss(h[0], g[0]), [(6, 4, 3, 3)]),
    "fula": (functional_loss, [(6, 4, 3, 3), (6, 7, 5)]),
    "feature": (lambda h, g: feature_loss(h[0], g[0]), [(6, 7, 5)]),
}


@pytest.mark.parametrize("name", PAIRWISE)
def test_several_pairs_at_once_equal_each_alone(name):
    loss, shapes = PAIRWISE[name]
    targets = [random(*shape) for shape in shapes]
    stitched = [random(3, *shape, seed=1) for shape in shapes]
    together = loss(stitched, targets)
    assert together.shape == (3,)
    for i in range(3):
        torch.testing.assert_close(loss([h[i] for h in stitched], targets), together[i])


@pytest.mark.parametrize("name", PAIRWISE)
def test_no_gradient_reaches_the_target_and_none_is_nan_where_both_are_equal(name):
    loss, shapes = PAIRWISE[name]
    targets = [random(*shape).requires_grad_() for shape in shapes]
    stitched = [target.detach().clone().requires_grad_() for target in targets]
    value = loss(stitched, targets)
    assert value.item() == pytest.approx(0, abs=1e-12)
    value.backward()
    assert all(target.grad is None for target in targets) and all(
        h.grad.isfinite().all() for h in stitched
    )


def test_a_target_of_zeros_counts_nothing_but_is_among_the_layers():
    g, zeros = random(4, 3), torch.zeros(4, 3, dtype=torch.float64)
    h = random(4, 3, seed=1).requires_grad_()
    hint_loss(h, zeros).backward()
    assert hint_loss(h, zeros) == 0 and h.grad.abs().max() == 0
    assert functional_loss([h, h], [g, zeros]).item() == pytest.approx(hint_loss(h, g).item() / 2)
    assert hint_loss(h * torch.nan, g).isnan() and hint_loss(h, g * torch.nan).isnan()


def test_sums_are_in_single_precision_at_least():
    h, g = (random(2000, 100, seed=seed).bfloat16() for seed in (0, 1))
    for loss in (hint_loss, feature_loss, soft_label_loss):
        value = loss(h, g)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(loss(h.double(), g.double()).item(), rel=1e-5)


SHAPES = {
    "maps": (6, 12, 4, 3),
    "tokens": (6, 5, 12),
    "patches": (6, 4, 12),
    "flat": (20, 12),
    "few samples": (7, 12),
    "one": (1, 12),
    "many": (32, 64, 8, 8),
}
IMAGES = InputSpec(10, (1, 8, 8))


def activations(shape) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return (
        torch.randn(shape, dtype=torch.float64, generator=generator)
        * torch.rand(shape[1:], generator=generator)
        + 2
    )


def toy() -> Network:
    """8×8 images as 4×4 maps of 20 channels, as 15 tokens of width 20 (the first counts as CLS), as
    300 features."""
    with seeded(3):
        module = Computed(
            lambda net, images: net.head(net.flat(net.tokens(net.maps(images)))),
            maps=nn.Conv2d(1, 20, 2, stride=2),
            tokens=Computed(lambda net, x: x.flatten(2)[:, :, :15].transpose(1, 2).relu()),
            flat=nn.Flatten(),
            head=nn.Linear(300, 10),
            block_names=("maps", "tokens", "flat"),
        )
    return Network(module).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def digits():
    """Digits for training, not augmented, and for testing."""
    whole, test = (load_dataset("digits", "", train=split) for split in (True, False))
    return ImageSet(whole.images, whole.labels, n_classes=10), test


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_pooling_first_equals_pooling_last(shape):
    acts, ranks = activations(shape), [None, 100, 12, 11, 5, 2, 1]
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-6)):
        for rank, features in zip(ranks, truncated_pools(acts.to(dtype), ranks), strict=True):
            expected = pool(low_rank_approx(acts, rank)).to(dtype)
            torch.testing.assert_close(features, expected, rtol=tolerance, atol=tolerance)


RANKS = [25, None, 7, 2]
SETTINGS = Settings(2, 100, learning_rate=0.01, seed=5)


def trained(layers, ranks, digits, settings=SETTINGS, network=None):
    """Probes on the toy network after training, and their last logs."""
    task = Probes(network or toy(), layers, ranks, IMAGES, seed=settings.seed)
    *_, ((*_, logs), _) = train(task, *digits, settings)
    return task.heads, logs


@pytest.fixture(scope="module")
def together(digits):
    return trained(["maps", "tokens", "flat"], RANKS, digits)


@pytest.mark.parametrize(("layer", "rank"), [("maps", 7), ("tokens", None), ("flat", 2)])
def test_together_they_become_what_each_becomes_by_a_loop_of_its_own(layer, rank, digits, together):
    """A pass and a truncation of whole activations for one probe."""
    network, (train_set, test_set) = toy(), digits
    with seeded(5):
        probe = nn.Linear(300 if layer == "flat" else 20, 10)
    optimizer = torch.optim.Adam(probe.parameters(), lr=0.01, weight_decay=1e-5)

    def logits_of(images):
        return probe(pool(low_rank_approx(network(images, until=layer), rank)))

    for epoch in (1, 2):
        for images, labels in train_set.epoch(100, seed=5, epoch=epoch):
            optimizer.zero_grad()
            F.cross_entropy(logits_of(images), labels).backward()
            optimizer.step()
    hits = [logits_of(images).argmax(1) == labels for images, labels in test_set.batches(100)]
    probes, logs = together
    assert list(probes) == [(name, each) for name in ("maps", "tokens", "flat") for each in RANKS]
    found = dict(probes[layer, rank].state_dict())
    torch.testing.assert_close(found, dict(probe.state_dict()), rtol=0, atol=1e-4)
    accuracy = torch.cat(hits).double().mean().item()
    assert logs[layer, rank].val.accuracy == pytest.approx(accuracy, abs=0.003)


def test_the_last_five_epochs_decay_if_there_are_more():
    assert [decay_epochs(n) for n in (0, 1, 5, 6, 10, 100)] == [[], [], [], [1], [5], [95]]
