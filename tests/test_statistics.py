"""The room of statistics: scipy and simulations as oracles. Score tests, κ, permutations of networks
and AUROC have files of their own."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from src.statistics.intervals import of_share, student_half_width, wilson_intervals
from src.statistics.jackknife import jackknife_variance
from src.statistics.moments import CrossMoments, Moments, Rows
from src.statistics.permutations import permutation_p
from src.statistics.significance import false_discovery_rate, holm
from tests.goldens import random


@pytest.mark.parametrize(("n_right", "n"), [(98, 100), (0, 40), (40, 40), (7, 20)])
def test_wilsons_interval(n_right, n):
    """By scipy, and by inverting the test."""
    expected = stats.binomtest(n_right, n).proportion_ci(method="wilson")
    found, unknown = wilson_intervals([n_right / n, math.nan], [n, n])
    assert found == pytest.approx((n_right / n, *expected), abs=1e-4)
    assert found == pytest.approx(of_share([(np.arange(n) < n_right)[None]]).interval(), abs=1e-4)
    assert all(map(math.isnan, unknown))


def test_students_half_width():
    values = np.array([3.0, 1, 4, 1, 5])
    half_width = student_half_width(values.std(ddof=1) / math.sqrt(5), 0.025, freedom=4)
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert 2 * half_width == pytest.approx(high - low)


def test_the_jackknife_of_a_mean_is_its_squared_standard_error(rng):
    values = rng.normal(size=17)
    without = [np.delete(values, i).mean() for i in range(17)]
    assert jackknife_variance(without) == pytest.approx(stats.sem(values) ** 2)


def test_permutation_p_by_hand():
    assert permutation_p(3.0, [1, 2, 3, 4]) == 3 / 5  # itself, 3 and 4
    assert permutation_p(0.1 + 0.2, [0.3, 0.0]) == 2 / 3  # equal up to rounding
    assert permutation_p(9.0, np.arange(9)) == 1 / 10
    assert math.isnan(permutation_p(math.nan, [1.0]))


def test_the_false_discovery_rate_is_scipys(rng):
    for n in (1, 2, 30):
        p_values = rng.random(n) ** 3
        p_values[: n // 3] = p_values[0]  # ties
        expected = stats.false_discovery_control(p_values)
        assert false_discovery_rate(p_values).tolist() == np.atleast_1d(expected).tolist()
    assert false_discovery_rate([]).tolist() == []


def test_holm_by_hand():
    # 3·0.01, 2·0.02, 1·0.03 is below the one before
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("offset", [0, 1e6])
def test_pooled_moments_are_those_of_all_rows(offset):
    """A large mean costs no digits, from the first batch on."""
    x, y = random(30, 4), random(30, 3, seed=1)
    moments, cross = Moments(), CrossMoments()
    for part in torch.arange(30).split(10):
        rows_x, rows_y = Rows.of(x[part] + offset), Rows.of(y[part] - offset)
        moments = moments.pooled(rows_x.moments())
        cross = cross.pooled(rows_x.cross(rows_y))
    whole_x, whole_y = Rows.of(x), Rows.of(y)
    expected = whole_x.moments().scatter, whole_x.cross(whole_y).scatter, x.mean(0) + offset
    found = moments.scatter, cross.scatter, moments.mean
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
