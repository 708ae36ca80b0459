"""Measures of Gram matrices: precision of the matrices, and independent computations of debiased CKA and mutual kNN."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from src.similarity import Undefined, debiased_cka, linear_cka, mutual_knn
from src.similarity.grams import Grams, gram_matrices, reference_of
from src.similarity.measures import cka_debiased, cosines
from tests.goldens import random


def layer(n: int, n_positions: int, n_channels: int, *, seed: int = 0, mean: float = 3) -> torch.Tensor:
    """Activations (n, positions, C) in double precision, off centre, with few large principal components."""
    x = random(n, n_positions, n_channels, seed=seed) / torch.arange(1, n_channels + 1)
    return x + mean * random(n_positions, n_channels, seed=seed + 2).sigmoid()


def centred_gram(x: torch.Tensor) -> torch.Tensor:
    """The matrix (n, n) of activations (n, positions, C), less a reference that is the mean of a few of them."""
    reference = reference_of(x[:20])
    (gram,), _ = gram_matrices(x - reference, reference, None, [x.shape[2]], device="cpu")
    return gram


@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_products_in_single_precision_cost_few_digits(mean):
    """More features than a block has, and more images than a block of the triangle."""
    x, y = layer(150, 100, 64, mean=mean), layer(150, 50, 64, seed=1, mean=mean)
    exact = x.float().double().flatten(1) - x.float().double().flatten(1).mean(0)
    gram = centred_gram(x.float())
    assert (gram - exact @ exact.T).norm() / (exact @ exact.T).norm() < 1e-6
    torch.testing.assert_close(gram, gram.T, rtol=0, atol=1e-9)
    found = cosines(gram[None], centred_gram(y.float())[None])
    assert float(found) == pytest.approx(linear_cka(x, y), abs=1e-6)


def test_autocast_changes_nothing():
    x = layer(60, 9, 12).float()
    expected = centred_gram(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(centred_gram(x), expected)


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
    moved = [z + 5 for z in pair]  # neighbours are of what is not centred
    assert (mutual_knn(*moved, k=k) == pytest.approx(expected)) == (k == 39)


def test_too_few_samples(rng):
    x = rng.normal(size=(10, 3))
    with pytest.raises(Undefined, match="at least 11 samples, not 10"):
        mutual_knn(x, x)
