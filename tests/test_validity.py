"""Density, recall and Fréchet distance: loops and scipy as oracles, limits, and what is pooled how; the rules."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from torch import Tensor

from src.ood import Validity
from src.ood.pooling import ClassMeans, cells, mean_over_positions
from src.ood.rows import Sight, StitchValidity
from src.ood.rules import COLLAPSED, IN_DISTRIBUTION, OFF, ValidityLimits, doubts, side_of

K = 5


def maps(n: int, *, seed: int, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    """Maps of four channels that vary unequally, (n, 4, 6, 6)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 4, 1, 1, generator=generator) + 0.5 * torch.randn(n, 4, 6, 6, generator=generator)
    return mean + scale * images * torch.tensor([1.0, 2.0, 0.5, 1.5])[:, None, None] + 3


def measured(reference: Tensor, samples: Tensor):
    validity = Validity()
    for batch in reference.split(37):
        validity.add(batch)
    validity.fit()
    return validity.measure(samples)


def radius(points: list[np.ndarray], i: int) -> float:
    return sorted(np.linalg.norm(points[i] - other) for j, other in enumerate(points) if j != i)[K - 1]


def by_loops(reference: Tensor, samples: Tensor) -> tuple[float, float]:
    """Density and recall as they are defined (Naeem et al. 2020, equations 3 and 5; Kynkäänniemi et al. 2019)."""
    real, fake = (list(F.adaptive_avg_pool2d(x, 2).flatten(1).double().numpy()) for x in (reference, samples))
    real_radii, fake_radii = ([radius(points, i) for i in range(len(points))] for points in (real, fake))
    inside = sum(np.linalg.norm(y - x) <= r for y in fake for x, r in zip(real, real_radii, strict=True))
    covered = sum(any(np.linalg.norm(x - y) <= r for y, r in zip(fake, fake_radii, strict=True)) for x in real)
    return inside / (K * len(fake)), covered / len(real)


@pytest.mark.parametrize(("mean", "scale"), [(0, 1), (0, 0.5), (1, 1), (0, 2)])
def test_density_and_recall_equal_loops(mean, scale):
    reference, samples = maps(90, seed=0), maps(60, seed=1, mean=mean, scale=scale)
    found = measured(reference, samples)
    assert (found.density, found.recall) == pytest.approx(by_loops(reference, samples))


