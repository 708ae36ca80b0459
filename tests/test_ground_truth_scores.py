"""Scores of measures, their intervals and p-values: scikit-learn and loops as oracles, chance, what
is undefined."""

import itertools
import math
from functools import partial
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.stats import rankdata
from scipy.stats import t as student

from src.ground_truth import chance_scores, group_scores, layer_scores, output_correlation
from src.ground_truth.scores import group_scores_of_pairs, rank_correlation
from src.statistics.resampling import Estimate, estimate, lowest_p, n_groupings, permuted_p

GROUPS = np.repeat(["none", "half", "most"], 5)


def random_matrix(n: int, seed: int = 0, *, n_values: int | None = None) -> np.ndarray:
    """Symmetric (n, n); with `n_values`, only so many different values, so that there are ties."""
    rng = np.random.default_rng(seed)
    upper = np.triu(
        rng.random((n, n)) if n_values is None else rng.integers(0, n_values, (n, n)).astype(float),
        1,
    )
    return upper + upper.T + np.diag(np.full(n, math.nan))  # the diagonal is not read


def pairs_of_each_group(groups):
    """For each group, the index pairs within it and across; by loops."""
    n = len(groups)
    for group in sorted(set(groups)):
        within = [(i, j) for i in range(n) for j in range(i) if groups[i] == groups[j] == group]
        yield (
            within,
            [(i, j) for i in range(n) for j in range(n) if groups[i] == group != groups[j]],
        )


# Groups


@pytest.mark.parametrize("n_values", [None, 40, 4, 1])
@pytest.mark.parametrize(
    "groups", [GROUPS, [0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2], [3, 1, 3, 1, 1]], ids=str
)
def test_group_scores_are_those_of_scikit_learn_and_of_loops(groups, n_values):
    average_precision_score = pytest.importorskip("sklearn.metrics").average_precision_score
    similarity = random_matrix(len(groups), seed=1, n_values=n_values)
    precisions, rates = [], []
    for within, across in pairs_of_each_group(groups):
        values = [similarity[pair] for pair in within + across]
        precisions.append(average_precision_score([1] * len(within) + [0] * len(across), values))
        rates.append(
            np.mean([similarity[near] > similarity[far] for near in within for far in across])
        )
    found = group_scores(similarity, groups)
    assert found == pytest.approx((np.mean(precisions), np.mean(rates)), abs=1e-12)


def test_chance_is_the_mean_over_all_orders():
    """Two groups of two: six pairs of networks, in all 720 orders."""
    groups = ["a", "a", "b", "b"]
    scores = []
    pairs = list(combinations(range(4), 2))
    for order in permutations(range(6)):
        similarity = np.zeros((4, 4))
        for (i, j), value in zip(pairs, order, strict=True):
            similarity[i, j] = similarity[j, i] = value
        scores.append(group_scores(similarity, groups))
    assert chance_scores(groups) == pytest.approx(np.mean(scores, axis=0), abs=1e-12)
    assert chance_scores(GROUPS) == pytest.approx(
        (0.2186, 0.5), abs=1e-4
    )  # more than the share of pairs within, 10/60


@pytest.mark.parametrize(
    ("groups", "spoil"),
    [([0, 0, 0, 0], None), ([0, 0, 0, 1], None), ([0, 1, 2, 3], None), ([0, 0, 1, 1], (0, 2))],
)
def test_group_scores_that_are_undefined(groups, spoil):
    """One group, a group of one network, and a pair without a value."""
    similarity = random_matrix(4)
    if spoil:
        similarity[spoil] = similarity[spoil[::-1]] = math.nan
    assert all(map(math.isnan, group_scores(similarity, groups)))
    assert spoil or all(map(math.isnan, chance_scores(groups)))


# Outputs


@pytest.mark.parametrize("n_values", [None, 5])
def test_correlation_is_pearsons_of_mean_ranks(n_values):
    similarity, difference = (
        random_matrix(9, 1, n_values=n_values),
        random_matrix(9, 2, n_values=n_values),
    )
    pairs = np.array(list(combinations(range(9), 2)))
    ranks = [rankdata(matrix[tuple(pairs.T)]) for matrix in (similarity, difference)]
    expected = np.corrcoef(*ranks)[0, 1]
    assert output_correlation(similarity, difference) == pytest.approx(expected, abs=1e-12)


