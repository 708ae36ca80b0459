"""The rules of the verdict on plain values: words by hand, Wilson's and Tango's tests, many pairs,
runs and networks, and controls."""

import math

import numpy as np
import pytest
from scipy import stats

from src.verdict import (
    LOST,
    NOT_MATCHED,
    SIMILAR,
    UNDECIDED,
    Limits,
    Predictions,
    Stitches,
    compare_with_controls,
    judge,
    kappa_within,
)
from tests.commands import says

N, N_CLASSES = 1000, 10
LABELS = np.arange(N) % N_CLASSES
IDENTIFIED = {"y": 0.99, "z": 0.97, "output": 0.95}

ABOVE = NOT_MATCHED, "the penalty is above the tolerance"
UNKNOWN = UNDECIDED, "accurate, but identification was not measured"
NOT_FINITE = UNDECIDED, "accurate, but the activations at z are not finite"
WELL = SIMILAR, "accurate, and images are identified all the way"
UNSURE = (
    UNDECIDED,
    "accurate, but images may or may not be identified all the way: give more test images",
)
LOST_AT_Y = LOST, "accurate, but the image is lost at y"
LOST_AT_Z = LOST, "accurate, but the image is lost at z"
EITHER = UNDECIDED, "the penalty may lie on either side of the tolerance: give more test images"


def right_about(n_right: int) -> np.ndarray:
    """Classes that are right on the first images, and on the others the next class."""
    return np.where(np.arange(N) < n_right, LABELS, (LABELS + 1) % N_CLASSES)


def predicted(n_right: int, n_end_right: int = 950) -> Predictions:
    """The predictions of a stitch and an end network that are right about so many images."""
    return Predictions(right_about(n_right), LABELS, right_about(n_end_right), LABELS)


def stitches(n_right: int, n_end_right: int = 950, shares=IDENTIFIED, **further) -> Stitches:
    """A single run that identifies shares of 1,000 images along the way."""
    single = Stitches.single(predicted(n_right, n_end_right), shares, n_identified=1000)
    return single._replace(**further)


def word_on(of_pair: Stitches, **limits) -> tuple[str, str]:
    (verdict,) = judge([of_pair], limits=Limits(**limits))
    return verdict.word, verdict.reason


def on_the_way(at_z: float, *, at_end: float = 0.99) -> dict[str, float]:
    """Shares of identified images at the end layer y, at z and at the output."""
    return {"y": at_end, "z": at_z, "output": 0.9}


@pytest.mark.parametrize(
    ("right", "identified", "limits", "expected"),
    [
        ((945, 950), IDENTIFIED, {}, WELL),
        ((945, 950), on_the_way(0.76), {}, UNSURE),
        ((945, 950), on_the_way(0.76), {"identification": 0.7}, WELL),
        ((945, 950), on_the_way(0.70), {}, LOST_AT_Z),
        ((945, 950), on_the_way(0.70, at_end=0.66), {}, LOST_AT_Y),
        ((945, 950), on_the_way(0.70), {"identification": 0.72}, UNSURE),
        # The level of 0.025 is shared by three layers: Wilson's interval of 95 % ends below 0.75
        ((945, 950), on_the_way(0.72), {}, UNSURE),
        ((945, 950), {"y": 0.72}, {}, LOST_AT_Y),
        ((945, 950), {}, {}, UNKNOWN),
        ((945, 950), on_the_way(math.nan), {}, NOT_FINITE),
        ((700, 950), IDENTIFIED, {}, ABOVE),
        ((700, 950), IDENTIFIED, {"tolerance": 0.4}, WELL),
        ((905, 950), IDENTIFIED, {}, EITHER),
        ((949, 950), IDENTIFIED, {"tolerance": 0.003},
         (UNDECIDED, "1000 test images are too few for this tolerance: at least 1277 are needed")),
        ((110, 100), IDENTIFIED, {}, (UNDECIDED, "the end network is at chance")),
    ],
)  # fmt: skip
def test_the_rule(right, identified, limits, expected):
    assert word_on(stitches(*right, identified), **limits) == expected


def test_the_tests_along_the_way_are_wilsons():
    """Similar: every interval of 95 % lies above 0.75. Lost: one lies below it, at a third of the
    level, as there are three layers."""
    for n_right in range(690, 810, 3):
        binomial = stats.binomtest(n_right, N)
        low, high = binomial.proportion_ci(0.95, method="wilson")
        _, high_of_three = binomial.proportion_ci(1 - 0.05 / 3, method="wilson")
        expected = UNDECIDED
        if low > 0.75:
            expected = SIMILAR
        if high_of_three < 0.75:
            expected = LOST
        (verdict,) = judge([stitches(945, shares=on_the_way(n_right / N))])
        assert (verdict.word, verdict.lost_at) == (expected, "z")
        assert verdict.identification == pytest.approx((n_right / N, low, high), abs=1e-8)
        assert verdict.way["z"] == verdict.identification


def test_estimates_are_of_the_predictions():
    (verdict,) = judge([stitches(945)])
    assert (verdict.accuracy.value, verdict.penalty.value) == pytest.approx((0.945, 0.005))
    binomial = stats.binomtest(945, N)
    assert verdict.accuracy[1:] == pytest.approx(binomial.proportion_ci(method="wilson"), abs=1e-8)
    # Paired: five images differ
    assert 0 <= verdict.penalty.low < 0.005 < verdict.penalty.high < 0.02
    assert verdict.kappa_within == kappa_within(right_about(945), right_about(950), LABELS)
    assert verdict.p_below < 1e-6 and verdict.p_above > 0.999


