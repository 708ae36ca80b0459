"""The rules of the verdict on plain values; verdicts on folders of runs: what is gathered of networks, seeds and
evaluations, and misc/verdict.py."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from src.core.values import Null, SkillEstimate, StitchSkill
from src.figures import pages, words
from src.results.frame import frame_of_records, judge_stitches
from src.results.run import write_logs
from src.results.stitches import EvaluationFiles, metrics_of
from src.results.tables import EVALUATIONS, SIMILARITIES, write_table
from src.statistics.convergence import has_converged, learning_rates
from src.statistics.intervals import of_share
from src.verdict import (
    ACCURATE_ONLY,
    INCONCLUSIVE,
    NOT_MATCHED,
    SIMILAR,
    VERDICTS,
    Limits,
    Predictions,
    Stitches,
    judge,
    obstacle_of,
)
from tests.commands import caption_of, error_line, names_in, read_csv, run, says
from tests.frames import rows_of
from tests.goldens import DATA
from tests.result_rows import similarity_row, stitch_row
from tests.written_runs import (
    LABELS,
    SKILL,
    N,
    predicted,
    runs_of,
    skill,
    write_evaluation,
    write_run,
    write_skill,
)


def predictions(n_right: int, n_end_right: int = 950) -> Predictions:
    """The predictions of a stitch and an end network that are right about so many images."""
    return Predictions(predicted(n_right), LABELS, predicted(n_end_right), LABELS)


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
    return Stitches.single(predictions(n_right, n_end_right), skill)._replace(**further)


def word_of(of_pair: Stitches, **limits) -> tuple[str, str]:
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
    verdict, reason = word_of(stitches(*right, skill), **limits)
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
    found, reason = word_of(stitches(n_right, n_end_right), tolerance=tolerance)
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
    assert word_of(stitches(n_right, obstacle=obstacle)) == (INCONCLUSIVE, obstacle)
    verdict, reason = word_of(stitches(n_right, 100, obstacle=obstacle))
    assert verdict == INCONCLUSIVE and "chance" in reason
    untrained = stitches(n_right, 100, obstacle=obstacle, is_end_trained=False)
    verdict, reason = word_of(untrained)
    assert verdict == INCONCLUSIVE and says(reason, "end network", "never trained")


def test_more_training_could_lower_a_accuracy_drop_only():
    assert word_of(stitches(945, has_converged=False))[0] == SIMILAR
    for n_right in (905, 700):
        verdict, reason = word_of(stitches(n_right, has_converged=False))
        assert verdict == INCONCLUSIVE and says(reason, "training had not converged: train longer")


def test_runs_on_other_test_images_are_not_judged_together():
    others = Predictions(LABELS, LABELS, LABELS, LABELS[::-1])
    for pairs in ([], [[predictions(945), others]]):
        (verdict,) = judge([Stitches(pairs)])
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
    (verdict,) = judge([Stitches([[predictions(n)] for n in n_right], skills)])
    of_networks = stats.t.ppf(0.975, 2) * 0.05 / math.sqrt(3)
    of_images = stats.norm.ppf(0.975) * math.sqrt(0.1 * 0.9 / N)
    assert verdict.accuracy.value == pytest.approx(0.9)
    assert verdict.skill == pytest.approx((0.6, 0.56 - of_networks, 0.64 + of_networks), abs=1e-3)
    assert 0.9 - verdict.accuracy.low == pytest.approx(of_networks + of_images, rel=0.1)


def test_a_front_that_is_much_worse_is_named():
    for accuracy, is_worse in ((0.86, True), (0.91, False)):
        pair = stitches(850, front_accuracy=accuracy, end_accuracy=0.95)
        verdict, reason = word_of(pair)
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


SCRIPT = "misc/verdict.py"
UNTRAINED = "- (resnet18, seed 0)"  # the name of a network that was never trained


def judged(*results, **options) -> list[SimpleNamespace]:
    return rows_of(judge_stitches(*results, **options))


def verdict_on(folder: Path, similarities=None, *, pool: bool = False, **limits) -> SimpleNamespace:
    (verdict,) = judged(runs_of(folder), similarities, limits=Limits(**limits), pool=pool)
    return verdict


def word_on(folder: Path, **options) -> tuple[str, str]:
    verdict = verdict_on(folder, **options)
    return verdict.verdict, verdict.reason


def remarks(verdicts) -> list[str]:
    """The remarks on a frame of verdicts."""
    return list(words.remarks(verdicts, Limits()))


def of_networks(front: str = "f.pt", end: str = "g.pt", **values) -> dict:
    return similarity_row(model1=front, model2=end, **values)


def test_similar_both_ways(tmp_path):
    """A pair and its way back; the same layer of one network has no way back."""
    back = {"front_model_path": "g.pt", "end_model_path": "f.pt"}
    write_run(tmp_path, "1", n_right=945)
    write_run(tmp_path, "2", n_right=945, front_layer="y", end_layer="x", **back)
    write_run(tmp_path, "3", n_right=945, front_layer="y")
    write_run(tmp_path, "4", n_right=500, front_layer="y", **back)
    write_run(tmp_path, "5", n_right=945, front_layer="w")
    write_run(tmp_path, "6", n_right=945, front_layer="y", front_model_path="g.pt")
    write_evaluation(tmp_path, dict.fromkeys("123456", 0.5))
    verdicts = judge_stitches(runs_of(tmp_path))
    both_ways = {(row.networks, *row.pair): row.both_ways for row in rows_of(verdicts)}
    assert both_ways == {
        ("f.pt → g.pt", "x", "y"): True,
        ("g.pt → f.pt", "y", "x"): True,
        ("f.pt → g.pt", "y", "y"): False,
        ("g.pt → f.pt", "y", "y"): False,
        ("f.pt → g.pt", "w", "y"): None,
        ("g.pt → g.pt", "y", "y"): None,
    }
    counted = words.counts(verdicts)
    line = dict(zip(counted.header, counted.lines[0], strict=True))
    assert line["similar both ways"] == "1 of 2"


def test_a_flaw_and_a_training_that_had_not_converged_are_read(tmp_path):
    """Their rules are tested on values, above."""
    fewer = {"r2_fit": 0.9, "r2_test": 0.5}
    write_run(tmp_path, "flawed", n_right=945, metrics=fewer, front_layer="a")
    options = {"init": "rand", "n_epochs": 2, "scheduler": "cosine"}
    for name, losses in (("b", (2.4, 2.39)), ("c", (2.4, 2.4))):
        folder = write_run(tmp_path, name, n_right=700, front_layer=name, **options)
        measured = {"train_acc": None, "val_acc": 0.5, "val_loss": 1.0}
        write_logs(folder, [{"train_loss": loss, **measured} for loss in losses])
    rows = judged(runs_of(tmp_path))
    reasons = {row.front_layer: (row.verdict, row.reason) for row in rows}
    assert reasons["a"][0] == INCONCLUSIVE and "too few fitting samples" in reasons["a"][1]
    assert reasons["b"][0] == INCONCLUSIVE and "not converged" in reasons["b"][1]
    assert reasons["c"][0] == NOT_MATCHED


def test_what_is_measured_of_a_pair(tmp_path):
    write_run(tmp_path, "1", n_right=945, stitching_type="v2c")
    write_evaluation(tmp_path, {"1": 0.6})
    write_evaluation(tmp_path, {"1": 0.9}, detector="mahalanobis")
    tables = [
        of_networks(cka=0.8, cka_debiased=0.7, nulls={"cka": Null(0.005, 0.3, 0.7)}),
        of_networks(cka=0.9),  # of several tables the last one counts
        of_networks(rank1=4, cka=0.1),
        of_networks(end="other.pt", cka=0.2),
        of_networks(cka=0.1, dataset="mnist"),
        of_networks(cka=0.2, model1_type="vit"),
    ]
    verdict = verdict_on(tmp_path, frame_of_records(tables))
    assert (verdict.method, *verdict.pair) == ("direct matching", "x", "y")
    assert verdict.stitching_type == "v2c" and verdict.seed_spread is None
    at_output, at_end = SKILL.output, SKILL.end_layer
    assert (verdict.correlation, verdict.baseline) == at_output[:2]
    assert (verdict.correlation_at_end, verdict.baseline_at_end) == at_end[:2]
    assert (verdict.skill, verdict.skill_low, verdict.skill_high) == pytest.approx(
        at_output[2:], abs=1e-4
    )
    found = (verdict.skill_at_end, verdict.skill_at_end_low, verdict.skill_at_end_high)
    assert found == pytest.approx(at_end[2:], abs=1e-4)
    assert verdict.accuracy == 0.945 and verdict.accuracy_drop == pytest.approx(0.005)
    assert verdict.accuracy_drop_low < 0.005 < verdict.accuracy_drop_high
    further = {
        "auroc_energy": 0.6,
        "auroc_mahalanobis": 0.9,
        "cka": 0.9,
        "cka_debiased": 0.7,
        "cka_p_value": 0.005,
        "cka_null_95": 0.3,
        "cka_calibrated": 0.7,
    }
    assert {name: getattr(verdict, name) for name in further} == pytest.approx(further)


def test_similarity_counts_both_ways(tmp_path):
    """Also where only one way was measured; of a measure that is not symmetric, each has its own."""
    write_run(tmp_path, "1", n_right=945)
    back = {"front_model_path": "g.pt", "end_model_path": "f.pt"}
    write_run(tmp_path, "2", n_right=945, front_layer="y", end_layer="x", **back)
    values = {"cka": 0.9, "mine": 0.3, "mine_reversed": 0.4}
    null = Null(0.005, 0.3, 0.7)
    table = of_networks(layer1="x", layer2="y", **values, nulls={"cka": null})
    forth, back = judged(runs_of(tmp_path), frame_of_records([table]))
    assert forth.cka == back.cka == 0.9
    assert forth.cka_p_value == back.cka_p_value == 0.005
    assert (forth.mine, back.mine) == (0.3, 0.4)

    measured = of_networks("g.pt", "f.pt", layer1="y", layer2="x", cka=0.8)
    forth, back = judged(runs_of(tmp_path), frame_of_records([measured, table]))
    assert (forth.cka, back.cka) == (0.9, 0.8)  # as measured that way


def test_accuracy_drops_of_one_method_and_of_networks_of_one_kind_are_tested_together(tmp_path):
    """Whatever the layers and the networks. Those of other data, types and untrained networks, whose accuracy drops
    are small as chance costs nothing, would change the p-values."""
    apart = {
        "data": {"dataset": "mnist"},
        "type": {"front_model_type": "resnet34"},
        "untrained": {"front_model_path": "-"},
        "untrained end": {"end_model_path": "-"},
        "untrained both": {"front_model_path": "-", "end_model_path": "-"},
        "own": {"front_model_path": "g.pt"},
    }
    for number in range(8):
        paths = {"front_model_path": f"f{number % 4}.pt"}
        write_run(tmp_path, str(number), n_right=900, front_layer=f"l{number}", **paths)
    for name, options in ({"good": {}} | apart).items():
        write_run(tmp_path, name, n_right=918, front_layer=name, **options)
    write_evaluation(tmp_path, {"good": 0.5})
    runs = runs_of(tmp_path)
    together = {row.front_layer: row for row in judged(runs)}
    alone = {row.front_layer: row for row in judged(runs, limits=Limits(pairwise=True))}
    assert alone["good"].verdict == SIMILAR and together["good"].verdict == INCONCLUSIVE
    family = [name for name in alone if name not in apart]
    adjusted = stats.false_discovery_control([alone[name].p_below for name in family])
    assert [together[name].p_below for name in family] == pytest.approx(adjusted)
    assert together["good"].p_below == pytest.approx(9 * alone["good"].p_below)
    assert (
        together["good"].accuracy_drop_high == alone["good"].accuracy_drop_high
    )  # intervals are of one pair
    for name in apart:
        assert together[name].p_below == alone[name].p_below
    controls = {name: row.control for name, row in together.items() if row.control}
    assert controls == {
        "untrained": "untrained",
        "untrained end": "untrained_end",
        "untrained both": "untrained_end",
    }


def test_an_end_network_that_was_never_trained_is_like_nothing(tmp_path, monkeypatch):
    """Of a low accuracy the output says so."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "untrained", "1", n_right=945, end_model_path="-")
    write_run(tmp_path / "weak", "1", n_right=278, n_end_right=280)
    for name in ("untrained", "weak"):
        write_evaluation(tmp_path / name, {"1": 0.5})
    assert verdict_on(tmp_path / "weak").verdict == SIMILAR
    (remark,) = remarks(judge_stitches(runs_of(tmp_path / "weak")))
    assert says(remark, "alone", "28 %")
    verdict, reason = word_on(tmp_path / "untrained")
    assert verdict == INCONCLUSIVE and says(reason, "end network", "never trained")


