"""The rules of the verdict on plain values: words by hand, tests of accuracy drops and of skill, many
pairs, runs and networks."""

import math

import numpy as np
import pytest
from scipy import stats

from src.core.values import SkillEstimate, StitchSkill
from src.results.stitches import metrics_of
from src.statistics.convergence import has_converged, learning_rates
from src.verdict import (
    ACCURATE_ONLY,
    INCONCLUSIVE,
    NOT_MATCHED,
    SIMILAR,
    Limits,
    Predictions,
    Stitches,
    judge,
    obstacle_of,
)
from tests.commands import says
from tests.result_rows import stitch_row
from tests.written_runs import LABELS, N
from tests.written_runs import predicted as right_about


def predicted(n_right: int, n_end_right: int = 950) -> Predictions:
    """The predictions of a stitch and an end network that are right about so many images."""
    return Predictions(right_about(n_right), LABELS, right_about(n_end_right), LABELS)


def place(skill: float, *, half_width: float = 0.04, baseline: float = 0.5) -> SkillEstimate:
    """The skill at a place, with an interval of 95 % of ± the half-width."""
    correlation = baseline + skill * (1 - baseline)
    return SkillEstimate(
        correlation, baseline, skill, skill - half_width, min(1, skill + half_width)
    )


def skill_of(
    output: float = 0.6,
    at_end: float = 0.5,
    *,
    n_images: int = 1000,
    n_classes: int = 10,
    rows: float = 50,
    **further: float,
) -> StitchSkill:
    places = place(at_end, **further), place(output, **further)
    return StitchSkill(*places, n_images, n_classes, 64, 1, rows)


def stitches(n_right: int, n_end_right: int = 950, skill=skill_of(), **further) -> Stitches:  # noqa: B008
    """A single run."""
    return Stitches.single(predicted(n_right, n_end_right), skill)._replace(**further)


def word_on(of_pair: Stitches, **limits) -> tuple[str, str]:
    (verdict,) = judge([of_pair], limits=Limits(**limits))
    return verdict.verdict, verdict.reason


@pytest.mark.parametrize(
    ("right", "skill", "limits", "expected", "words"),
    [
        ((945, 950), skill_of(), {}, SIMILAR, ["within a class"]),
        ((945, 950), skill_of(0.36), {}, INCONCLUSIVE, ["more test inputs"]),
        ((945, 950), skill_of(0.36), {"skill": 0.3}, SIMILAR, []),
        ((945, 950), skill_of(0.25), {}, ACCURATE_ONLY, ["at the output", "follow the class", "0.25"]),
        ((945, 950), skill_of(0.6, 0.05), {}, ACCURATE_ONLY, ["at the end layer", "do not follow", "0.05"]),
        ((945, 950), skill_of(0.6, 0.17), {}, INCONCLUSIVE, ["more test inputs"]),
        ((945, 950), None, {}, INCONCLUSIVE, ["not measured"]),
        ((945, 950), skill_of(math.nan), {}, INCONCLUSIVE, ["the output", "not finite"]),
        ((945, 950), skill_of(n_images=199), {}, INCONCLUSIVE, ["200", "199"]),
        ((945, 950), skill_of(rows=9.9), {}, INCONCLUSIVE, ["too few inputs for the baseline", "9.9"]),
        ((945, 950), skill_of(0.1, rows=9.9), {}, INCONCLUSIVE, ["too few inputs for the baseline"]),
        ((945, 950), skill_of(baseline=math.nan), {}, INCONCLUSIVE, ["no baseline", "not finite"]),
        # With two or three classes the end layer's limit is the output's
        ((945, 950), skill_of(0.6, 0.3), {}, SIMILAR, []),
        ((945, 950), skill_of(0.6, 0.2, n_classes=2), {}, ACCURATE_ONLY, ["at the end layer", "0.33"]),
        ((945, 950), skill_of(0.6, 0.2, n_classes=3), {}, ACCURATE_ONLY, ["at the end layer", "0.33"]),
        ((945, 950), skill_of(0.6, 0.21, n_classes=4), {}, SIMILAR, []),
        ((945, 950), skill_of(0.6, 0.3, n_classes=2), {"skill": 0.1}, SIMILAR, []),
        ((945, 950), skill_of(baseline=0.91), {}, INCONCLUSIVE, ["untrained features", "0.91"]),
        # r = 0.92, and 0.01: what random features reach may not be missed by far
        ((945, 950), skill_of(0.1, baseline=0.91), {}, INCONCLUSIVE, ["untrained features", "0.91"]),
        ((945, 950), skill_of(-10, baseline=0.91), {}, ACCURATE_ONLY, ["at the output", "0.01", "0.91"]),
        ((700, 950), skill_of(), {}, NOT_MATCHED, ["above the tolerance"]),
        ((700, 950), skill_of(), {"tolerance": 0.4}, SIMILAR, []),
        ((905, 950), skill_of(), {}, INCONCLUSIVE, ["either side of the tolerance", "more test inputs"]),
        ((949, 950), skill_of(), {"tolerance": 0.003}, INCONCLUSIVE, ["too few", "1277"]),
    ],
)  # fmt: skip
def test_the_rule(right, skill, limits, expected, words):
    verdict, reason = word_on(stitches(*right, skill), **limits)
    assert verdict == expected and says(reason, *words)


