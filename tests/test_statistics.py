"""The subpackage of statistics: scipy, likelihoods by search, sums of half-widths and simulations as oracles. κ,
permutations of networks and AUROC have files of their own."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize_scalar

from src.core.values import IntervalEstimate
from src.statistics.intervals import (
    ALPHA,
    Evidence,
    Repetitions,
    images_needed,
    of_accuracy_drop,
    of_difference,
    of_estimates,
    of_share,
    wilson_intervals,
)
from src.statistics.moments import CrossMoments, Moments, Rows
from src.statistics.permutation_tests import permutation_p
from src.statistics.resampling import Estimate, estimate, permuted_p
from src.statistics.significance import false_discovery_rate
from tests.goldens import random


@pytest.mark.parametrize(("n_right", "n"), [(98, 100), (0, 40), (40, 40), (7, 20)])
def test_wilsons_interval(n_right, n):
    """By scipy, and by inverting the test."""
    expected = stats.binomtest(n_right, n).proportion_ci(method="wilson")
    found, unknown = wilson_intervals([n_right / n, math.nan], [n, n])
    assert found == pytest.approx((n_right / n, *expected), abs=1e-4)
    assert found == pytest.approx(of_share([(np.arange(n) < n_right)[None]]).interval(), abs=1e-4)
    assert all(map(math.isnan, unknown))


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


def accuracy_drop(lost: int, won: int, n: int) -> Evidence:
    """The evidence of one stitch that loses and wins so many images against the end network."""
    end = (np.arange(n) < lost) | (np.arange(n) >= lost + won)
    return of_difference([end[None]], [(np.arange(n) >= lost)[None]])


def negative_log(counts, shares) -> float:
    return -sum(
        count * math.log(max(share, 1e-300)) for count, share in zip(counts, shares, strict=True)
    )


@pytest.mark.parametrize(
    "counts", [(10, 3, 100), (0, 0, 50), (5, 0, 40), (0, 4, 30), (30, 25, 360)]
)
def test_a_accuracy_drop_is_tested_by_tangos_score(counts):
    """Its variance is that of the most likely shares under the limit, found by search."""
    evidence, (lost, won, n) = accuracy_drop(*counts), counts
    assert evidence.value == pytest.approx((lost - won) / n)
    for limit in (-0.2, -0.05, 0.05, 0.1, 0.3):

        def loss(share: float, limit: float = limit) -> float:
            return negative_log(
                (lost, won, n - lost - won), (share + limit, share, 1 - 2 * share - limit)
            )

        bounds = max(0, -limit) + 1e-12, (1 - limit) / 2 - 1e-12
        share = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-13}).x
        z = (evidence.value - limit) / math.sqrt((2 * share + limit * (1 - limit)) / n)
        assert evidence.p_below(limit) == pytest.approx(stats.norm.cdf(z), abs=1e-5)
        assert evidence.p_above(limit) == pytest.approx(stats.norm.sf(z), abs=1e-5)
    _, low, high = evidence.interval()
    assert low < evidence.value < high
    assert evidence.p_above(low) == pytest.approx(ALPHA) and evidence.p_below(
        high
    ) == pytest.approx(ALPHA)


def test_half_widths_over_images_and_repetitions_add_up():
    """By the quantiles of scipy, at the ends of an interval and at the level of a p-value."""
    repetitions = Repetitions(5, 0.03)
    evidence = Evidence(0.1, 400, lambda limit: 4e-4 + limit**2 / 100, (-1, 1), repetitions)
    _, *ends = evidence.interval()
    of_repetitions = 0.03 / math.sqrt(5)
    for end in ends:
        images = 1.959964 * math.sqrt(evidence.variance_at(end))
        half_width = images + stats.t.isf(ALPHA, 4) * of_repetitions
        assert abs(end - 0.1) == pytest.approx(half_width, rel=1e-6)
    p = evidence.p_below(0.2)
    images = stats.norm.isf(p) * math.sqrt(evidence.variance_at(0.2))
    assert images + stats.t.isf(p, 4) * of_repetitions == pytest.approx(0.1)
    assert evidence.p_above(0.2) == pytest.approx(1 - p) and evidence.p_below(0.1) == 0.5


def test_networks_count_alike_and_seeds_are_repetitions_of_one_pair():
    rng = np.random.default_rng(0)
    end, stitched = (
        rng.random((3, 300)) < 0.9,
        rng.random((3, 300)) < np.array([[0.8], [0.7], [0.6]]),
    )
    differences = end.astype(float) - stitched
    seeds = of_difference([end], [stitched])
    networks = of_difference([end[:1], end], [stitched[:1], stitched])
    assert seeds.repetitions == pytest.approx((3, np.std(differences.mean(1), ddof=1)))
    means = [differences[0].mean(), differences.mean()]
    assert networks.value == pytest.approx(np.mean(means))
    assert networks.repetitions == pytest.approx((2, np.std(means, ddof=1)))
    single = (
        np.mean(differences**2) - differences.mean() ** 2
    )  # the variance over images is that of one run
    assert seeds.variance_at(seeds.value) == pytest.approx(single / 300, rel=1e-6)


def test_estimates_of_runs_are_put_together():
    """By the half-width of a run, and Student's over pairs of networks; runs of a pair count once."""
    runs = [
        [IntervalEstimate(0.9, 0.8, 1.0)],
        [IntervalEstimate(0.7, 0.6, 0.8), IntervalEstimate(0.8, 0.7, 0.9)],
    ]
    half_width = stats.t.isf(ALPHA, 1) * np.std([0.9, 0.75], ddof=1) / math.sqrt(2)
    evidence = of_estimates(runs, n_images=400)
    value, low, high = evidence.interval()
    assert (value, low) == pytest.approx((0.825, 0.725 - half_width), rel=1e-4)
    assert high == 1  # the highest that is possible
    alone = of_estimates([runs[0]], n_images=400).interval()
    assert alone == pytest.approx((0.9, 0.8, 1.0), abs=1e-4)
    undefined = IntervalEstimate(math.nan, math.nan, math.nan)
    assert all(map(math.isnan, of_estimates([runs[0], [undefined]], n_images=9).interval()))


