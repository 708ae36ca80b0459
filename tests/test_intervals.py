"""Score tests and intervals: brute-force likelihoods, scipy, loops and simulated predictions as oracles."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

from src.verdict.intervals import (
    ALPHA,
    Evidence,
    holm,
    images_needed,
    moderated,
    of_difference,
    of_penalty,
    of_ratio,
    of_share,
)


def penalty(lost: int, won: int, n: int) -> Evidence:
    """The evidence of one stitch that loses and wins so many images against the end network."""
    end = (np.arange(n) < lost) | (np.arange(n) >= lost + won)
    return of_difference([end[None]], [(np.arange(n) >= lost)[None]])


def ratio_of(both: int, only_top: int, only_bottom: int, n: int) -> Evidence:
    """The evidence on the ratio of two shares that have so many images."""
    cells = np.repeat([0, 1, 2, 3], [both, only_top, only_bottom, n - both - only_top - only_bottom])
    return of_ratio([(cells <= 1)[None]], [np.isin(cells, (0, 2))[None]])


def least(loss, low: float, high: float) -> float:
    return minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x


def negative_log(counts, shares) -> float:
    return -sum(count * math.log(max(share, 1e-300)) for count, share in zip(counts, shares, strict=True))


@pytest.mark.parametrize("counts", [(10, 3, 100), (0, 0, 50), (5, 0, 40), (0, 4, 30), (30, 25, 360)])
def test_a_penalty_is_tested_by_tangos_score(counts):
    """Its variance is that of the most likely shares under the limit, found by search."""
    evidence, (lost, won, n) = penalty(*counts), counts
    assert evidence.value == pytest.approx((lost - won) / n)
    for limit in (-0.2, -0.05, 0.05, 0.1, 0.3):

        def loss(share: float, limit: float = limit) -> float:
            return negative_log((lost, won, n - lost - won), (share + limit, share, 1 - 2 * share - limit))

        share = least(loss, max(0, -limit) + 1e-12, (1 - limit) / 2 - 1e-12)
        z = (evidence.value - limit) / math.sqrt((2 * share + limit * (1 - limit)) / n)
        assert evidence.p_below(limit) == pytest.approx(stats.norm.cdf(z), abs=1e-5)
        assert evidence.p_above(limit) == pytest.approx(stats.norm.sf(z), abs=1e-5)
    low, high = evidence.interval()
    assert low < evidence.value < high
    assert evidence.p_above(low) == pytest.approx(ALPHA) and evidence.p_below(high) == pytest.approx(ALPHA)


@pytest.mark.parametrize("counts", [(30, 10, 40, 200), (0, 3, 20, 100), (5, 0, 0, 60), (0, 0, 30, 360), (12, 9, 0, 90)])
@pytest.mark.parametrize("ratio", [0.2, 0.8, 1.0, 1.7])
def test_a_ratio_is_tested_by_tangs_score(counts, ratio):
    evidence, (both, only_top, only_bottom, n) = ratio_of(*counts), counts
    either = (both + only_top + only_bottom) / n

    def shares(bottom_alone: float) -> tuple[float, float, float]:
        overlap = (either - (1 + ratio) * bottom_alone) / ratio
        return overlap, either - overlap - bottom_alone, bottom_alone

    def loss(bottom_alone: float) -> float:
        return negative_log((both, only_top, only_bottom), shares(bottom_alone))

    overlap, top_alone, bottom_alone = shares(
        least(loss, max(0.0, either * (1 - ratio)) + 1e-13, either / (1 + ratio) - 1e-13)
    )
    variance = (overlap + top_alone) + ratio**2 * (overlap + bottom_alone) - 2 * ratio * overlap
    z = (both + only_top - ratio * (both + only_bottom)) / math.sqrt(n * variance)
    assert evidence.p_below(ratio) == pytest.approx(stats.norm.cdf(z), abs=2e-5)
    low, high = evidence.interval()
    assert low == 0 or evidence.p_above(low) == pytest.approx(ALPHA)
    assert math.isinf(high) or evidence.p_below(high) == pytest.approx(ALPHA)


def test_limits_of_ratios():
    same, none, undefined = ratio_of(20, 0, 0, 100), ratio_of(0, 0, 30, 360), ratio_of(0, 10, 0, 100)
    assert same.value == 1 and same.interval()[0] <= 1 <= same.interval()[1]
    assert none.value == none.interval()[0] == 0 and 0 < none.interval()[1] < 0.15
    assert math.isnan(undefined.value) and undefined.interval()[1] == math.inf


def test_an_accuracy_has_wilsons_interval():
    for n_right, n in ((98, 100), (0, 40), (40, 40), (7, 20)):
        right = (np.arange(n) < n_right)[None]
        expected = stats.binomtest(n_right, n).proportion_ci(method="wilson")
        assert of_share([right]).interval() == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_ratios_are_of_means_over_networks():
    """Which count alike, however many runs each has: a loop over images."""
    rng = np.random.default_rng(0)
    top, bottom = ([rng.random((n_runs, 400)) < share for n_runs in (1, 2)] for share in (0.2, 0.4))

    def share(values: list[np.ndarray]) -> float:
        means = [sum(int(image) for image in of_networks.ravel()) / of_networks.size for of_networks in values]
        return sum(means) / len(means)

    assert of_ratio(top, bottom).value == pytest.approx(share(top) / share(bottom), abs=1e-12)


def repeated(accuracies, n: int = 200) -> Evidence:
    """Penalties of several networks whose end is right about 90 %."""
    rng = np.random.default_rng(0)
    end = [rng.random((1, n)) < 0.9 for _ in accuracies]
    return of_difference(end, [rng.random((1, n)) < accuracy for accuracy in accuracies])


def test_variances_over_images_and_networks_add_up():
    evidence, limit = repeated((0.8, 0.7, 0.85, 0.6)), 0.1
    over_images, over_networks = evidence.variance_at(limit), evidence.variance / 4
    z = (evidence.value - limit) / math.sqrt(over_images + over_networks)
    assert evidence.p_below(limit) == pytest.approx(stats.t.cdf(z, 3))  # alone: its variance may be too small
    p = (over_images * stats.norm.cdf(z) + over_networks * stats.t.cdf(z, 7)) / (over_images + over_networks)
    assert evidence._replace(prior_df=4.0).p_below(limit) == pytest.approx(p)


def test_seeds_are_repetitions_of_one_pair_of_networks():
    rng = np.random.default_rng(0)
    end, stitched = rng.random((3, 300)) < 0.9, rng.random((3, 300)) < np.array([[0.8], [0.7], [0.6]])
    differences = end.astype(float) - stitched
    seeds, networks = of_difference([end], [stitched]), of_difference([end, end], [stitched, stitched])
    assert (seeds.n_repetitions, seeds.variance, seeds.df) == pytest.approx((3, np.var(differences.mean(1), ddof=1), 2))
    assert (networks.n_repetitions, networks.variance, networks.df) == (2, 0, 1)  # of means over seeds
    single = np.mean(differences**2) - differences.mean() ** 2  # the variance over images is that of one run
    assert seeds.variance_at(seeds.value) == pytest.approx(single / 300, rel=1e-6)


def test_variances_are_moderated_by_those_of_the_other_pairs():
    """By hand: three pairs of layers with 1, 1 and 2 degrees of freedom; a quarter of the others' counts."""
    single = of_share([np.arange(10)[None] < 9])
    family = [single._replace(n_repetitions=n, variance=each) for n, each in ((2, 0.02), (2, 0), (3, 0.01))]
    prior = (1 * 0.02 + 1 * 0 + 2 * 0.01) / 4
    expected = [(0.75 * prior + 0.02) / 1.75, 0.75 * prior / 1.75, (0.5 * prior + 2 * 0.01) / 2.5]
    found = moderated(family)
    assert [each.variance for each in found] == pytest.approx(expected)
    assert [each.df for each in found] == [1.75, 1.75, 2.5]
    assert [each.df for each in moderated(family * 6)] == [5, 5, 6] * 6  # four at most
    assert moderated([family[0], single]) == [family[0], single]


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.7, 0.9]) == [1, 1]