def test_similar_needs_both_intervals_above_their_limits_and_less_needs_half_the_level():
    half_width_of_half = 0.04 * stats.norm.ppf(1 - 0.0125) / 1.96
    for at_output in np.linspace(0.251, 0.451, 21):
        expected = INCONCLUSIVE
        if at_output - 0.04 > 0.33:
            expected = SIMILAR
        if at_output + half_width_of_half < 0.33:
            expected = ACCURATE_ONLY
        (verdict,) = judge([stitches(945, skill=skill_of(at_output))])
        assert verdict.verdict == expected
        assert verdict.skill == pytest.approx(
            (at_output, at_output - 0.04, at_output + 0.04), abs=1e-6
        )
        assert verdict.skill_at_end == pytest.approx((0.5, 0.46, 0.54), abs=1e-6)


@pytest.mark.parametrize(
    ("n_right", "n_end_right", "tolerance", "verdict"),
    [
        *((n, n_end, 0.05, INCONCLUSIVE) for n in (90, 100, 146) for n_end in (100, 146, 200, 223)),
        (228, 230, 0.05, SIMILAR),
        (178, 180, 0.02, SIMILAR),
    ],
)
def test_nothing_is_said_of_an_end_network_close_to_chance(
    n_right, n_end_right, tolerance, verdict
):
    """No stitch can lose the tolerance there: chance is 10 %, and twice the tolerance 10 points."""
    found, reason = word_on(stitches(n_right, n_end_right), tolerance=tolerance)
    assert found == verdict and ("close to chance" in reason) == (verdict == INCONCLUSIVE)
    assert ("train it longer" in reason) == (verdict == INCONCLUSIVE)


def test_results_without_predictions_are_to_be_stitched_again():
    """Those of the paper's code, for example."""
    (verdict,) = judge([Stitches([])])
    assert verdict.verdict == INCONCLUSIVE and "stitch again" in verdict.reason


def test_estimates_are_of_the_predictions():
    (verdict,) = judge([stitches(945)])
    assert (verdict.accuracy.value, verdict.accuracy_drop.value) == pytest.approx((0.945, 0.005))
    binomial = stats.binomtest(945, N)
    assert verdict.accuracy[1:] == pytest.approx(binomial.proportion_ci(method="wilson"), abs=1e-8)
    # Paired: five images differ
    assert 0 <= verdict.accuracy_drop.low < 0.005 < verdict.accuracy_drop.high < 0.02
    assert verdict.p_below < 1e-6 and verdict.p_above > 0.999


@pytest.mark.parametrize("n_right", [945, 905, 700, 110])
def test_what_leaves_nothing_to_say(n_right):
    """An untrained end network, an obstacle, an end network at chance; in this order."""
    obstacle = "the cutoff truncated the fit"
    assert word_on(stitches(n_right, obstacle=obstacle)) == (INCONCLUSIVE, obstacle)
    verdict, reason = word_on(stitches(n_right, 100, obstacle=obstacle))
    assert verdict == INCONCLUSIVE and "chance" in reason
    untrained = stitches(n_right, 100, obstacle=obstacle, is_end_trained=False)
    verdict, reason = word_on(untrained)
    assert verdict == INCONCLUSIVE and says(reason, "end network", "never trained")


