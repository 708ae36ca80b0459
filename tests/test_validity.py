"""Density, recall and Fréchet distance: loops and scipy as oracles, limits, what is pooled how."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from torch import Tensor

from src.datasets.base import ImageSet
from src.models.activations import cells, cells_and_mean, mean_over_positions
from src.ood.reference import EvaluationOptions
from src.ood.validity import Validity

K = 5


def maps(n: int, *, seed: int, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    """Maps of four channels that vary unequally, (n, 4, 6, 6)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 4, 1, 1, generator=generator) + 0.5 * torch.randn(
        n, 4, 6, 6, generator=generator
    )
    return mean + scale * images * torch.tensor([1.0, 2.0, 0.5, 1.5])[:, None, None] + 3


def measured(reference: Tensor, samples: Tensor):
    validity = Validity()
    for batch in reference.split(37):
        validity.add(batch)
    validity.fit()
    return validity.measure(samples)


def radius(points: list[np.ndarray], i: int) -> float:
    return sorted(np.linalg.norm(points[i] - other) for j, other in enumerate(points) if j != i)[
        K - 1
    ]


def by_loops(reference: Tensor, samples: Tensor) -> tuple[float, float]:
    """Density and recall as they are defined (Naeem et al. 2020, equations 3 and 5; Kynkäänniemi et
    al. 2019)."""
    real, fake = (
        list(F.adaptive_avg_pool2d(x, 2).flatten(1).double().numpy()) for x in (reference, samples)
    )
    real_radii, fake_radii = (
        [radius(points, i) for i in range(len(points))] for points in (real, fake)
    )
    inside = sum(
        np.linalg.norm(y - x) <= r for y in fake for x, r in zip(real, real_radii, strict=True)
    )
    covered = sum(
        any(np.linalg.norm(x - y) <= r for y, r in zip(fake, fake_radii, strict=True)) for x in real
    )
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
    expected = (
        np.square(means[0] - means[1]).sum()
        + np.trace(first)
        + np.trace(second)
        - 2 * np.trace(root)
    )
    assert measured(reference, samples).frechet == pytest.approx(
        expected / np.trace(first), rel=1e-4
    )


def test_the_validity_of_a_stitch_stands_beside_the_own_one():
    reference, own = maps(90, seed=0), maps(60, seed=1)
    validity = Validity()
    validity.add(reference)
    validity.fit()
    for batch in own.split(37):
        validity.add_end(batch)
    validity.fit_end()
    itself = validity.of_stitch(cells_and_mean(own))
    assert itself[:3] == itself[3:] == pytest.approx(measured(reference, own))
    broken = validity.of_stitch(cells_and_mean(own * math.inf))
    assert all(map(math.isnan, broken[:3])) and broken[3:] == itself[3:]


def test_shifts_scales_and_images_beyond_two_thousand_change_nothing():
    reference, samples = maps(90, seed=0), maps(60, seed=1, scale=0.8)
    expected = measured(reference, samples)
    assert measured(1000 + 7 * reference, 1000 + 7 * samples) == pytest.approx(expected, rel=1e-3)
    reference, samples = torch.randn(2100, 3), torch.randn(50, 3)
    assert measured(reference, samples) == measured(reference[:2000], samples)


def test_sampled_images_are_found_in_their_batches():
    images = ImageSet(
        torch.zeros(2500, 1, 1, 1, dtype=torch.uint8),
        torch.zeros(2500, dtype=torch.long),
        n_classes=1,
    )
    options = EvaluationOptions((), {}, None, batch_size=64, dataset="", test=images)
    sample = options.sample(2000)
    to_identify = sample[1::2].contiguous()
    batches = list(options.test_batches("", sample, to_identify))
    sampled = [64 * number + batch.sampled for number, batch in enumerate(batches)]
    identified = [64 * number + batch.identified for number, batch in enumerate(batches)]
    assert len(batches) == 40 and torch.equal(torch.cat(sampled), sample)
    assert torch.equal(torch.cat(identified), to_identify)
    assert all(len(batch.identified) == len(to_identify[batch.places]) for batch in batches)
    assert torch.equal(sample, images.permutation(0)[:2000].sort().values)
    few = options.test_batches("", torch.tensor([70, 130]))
    assert [len(batch.sampled) for batch in few][:3] == [0, 1, 1]


def test_cells_of_maps_tokens_and_vectors():
    x = torch.arange(32.0).view(1, 2, 4, 4)
    assert torch.equal(cells(x)[0, :, 0], torch.tensor([2.5, 4.5, 10.5, 12.5]))
    tokens = x.flatten(2).mT  # (1, 16, 2)
    assert torch.equal(cells(tokens), cells(x))
    with_cls = torch.cat([torch.full((1, 1, 2), 9.0), tokens], 1)
    assert torch.equal(cells(with_cls), torch.cat([torch.full((1, 1, 2), 9.0), cells(x)], 1))
    assert torch.equal(
        cells(tokens[:, :8])[0, :, 0], torch.tensor([0.5, 2.5, 4.5, 6.5])
    )  # no square
    assert cells(x[:, :, :1, :1]).shape == (1, 1, 2) and cells(torch.ones(3, 5)).shape == (3, 1, 5)
    assert torch.equal(cells(x[:, None]), cells(x))  # a volume
    assert torch.equal(mean_over_positions(x), mean_over_positions(tokens))


def test_what_cannot_be_measured():
    for reference, samples, reason in (
        (torch.randn(5, 3), torch.randn(9, 3), "5 images are too few to have 5 neighbours"),
        (torch.randn(9, 3), torch.randn(4, 3), "4 images are too few"),
        (torch.ones(9, 3), torch.randn(9, 3), "all the same"),
        (torch.randn(9, 3), torch.full((9, 3), math.nan), "not finite"),
    ):
        with pytest.raises(ValueError, match=reason):
            measured(reference, samples)
