"""Nothing that a user's code does to a tensor changes another number, and a cache holds what it counts."""

from pathlib import Path

import pytest
import torch
from torch import nn

from src.core.cache import Cache
from src.judge import judge
from src.models import Network
from src.similarity import compare
from src.stitching import direct_matching
from tests.tiny_networks import Computed

SHAPE = (1, 8, 8)
FILE = """
import torch

WEIGHT = torch.zeros(16, 16, dtype=torch.float64)

def ridge(source, target, cross):
    source.scatter.diagonal().add_(50)
    weight = torch.linalg.solve(source.scatter, cross).T
    return weight, target.mean - weight @ source.mean

def in_one_buffer(source, target, cross):
    WEIGHT.copy_(torch.linalg.lstsq(source.scatter, cross, driver="gelsd").solution.T)
    return WEIGHT, target.mean - WEIGHT @ source.mean

def scaled(stitched, target):
    target /= 100 * target.std()
    return (stitched / 100 - target).flatten(1).square().mean(1)

scaled.at = "end"

def distance(x, y):
    x -= x.mean(0)
    y -= y.mean(0)
    return (x - y).norm()

def norm_distance(x, y):
    return (x - y).norm()
"""


@pytest.fixture
def folder(in_tmp_path) -> Path:
    (in_tmp_path / "mine.py").write_text(FILE)
    return in_tmp_path


def images(n: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of random images, with a class by the sum of the rows of each."""
    draws = torch.Generator().manual_seed(seed)
    pixels = torch.randn(n, *SHAPE, generator=draws) + 1
    labels = pixels.sum((1, 3)).argmax(1)
    return list(zip(pixels.split(50), labels.split(50), strict=True))


def network(seed: int) -> nn.Module:
    """A network of three layers of 16 channels, 3, 5 and 7."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(64, 16)]
    for _ in range(3):
        layers += [nn.ReLU(), nn.Linear(16, 16)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(16, 8)).eval()


def numbers(layers, forms, **options) -> dict:
    """The measured numbers of two networks, by form and pair."""
    rows = judge(
        network(0),
        network(1),
        images(600, 0),
        images(200, 1),
        layers=layers,
        forms=forms,
        **options,
    )
    return {
        (row.method, row.front_layer, row.end_layer): (row.r2_fit, row.r2_test, row.accuracy)
        for row in rows
    }


@pytest.mark.parametrize("form", ["mine.py:ridge", "mine.py:in_one_buffer"])
def test_a_closed_form_sees_each_target_alone(folder, form):
    together = numbers(("3", "3,5,7"), form)
    for key, values in together.items():
        alone = numbers(("3", key[2]), form)
        assert alone[key] == pytest.approx(values, abs=1e-9, nan_ok=True)


def test_an_objective_does_not_change_what_other_methods_read(folder):
    both = numbers("3,5", ["pinv", "mine.py:scaled:1"], batch_size=50)
    alone = numbers("3,5", "pinv")
    for key, values in alone.items():
        assert both[key] == values


def test_measures_do_not_change_each_other_or_the_arrays_of_a_caller(folder):
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + 3
    y = x.flip(0).numpy().copy()
    before = x.clone()
    values = compare(x, y, metrics=["mine.py:distance", "mine.py:norm_distance"])
    assert values["norm_distance"] == pytest.approx(float((x - torch.tensor(y)).norm()))
    assert torch.equal(x, before) and (y == before.flip(0).numpy()).all()


def test_direct_matching_leaves_arrays_as_they_are(folder):
    x = torch.randn(40, 6, dtype=torch.float64)
    before = x.clone()
    direct_matching(x, x, form="mine.py:ridge")
    assert torch.equal(x, before)


class Reusing:
    """Gives batches in one buffer, as loaders of pinned memory do."""

    def __init__(self, batches):
        self.batches = batches
        self.pixels = torch.empty_like(batches[0][0])
        self.labels = torch.empty_like(batches[0][1])

    def __iter__(self):
        for pixels, labels in self.batches:
            yield self.pixels.copy_(pixels), self.labels.copy_(labels)


@pytest.mark.parametrize("form", ["pinv", "task:2"])
def test_loaders_may_reuse_their_buffers(form):
    train, test = images(300, 0), images(200, 1)
    expected = judge(network(0), network(1), train, test, layers="3", forms=form)
    loaders = [Reusing(train), Reusing(test)]
    found = judge(network(0), network(1), *loaders, layers="3", forms=form)
    assert found.frame.equals(expected.frame)


@torch.no_grad()
def test_what_a_cache_counts_is_what_it_holds():
    """A layer that takes the first of many tokens, and one that repeats a vector."""

    def forward(net, pixels):
        tokens = pixels.flatten(1)[:, :, None].expand(-1, -1, 8) * net.scale
        first = net.first(tokens)
        return net.head(net.repeated(first).mean(1))

    layers = {"first": Computed(lambda _, x: x[:, 0]), "head": nn.Linear(8, 4)}
    layers["repeated"] = Computed(lambda _, x: x[:, None].expand(-1, 64, -1))
    module = Computed(forward, scale=2, **layers).eval()
    cache = Cache(10**8)
    view = Network(module, image_shape=SHAPE, n_classes=4).keeping(cache)
    kept = view.activations(torch.rand(32, *SHAPE), ["first", "repeated"], keep=True)
    sizes = [values.untyped_storage().nbytes() for values in kept.values()]
    assert sum(sizes) == cache.n_bytes == 32 * 8 * 4 * (1 + 64)