def test_independent_networks_are_taken_together_on_demand(tmp_path, capsys):
    """None that share a network, such as both directions of a pair, untrained front networks of two seeds,
    and controls."""
    n_right = {"f0.pt": 950, "f1.pt": 900, "f2.pt": 850}
    for front, n in n_right.items():
        paths = {"front_model_path": front, "end_model_path": front.replace("f", "g")}
        write_run(tmp_path / "apart", front, n_right=n, **paths)
    assert len(judged(runs_of(tmp_path / "apart"))) == 3
    assert says(capsys.readouterr().err, "direct matching", "3 pairs", "no network", "--pool")
    verdict = verdict_on(tmp_path / "apart", pool=True)
    assert (verdict.n_runs, verdict.n_networks, verdict.networks) == (3, 3, "3 pairs of networks")
    assert (verdict.verdict, verdict.seed_spread) == (INCONCLUSIVE, None)
    assert verdict.accuracy_drop == pytest.approx(0.05)
    of_networks = stats.t.ppf(0.975, 2) * 0.05 / math.sqrt(3)
    of_images = 1.96 * math.sqrt(0.05 * 0.95 / N)
    assert verdict.accuracy_drop_high - 0.05 == pytest.approx(of_networks + of_images, rel=0.1)

    networks = {
        ("f.pt", "g.pt", 0): "f.pt → g.pt",
        ("g.pt", "f.pt", 0): "g.pt → f.pt",
        ("-", "g.pt", 0): f"{UNTRAINED} → g.pt",
        ("-", "g.pt", 1): f"{UNTRAINED.replace('0', '1')} → g.pt",
        ("g.pt", "g.pt", 0): "g.pt → g.pt",
    }
    for number, (front, end, seed) in enumerate(networks):
        options = {
            "front_model_path": front,
            "end_model_path": end,
            "seed": seed,
            "front_layer": "y",
        }
        write_run(tmp_path / "shared", str(number), n_right=945, **options)
    write_evaluation(tmp_path / "shared", {"4": 0.5})
    verdicts = judge_stitches(runs_of(tmp_path / "shared"), pool=True)
    assert set(verdicts.networks) == {*networks.values()}
    assert [row.control for row in rows_of(verdicts)] == [
        None,
        None,
        "untrained",
        "untrained",
        "self",
    ]
    own, untrained = remarks(verdicts)
    assert says(own, "of 1 layers", "to themselves", " 1 are similar")
    assert says(untrained, "of 2 stitches", "never trained", " 0 are similar", "2 inconclusive")
    titles = [title for title, *_ in words.counts(verdicts).lines]
    assert says(titles[0], "direct matching", "both directions of 2 networks")
    assert says(titles[1], "direct matching", "2 pairs", "untrained front network")