def test_partial_correlation_is_that_of_residuals():
    """Of ranks, each less what a regression on the third says; 0 of a measure that is the third."""
    x, y, z = (pairs_of(random_matrix(9, seed)) for seed in range(3))
    x, y = x + z, y + z
    ranks = [rankdata(values) for values in (x, y, z)]
    one, two = (np.polyval(np.polyfit(ranks[2], each, 1), ranks[2]) - each for each in ranks[:2])
    assert rank_correlation(x, y, z) == pytest.approx(np.corrcoef(one, two)[0, 1], abs=1e-12)
    assert rank_correlation(-z, y, z) == 0 < abs(rank_correlation(-z, y))


def test_correlations_that_are_undefined(recwarn):
    similarity, flat = random_matrix(5), np.ones((5, 5))
    spoilt = similarity.copy()
    spoilt[0, 1] = spoilt[1, 0] = math.nan
    for pair in ((similarity, flat), (spoilt, similarity)):
        assert math.isnan(output_correlation(*pair))
    assert (
        math.isnan(output_correlation(similarity[:2, :2], similarity[:2, :2])) and not recwarn.list
    )


# Layers


@pytest.mark.parametrize("n_values", [None, 3])
@pytest.mark.parametrize("n", [3, 4, 8])
def test_layer_scores_are_those_of_loops(n, n_values):
    similarity = random_matrix(n, 5, n_values=n_values)
    right, total, depths, values = 0, 0, [], []
    for anchor in range(n):
        for near in range(n):
            for far in range(n):
                if anchor < near < far or anchor > near > far:  # on one side, and farther away
                    right += similarity[anchor, near] >= similarity[anchor, far]
                    total += 1
    for i, j in combinations(range(n), 2):
        depths.append(i - j)
        values.append(similarity[i, j])
    expected = (right / total, np.corrcoef(rankdata(depths), rankdata(values))[0, 1])
    assert layer_scores(similarity) == pytest.approx(expected, abs=1e-12)


def test_limits_of_layer_scores():
    conformity, spearman = layer_scores(
        np.ones((5, 5))
    )  # ties are right; a constant has no correlation
    assert conformity == 1 and math.isnan(spearman)
    spoilt = random_matrix(4)
    spoilt[0, 3] = spoilt[3, 0] = math.nan
    for matrix in (random_matrix(2), spoilt):
        assert all(map(math.isnan, layer_scores(matrix)))


# Errors


