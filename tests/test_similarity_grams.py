"""Measures of Gram matrices: precision of the matrices, and independent computations of debiased CKA and mutual kNN."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from src.similarity import Undefined, debiased_cka, linear_cka, mutual_knn
from src.similarity.grams import Grams, gram_matrices, reference_of
from src.similarity.measures import cka_debiased, cosines


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def layer(n: int = 60, n_positions: int = 9, n_channels: int = 12, *, seed: int = 0, mean: float = 3) -> torch.Tensor:
    """Activations (n, positions, C) in double precision, off centre, with few large principal components."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, n_positions, n_channels, generator=generator, dtype=torch.float64)
    return x / torch.arange(1, n_channels + 1) + mean * torch.rand(n_positions, n_channels, generator=generator)


def grams_of(x: torch.Tensor, axes: torch.Tensor | None = None, widths=(12,)) -> Grams:
    """Of activations (n, positions, C), less a reference that is the mean of a few of them."""
    reference = reference_of(x[:20])
    return gram_matrices(x - reference, reference, axes, list(widths), device="cpu")


def principal_axes(x: torch.Tensor) -> torch.Tensor:
    rows = x.flatten(0, 1)
    return torch.linalg.eigh((rows - rows.mean(0)).T @ (rows - rows.mean(0))).eigenvectors.flip(1)


@pytest.mark.parametrize("widths", [[12], [1, 5, 12], [3, 4]], ids=str)
def test_gram_matrices_are_those_of_the_truncated_activations(widths):
    x = layer()
    axes = None if widths == [12] else principal_axes(x)
    grams = grams_of(x, axes, widths)
    for i, width in enumerate(widths):
        mean = x.mean((0, 1))
        cut = x if axes is None else (x - mean) @ axes[:, :width] @ axes[:, :width].T + mean
        flat = cut.flatten(1)
        torch.testing.assert_close(grams.uncentred[i], flat @ flat.T, rtol=1e-12, atol=1e-10)
        flat = flat - flat.mean(0)
        torch.testing.assert_close(grams.centred[i], flat @ flat.T, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("mean", [0.0, 3.0, 100.0])
def test_products_in_single_precision_cost_few_digits(mean):
    """More features than a block has, and more images than a block of the triangle."""
    x = layer(150, 100, 64, mean=mean).float()
    exact = x.double().flatten(1) - x.double().flatten(1).mean(0)
    (gram,), _ = grams_of(x, widths=[64])
    assert (gram - exact @ exact.T).norm() / (exact @ exact.T).norm() < 1e-6
    torch.testing.assert_close(gram, gram.T, rtol=0, atol=1e-9)
    y = layer(150, 50, 64, seed=1, mean=mean)
    others = grams_of(y.float(), widths=[64]).centred
    assert float(cosines(gram[None], others)) == pytest.approx(linear_cka(x, y), abs=1e-6)


def test_autocast_changes_nothing():
    x = layer().float()
    expected = grams_of(x).centred
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(grams_of(x).centred, expected)


def hsic_by_4_tuples(k: np.ndarray, other: np.ndarray) -> float:
    """The unbiased estimator as a U-statistic: the mean over all ordered 4-tuples of different samples."""
    tuples = itertools.permutations(range(len(k)), 4)
    values = [k[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q]) for i, j, q, r in tuples]
    return float(np.mean(values))


def test_debiased_cka_equals_the_mean_over_4_tuples(rng):
    x, y = rng.normal(size=(8, 5)) + 2, rng.normal(size=(8, 3))
    k, other = x @ x.T, y @ y.T
    expected = hsic_by_4_tuples(k, other) / np.sqrt(hsic_by_4_tuples(k, k) * hsic_by_4_tuples(other, other))
    assert debiased_cka(x, y) == pytest.approx(expected, abs=1e-12)
    matrices = [cka_debiased(Grams(torch.tensor(z)[None], torch.zeros(1, 8))) for z in (k, other)]
    inner = (matrices[0] * matrices[1]).sum() / (8 * 5)
    assert float(inner) == pytest.approx(hsic_by_4_tuples(k, other), abs=1e-10)


@pytest.mark.parametrize("k", [1, 10, 39])
def test_mutual_knn_equals_scikit_learn(rng, k):
    common = rng.normal(size=(40, 6))
    pair = [common @ rng.normal(size=(6, width)) + rng.normal(size=(40, width)) + 1 for width in (7, 9)]
    sets = [NearestNeighbors(n_neighbors=k, metric="cosine").fit(z).kneighbors(return_distance=False) for z in pair]
    expected = np.mean([len(set(one) & set(other)) / k for one, other in zip(*sets, strict=True)])
    assert mutual_knn(*pair, k=k) == pytest.approx(expected, abs=1e-12)
    assert (expected == 1) == (k == 39)


@pytest.mark.parametrize("measure", [debiased_cka, mutual_knn])
def test_equal_and_transformed_representations(rng, measure):
    x, y = rng.normal(size=(40, 6)) + 1, rng.normal(size=(40, 7))
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert measure(x, x) == pytest.approx(1)
    assert measure(x, y) == pytest.approx(measure(y, x))
    assert measure(3 * x @ rotation, y) == pytest.approx(measure(x, y))
    moved = measure(x + 5, y) == pytest.approx(measure(x, y), abs=1e-10)
    assert moved == (measure is debiased_cka)  # the cosines of neighbours are of what is not centred


def test_too_few_samples(rng):
    x = rng.normal(size=(10, 3))
    with pytest.raises(Undefined, match="at least 4 samples, not 3"):
        debiased_cka(x[:3], x[:3])
    with pytest.raises(Undefined, match="at least 11 samples, not 10"):
        mutual_knn(x, x)
