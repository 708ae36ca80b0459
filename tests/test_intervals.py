"""Score tests and intervals: brute-force likelihoods, scipy and statistics of simulated predictions as oracles."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

from src.verdict.intervals import (
    ALPHA,
    are_independent,
    holm,
    images_needed,
    moderated,
    of_difference,
    of_share,
)

COUNTS = [(10, 3, 100), (0, 0, 50), (5, 0, 40), (0, 4, 30), (30, 25, 360)]  # lost, won, images


def penalty(lost: int, won: int, n: int):
    """The evidence of one stitch that loses and wins so many images against the end network."""
    end = (np.arange(n) < lost) | (np.arange(n) >= lost + won)
    return of_difference([end[None]], [(np.arange(n) >= lost)[None]])


def likelihood_variance(lost: int, won: int, n: int, difference: float) -> float:
    """The variance of one image's difference at the most likely shares under a given difference."""

    def loss(share_won: float) -> float:
        shares = {share_won + difference: lost, share_won: won, 1 - 2 * share_won - difference: n - lost - won}
        return -sum(count * math.log(max(share, 1e-300)) for share, count in shares.items())

    bounds = max(0, -difference) + 1e-12, (1 - difference) / 2 - 1e-12
    share = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return 2 * share + difference * (1 - difference)


@pytest.mark.parametrize("counts", COUNTS)
def test_a_penalty_is_tested_by_tangos_score(counts):
    evidence = penalty(*counts)
    assert evidence.value == pytest.approx((counts[0] - counts[1]) / counts[2])
    for limit in (-0.2, -0.05, 0.05, 0.1, 0.3):
        z = (evidence.value - limit) / math.sqrt(likelihood_variance(*counts, limit) / counts[2])
        assert evidence.p_below(limit) == pytest.approx(stats.norm.cdf(z), abs=1e-5)
        assert evidence.p_above(limit) == pytest.approx(stats.norm.sf(z), abs=1e-5)
    low, high = evidence.interval()
    assert low < evidence.value < high
    assert evidence.p_above(low) == pytest.approx(ALPHA) and evidence.p_below(high) == pytest.approx(ALPHA)


def test_at_no_difference_the_test_is_mcnemars():
    z = (10 - 3) / math.sqrt(10 + 3)
    assert penalty(10, 3, 100).p_above(0) == pytest.approx(stats.norm.sf(z))
    assert penalty(0, 0, 100).p_above(0) == penalty(0, 0, 100).p_below(0) == 0.5


def test_an_accuracy_has_wilsons_interval():
    for n_right, n in ((98, 100), (0, 40), (40, 40), (7, 20)):
        right = (np.arange(n) < n_right)[None]
        expected = stats.binomtest(n_right, n).proportion_ci(method="wilson")
        assert of_share([right]).interval() == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_variances_over_images_and_networks_add_up():
    rng = np.random.default_rng(0)
    end = [rng.random((1, 200)) < 0.9 for _ in range(4)]
    stitched = [rng.random((1, 200)) < accuracy for accuracy in (0.8, 0.7, 0.85, 0.6)]
    evidence, limit = of_difference(end, stitched), 0.1
    differences = np.stack([(one.astype(float) - other)[0] for one, other in zip(end, stitched, strict=True)])
    assert evidence[-3:] == pytest.approx((4, np.var(differences.mean(1), ddof=1), 3))
    images = evidence.variance_at(evidence.value)
    single = np.mean(differences**2) - differences.mean() ** 2  # of one run, at the mean itself
    assert images == pytest.approx(single / 200, rel=1e-6)
    over_images, over_networks = evidence.variance_at(limit), np.var(differences.mean(1), ddof=1) / 4
    z = (evidence.value - limit) / math.sqrt(over_images + over_networks)
    p = (over_images * stats.norm.cdf(z) + over_networks * stats.t.cdf(z, 3)) / (over_images + over_networks)
    assert evidence.p_below(limit) == pytest.approx(p)


def test_seeds_are_repetitions_of_one_pair_of_networks():
    rng = np.random.default_rng(0)
    end, stitched = rng.random((3, 300)) < 0.9, rng.random((3, 300)) < np.array([[0.8], [0.7], [0.6]])
    means = (end.astype(float) - stitched).mean(1)
    assert of_difference([end], [stitched])[-3:] == pytest.approx((3, np.var(means, ddof=1), 2))
    assert of_difference([end, end], [stitched, stitched])[-3:] == (2, 0, 1)  # of means over seeds