def test_stitches_of_several_seeds_have_one_row(tmp_path, capsys):
    """It names their runs, so that what else was measured of them is found in other tables."""
    n_right = (950, 940, 900)
    for seed, n in enumerate(n_right):
        write_run(tmp_path, str(seed), n_right=n, seed=seed)
    write_evaluation(tmp_path, dict(zip("012", (0.5, 0.6, 0.7), strict=True)))
    verdict = verdict_on(tmp_path)
    assert (verdict.n_runs, verdict.n_networks, verdict.seed_spread) == (3, 1, pytest.approx(0.05))
    right = np.stack([predicted(n) == LABELS for n in n_right])
    found = (verdict.accuracy, verdict.accuracy_low, verdict.accuracy_high)
    assert found == pytest.approx(of_share([right]).interval())
    rows = read_csv(tmp_path / "evaluation.csv")
    auroc_of = {row["folder"]: float(row["auroc_energy"]) for row in rows}
    assert [auroc_of[name] for name in verdict.folders.split(";")] == [0.5, 0.6, 0.7]

    write_run(tmp_path, "3", n_right=945, seed=3)
    assert "not measured" in verdict_on(tmp_path, tolerance=0.2).reason  # of one of them
    assert says(capsys.readouterr().err, "1 of its 4 stitches", "not evaluated")
    write_skill(tmp_path, {"3": skill(0.0)})
    assert verdict_on(tmp_path).skill == pytest.approx((3 * 0.6 + 0) / 4)


