"""Linear probes: pooling before truncation, and training together as if alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from src.core.activations import pool
from src.core.inputs import InputSpec
from src.core.seeds import seeded
from src.datasets import load_dataset
from src.datasets.base import ImageSet
from src.low_rank import low_rank_approx
from src.models import Network
from src.training import Settings, train
from src.training.probes import Probes, decay_epochs, truncated_pools
from tests.tiny_networks import Computed

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