def test_what_is_refused():
    similarity = random_matrix(4)
    directed = similarity + np.triu(np.ones((4, 4)), 1)
    for call, message in (
        (
            lambda: group_scores(directed, [0, 0, 1, 1]),
            "average a directed measure over both directions",
        ),
        (lambda: output_correlation(similarity, directed), "not symmetric"),
        (lambda: layer_scores(similarity[:3]), "square"),
        (lambda: group_scores(similarity, [0, 0, 1]), r"\(3,\) groups for a matrix of 4 networks"),
        (
            lambda: output_correlation(similarity, random_matrix(3)),
            r"\(4, 4\) similarities and \(3, 3\) differences: give both of the same networks",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    rounded = similarity + 1e-7 * np.triu(np.ones((4, 4)))  # of float32
    assert group_scores(rounded, [0, 0, 1, 1]) == group_scores(similarity, [0, 0, 1, 1])


# Intervals and p-values


def pairs_of(matrix):
    return matrix[np.triu_indices(len(matrix), 1)]


def of_groups(matrix):
    first, second = (GROUPS[ends] for ends in np.triu_indices(len(GROUPS), 1))
    return lambda at, known: (
        group_scores_of_pairs(pairs_of(matrix)[at], first[known], second[known]).auprc
    )


def of_outputs(matrix, difference):
    return lambda at, known: -rank_correlation(pairs_of(matrix)[at], pairs_of(difference)[known])


def test_scores_without_each_network_are_those_of_smaller_matrices():
    matrix, other = (random_matrix(15, seed, n_values=40) for seed in range(2))
    found, rho = estimate(of_groups(matrix), GROUPS), estimate(of_outputs(matrix, other), GROUPS)
    assert found.value == group_scores(matrix, GROUPS).auprc and rho.value == -output_correlation(
        matrix, other
    )
    for i in range(15):
        left = np.delete(np.arange(15), i)
        small, small_other = (each[np.ix_(left, left)] for each in (matrix, other))
        assert found.without_network[i] == pytest.approx(
            group_scores(small, GROUPS[left]).auprc, abs=1e-12
        )
        assert rho.without_network[i] == pytest.approx(
            -output_correlation(small, small_other), abs=1e-12
        )
    lacking = [pair for pair in range(105) if pair != 7]
    expected = -rank_correlation(pairs_of(matrix)[lacking], pairs_of(other)[lacking])
    assert (
        rho.without_pair[7] == pytest.approx(expected, abs=1e-12) and len(rho.without_pair) == 105
    )


def test_the_interval_of_a_mean_over_networks_is_students():
    values, groups = np.array([3.0, 1, 4, 1, 5]), np.zeros(5)
    without = np.array([np.delete(values, i).mean() for i in range(5)])
    low, high = Estimate(values.mean(), without, np.zeros(1), groups).interval()
    assert (low, high) == pytest.approx(
        student.interval(0.95, 4, values.mean(), values.std(ddof=1) / 5**0.5)
    )
    assert all(
        map(math.isnan, Estimate(0.5, without[:3], np.zeros(1), groups[:3]).interval())
    )  # of few
    same = Estimate(values.mean(), without, np.zeros(1), groups)
    assert same.minus(same).interval() == (0, 0)


def test_p_values_are_shares_of_orders_of_networks():
    """By a loop; a constant measure scores as any."""
    rng, matrix, other = np.random.default_rng(0), random_matrix(10), random_matrix(10, 1)
    value, scores = -output_correlation(matrix, other), []
    for _ in range(2000):
        order = rng.permutation(10)
        scores.append(-output_correlation(matrix[np.ix_(order, order)], other))
    assert permuted_p(of_outputs(matrix, other), 10) == pytest.approx(
        np.mean(np.array(scores) >= value), abs=0.12
    )
    assert permuted_p(of_groups(np.ones((15, 15))), 15) == 1
    assert permuted_p(of_outputs(matrix, -matrix), 10) == 1 / 200


def test_networks_are_divided_into_groups_in_so_many_ways():
    """By listing all orders of the groups' names; names of groups of one size may change places."""
    for groups in ("aabb", "aaabbb", "aaabb", "aabbcc", "abcc"):
        divisions = set()
        for order in itertools.permutations(groups):
            members = {
                frozenset(i for i, group in enumerate(order) if group == name) for name in groups
            }
            divisions.add(frozenset(members))
        assert n_groupings(groups) == len(divisions), groups
    assert lowest_p(n_groupings("aaabbb")) == 0.1
    assert lowest_p(n_groupings("a" * 9 + "b" * 9)) == 1 / 200  # of 199 permutations


def similarities(rng, n: int, *, groups=0, points=None, dimension: int = 8) -> np.ndarray:
    """Networks are points, whose groups are so far apart."""
    points = rng.normal(size=(n, dimension)) if points is None else points
    points = points + np.eye(dimension)[0] * np.reshape(groups, (-1, 1))
    return -np.linalg.norm(points[:, None] - points, axis=2)


@pytest.mark.slow
@pytest.mark.parametrize("given", [False, True])
def test_random_measures_are_above_chance_as_often_as_said_and_planted_ones_are_found(given):
    """Of ten networks; at 2.5 %, 400 simulations give 10 ± 3.1. A planted measure is of the same
    points, with noise."""
    rng, n = np.random.default_rng(given), 400
    random, planted = [], []
    for _ in range(n):
        points = rng.normal(size=(10, 8))
        gap = pairs_of(-similarities(rng, 10, dimension=1)) if given else None
        difference = pairs_of(-similarities(rng, 10, points=points)) + (gap if given else 0)

        def of(values, at, known, difference=difference, gap=gap):
            return -rank_correlation(values[at], difference[known], gap[known] if given else None)

        random.append(permuted_p(partial(of, pairs_of(similarities(rng, 10))), 10))
        near = points + 0.6 * rng.normal(size=points.shape)
        planted.append(permuted_p(partial(of, pairs_of(similarities(rng, 10, points=near))), 10))
    assert 0.01 <= np.mean(np.array(random) <= 0.025) <= 0.045
    assert np.mean(np.array(planted) <= 0.025) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("distance", [1, 2])
def test_intervals_cover_what_other_networks_would_score(distance):
    rng = np.random.default_rng(distance)
    groups = distance * np.repeat([2, 0, 1], 5)
    expected = np.mean(
        [group_scores(similarities(rng, 15, groups=groups), GROUPS).auprc for _ in range(600)]
    )
    ends = np.array(
        [
            estimate(of_groups(similarities(rng, 15, groups=groups)), GROUPS).interval()
            for _ in range(150)
        ]
    )
    assert np.mean((ends[:, 0] <= expected) & (expected <= ends[:, 1])) > 0.9