def test_options_that_change_a_result_are_methods_and_no_repetitions(tmp_path, capsys):
    trained = {"init": "rand", "n_epochs": 3}
    write_run(tmp_path, "1", n_right=868, **trained, learning_rate=0.1)
    write_run(tmp_path, "2", n_right=26, **trained, learning_rate=1e-4)
    rows = judged(runs_of(tmp_path))
    assert "repeat" not in capsys.readouterr().err
    assert {row.method: row.accuracy for row in rows} == {
        "task loss matching (-lr 0.1)": 0.868,
        "task loss matching (-lr 0.0001)": 0.026,
    }


def test_a_run_counts_once_in_folders_that_overlap(tmp_path):
    for number in range(4):
        write_run(tmp_path / "results/dm", str(number), n_right=900, front_layer=f"l{number}")
    (tmp_path / "link").symlink_to(tmp_path / "results")
    for folders in (["results"], ["results", "results/dm"], ["results/dm", "link", "results/dm/"]):
        said = run(SCRIPT, *folders, "-o", "verdict.csv", cwd=tmp_path)
        assert "repeat" not in said.err and len(read_csv(tmp_path / "verdict.csv")) == 4


def test_a_copy_of_a_checkpoint_is_the_same_network(tmp_path, monkeypatch):
    """Of runs and of similarities; another checkpoint is another network, and so are randomly initialised weights
    of other seeds."""
    monkeypatch.chdir(tmp_path)
    for name in ("f.pt", "copy.pt", "g.pt", "other.pt"):
        (tmp_path / name).write_text("f" if name == "copy.pt" else name[0])
    untrained = {"front_model_path": "-", "end_model_path": "-", "seed": 1}
    write_run(tmp_path, "untrained", n_right=900, **untrained)
    for seed, front in enumerate(("./f.pt", "copy.pt", "other.pt")):
        write_run(tmp_path, str(seed), n_right=900, seed=seed, front_model_path=front)
    tables = [of_networks("-", "-", cka=seed, seed=seed) for seed in (1, 7)]
    tables.append(of_networks("copy.pt", f"{tmp_path}/g.pt", cka=0.8))
    rows = judged(runs_of(tmp_path), frame_of_records(tables))
    found = {row.front_network: (row.n_runs, getattr(row, "cka", None)) for row in rows}
    assert [*found.values()] == [(2, 0.8), (1, None), (1, 1)]


