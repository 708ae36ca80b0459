"""Intervals and p-values of scores over pairs of networks: loops as oracles, and how often they are right."""

import math

import numpy as np
import pytest
from scipy.stats import t as student

from src.ground_truth import group_scores, output_correlation
from src.ground_truth.resampling import Estimate, estimate, permuted_p
from src.ground_truth.scores import group_scores_of_pairs, rank_correlation

GROUPS = np.repeat([2, 0, 1], 5)


def similarities(rng, n: int, *, groups=0) -> np.ndarray:
    """Networks are points, whose groups are so far apart."""
    points = rng.normal(size=(n, 8)) + np.eye(8)[0] * np.reshape(groups, (-1, 1))
    return -np.linalg.norm(points[:, None] - points, axis=2)


def pairs_of(matrix):
    return matrix[np.triu_indices(len(matrix), 1)]


def of_groups(matrix, groups=GROUPS):
    first, second = (groups[ends] for ends in np.triu_indices(len(groups), 1))
    return lambda at, known: group_scores_of_pairs(pairs_of(matrix)[at], first[known], second[known]).auprc


def of_outputs(matrix, difference):
    return lambda at, known: -rank_correlation(pairs_of(matrix)[at], pairs_of(difference)[known])


def test_scores_without_each_network_are_those_of_smaller_matrices():
    rng = np.random.default_rng(0)
    matrix, other = (np.round(similarities(rng, 15, groups=GROUPS), 1) for _ in range(2))
    found, rho = estimate(of_groups(matrix), GROUPS), estimate(of_outputs(matrix, -other), GROUPS)
    assert found.value == group_scores(matrix, GROUPS).auprc and rho.value == -output_correlation(matrix, -other)
    for i in range(15):
        left = np.delete(np.arange(15), i)
        small, small_other = (each[np.ix_(left, left)] for each in (matrix, other))
        assert found.without_network[i] == pytest.approx(group_scores(small, GROUPS[left]).auprc, abs=1e-12)
        assert rho.without_network[i] == pytest.approx(-output_correlation(small, -small_other), abs=1e-12)
    lacking = [pair for pair in range(105) if pair != 7]
    expected = -rank_correlation(pairs_of(matrix)[lacking], -pairs_of(other)[lacking])
    assert rho.without_pair[7] == pytest.approx(expected, abs=1e-12) and len(rho.without_pair) == 105


def test_the_interval_of_a_mean_over_networks_is_students():
    values, groups = np.array([3.0, 1, 4, 1, 5]), np.zeros(5)
    without = np.array([np.delete(values, i).mean() for i in range(5)])
    low, high = Estimate(values.mean(), without, np.zeros(1), groups).interval()
    assert (low, high) == pytest.approx(student.interval(0.95, 4, values.mean(), values.std(ddof=1) / 5**0.5))
    assert all(map(math.isnan, Estimate(0.5, without[:3], np.zeros(1), groups[:3]).interval()))  # of few
    same = Estimate(values.mean(), without, np.zeros(1), groups)
    assert same.minus(same).interval() == (0, 0)


def test_p_values_are_shares_of_orders_of_networks():
    """By a loop; a constant measure scores as any."""
    rng = np.random.default_rng(3)
    matrix, other = similarities(rng, 10), similarities(rng, 10)
    value, scores = -output_correlation(matrix, -other), []
    for _ in range(2000):
        order = rng.permutation(10)
        scores.append(-output_correlation(matrix[np.ix_(order, order)], -other))
    assert permuted_p(of_outputs(matrix, -other), 10) == pytest.approx(np.mean(np.array(scores) >= value), abs=0.12)
    assert permuted_p(of_groups(np.ones((15, 15))), 15) == 1
    assert permuted_p(of_outputs(matrix, -matrix), 10) == 1 / 200
