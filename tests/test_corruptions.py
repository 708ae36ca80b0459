"""Corrupted activations: what each keeps and what it changes."""

import pytest
import torch

from src.ood.corruptions import CORRUPTIONS
from src.ood.pooling import ClassMeans, mean_over_positions

LABELS = torch.randint(3, (600,), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["maps", "tokens", "vectors"])
def activations(request):
    torch.manual_seed(0)
    x = torch.randn(600, 4, 4, 4) + torch.randn(3, 4, 1, 1)[LABELS] + 5
    return {"maps": x, "tokens": x.flatten(2).mT.contiguous(), "vectors": x.mean((2, 3))}[request.param]


def corrupted(name: str, activations):
    means = ClassMeans()
    means.add(mean_over_positions(activations).double(), LABELS)
    found = CORRUPTIONS[name].apply(activations, LABELS, means)
    assert found.shape == activations.shape and found.dtype == activations.dtype
    return found


def test_mixing_keeps_mean_and_variance(activations):
    mixed = corrupted("mixed", activations)
    pooled, before = mean_over_positions(mixed), mean_over_positions(activations)
    torch.testing.assert_close(pooled.mean(0), before.mean(0), rtol=0, atol=1e-4)
    torch.testing.assert_close(pooled.var(0), before.var(0), rtol=0.2, atol=0)
    mean = mean_over_positions(activations).mean(0)
    torch.testing.assert_close(pooled[1], mean + (before[0] + before[1] - 2 * mean) / 2**0.5)


def test_half_way_halves_what_tells_images_of_a_class_apart(activations):
    moved, before = (mean_over_positions(x) for x in (corrupted("half_way", activations), activations))
    for label in range(3):
        torch.testing.assert_close(moved[label == LABELS].mean(0), before[label == LABELS].mean(0))
        torch.testing.assert_close(moved[label == LABELS].std(0), before[label == LABELS].std(0) / 2)


def test_constant_maps_and_shuffles_keep_means_alone(activations):
    for name in ("constant", "shuffled"):
        found = corrupted(name, activations)
        torch.testing.assert_close(mean_over_positions(found), mean_over_positions(activations))
        assert torch.equal(found, activations) == (activations.ndim == 2)
    shuffled = corrupted("shuffled", activations)
    assert torch.equal(shuffled.flatten(1).sort().values, activations.flatten(1).sort().values)
    first = corrupted("shuffled", activations[:1].expand_as(activations))
    assert torch.equal(first[0], shuffled[0])  # one order for all images


def test_a_cls_token_stays():
    tokens = torch.randn(600, 5, 3)
    shuffled = corrupted("shuffled", tokens)
    assert torch.equal(shuffled[:, 0], tokens[:, 0]) and not torch.equal(shuffled, tokens)