@pytest.mark.parametrize("n", [200, 7])  # more and fewer images than channels
def test_the_frechet_distance_equals_scipys(n):
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(150, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    samples = torch.randn(n, 12, generator=generator) + 0.3
    means = [x.double().mean(0).numpy() for x in (reference, samples)]
    first, second = (np.cov(x.double().numpy().T, bias=True) for x in (reference, samples))
    root = scipy.linalg.sqrtm(first @ second).real
    expected = np.square(means[0] - means[1]).sum() + np.trace(first) + np.trace(second) - 2 * np.trace(root)
    assert measured(reference, samples).frechet == pytest.approx(expected / np.trace(first), rel=1e-4)


def test_what_each_side_sees():
    reference, own = maps(300, seed=0), maps(200, seed=1)
    usual = measured(reference, own)
    assert usual.density == pytest.approx(1, abs=0.1) and usual.recall > 0.8 and usual.frechet < 0.05
    shrunk = measured(reference, own.mean(0) + 0.3 * (own - own.mean(0)))
    assert shrunk.density > 2 * usual.density and shrunk.recall < 0.5 * usual.recall
    far = measured(reference, own + 20)
    assert far.density == 0 and far.frechet > 10
    one_point = measured(reference, own.mean(0, keepdim=True).expand_as(own))
    assert one_point.recall == 0 and one_point.density > 1.2 * usual.density
    constant = measured(reference, own.mean((2, 3), keepdim=True).expand_as(own))
    assert constant.frechet == pytest.approx(usual.frechet, abs=1e-5) and constant.density != usual.density


def test_a_shift_and_a_scale_of_all_changes_nothing():
    reference, samples = maps(90, seed=0), maps(60, seed=1, scale=0.8)
    expected = measured(reference, samples)
    assert measured(1000 + 7 * reference, 1000 + 7 * samples) == pytest.approx(expected, rel=1e-3)


def test_the_first_two_thousand_training_images_count():
    reference, samples = torch.randn(2100, 3), torch.randn(50, 3)
    assert measured(reference, samples) == measured(reference[:2000], samples)


def test_cells_of_maps_tokens_and_vectors():
    x = torch.arange(32.0).view(1, 2, 4, 4)
    assert torch.equal(cells(x)[0, :, 0], torch.tensor([2.5, 4.5, 10.5, 12.5]))
    tokens = x.flatten(2).mT  # (1, 16, 2)
    assert torch.equal(cells(tokens), cells(x))
    with_cls = torch.cat([torch.full((1, 1, 2), 9.0), tokens], 1)
    assert torch.equal(cells(with_cls), torch.cat([torch.full((1, 1, 2), 9.0), cells(x)], 1))
    assert torch.equal(cells(tokens[:, :8])[0, :, 0], torch.tensor([0.5, 2.5, 4.5, 6.5]))  # no square
    assert cells(x[:, :, :1, :1]).shape == (1, 1, 2) and cells(torch.ones(3, 5)).shape == (3, 1, 5)
    assert torch.equal(mean_over_positions(x), mean_over_positions(tokens))


def test_what_cannot_be_measured():
    with pytest.raises(ValueError, match="5 images are too few to have 5 neighbours"):
        measured(torch.randn(5, 3), torch.randn(9, 3))
    with pytest.raises(ValueError, match="4 images are too few"):
        measured(torch.randn(9, 3), torch.randn(4, 3))
    with pytest.raises(ValueError, match="all the same"):
        measured(torch.ones(9, 3), torch.randn(9, 3))
    with pytest.raises(ValueError, match="not finite"):
        measured(torch.randn(9, 3), torch.full((9, 3), math.nan))


def test_class_means():
    means, x = ClassMeans(), torch.tensor([[1.0, 2], [3, 4], [5, 6], [8, 8]])
    means.add(x[:2], torch.tensor([0, 0]))
    means.add(x[2:], torch.tensor([0, 3]))
    assert torch.equal(means.overall(), x.mean(0)) and torch.equal(means.present(), torch.tensor([[3.0, 4], [8, 8]]))
    expected = torch.stack([torch.tensor([3.0, 4]), torch.tensor([8.0, 8]), x.mean(0), x.mean(0)])
    assert torch.equal(means.of(torch.tensor([0, 3, 1, 7])), expected)  # of classes without images, that of all
    with pytest.raises(ValueError, match="without labels"):
        means.add(x, torch.tensor([0, 0, -1, 1]))


@pytest.mark.parametrize(
    ("density", "recall", "expected"),
    [(0.4, 0.8, IN_DISTRIBUTION), (0.2, 0.8, OFF), (0.2, 0.1, OFF), (1.7, 0.8, COLLAPSED), (0.8, 0.3, COLLAPSED)],
)
def test_sides(density, recall, expected):
    validity = StitchValidity(density, recall, 0.1, 0.8, 0.8, 0.1)
    assert side_of(validity) == expected
    assert side_of(validity, ValidityLimits(0, 100, 0)) == IN_DISTRIBUTION
    assert side_of(validity._replace(density_own=0)) is side_of(validity._replace(recall_own=0)) is None


def test_doubts():
    sees = Sight(0.9, 0.85, 0.5, 0.5, 0.52)
    assert doubts(None, None) is None and doubts(0.9, None) == doubts(None, sees) == doubts(0.9, sees) == []
    assert doubts(0.7, sees) == ["does not see the sanity-check data (AUROC below 0.8)"]
    assert doubts(None, sees._replace(seen_mixed=0.6, seen_half_way=0.7)) == [
        "does not see mixed images (AUROC below 0.8)", "does not see moves to the class mean (AUROC below 0.8)",
    ]  # fmt: skip
    assert doubts(0.9, sees._replace(training_auroc=0.7)) == ["tells test from training images (AUROC above 0.65)"]
