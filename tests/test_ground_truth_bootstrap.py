"""The bootstrap over networks: what is drawn, seeds, limits, and how often intervals cover."""

import math
from itertools import combinations

import numpy as np
import pytest

from src.ground_truth import draw_counts, group_scores, interval, layer_scores, output_correlation
from src.ground_truth.protocol import score
from src.ground_truth.tables import Tables

GROUPS = np.repeat([2, 0, 1], 5)


def similarities(seed: int, distance: float, dimension: int = 8) -> np.ndarray:
    """Networks are points, whose groups are so far apart."""
    points = np.random.default_rng(seed).normal(size=(15, dimension))
    points[:, 0] += distance * GROUPS
    return -np.linalg.norm(points[:, None] - points[None], axis=2)


def group_intervals(matrix, groups=GROUPS, *, n_resamples: int, seed: int = 0):
    counts = draw_counts(groups, n_resamples=n_resamples, seed=seed)
    return [interval(scores, counts) for scores in group_scores(matrix, groups, counts=counts)]


def test_networks_are_drawn_within_their_groups_with_replacement():
    groups = np.array([0, 1, 0, 1, 0])
    counts = draw_counts(groups, n_resamples=6000, seed=1)
    assert counts.shape == (6000, 5)
    for group, size in ((0, 3), (1, 2)):
        own = counts[:, groups == group]
        assert (own.sum(1) == size).all()
        error = (1 - 1 / size) ** 0.5 / 6000**0.5  # of a binomial of `size` draws with probability 1/size
        assert np.abs(own.mean(0) - 1).max() < 3 * error
        assert np.abs(own.var(0) - (1 - 1 / size)).max() < 0.05
    assert not np.array_equal(counts, draw_counts(groups, n_resamples=6000, seed=2))