@pytest.mark.parametrize("n_right", [945, 905, 700, 110])
def test_what_leaves_nothing_to_say(n_right):
    """An untrained end network, a flaw, an end network at chance; in this order."""
    flaw = "the cutoff truncated the fit"
    assert word_on(stitches(n_right, flaw=flaw)) == (UNDECIDED, flaw)
    at_chance = UNDECIDED, "the end network is at chance"
    assert word_on(stitches(n_right, 100, flaw=flaw)) == at_chance
    untrained = stitches(n_right, 100, flaw=flaw, is_end_trained=False)
    word, reason = word_on(untrained)
    assert word == UNDECIDED and says(reason, "end network", "never trained")


def test_more_training_could_lower_a_penalty_only():
    assert word_on(stitches(945, has_converged=False)) == WELL
    for n_right in (905, 700):
        word, reason = word_on(stitches(n_right, has_converged=False))
        assert word == UNDECIDED and says(reason, "training had not converged: train longer")


def test_a_front_that_is_much_worse_is_named():
    word, reason = word_on(stitches(850, front_accuracy=0.86, end_accuracy=0.95))
    assert word == NOT_MATCHED and says(reason, "front network alone", "9.0 points worse")
    assert word_on(stitches(850, front_accuracy=0.91, end_accuracy=0.95)) == ABOVE


def test_runs_on_other_test_images_are_not_judged_together():
    others = Predictions(LABELS, LABELS, LABELS, LABELS[::-1])
    for predictions in ([], [[predicted(945), others]]):
        (verdict,) = judge([Stitches(predictions)])
        assert (verdict.word, verdict.reason[:14]) == (UNDECIDED, "no predictions")
        assert all(map(math.isnan, (verdict.p_below, *verdict.penalty, *verdict.identification)))


def test_pairs_of_one_call_are_tested_together():
    """By Benjamini and Hochberg; intervals are of one pair."""
    pairs = [stitches(n_right) for n_right in (900, 902, 950, 918, 700)]
    pairs.append(Stitches([]))
    together = judge(pairs)
    alone = judge(pairs, limits=Limits(pairwise=True))
    for name in ("p_below", "p_above"):
        p_values = [getattr(verdict, name) for verdict in alone[:5]]
        adjusted = [getattr(verdict, name) for verdict in together]
        assert adjusted[:5] == pytest.approx(stats.false_discovery_control(p_values))
        assert math.isnan(adjusted[5])
    assert alone[0].p_below > 0.02 and together[3].p_below > alone[3].p_below
    assert [verdict.penalty for verdict in together[:5]] == [
        verdict.penalty for verdict in alone[:5]
    ]
    assert judge([]) == []


def test_an_interval_beside_the_tolerance_is_not_certain_among_many_pairs():
    """By itself the pair is not matched; beside nine that may be either it is undecided."""
    pair, unsure = stitches(884), stitches(905)
    assert judge([pair])[0].word == NOT_MATCHED
    verdict = judge([pair, *[unsure] * 9])[0]
    assert verdict.word == UNDECIDED and verdict.penalty.low > 0.05
    assert "one side of the tolerance" in verdict.reason and "several pairs" in verdict.reason


def test_half_widths_over_images_and_over_networks_add_up():
    n_right = (950, 900, 850)
    shares = [np.array([share]) for share in (0.95, 0.9, 0.85)]
    (verdict,) = judge([Stitches([[predicted(n)] for n in n_right], {"y": shares}, 1000)])
    of_networks = stats.t.ppf(0.975, 2) * 0.05 / math.sqrt(3)
    of_images = stats.norm.ppf(0.975) * math.sqrt(0.1 * 0.9 / N)
    assert verdict.accuracy.value == pytest.approx(0.9)
    assert verdict.identification == pytest.approx(verdict.accuracy)
    assert 0.9 - verdict.accuracy.low == pytest.approx(of_networks + of_images, rel=0.1)


def test_runs_of_one_pair_of_networks_count_once():
    """Two networks with three runs each have the error of two networks."""
    runs = [[predicted(950)] * 3, [predicted(900)] * 3]
    single = [[predicted(950)], [predicted(900)]]
    (of_runs,), (of_single,) = judge([Stitches(runs)]), judge([Stitches(single)])
    assert of_runs.penalty == pytest.approx(of_single.penalty)


def test_the_control_counts_where_it_identifies_fewest(rng):
    stitch, other = (rng.random((3, 400)) < [[0.95], [0.7], [0.85]] for _ in "ab")
    control = rng.random((3, 400)) < [[0.9], [0.8], [0.6]]
    p_values = []
    for at_layer in (*stitch, *other):
        more = int((at_layer & ~control[2]).sum())
        fewer = int((~at_layer & control[2]).sum())
        p_values.append(stats.binomtest(more, more + fewer, alternative="greater").pvalue)
    compared = compare_with_controls([stitch * 1.0, other * 1.0], [control * 1.0] * 2)
    assert compared == pytest.approx((control[2].mean(), 3 * max(p_values)))


def test_a_layer_of_the_control_is_chosen_at_a_price(rng):
    """A stitch with one layer, as good as each of six layers of its control, is seldom called
    better; by the weakest layer alone it would be three times too often."""
    n_better = 0
    n_uncorrected = 0
    for _ in range(300):
        stitch = (rng.random((1, 400)) < 0.8) * 1.0
        control = (rng.random((6, 400)) < 0.8) * 1.0
        p_value = compare_with_controls([stitch], [control]).p_value
        n_better += p_value < 0.025
        n_uncorrected += p_value < 6 * 0.025
    assert n_better <= 12 < n_uncorrected