def test_variances_are_moderated_by_those_of_the_other_pairs():
    """By hand: three pairs of layers with 1, 1 and 2 degrees of freedom."""
    single = of_share([np.arange(10)[None] < 9])
    family = [single._replace(n_repetitions=n, variance=each, df=n - 1) for n, each in ((2, 0.02), (2, 0), (3, 0.01))]
    prior = (1 * 0.02 + 1 * 0 + 2 * 0.01) / 4
    expected = [(3 * prior + 0.02) / 4, 3 * prior / 4, (2 * prior + 2 * 0.01) / 4]  # others have 3, 3, 2
    found = moderated(family)
    assert [each.variance for each in found] == pytest.approx(expected) and [each.df for each in found] == [4, 4, 4]
    assert [each.df for each in moderated(family * 3)] == [5, 5, 6] * 3  # four at most
    assert moderated([family[0], single]) == [family[0], single]


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.7, 0.9]) == [1, 1]


def test_how_many_images_a_tolerance_needs():
    for tolerance, n_tests in ((0.05, 1), (0.05, 64), (0.01, 64)):
        n = images_needed(tolerance, n_tests)
        assert penalty(0, 0, n).p_below(tolerance) < ALPHA / n_tests <= penalty(0, 0, n - 1).p_below(tolerance)
        assert (1 - tolerance) ** n < ALPHA / n_tests
    assert math.isinf(images_needed(0, 1))


def test_pairs_that_share_a_network_are_not_independent():
    assert are_independent([("a", "b"), ("c", "d"), ("e", "e")])
    assert not are_independent([("a", "b"), ("b", "c")])
    assert not are_independent([("a", "b"), ("a", "b")])


@pytest.mark.parametrize("accuracy", [0.02, 0.5, 0.9, 0.99])
def test_the_interval_of_a_penalty_covers_the_truth(accuracy):
    """Also near 0 and 1, where percentiles of resamples cover 40 to 92 %."""
    rng, held = np.random.default_rng(0), []
    for _ in range(500):
        end = rng.random(360) < accuracy
        stitched = np.where(rng.random(360) < 0.95, end, rng.random(360) < 0.5)
        low, high = of_difference([end[None]], [stitched[None]]).interval()
        held.append(low <= 0.05 * (accuracy - 0.5) <= high)
    assert np.mean(held) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 360, 1000])
def test_rarely_is_any_of_64_pairs_at_the_tolerance_called_similar(n):
    """64 stitches of one end network, whose errors are correlated, and whose true penalty is the tolerance."""
    rng, tolerance, false = np.random.default_rng(n), 0.05, 0
    for _ in range(1000):
        end, shared = rng.random(n) < 0.95, rng.random(n) < 0.03
        lost = shared | (rng.random((64, n)) < (tolerance / 0.95 - 0.03) / 0.97)
        tests = [of_difference([end[None]], [(end & ~each)[None]]).p_below(tolerance) for each in lost]
        false += min(holm(tests)) < ALPHA
    assert false / 1000 <= 0.03


def false_similar(n_repetitions: int, n: int, deviation: float, *, n_families: int, n_pairs: int = 64) -> float:
    """How often any of many pairs is called similar, whose true penalties are the tolerance on average.

    Penalties of repetitions vary about it by up to the deviation, which differs between pairs.
    """
    rng, tolerance, won, false = np.random.default_rng(n_repetitions), 0.05, 0.04, 0
    deviations = np.linspace(deviation / 3, deviation, n_pairs)[:, None]
    for _ in range(n_families):
        lost = tolerance + won + deviations * rng.normal(size=(n_pairs, n_repetitions))
        shares = np.stack([lost.clip(0, 1), np.full_like(lost, won), 1 - won - lost.clip(0, 1)], -1)
        family = []
        for counts in rng.multinomial(n, shares):
            kinds = [np.repeat([0, 1, 2], each) for each in counts]  # lost, won and others of each repetition
            family.append(of_difference([(kind != 1)[None] for kind in kinds], [(kind != 0)[None] for kind in kinds]))
        false += min(holm([each.p_below(tolerance) for each in moderated(family)])) < ALPHA
    return false / n_families


def test_rarely_is_any_of_many_pairs_called_similar():
    assert false_similar(3, 1500, 0.03, n_families=20) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("n", [1500, 10_000])
@pytest.mark.parametrize("n_repetitions", [2, 3, 5])  # pairs of networks, or seeds
def test_error_rates_over_repetitions(n_repetitions, n):
    for deviation in (0.01, 0.03):
        assert false_similar(n_repetitions, n, deviation, n_families=300) <= 0.03