def test_more_training_could_lower_a_accuracy_drop_only():
    assert word_on(stitches(945, has_converged=False))[0] == SIMILAR
    for n_right in (905, 700):
        verdict, reason = word_on(stitches(n_right, has_converged=False))
        assert verdict == INCONCLUSIVE and says(reason, "training had not converged: train longer")


def test_runs_on_other_test_images_are_not_judged_together():
    others = Predictions(LABELS, LABELS, LABELS, LABELS[::-1])
    for predictions in ([], [[predicted(945), others]]):
        (verdict,) = judge([Stitches(predictions)])
        assert (verdict.verdict, verdict.reason[:14]) == (INCONCLUSIVE, "no predictions")
        assert all(map(math.isnan, (verdict.p_below, *verdict.accuracy_drop, *verdict.skill)))


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
    assert [verdict.accuracy_drop for verdict in together[:5]] == [
        verdict.accuracy_drop for verdict in alone[:5]
    ]
    assert judge([]) == []


def test_an_interval_beside_the_tolerance_is_not_certain_among_many_pairs():
    """By itself the pair is not matched; beside nine that may be either it is inconclusive."""
    pair, unsure = stitches(884), stitches(905)
    assert judge([pair])[0].verdict == NOT_MATCHED
    verdict = judge([pair, *[unsure] * 9])[0]
    assert verdict.verdict == INCONCLUSIVE and verdict.accuracy_drop.low > 0.05
    assert "one side of the tolerance" in verdict.reason and "several pairs" in verdict.reason


def test_half_widths_over_images_and_over_networks_add_up():
    n_right = (950, 900, 850)
    skills = [[skill_of(value)] for value in (0.65, 0.6, 0.55)]
    (verdict,) = judge([Stitches([[predicted(n)] for n in n_right], skills)])
    of_networks = stats.t.ppf(0.975, 2) * 0.05 / math.sqrt(3)
    of_images = stats.norm.ppf(0.975) * math.sqrt(0.1 * 0.9 / N)
    assert verdict.accuracy.value == pytest.approx(0.9)
    assert verdict.skill == pytest.approx((0.6, 0.56 - of_networks, 0.64 + of_networks), abs=1e-3)
    assert 0.9 - verdict.accuracy.low == pytest.approx(of_networks + of_images, rel=0.1)


def test_a_front_that_is_much_worse_is_named():
    for accuracy, is_worse in ((0.86, True), (0.91, False)):
        pair = stitches(850, front_accuracy=accuracy, end_accuracy=0.95)
        verdict, reason = word_on(pair)
        assert verdict == NOT_MATCHED and ("front network alone" in reason) == is_worse


