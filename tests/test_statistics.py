"""The room of statistics: scipy and simulations as oracles. Score tests, κ, permutations of networks
and AUROC have files of their own."""

import math

import numpy as np
import pytest
from scipy import stats

from src.statistics.intervals import of_share, student_half_width, wilson_intervals
from src.statistics.jackknife import jackknife_variance
from src.statistics.permutations import permutation_p
from src.statistics.significance import false_discovery_rate, holm


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


def test_the_jackknife_of_a_ratio_is_its_variance_over_samples(rng):
    """A ratio of means, whose variance is not known by a formula."""
    samples = rng.normal(size=(2000, 2, 40)) + [[3.0], [5.0]]
    first, second = samples.sum(2).T[..., None]  # (2000, 1) each
    without = (first - samples[:, 0]) / (second - samples[:, 1])  # (2000, 40)
    variances = [jackknife_variance(of_sample) for of_sample in without]
    assert np.mean(variances) == pytest.approx(np.var(first / second), rel=0.1)


def test_permutation_p_by_hand():
    assert permutation_p(3.0, [1, 2, 3, 4]) == 3 / 5  # itself, 3 and 4
    assert permutation_p(0.1 + 0.2, [0.3, 0.0]) == 2 / 3  # equal up to rounding
    assert permutation_p(9.0, np.arange(9)) == 1 / 10
    assert math.isnan(permutation_p(math.nan, [1.0]))


def test_permutation_p_of_a_value_like_the_others_is_at_most_p_with_probability_p(rng):
    values = rng.normal(size=(4000, 20))
    p_values = np.array([permutation_p(value, others) for value, *others in values])
    assert set(np.round(20 * p_values)) == set(range(1, 21))
    for level in (0.05, 0.25, 0.5):
        deviation = math.sqrt(level * (1 - level) / 4000)
        assert abs((p_values <= level + 1e-9).mean() - level) < 4 * deviation


def test_the_false_discovery_rate_is_scipys(rng):
    for n in (1, 2, 30):
        p_values = rng.random(n) ** 3
        p_values[: n // 3] = p_values[0]  # ties
        expected = stats.false_discovery_control(p_values)
        assert false_discovery_rate(p_values).tolist() == np.atleast_1d(expected).tolist()
    assert false_discovery_rate([]).tolist() == []


def test_the_share_of_false_discoveries_is_that_of_the_level(rng):
    """Of 20 tests ten have an effect. Their level is 5 %, and half of it goes to the others."""
    shares = []
    for _ in range(2000):
        z = rng.normal(size=20) + np.repeat([0, 3], 10)
        is_positive = false_discovery_rate(stats.norm.sf(z)) <= 0.05
        shares.append(is_positive[:10].sum() / max(1, is_positive.sum()))
    assert np.mean(shares) == pytest.approx(0.025, abs=0.006)


def test_holm_by_hand():
    # 3·0.01, 2·0.02, 1·0.03 is below the one before
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