def test_what_is_missing_or_of_other_data_is_left_out(tmp_path, capsys):
    run_folder = write_run(tmp_path, "1", n_right=940, test_images_sha256="1" * 64)
    path = run_folder / "predictions.npz"
    write_evaluation(tmp_path, {"1": 0.5})
    files = EvaluationFiles(tmp_path)
    (row,) = files.read()
    for other in ({"dataset": "mnist"}, {"test_images": "0" * 12}):
        write_table(files.table, EVALUATIONS, [row | other])
        assert not runs_of(tmp_path)[0].evaluation
        assert says(capsys.readouterr().err, "evaluation", "skipped", "other data")
    path.write_bytes(path.read_bytes()[:100])
    assert "no predictions" in verdict_on(tmp_path).reason
    assert says(capsys.readouterr().err, "predictions.npz", "damaged")
    path.unlink()
    verdict = verdict_on(tmp_path)
    assert verdict.verdict == INCONCLUSIVE and "no predictions" in verdict.reason
    assert (verdict.accuracy, verdict.accuracy_low) == (0.94, None)
    assert verdict.accuracy_drop == pytest.approx(0.01)


def test_folders_of_the_public_code_are_read():
    verdicts = judged(runs_of(DATA / "public_runs" / "det"))
    assert {verdict.verdict for verdict in verdicts} == {INCONCLUSIVE}
    assert {verdict.accuracy_drop for verdict in verdicts} == {None}  # it keeps no end accuracy


def test_words_are_counted_and_equal_reasons_have_one_line(tmp_path):
    n_right_of_front = {"y": 945, "x": 945, "z": 500, "w": 905, "v": 945, "u": 945}
    for number, (front, n_right) in enumerate(n_right_of_front.items()):
        write_run(tmp_path, str(number), n_right=n_right, front_layer=front)
    write_skill(
        tmp_path, {name: skill(0.6) for name in "023"} | {"1": skill(0.1), "4": skill(0.05)}
    )
    rows = judge_stitches(runs_of(tmp_path))
    counted = words.counts(rows)
    line = dict(zip(counted.header, counted.lines[0], strict=True))
    assert [line[verdict] for verdict in VERDICTS] == ["1", "2", "1", "2"]
    assert (line["all"], line["similar at the same layer"]) == ("6", "1 of 1")
    assert len(words.reasons(rows)) == 3  # two have one reason, whatever the numbers
    (table,) = words.sign_maps(rows)
    assert "".join(str(table).split()[-12:]) == "u?vAw?xAySzN"