# Losses of stitches between two networks of the demo: the schedule, whether they had converged, and
# by how much the accuracy was higher after four times as many epochs at 0.01 by cosine
REAL_LOSSES = {
    "constant 1e-6": ({}, False, [2.421, 2.42, 2.42, 2.419, 2.418, 2.418, 2.417, 2.417, 2.416, 2.416, 2.415, 2.414,
                                  2.414, 2.413, 2.413, 2.412, 2.412, 2.411, 2.41, 2.41]),  # 0.54
    "constant 1e-4": ({}, False, [10.01, 6.907, 4.869, 3.405, 2.372, 1.741, 1.362, 1.092, 0.8883, 0.7614, 0.6859,
                                  0.6287, 0.5811, 0.5373, 0.4946, 0.4514, 0.4081, 0.3698, 0.3368, 0.3107]),  # 0.04
    "constant 0.01": ({}, True, [1.853, 0.8178, 0.5861, 0.514, 0.4681, 0.4445, 0.4262, 0.4197, 0.409, 0.3847, 0.38,
                                 0.3701, 0.3715, 0.3622, 0.3508, 0.3631, 0.3549, 0.3565, 0.3453, 0.3505]),  # 0.01
    "cosine 1e-4": ({"scheduler": "cosine"}, False,
                    [3.264, 2.707, 2.313, 1.998, 1.743, 1.533, 1.358, 1.219, 1.11, 1.027, 0.9625, 0.9135, 0.877,
                     0.8494, 0.8294, 0.8151, 0.8056, 0.7997, 0.7965, 0.7953]),  # 0.16
    "cosine 0.01": ({"scheduler": "cosine"}, False,
                    [2.237, 1.868, 1.658, 1.487, 1.353, 1.255, 1.175, 1.122, 1.076, 1.033, 0.9973, 0.9764, 0.9536,
                     0.9373, 0.9258, 0.9181, 0.9117, 0.9079, 0.9055, 0.9046]),  # 0.10
    "cosine 0.01, the first and each fourth of 80 epochs": ({"scheduler": "cosine"}, True,
                    [1.853, 0.4201, 0.3699, 0.3636, 0.3477, 0.3296, 0.3213, 0.311, 0.3055, 0.3019, 0.3057, 0.2933,
                     0.293, 0.2897, 0.2869, 0.2874, 0.2842, 0.2831, 0.2826, 0.2824]),
    "steps": ({"reduce_lr_epochs": [10, 15]}, False,
              [2.237, 1.868, 1.655, 1.479, 1.339, 1.233, 1.145, 1.085, 1.027, 0.9781, 0.934, 0.9282, 0.9233, 0.9195,
               0.9149, 0.912, 0.9114, 0.9109, 0.9104, 0.91]),  # 0.10
}  # fmt: skip
LOSSES = [
    ([2, 1.0], False), ([2, 1, 0.99], True), ([1] * 5 + [0.9] * 5, True), ([1], False), ([], True),
    # Hardly begun: it falls by less than 2 %, and as fast as before
    ([2.40, 2.39, 2.38, 2.37, 2.36, 2.35, 2.34, 2.33, 2.32, 2.31], False),
    # Near 0: it falls by a large share of itself, and by little of its whole fall
    ([2.3, 1, 0.3, 0.1, 0.05, 0.04, 0.033, 0.0325, 0.032, 0.0315], True),
    ([50, 5, 1, 0.6, 0.4], False),  # near 0 beside the first loss only
    # It was at its end from the start, or rose
    ([0.5] * 10, True), ([0.5, 0.6, 0.7, 0.7, 0.7, 0.7], True),
    ([0.5, 0.499, 0.4985, 0.498, 0.4972], False),
    ([3, 2, 1, 0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.70], False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "is_done", "losses"),
    [*REAL_LOSSES.values(), *(({}, is_done, losses) for losses, is_done in LOSSES)],
)
def test_a_training_has_converged_where_its_loss_hardly_falls_for_the_rate_it_has(
    schedule, is_done, losses
):
    """A decaying learning rate flattens every loss."""
    assert has_converged(losses, learning_rates(len(losses), **schedule)) is is_done


FEW = {"r2_fit": 0.9, "r2_test": 0.5}


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ({"front_nondeterminism": "random"}, "the front network is stochastic"),
        ({"end_nondeterminism": "batch"}, "the end network depends on the batch"),
        ({"end_is_cut": False}, "inside a block"),
        ({"truncated": True}, "truncated the fit"),
        ({"truncated": True, "n_epochs": 1}, ""),  # training mends a truncated start
        ({"truncated": False}, ""),
        (FEW, "too few fitting samples"),
        (FEW | {"front_stitch_rank": 4, "front_pinv_rank": 4}, "too few fitting samples"),
        (FEW | {"front_stitch_rank": 4}, ""),  # which lowers R² as well
        (FEW | {"n_epochs": 1}, ""),
    ],
)
def test_obstacles(measured, said):
    """The second of two stitches that are judged together has it."""
    rows = [stitch_row(n_epochs=0), stitch_row(**{"n_epochs": 0} | measured)]
    found = obstacle_of(list(map(metrics_of, rows)), "pinv")
    assert said in found and bool(found) == bool(said)