def test_intervals_depend_on_the_seed_alone():
    matrix = similarities(0, 1)
    first, again, other = (group_intervals(matrix, n_resamples=60, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert all(one.low < one.high for one in first)


@pytest.mark.parametrize("n_values", [None, 5])
def test_scores_of_draws_are_those_of_matrices_with_repeated_networks(n_values):
    """Each network stands in rows and columns as often as it was drawn; loops over pairs of two networks."""
    average_precision_score = pytest.importorskip("sklearn.metrics").average_precision_score
    spearmanr = pytest.importorskip("scipy.stats").spearmanr
    matrix, other = similarities(0, 1), similarities(1, 1)
    if n_values:
        matrix = np.round(matrix / matrix.min() * n_values)
    counts = draw_counts(GROUPS, n_resamples=20, seed=3)
    found, rho = group_scores(matrix, GROUPS, counts=counts), output_correlation(matrix, other, counts=counts)
    assert found.auprc.shape == found.conformity.shape == rho.shape == (20,)
    for draw, drawn in enumerate(np.repeat(np.arange(15), count) for count in counts):
        pairs = [(i, j) for at, i in enumerate(drawn) for j in drawn[:at] if i != j]
        expected = spearmanr([matrix[pair] for pair in pairs], [other[pair] for pair in pairs]).statistic
        assert rho[draw] == pytest.approx(expected, abs=1e-12)
        precisions, rates = [], []
        for group in range(3):
            within = [matrix[i, j] for i, j in pairs if GROUPS[i] == GROUPS[j] == group]
            across = [matrix[i, j] for i, j in pairs if (GROUPS[i] == group) != (GROUPS[j] == group)]
            precisions.append(average_precision_score([1] * len(within) + [0] * len(across), within + across))
            rates.append(np.mean([near > far for near in within for far in across]))
        assert found.auprc[draw] == pytest.approx(np.mean(precisions), abs=1e-12)
        assert found.conformity[draw] == pytest.approx(np.mean(rates), abs=1e-12)


def test_the_truth_has_no_width():
    same = (GROUPS[:, None] == GROUPS).astype(float)
    assert group_intervals(same, n_resamples=200) == [(1, 1), (1, 1)]
    counts = draw_counts(GROUPS, n_resamples=50)
    difference = -similarities(0, 0)
    assert interval(output_correlation(-difference, difference, counts=counts), counts) == pytest.approx((-1, -1))


def test_resamples_without_a_score_are_left_out():
    """Three groups of three: one is drawn as one network three times in a ninth of the draws of each."""
    matrix, groups = similarities(0, 1)[3:12, 3:12], np.repeat([0, 1, 2], 3)
    counts = draw_counts(groups, n_resamples=500)
    scores = group_scores(matrix, groups, counts=counts).auprc
    one_thrice = (counts == 3).any(1)
    assert np.array_equal(np.isnan(scores), one_thrice) and 0 < one_thrice.sum() < 250
    expected = np.quantile(scores[~one_thrice], [0.025, 0.975])
    assert interval(scores, counts) == pytest.approx(tuple(expected))


def test_few_networks_have_no_interval():
    """Of two groups of two, one draw alone has a score; of a spoilt matrix, none."""
    matrix, groups = similarities(0, 1)[3:7, 3:7], [0, 0, 1, 1]
    for few in (matrix, matrix * math.nan):
        assert all(math.isnan(end) for one in group_intervals(few, groups, n_resamples=50) for end in one)


@pytest.mark.parametrize("distance", [0, 2])
def test_intervals_cover_what_other_networks_would_score(distance):
    expected = np.mean([group_scores(similarities(seed, distance), GROUPS) for seed in range(1000, 1600)], axis=0)
    hits = np.zeros(2)
    for seed in range(60):
        intervals = group_intervals(similarities(seed, distance), n_resamples=100, seed=seed)
        hits += [low <= score <= high for score, (low, high) in zip(expected, intervals, strict=True)]
    assert (hits >= 0.85 * 60).all()


def test_layers_of_pairs_count_as_often_as_both_networks_are_drawn():
    rng, groups, layers = np.random.default_rng(0), ["a"] * 4 + ["b"] * 4, ["x1", "x2", "x3", "x4"]
    values = rng.random((8, 8, 4, 4))
    tables = Tables(layers, {"cka": values}, frozenset(), {})
    (row,) = (row for row in score(tables, groups, n_resamples=40, seed=5) if row.test == "layers")
    conformity = {}
    for i, j in combinations(range(8), 2):
        if groups[i] == groups[j]:
            mean = sum(values[a, b] + values[a, b].T for a, b in ((i, j), (j, i)))
            conformity[i, j] = layer_scores(mean).conformity
    assert row.score("conformity").value == pytest.approx(np.mean(list(conformity.values())))
    means = []
    for counts in draw_counts(groups, n_resamples=40, seed=5):
        drawn = [value for (i, j), value in conformity.items() for _ in range(counts[i] * counts[j])]
        means.append(np.mean(drawn))
    assert row.score("conformity")[1:3] == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_a_measure_that_is_the_same_everywhere_orders_no_layers():
    layers = ["x1", "x2", "x3", "x4"]
    tables = Tables(layers, {"cka": np.ones((8, 8, 4, 4))}, frozenset(), {})
    (row,) = (row for row in score(tables, ["a"] * 4 + ["b"] * 4, n_resamples=40) if row.test == "layers")
    assert row.score("conformity").value == 1  # ties count as right
    assert row.score("spearman")[:3] == (0, 0, 0)


def test_layers_without_a_measure_do_not_hide_its_order():
    layers = ["x1", "x2", "x3", "x4"]
    values = np.broadcast_to(-np.abs(np.subtract.outer(np.arange(4), np.arange(4))), (8, 8, 4, 4)).astype(float)
    values[..., 3, :] = values[..., :, 3] = math.nan
    rows = score(Tables(layers, {"cka": values}, frozenset(), {}), ["a"] * 8, n_resamples=40)
    assert [row.score("conformity").value for row in rows if row.test == "layers"] == [1]