@pytest.fixture
def two_methods(tmp_path):
    """Folders of two methods at two layers."""
    for front in "xy":
        write_run(tmp_path / "dm", str(ord(front)), n_right=945, front_layer=front)
        write_run(tmp_path / "tlm", front, n_right=500, front_layer=front, init="rand", n_epochs=3)
    write_evaluation(tmp_path / "dm", {"120": 0.5})
    write_table(tmp_path / "s.csv", SIMILARITIES, [of_networks(cka=0.5)])
    return tmp_path


def test_script_writes_table_sentences_and_maps(two_methods, drawn_figures, laid_out):
    given = ["dm", "tlm", "-sim", "s.csv", "-o", "out/v.csv"]
    out, err = run(SCRIPT, *given, cwd=two_methods)
    assert says(err, "tlm: skill", "not measured") and "dm: skill" not in err
    assert says(out, "x", "S N") and says(out, "y", "? N")
    _, text, _ = (two_methods / "out" / "v.md").read_text().split("```")
    *lines, answer = out.rstrip().splitlines()
    assert "\n".join(lines) == text.removeprefix("text\n").rstrip()
    assert says(
        answer, "Direct matching: 2 of 2 pairs", "similar: 1 (x → y); inconclusive: 1", "similar: 0"
    )
    assert len(lines) <= 40
    rows = read_csv(two_methods / "out" / "v.csv")
    assert [row["verdict"] for row in rows] == [SIMILAR, INCONCLUSIVE, NOT_MATCHED, NOT_MATCHED]
    assert [row["cka"] for row in rows[:2]] == ["0.5", ""]
    caption = caption_of(drawn_figures["v.png"])
    assert says(caption, "1 of 2 by direct matching", "0 of 2 by task loss matching")

    other = of_networks("other.pt", cka=0.5)
    write_table(two_methods / "t.csv", SIMILARITIES, [other])
    options = ["-o", "w.csv", "--skill", "0.59", "-sim", "t.csv"]
    out, err = run(SCRIPT, "dm", *options, cwd=two_methods)
    assert says(err, "-sim: no row", "these stitches") and "x -> y" not in out
    (cells,) = drawn_figures["w.png"].axes
    assert [text.get_text() for text in cells.texts] == ["0.5\n0.60", "0.5"]
    assert [row["verdict"] for row in read_csv(two_methods / "w.csv")] == [
        INCONCLUSIVE,
        INCONCLUSIVE,
    ]
    (two_methods / "empty").mkdir()
    assert says(error_line(SCRIPT, "empty", cwd=two_methods), "empty: no finished", "run")


def test_a_verdict_replaces_the_figures_of_the_verdict_before(two_methods, figures):
    """All of them, and no file of the user's, which may have the name of a page."""
    users = ["v_2.png", "v_2.pdf", "v_3.csv", "v_groups.csv"]
    for name in users:
        (two_methods / name).write_text("mine")
    run(SCRIPT, "dm", "tlm", "-o", "v.csv", cwd=two_methods)
    assert {"v.png", "v.pdf"} < names_in(two_methods)
    with pages.left_out():
        run(SCRIPT, "dm", "-o", "v.csv", cwd=two_methods)
    assert not {"v.png", "v.pdf"} & names_in(two_methods)
    assert {(two_methods / name).read_text() for name in users} == {"mine"}


def test_the_text_says_how_many_verdicts_hang_on_the_limits_of_skill(tmp_path):
    """Halved limits are 0.165 and 0.075, and those raised by half 0.495 and 0.225."""
    skills = {"a": (0.6, 0.5), "b": (0.25, 0.5), "c": (0.45, 0.5), "d": (0.6, 0.21), "e": (0.1, 0)}
    for name, values in skills.items():
        write_run(tmp_path, name, n_right=945, front_layer=name)
        write_skill(tmp_path, {name: skill(*values)})
    text = " ".join(run(SCRIPT, ".", "-o", "verdict.csv", cwd=tmp_path).out.split())
    assert (
        "Sensitivity to the limits of skill: of 5 verdicts, 1 would change if both limits were halved, and 2 if both "
        "were raised by half." in text
    )
    assert "were halved, and 2" in " ".join((tmp_path / "verdict.md").read_text().split())
