"""The measures on matrices: values by hand, invariances, other libraries and other formulas as
oracles."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from sklearn.neighbors import NearestNeighbors

from src.core.choices.similarity import MEASURES as ROWS
from src.similarity import (
    Undefined,
    compare,
    debiased_cka,
    linear_cka,
    mutual_knn,
    procrustes_distance,
    pwcca_distance,
)
from src.similarity.grams import Grams, gram_matrices
from src.similarity.measures import cka_debiased
from tests.commands import ROOT
from tests.goldens import random

MEASURES = [linear_cka, pwcca_distance, procrustes_distance]


@pytest.fixture
def pair(rng):
    """Two correlated representations of 50 samples, off centre, with 7 and 9 features."""
    common = rng.normal(size=(50, 6))
    return [
        common @ rng.normal(size=(6, width)) + rng.normal(size=(50, width)) + 3 for width in (7, 9)
    ]


def rotation(rng, size: int) -> np.ndarray:
    return scipy.stats.ortho_group.rvs(size, random_state=rng)


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(0)


def basis(x: np.ndarray) -> np.ndarray:
    return scipy.linalg.orth(centred(x), rcond=1e-5)


MAPS = {
    "permutation": lambda z, rng: rng.permutation(z, axis=1),
    "rotation": lambda z, rng: z @ rotation(rng, z.shape[1]),
    "scale": lambda z, rng: 3 * z,
    "shift": lambda z, rng: z + 5 * rng.normal(size=z.shape[1]),
    "affine": lambda z, rng: z @ rng.normal(size=(z.shape[1], z.shape[1])) + 1,
}
METRICS = {
    "arccos(v)": lambda v: math.acos(min(v, 1)),
    "sqrt(v)": math.sqrt,
    "1 - v": lambda v: 1 - v,
}


@pytest.mark.parametrize("name", ROWS)
def test_each_measure_is_what_its_row_declares(rng, pair, name):
    def measure(x, y) -> float:
        return compare(x, y, [name])[name]

    row = ROWS[name]
    value = measure(*pair)
    for title, function in MAPS.items():
        values = [
            measure(function(pair[0], rng), pair[1]),
            measure(pair[0], function(pair[1], rng)),
        ]
        is_invariant = values == pytest.approx([value, value], abs=1e-9)
        assert is_invariant == (title in row.invariant_to), title
    assert (measure(*reversed(pair)) == pytest.approx(value, abs=1e-9)) == row.is_symmetric
    assert measure(pair[0], pair[0]) == pytest.approx(row.equal, abs=1e-9)
    if not row.metric:
        return
    assert row.is_symmetric
    for share in rng.uniform(size=20):  # a representation between two others, and those
        x, z = rng.normal(size=(2, 50, 6))
        y = share * x + (1 - share) * z
        values = [measure(*two) for two in ((x, y), (y, z), (x, z))]
        first, second, both = map(METRICS[row.metric], values)
        assert both <= first + second + 1e-9


def test_methods_md_has_the_declarations():
    lines = (ROOT / "misc" / "docs" / "methods.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("| `")]
    by_name = {row[1].strip("`"): row[3:6] for row in cells if row[1].strip("`") in ROWS}
    for name, row in ROWS.items():
        is_symmetric = {True: "yes", False: "no"}[row.is_symmetric]
        assert by_name[name] == [", ".join(row.invariant_to), is_symmetric, row.metric]


def test_the_weights_of_pwcca_are_those_of_the_first(rng, pair):
    x, y = pair
    value = pwcca_distance(x, y)
    assert pwcca_distance(x, MAPS["affine"](y, rng)) == pytest.approx(value, abs=1e-10)
    assert pwcca_distance(x, 3 * x @ rotation(rng, 7) + 1) == pytest.approx(0, abs=1e-12)


def test_values_by_hand():
    # x has two orthogonal features of norms 2 and 1 beside each other, y the first of them only.
    x, y = (
        np.array([[1.0, 0.5], [1, -0.5], [-1, 0.5], [-1, -0.5]]),
        np.array([[1.0], [1], [-1], [-1]]),
    )
    assert linear_cka(x, y) == pytest.approx(4 / math.hypot(4, 1))
    assert procrustes_distance(x, y) == pytest.approx(2 - 2 * 2 / math.sqrt(5))
    assert pwcca_distance(x, y) == pytest.approx(1 - 2 / 3)  # weights 2 and 1, correlations 1 and 0
    assert pwcca_distance(y, x) == pytest.approx(0)
    uncorrelated = [[1.0], [1], [-1], [-1]], [[1.0], [-1], [1], [-1]]
    assert [measure(*uncorrelated) for measure in MEASURES] == pytest.approx([0, 1, 2], abs=1e-12)
    for measure in (linear_cka, procrustes_distance):
        assert measure(x, y) == pytest.approx(measure(y, x))


def test_procrustes_equals_scipy(pair):
    x, y = (centred(z) / np.linalg.norm(centred(z)) for z in pair)
    x = np.pad(x, [(0, 0), (0, 2)])
    best, _ = scipy.linalg.orthogonal_procrustes(y, x)
    assert procrustes_distance(*pair) == pytest.approx(np.linalg.norm(x - y @ best) ** 2, abs=1e-12)


def test_directions_without_a_partner_are_principal_axes(pair):
    """With more features than the other has, their weights are those of the principal axes of what
    is left."""
    y, x = pair[0][:, :4], pair[1]
    left, found, _ = np.linalg.svd(basis(x).T @ basis(y), full_matrices=False)
    shared = basis(x) @ left
    _, deviations, axes = np.linalg.svd(centred(x) - shared @ shared.T @ centred(x))
    weights = np.abs(shared.T @ centred(x)).sum(1)
    alone = np.abs(deviations[:5, None] * axes[:5]).sum()
    expected = 1 - weights @ found / (weights.sum() + alone)
    assert pwcca_distance(x, y) == pytest.approx(expected, abs=1e-12)


def test_equal_correlations_take_the_principal_axes(rng):
    """y = x in four of six directions, so that all of their correlations are 1 and any mixture of
    them would do."""
    x, noise = rng.normal(size=(60, 6)) * [6, 5, 4, 3, 2, 1], rng.normal(size=(60, 2))
    y = np.concatenate([x[:, :4] @ rng.normal(size=(4, 4)), noise], axis=1)
    value = pwcca_distance(x, y)
    inside, outside = basis(x[:, :4]), []
    _, deviations, axes = np.linalg.svd(inside.T @ centred(x), full_matrices=False)
    shared = np.abs(deviations[:, None] * axes).sum()
    rest = centred(x) - inside @ inside.T @ centred(x)
    left, found, _ = np.linalg.svd(basis(rest).T @ basis(y), full_matrices=False)
    outside = np.abs((basis(rest) @ left).T @ centred(x)).sum(1)
    expected = 1 - (shared + outside[:2] @ found[:2]) / (shared + outside.sum())
    assert value == pytest.approx(expected, abs=1e-9)
    order = rng.permutation(60)
    assert pwcca_distance(x[order], y[order]) == pytest.approx(value, abs=1e-9)


# Gram matrices


def layer(
    n: int, n_positions: int, n_channels: int, *, seed: int = 0, mean: float = 3
) -> torch.Tensor:
    """Activations (n, positions, C) in double precision, off centre, with few large principal
    components."""
    x = random(n, n_positions, n_channels, seed=seed) / torch.arange(1, n_channels + 1)
    return x + mean * random(n_positions, n_channels, seed=seed + 2).sigmoid()


def centred_gram(x: torch.Tensor) -> torch.Tensor:
    """The matrix (n, n) of activations (n, positions, C)."""
    return gram_matrices(x).centred[0]


@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_products_in_single_precision_cost_few_digits(mean):
    """More features than a block has, and more images than a block of the triangle; whatever autocast says."""
    x, y = layer(150, 100, 64, mean=mean), layer(150, 50, 64, seed=1, mean=mean)
    exact = x.float().double().flatten(1) - x.float().double().flatten(1).mean(0)
    gram = centred_gram(x.float())
    assert (gram - exact @ exact.T).norm() / (exact @ exact.T).norm() < 1e-6
    torch.testing.assert_close(gram, gram.T, rtol=0, atol=1e-9)
    found = torch.cosine_similarity(gram.flatten(), centred_gram(y.float()).flatten(), dim=0)
    assert float(found) == pytest.approx(linear_cka(x, y), abs=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(centred_gram(x.float()), gram)


def hsic_by_4_tuples(k: np.ndarray, other: np.ndarray) -> float:
    """The unbiased estimator as a U-statistic: the mean over all ordered 4-tuples of different
    samples."""
    tuples = itertools.permutations(range(len(k)), 4)
    values = [k[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q]) for i, j, q, r in tuples]
    return float(np.mean(values))


def test_debiased_cka_equals_the_mean_over_4_tuples(rng):
    x, y = rng.normal(size=(8, 5)) + 2, rng.normal(size=(8, 3))
    k, other = x @ x.T, y @ y.T
    expected = hsic_by_4_tuples(k, other) / np.sqrt(
        hsic_by_4_tuples(k, k) * hsic_by_4_tuples(other, other)
    )
    assert debiased_cka(x, y) == pytest.approx(expected, abs=1e-12)
    matrices = [cka_debiased(Grams(torch.tensor(z)[None], torch.zeros(1, 8))) for z in (k, other)]
    inner = (matrices[0] * matrices[1]).sum() / (8 * 5)
    assert float(inner) == pytest.approx(hsic_by_4_tuples(k, other), abs=1e-10)


@pytest.mark.parametrize("k", [1, 10, 39])
def test_mutual_knn_equals_scikit_learn(rng, k):
    common = rng.normal(size=(40, 6))
    pair = [
        common @ rng.normal(size=(6, width)) + rng.normal(size=(40, width)) + 1 for width in (7, 9)
    ]
    sets = [
        NearestNeighbors(n_neighbors=k, metric="cosine").fit(z).kneighbors(return_distance=False)
        for z in pair
    ]
    expected = np.mean([len(set(one) & set(other)) / k for one, other in zip(*sets, strict=True)])
    assert mutual_knn(*pair, k=k) == pytest.approx(expected, abs=1e-12)
    assert (expected == 1) == (k == 39)
    moved = [z + 5 for z in pair]  # neighbours are of what is not centred
    assert (mutual_knn(*moved, k=k) == pytest.approx(expected)) == (k == 39)


@pytest.mark.parametrize(
    ("x", "kind", "reason"),
    [
        (np.full((50, 3), 0.1), Undefined, "the first representation is constant"),
        (np.full((50, 3), np.nan), Undefined, "values that are not finite"),
        (np.zeros(50), ValueError, r"shape \(50,\)"),
        (np.eye(50) * 1j, ValueError, "complex128; give real numbers"),
        (None, ValueError, "the first representation is no array of numbers"),
        (np.zeros((50, 0)), ValueError, r"shape \(50, 0\)"),
        (np.eye(49), ValueError, r"shapes \(49, 49\) and \(50, 9\)"),
    ],
)
def test_what_has_no_value_is_an_error(pair, x, kind, reason):
    with pytest.raises(kind, match=reason):
        procrustes_distance(x, pair[1])
    with pytest.raises(Undefined, match="at least 11 inputs, not 10"):
        mutual_knn(pair[0][:10], pair[1][:10])