def test_how_many_images_a_tolerance_needs():
    for tolerance, n_tests in ((0.05, 1), (0.05, 64), (0.01, 64)):
        n = images_needed(tolerance, n_tests)
        assert penalty(0, 0, n).p_below(tolerance) < ALPHA / n_tests <= penalty(0, 0, n - 1).p_below(tolerance)
    assert math.isinf(images_needed(0, 1))


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


def coverage(n: int, beta: float, *, disagreement: float, n_draws: int) -> float:
    """How often the interval of 1 − β holds the truth; some images are hard for both stitches."""
    rng, held = np.random.default_rng(n), 0
    stitched = (1 - beta) * disagreement
    both = 0.6 * min(stitched, disagreement)
    shares = both, stitched - both, disagreement - both
    for counts in rng.multinomial(n, [*shares, 1 - sum(shares)], n_draws):
        low, high = ratio_of(*counts[:3], n).interval()
        held += low <= 1 - beta <= high
    return held / n_draws


@pytest.mark.parametrize(
    ("n", "beta"),
    [(100, 0.9), *(pytest.param(n, beta, marks=pytest.mark.slow) for n in (360, 1500) for beta in (-0.2, 0.0, 0.6))],
)
def test_the_interval_of_beta_covers_the_truth(n, beta):
    for disagreement in (0.15, 0.4):  # at 0.15 few images disagree
        assert 0.92 <= coverage(n, beta, disagreement=disagreement, n_draws=500) <= 0.98