def test_how_many_images_a_tolerance_needs():
    for tolerance in (0.05, 0.01):
        n = images_needed(tolerance)
        assert (
            accuracy_drop(0, 0, n).p_below(tolerance)
            < ALPHA
            <= accuracy_drop(0, 0, n - 1).p_below(tolerance)
        )
    assert math.isinf(images_needed(0))


def false_rates(
    n_repetitions: int, n: int, deviations, *, n_draws: int, correlation: float
) -> np.ndarray:
    """How often each layer is called below the tolerance, which is its true mean over networks.

    Args:
        deviations: of the accuracy drops of networks, one a layer.
        correlation: of the errors of networks and of images, which both move the accuracy drop.
    """
    rng = np.random.default_rng(n_repetitions)
    tolerance, won = 0.05, 0.04
    n_false = np.zeros(len(deviations))
    for _ in range(n_draws):
        shift = rng.normal()  # of the images at hand, common to all networks
        error_of_images = math.sqrt((2 * won + tolerance * (1 - tolerance)) / n)
        for layer, deviation in enumerate(deviations):
            networks = deviation * rng.normal(size=n_repetitions)
            networks += correlation * (
                deviation / math.sqrt(n_repetitions) * shift - networks.mean()
            )
            lost = (tolerance + won + networks + error_of_images * shift).clip(0, 1 - won)
            evidence = of_accuracy_drop(
                list(lost[:, None]), [np.array([won])] * n_repetitions, n_images=n
            )
            n_false[layer] += evidence.p_below(tolerance) < ALPHA
    return n_false / n_draws


@pytest.mark.parametrize(("n_repetitions", "correlation"), [(2, 0.0), (4, 1.0)])
def test_error_rates_over_repetitions_with_unequal_variances(n_repetitions, correlation):
    """One layer varies six times as much as the others; errors of networks and images may go
    together."""
    deviations = [0.03, 0.005, 0.005]
    rates = false_rates(n_repetitions, 1500, deviations, n_draws=1000, correlation=correlation)
    assert rates.max() <= 0.025 + 3 * math.sqrt(0.025 / 1000)


# ---- Scores over pairs of networks


def random_matrix(n: int, seed: int = 0) -> np.ndarray:
    """A symmetric matrix (n, n)."""
    upper = np.triu(np.random.default_rng(seed).random((n, n)), 1)
    return upper + upper.T


def correlation_of(matrix: np.ndarray, truth: np.ndarray):
    """The score of a measure: Pearson's correlation with the truth over pairs."""
    measured, true = (each[np.triu_indices(len(each), 1)] for each in (matrix, truth))

    def score(at, known):
        pairs = zip(at, known, strict=True)
        return np.array([np.corrcoef(measured[one], true[other])[0, 1] for one, other in pairs])

    return score


def test_scores_without_each_network_are_those_of_smaller_matrices():
    matrix, truth = random_matrix(8), random_matrix(8, 1)
    found = estimate(correlation_of(matrix, truth), 8)
    for i in range(8):
        left = np.ix_(*2 * [np.delete(np.arange(8), i)])
        smaller = estimate(correlation_of(matrix[left], truth[left]), 7)
        assert found.without_network[i] == pytest.approx(smaller.value, abs=1e-12)
    lacking = np.delete(np.arange(28), 5)[None]
    (expected,) = correlation_of(matrix, truth)(lacking, lacking)
    assert found.without_pair[5] == pytest.approx(expected, abs=1e-12)
    assert len(found.without_pair) == 28


def test_the_interval_of_a_mean_over_networks_is_students():
    values = np.array([3.0, 1, 4, 1, 5])
    without = np.array([np.delete(values, i).mean() for i in range(5)])
    found = Estimate(values.mean(), without, np.zeros(1))
    expected = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert found.interval() == pytest.approx(expected)
    few = Estimate(0.5, without[:3], np.zeros(1))
    assert all(map(math.isnan, few.interval()))


def test_p_values_are_shares_of_orders_of_networks(rng):
    matrix, truth = random_matrix(10), random_matrix(10, 1)
    pairs = np.arange(45)[None]
    (value,) = correlation_of(matrix, truth)(pairs, pairs)
    scores = []
    for _ in range(1000):
        order = rng.permutation(10)
        scores += [*correlation_of(matrix[np.ix_(order, order)], truth)(pairs, pairs)]
    found = permuted_p(correlation_of(matrix, truth), 10, 999)
    assert found == pytest.approx(np.mean(np.array(scores) >= value), abs=0.08)
    assert permuted_p(correlation_of(matrix, matrix), 10, 199) == 1 / 200