def false_similar(n_repetitions: int, n: int, deviation: float, *, n_pairs: int, n_draws: int, shared: float = 0):
    """How often any of many pairs is called similar, whose true penalties are the tolerance on average.

    Penalties of repetitions vary about it by up to the deviation, which differs between pairs of layers; a share of the
    variance is common to all of them.
    """
    rng, tolerance, won, false = np.random.default_rng(n_repetitions), 0.05, 0.04, 0
    deviations = np.linspace(deviation / 3 if n_pairs > 1 else deviation, deviation, n_pairs)[:, None]
    for _ in range(n_draws):
        own, common = rng.normal(size=(n_pairs, n_repetitions)), rng.normal(size=n_repetitions)
        varied = math.sqrt(1 - shared) * own + math.sqrt(shared) * common
        lost = (tolerance + won + deviations * varied).clip(0, 1 - won)
        counts = rng.multinomial(n, np.stack([lost, np.full_like(lost, won), 1 - won - lost], -1))
        family = moderated([of_penalty(*each.T[:2, :, None] / n, n_images=n) for each in counts])
        false += min(holm([each.p_below(tolerance) for each in family])) < ALPHA
    return false / n_draws


@pytest.mark.parametrize("n_pairs", [1, 4])
def test_rarely_is_any_of_few_pairs_called_similar(n_pairs):
    """Where the variance over two repetitions is small by chance, Student's t alone knows how small it may be."""
    assert false_similar(2, 10_000, 0.03, n_pairs=n_pairs, n_draws=1000) <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize("n_repetitions", [2, 3, 5])  # pairs of networks, or seeds
@pytest.mark.parametrize(("n_pairs", "n_draws"), [(1, 3000), (3, 2000), (17, 400), (64, 100)])
def test_error_rates_over_repetitions(n_repetitions, n_pairs, n_draws):
    for n, deviation, shared in itertools.product((1500, 10_000), (0.01, 0.03), (0, 0.5)):
        false = false_similar(n_repetitions, n, deviation, n_pairs=n_pairs, n_draws=n_draws, shared=shared)
        assert false <= 0.03
