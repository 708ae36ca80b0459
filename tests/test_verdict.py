"""Verdicts on folders of runs: what is gathered of networks, seeds and evaluations, and
misc/verdict.py. The rules are tested on values, in test_judging.py."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from src.figures import pages, sections, words
from src.results.between_groups import values_of_verdicts
from src.results.evaluation_rows import EvaluationFiles, EvaluationRow, read_evaluations
from src.results.similarity_rows import SimilarityRow
from src.results.tables import write_table
from src.results.training_rows import EpochRow
from src.results.verdict_rows import VerdictRow
from src.results.verdicts import judge_stitches
from src.results.writing import write_logs
from src.statistics.intervals import of_share
from src.values import Null
from src.verdict import NOT_MATCHED, SIMILAR, UNDECIDED, VERDICTS, Limits
from tests.commands import caption_of, error_line, names_in, parse_matrix, read_csv, run, says
from tests.goldens import DATA
from tests.result_rows import similarity_row
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

SCRIPT = "misc/verdict.py"
ABOVE = NOT_MATCHED, "the penalty is above the tolerance"
FRESH = "- (resnet18, seed 0)"  # the name of a network that was never trained


def verdict_on(folder: Path, similarities=(), *, pool: bool = False, **limits) -> VerdictRow:
    (verdict,) = judge_stitches(runs_of(folder), similarities, limits=Limits(**limits), pool=pool)
    return verdict


def word_on(folder: Path, **options) -> tuple[str, str]:
    verdict = verdict_on(folder, **options)
    return verdict.verdict, verdict.reason


def remarks(verdicts: list[VerdictRow]) -> list[str]:
    return list(words.remarks(verdicts, Limits()))


def of_networks(front: str = "f.pt", end: str = "g.pt", **values) -> SimilarityRow:
    return similarity_row(model1=front, model2=end, **values)


UNKNOWN = UNDECIDED, "accurate, but skill was not measured"


def test_a_front_that_is_much_worse_is_not_matched(tmp_path):
    write_run(tmp_path, "1", n_right=850, metrics={"front_accuracy": 0.86})
    verdict = verdict_on(tmp_path)
    assert (verdict.verdict, verdict.front_accuracy) == (NOT_MATCHED, 0.86)
    assert len(remarks([verdict])) == 1


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
    both_ways = {(row.networks, *row.pair): row.both_ways for row in verdicts}
    assert both_ways == {
        ("f.pt → g.pt", "x", "y"): True,
        ("g.pt → f.pt", "y", "x"): True,
        ("f.pt → g.pt", "y", "y"): False,
        ("g.pt → f.pt", "y", "y"): False,
        ("f.pt → g.pt", "w", "y"): None,
        ("g.pt → g.pt", "y", "y"): None,
    }
    counted = words.counts(sections.sections_of(verdicts))
    line = dict(zip(counted.header, counted.lines[0], strict=True))
    assert line["similar both ways"] == "1 of 2"


TOO_FEW = (
    UNDECIDED,
    "matched on too few inputs: R² is much lower on the test inputs; match on more, unless test inputs are "
    "unlike the training inputs",
)
FEW = {"r2_matched": 0.9, "r2_test": 0.5}


@pytest.mark.parametrize(
    ("n_right", "options", "expected"),
    [(945, {}, TOO_FEW), (700, {}, TOO_FEW), (110, {"n_end_right": 300}, TOO_FEW),
     (700, {"front_stitch_rank": 4, "front_pinv_rank": 4}, TOO_FEW), (700, {"n_epochs": 1}, ABOVE),
     (700, {"front_stitch_rank": 4}, ABOVE)],
)  # fmt: skip
def test_nothing_is_said_of_a_stitch_matched_on_too_few_images(
    tmp_path, n_right, options, expected
):
    """The fit says so only of stitches that are as they were matched."""
    write_run(tmp_path, "1", n_right=n_right, metrics=FEW, **options)
    write_evaluation(tmp_path, {"1": 0.5})
    assert word_on(tmp_path) == expected


@pytest.mark.parametrize(
    ("side", "found", "text"),
    [
        ("front", "random", "the front network is random when it is evaluated"),
        ("end", "batch", "the end network depends on the batch when it is evaluated"),
    ],
)
def test_nothing_is_said_of_unsteady_networks(tmp_path, side, found, text):
    write_run(tmp_path, "1", n_right=940, metrics={f"{side}_unsteadiness": found})
    write_run(tmp_path, "2", n_right=940, seed=1)
    write_evaluation(tmp_path, {"1": 0.5, "2": 0.5})
    assert word_on(tmp_path) == (UNDECIDED, text)


@pytest.mark.parametrize(
    ("truncated", "n_epochs", "is_undecided"),
    [(True, 0, True), (True, 1, False), (False, 0, False), (None, 0, False)],
)
def test_a_truncated_fit_is_undecided(tmp_path, truncated, n_epochs, is_undecided):
    """Training mends a truncated start; the public code's runs do not say."""
    write_run(tmp_path, "1", n_right=945, metrics={"truncated": truncated}, n_epochs=n_epochs)
    write_evaluation(tmp_path, {"1": 0.99})
    word, reason = word_on(tmp_path)
    assert (word == UNDECIDED and says(reason, "truncated the fit: ", "exact")) == is_undecided


@pytest.mark.parametrize(
    ("losses", "is_done"), [([2, 1.0], False), ([2, 1, 0.99], True), ([1] * 5 + [0.9] * 5, True), ([1], False),
                            # Hardly begun: it falls by less than 2 %, and as fast as before
                            ([2.40, 2.39, 2.38, 2.37, 2.36, 2.35, 2.34, 2.33, 2.32, 2.31], False),
                            # Near 0: it falls by a large share of itself, and by little of its whole fall
                            ([2.3, 1, 0.3, 0.1, 0.05, 0.04, 0.033, 0.0325, 0.032, 0.0315], True),
                            ([50, 5, 1, 0.6, 0.4], False),  # near 0 beside the first loss only
                            # It was at its end from the start, or rose
                            ([0.5] * 10, True), ([0.5, 0.6, 0.7, 0.7, 0.7, 0.7], True),
                            ([0.5, 0.499, 0.4985, 0.498, 0.4972], False),
                            ([3, 2, 1, 0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.70], False)],
)  # fmt: skip
def test_training_that_had_not_converged(tmp_path, losses, is_done):
    assert_converged(tmp_path, losses, is_done)


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


@pytest.mark.parametrize(("schedule", "is_done", "losses"), REAL_LOSSES.values(), ids=REAL_LOSSES)
def test_a_decaying_learning_rate_flattens_every_loss(tmp_path, schedule, is_done, losses):
    assert_converged(tmp_path, losses, is_done, **schedule)


def assert_converged(tmp_path, losses, is_done, **schedule):
    """By the verdict on an inaccurate stitch."""
    options = {"init": "rand", "n_epochs": len(losses), **schedule}
    folder = write_run(tmp_path, "1", n_right=700, **options)
    write_logs(
        folder,
        [EpochRow(train_acc=None, train_loss=loss, val_acc=0.5, val_loss=1.0) for loss in losses],
    )
    word, reason = word_on(tmp_path)
    assert word == (NOT_MATCHED if is_done else UNDECIDED)
    assert ("not converged" in reason) is not is_done
    # More training could lower the penalty, and takes nothing from a stitch that is accurate
    assert word_on(tmp_path, tolerance=0.4) == UNKNOWN


def test_what_is_measured_of_a_pair(tmp_path):
    write_run(tmp_path, "1", n_right=945)
    write_evaluation(tmp_path, {"1": 0.6})
    write_evaluation(tmp_path, {"1": 0.9}, detector="knn")
    tables = [
        of_networks(values={"cka": 0.8, "cka_debiased": 0.7}, nulls={"cka": Null(0.005, 0.3, 0.7)}),
        of_networks(values={"cka": 0.9}),  # of several tables the last one counts
        of_networks(rank1=4, values={"cka": 0.1}),
        of_networks(end="other.pt", values={"cka": 0.2}),
        of_networks(values={"cka": 0.1}, dataset="mnist"),
        of_networks(values={"cka": 0.2}, model1_type="vit"),
    ]
    verdict = verdict_on(tmp_path, tables)
    assert (verdict.method, *verdict.pair) == ("direct matching", "x", "y")
    at_output, at_end = SKILL.output, SKILL.end_layer
    assert (verdict.correlation, verdict.floor) == at_output[:2]
    assert (verdict.correlation_at_end, verdict.floor_at_end) == at_end[:2]
    assert (verdict.skill, verdict.skill_low, verdict.skill_high) == pytest.approx(
        at_output[2:], abs=1e-4
    )
    found = (verdict.skill_at_end, verdict.skill_at_end_low, verdict.skill_at_end_high)
    assert found == pytest.approx(at_end[2:], abs=1e-4)
    assert verdict.accuracy == 0.945 and verdict.penalty == pytest.approx(0.005)
    assert (
        0 <= verdict.penalty_low < 0.005 < verdict.penalty_high < 0.02
    )  # paired: five images differ
    assert verdict.accuracy_high - verdict.accuracy_low > 2 * (
        verdict.penalty_high - verdict.penalty_low
    )
    assert verdict.p_below < 1e-6 < verdict.p_above
    further = {
        "auroc_energy": 0.6,
        "auroc_knn": 0.9,
        "cka": 0.9,
        "cka_debiased": 0.7,
        "cka_p_value": 0.005,
        "cka_null_95": 0.3,
        "cka_calibrated": 0.7,
    }
    assert verdict.further == pytest.approx(further)
    assert verdict.seed_spread is None


def test_similarity_counts_both_ways(tmp_path):
    """Also where only one way was measured; of a measure that is not symmetric, each has its own."""
    write_run(tmp_path, "1", n_right=945)
    back = {"front_model_path": "g.pt", "end_model_path": "f.pt"}
    write_run(tmp_path, "2", n_right=945, front_layer="y", end_layer="x", **back)
    values = {"cka": 0.9, "mine": 0.3, "mine_reversed": 0.4}
    null = Null(0.005, 0.3, 0.7)
    table = of_networks(layer1="x", layer2="y", values=values, nulls={"cka": null})
    forth, back = judge_stitches(runs_of(tmp_path), [table])
    assert forth.further["cka"] == back.further["cka"] == 0.9
    assert forth.further["cka_p_value"] == back.further["cka_p_value"] == 0.005
    assert (forth.further["mine"], back.further["mine"]) == (0.3, 0.4)

    measured = of_networks("g.pt", "f.pt", layer1="y", layer2="x", values={"cka": 0.8})
    forth, back = judge_stitches(runs_of(tmp_path), [measured, table])
    assert (forth.further["cka"], back.further["cka"]) == (0.9, 0.8)  # as measured that way


def test_the_false_discovery_rate_over_many_pairs(tmp_path):
    """Two good pairs among sixteen that are not; one alone would not be found, but is if tested by
    itself."""
    for i in range(16):
        write_run(tmp_path, str(i), n_right=900, front_layer=f"l{i}")
    write_run(tmp_path, "good", n_right=918, front_layer="x")
    write_run(
        tmp_path, "other", n_right=918, front_layer="z", dataset="mnist"
    )  # which is judged apart
    write_evaluation(tmp_path, {"good": 0.5})
    runs = runs_of(tmp_path)
    together = {row.front_layer: row for row in judge_stitches(runs)}
    alone = {row.front_layer: row for row in judge_stitches(runs, limits=Limits(pairwise=True))}
    assert alone["x"].verdict == SIMILAR and together["x"].verdict == UNDECIDED
    p_values = [row.p_below for row in alone.values() if row.front_layer != "z"]
    adjusted = stats.false_discovery_control(p_values)
    assert [row.p_below for row in together.values() if row.front_layer != "z"] == pytest.approx(
        adjusted
    )
    assert together["x"].p_below == pytest.approx(17 * alone["x"].p_below)
    assert together["x"].penalty_high == alone["x"].penalty_high  # intervals are of one pair
    assert together["z"].p_below == pytest.approx(alone["x"].p_below) and together[
        "z"
    ].method.endswith("=mnist)")


def test_an_end_network_that_was_never_trained_is_like_nothing(tmp_path, monkeypatch):
    """Also behind a head of exec_probe.py --with-head; of a low accuracy the output says so."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "fresh", "1", n_right=945, end_model_path="-")
    write_run(
        tmp_path / "head", "1", n_right=278, n_end_right=280, end_model_path="head/model_5.pt"
    )
    for name in ("fresh", "head"):
        write_evaluation(tmp_path / name, {"1": 0.5})
    assert verdict_on(tmp_path / "head").verdict == SIMILAR
    (remark,) = remarks([verdict_on(tmp_path / "head")])
    assert says(remark, "alone", "28 %")
    (tmp_path / "head" / "model_5.config.txt").write_text(json.dumps({"model_path": "-"}))
    for name in ("fresh", "head"):
        word, reason = word_on(tmp_path / name)
        assert word == UNDECIDED and says(reason, "end network", "never trained")


def test_controls_are_recognised_and_never_pooled_with_others(tmp_path):
    for name, networks in {
        "1": ("f1.pt", "g1.pt"),
        "2": ("f2.pt", "g2.pt"),
        "3": ("g1.pt", "g1.pt"),
        "4": ("-", "g1.pt"),
    }.items():
        paths = {"front_model_path": networks[0], "end_model_path": networks[1], "front_layer": "y"}
        write_run(tmp_path, name, n_right=945, **paths)
    write_evaluation(tmp_path, {"3": 0.5})
    verdicts = judge_stitches(runs_of(tmp_path), pool=True)
    assert {(row.networks, row.control) for row in verdicts} == {
        ("2 pairs of networks", None),
        ("g1.pt → g1.pt", "self"),
        (f"{FRESH} → g1.pt", "fresh"),
    }
    own, fresh = remarks(verdicts)
    assert says(own, "of 1 layers", "to themselves", " 1 are similar")
    assert says(fresh, "of 1 stitches", "never trained", " 0 are similar", "1 undecided")


def test_stitches_into_untrained_networks_are_controls_and_tested_by_themselves(tmp_path):
    """Their penalties are small, as chance costs nothing, and would lower the p-values of others."""
    for number in range(4):
        write_run(tmp_path, f"g{number}", n_right=900, front_layer=f"l{number}")
    write_run(tmp_path, "good", n_right=918)
    write_run(tmp_path, "front", n_right=500, front_model_path="-")
    for name, front in (("end", "f.pt"), ("both", "-"), ("own", "-")):
        layer = "y" if name == "own" else "x"
        paths = {"front_model_path": front, "end_model_path": "-", "front_layer": layer}
        write_run(tmp_path, name, n_right=100, n_end_right=100, **paths)
    rows = judge_stitches(runs_of(tmp_path))
    alone = judge_stitches(
        [run for run in runs_of(tmp_path) if "-" not in run.row.networks[1].path]
    )
    controls = {row.networks: row.control for row in rows}
    assert controls == {
        "f.pt → g.pt": None,
        f"{FRESH} → g.pt": "fresh",
        f"f.pt → {FRESH}": "fresh_end",
        f"{FRESH} → {FRESH}": "fresh_end",
    }
    p_values = {row.networks + row.front_layer: row.p_below for row in rows}
    assert {
        row.networks + row.front_layer: row.p_below for row in alone
    }.items() <= p_values.items()
    titles = "\n".join(section.title for section in sections.sections_of(rows))
    assert says(titles, "2 pairs", "untrained end network")
    assert says(titles, "direct matching", f"{FRESH} → g.pt")
    assert not list(values_of_verdicts(rows, []))  # one pair of trained networks
    (line,) = [line for line in remarks(rows) if "Control" in line]
    assert says(line, "of 1 stitches from", "never trained", " 0 are similar")


def test_independent_networks_are_taken_together_on_demand(tmp_path, capsys):
    for i, n_right in enumerate((950, 900, 850)):
        write_run(
            tmp_path,
            str(i),
            n_right=n_right,
            front_model_path=f"f{i}.pt",
            end_model_path=f"g{i}.pt",
        )
    assert len(judge_stitches(runs_of(tmp_path))) == 3
    assert says(capsys.readouterr().err, "direct matching", "3 pairs", "no network", "--pool")
    verdict = verdict_on(tmp_path, pool=True)
    assert (verdict.n_runs, verdict.n_networks, verdict.networks) == (3, 3, "3 pairs of networks")
    assert (
        verdict.seed_spread is None
        and verdict.penalty == pytest.approx(0.05)
        and verdict.verdict == UNDECIDED
    )
    of_networks = (
        4.302653 * 0.05 / math.sqrt(3)
    )  # half of Student's interval, with two degrees of freedom
    of_images = 1.96 * math.sqrt(0.05 * 0.95 / N)
    assert verdict.penalty_high - 0.05 == pytest.approx(of_networks + of_images, rel=0.1)
    write_run(
        tmp_path,
        "3",
        n_right=110,
        n_end_right=100,
        front_model_path="f3.pt",
        end_model_path="g3.pt",
    )
    word, reason = word_on(tmp_path, pool=True)
    assert word == UNDECIDED and says(reason, "end network", "close to chance")  # one of them


def test_pairs_that_share_a_network_are_not_taken_together(tmp_path):
    """Such as both directions of a pair, or untrained front networks of two seeds."""
    networks = {
        ("f.pt", "g.pt", 0): 940,
        ("g.pt", "f.pt", 0): 930,
        ("-", "g.pt", 0): 500,
        ("-", "g.pt", 1): 400,
    }
    for name, ((front, end, seed), n_right) in enumerate(networks.items()):
        write_run(
            tmp_path,
            str(name),
            n_right=n_right,
            front_model_path=front,
            end_model_path=end,
            seed=seed,
        )
    verdicts = judge_stitches(runs_of(tmp_path), pool=True)
    assert {verdict.networks: verdict.accuracy for verdict in verdicts} == {
        "f.pt → g.pt": 0.94,
        "g.pt → f.pt": 0.93,
        f"{FRESH} → g.pt": 0.5,
        f"{FRESH.replace('0', '1')} → g.pt": 0.4,
    }
    trained, untrained = sections.sections_of(verdicts)
    assert says(trained.title, "direct matching", "both directions of 2 networks")
    assert says(untrained.title, "direct matching", "2 pairs", "untrained front network")
    (section,) = sections.sections_of(verdicts[:1])
    assert section.title == "direct matching" and not section.is_summary


def test_seeds_count(tmp_path):
    for i, n_right in enumerate((950, 940, 900)):
        write_run(tmp_path, str(i), n_right=n_right, seed=i)
    verdict = verdict_on(tmp_path)
    assert (verdict.n_runs, verdict.n_networks, verdict.seed_spread) == (3, 1, pytest.approx(0.05))
    assert verdict.accuracy == pytest.approx(0.93)
    right = np.stack([predicted(n) == LABELS for n in (950, 940, 900)])
    assert (verdict.accuracy_low, verdict.accuracy_high) == pytest.approx(
        of_share([right]).interval()[1:]
    )


def test_options_that_change_a_result_are_methods_and_no_repetitions(tmp_path):
    trained = {"init": "rand", "n_epochs": 3}
    write_run(tmp_path / "high", "1", n_right=868, **trained, learning_rate=0.1)
    write_run(tmp_path / "low", "2", n_right=26, **trained, learning_rate=1e-4)
    said = run(SCRIPT, "high", "low", "-o", "verdict.csv", cwd=tmp_path)
    assert "repeat" not in said.err
    rows = read_csv(tmp_path / "verdict.csv")
    assert {row["method"]: row["accuracy"] for row in rows} == {
        "task loss matching (-lr 0.1)": "0.868",
        "task loss matching (-lr 0.0001)": "0.026",
    }


def test_a_run_counts_once_in_folders_that_overlap(tmp_path):
    for number in range(4):
        write_run(tmp_path / "results/dm", str(number), n_right=900, front_layer=f"l{number}")
    (tmp_path / "link").symlink_to(tmp_path / "results")
    for folders in (["results"], ["results", "results/dm"], ["results/dm", "link", "results/dm/"]):
        said = run(SCRIPT, *folders, "-o", "verdict.csv", cwd=tmp_path)
        assert "repeat" not in said.err and len(read_csv(tmp_path / "verdict.csv")) == 4


def test_a_row_names_its_runs(tmp_path):
    """So that what else was measured of them is found in the tables of stitches and evaluations."""
    for seed in range(3):
        write_run(tmp_path, str(seed), n_right=940 + seed, seed=seed)
    write_evaluation(tmp_path, dict(zip("012", (0.5, 0.6, 0.7), strict=True)))
    write_table(tmp_path / "v.csv", VerdictRow, judge_stitches(runs_of(tmp_path)))
    (verdict,) = read_csv(tmp_path / "v.csv")
    rows = read_csv(tmp_path / "ood_evaluation.csv")
    auroc_of = {row["folder"]: float(row["auroc"]) for row in rows}
    assert [auroc_of[name] for name in verdict["folders"].split(";")] == [0.5, 0.6, 0.7]


def test_every_run_counts(tmp_path):
    for seed in range(5):
        write_run(tmp_path, str(seed), n_right=945, seed=seed)
    write_evaluation(tmp_path, dict(zip("01234", (0.5, 0.6, 0.5, 0.6, 0.3), strict=True)))
    assert verdict_on(tmp_path).verdict == SIMILAR
    write_evaluation(tmp_path, dict.fromkeys("0123", 0.5))
    write_run(tmp_path, "5", n_right=945, seed=5)
    assert word_on(tmp_path) == UNKNOWN  # of run 5
    write_skill(tmp_path, {"5": skill(0.0)})
    verdict = verdict_on(tmp_path)
    skills = [0.6] * 5 + [0.0]
    assert verdict.skill == pytest.approx(0.5)
    # Over images and over six seeds, by Student's t with five degrees of freedom
    half_width = 0.05 + stats.t.ppf(0.975, 5) * np.std(skills, ddof=1) / math.sqrt(6)
    assert 0.5 - verdict.skill_low == pytest.approx(half_width, rel=0.01)
    assert verdict.verdict == UNDECIDED


def test_a_seed_that_was_not_evaluated_is_named_as_such(tmp_path):
    for seed in range(2):
        write_run(tmp_path / "runs", str(seed), n_right=945, seed=seed)
    write_evaluation(tmp_path / "runs", {"0": 0.5})
    err = run(SCRIPT, "runs", "-o", "v.csv", cwd=tmp_path).err
    assert says(err, "1 of its 2 stitches", "not evaluated") and "different layers" not in err


def test_a_copy_of_a_checkpoint_is_the_same_network(tmp_path, monkeypatch):
    """Of runs and of similarities; another checkpoint is another network, and so are fresh weights
    of other seeds."""
    monkeypatch.chdir(tmp_path)
    for name in ("f.pt", "copy.pt", "g.pt", "other.pt"):
        (tmp_path / name).write_text("f" if name == "copy.pt" else name[0])
    for seed, front in enumerate(("./f.pt", "copy.pt")):
        write_run(tmp_path / "one", str(seed), n_right=900, seed=seed, front_model_path=front)
    verdict = verdict_on(
        tmp_path / "one", [of_networks("copy.pt", f"{tmp_path}/g.pt", values={"cka": 0.8})]
    )
    assert (verdict.n_runs, verdict.n_networks, verdict.further) == (2, 1, {"cka": 0.8})
    write_run(tmp_path / "one", "2", n_right=900, seed=2, front_model_path="other.pt")
    assert [row.n_runs for row in judge_stitches(runs_of(tmp_path / "one"))] == [2, 1]
    write_run(
        tmp_path / "fresh", "1", n_right=900, seed=1, front_model_path="-", end_model_path="-"
    )
    for seed, others in ((1, {"cka": 0.8}), (7, {})):
        assert (
            verdict_on(
                tmp_path / "fresh", [of_networks("-", "-", values={"cka": 0.8}, seed=seed)]
            ).further
            == others
        )


def test_what_is_missing_or_of_other_data_is_left_out(tmp_path, capsys):
    path = write_run(tmp_path, "1", n_right=940) / "predictions.npz"
    write_evaluation(tmp_path, {"1": 0.5})
    (row,) = read_evaluations(tmp_path)["energy"]
    write_table(
        EvaluationFiles(tmp_path).table("energy"), EvaluationRow, [replace(row, dataset="mnist")]
    )
    assert not runs_of(tmp_path)[0].evaluations
    assert says(capsys.readouterr().err, "energy", "skipped", "other data")
    path.write_bytes(path.read_bytes()[:100])
    word, reason = word_on(tmp_path)
    assert word == UNDECIDED and "no predictions" in reason
    assert says(capsys.readouterr().err, "predictions.npz", "damaged")
    path.unlink()
    verdict = verdict_on(tmp_path)
    assert verdict.verdict == UNDECIDED and "no predictions" in verdict.reason
    assert (verdict.accuracy, verdict.accuracy_low) == (0.94, None)
    assert verdict.penalty == pytest.approx(0.01)


def test_folders_of_the_public_code_are_read():
    verdicts = judge_stitches(runs_of(DATA / "public_runs" / "det"))
    assert {verdict.verdict for verdict in verdicts} == {UNDECIDED}
    assert {verdict.penalty for verdict in verdicts} == {None}  # it keeps no end accuracy


def test_words_are_counted_and_equal_reasons_have_one_line(tmp_path):
    n_right_of_front = {"y": 945, "x": 945, "z": 500, "w": 905, "v": 945, "u": 945}
    for number, (front, n_right) in enumerate(n_right_of_front.items()):
        write_run(tmp_path, str(number), n_right=n_right, front_layer=front)
    write_evaluation(tmp_path, dict.fromkeys("01234", 0.5))
    write_skill(tmp_path, {"1": skill(0.1), "4": skill(0.05)})
    rows = judge_stitches(runs_of(tmp_path))
    counted = words.counts(sections.sections_of(rows))
    line = dict(zip(counted.header, counted.lines[0], strict=True))
    assert [line[word] for word in VERDICTS] == ["1", "2", "1", "2"]
    assert (line["all"], line["similar at the same layer"]) == ("6", "1 of 1")
    assert len(words.reasons(rows)) == 3  # two have one reason, whatever the numbers
    assert str(words.word_map(sections.sections_of(rows)[0])).split()[-12:] == [
        *("u", "?", "v", "A", "w", "?", "x", "A", "y", "S", "z", "–")
    ]


def test_a_row_has_the_type_of_the_stitch(tmp_path):
    types = {"1": "c2v", "2": "v2c", "3": "v2c", "4": "rc2c_pre"}
    for name, stitching_type in types.items():
        write_run(tmp_path, name, n_right=945, front_layer=name, stitching_type=stitching_type)
    rows = judge_stitches(runs_of(tmp_path))
    assert {row.front_layer: row.stitching_type for row in rows} == types


@pytest.fixture
def two_methods(tmp_path):
    """Folders of two methods at two layers."""
    for front in "xy":
        write_run(tmp_path / "dm", str(ord(front)), n_right=945, front_layer=front)
        write_run(tmp_path / "tlm", front, n_right=500, front_layer=front, init="rand", n_epochs=3)
    write_evaluation(tmp_path / "dm", {"120": 0.5})
    write_table(tmp_path / "s.csv", SimilarityRow, [of_networks(values={"cka": 0.5})])
    return tmp_path


def test_script_writes_table_sentences_and_maps(two_methods, drawn_figures, laid_out):
    out, err = run(
        SCRIPT, "dm", "tlm", "-sim", "s.csv", "-o", "out/v.csv", "--verbose", cwd=two_methods
    )
    assert says(err, "tlm: skill", "not measured")
    assert "dm: skill" not in err
    assert says(out, "direct matching, f.pt", "x -> y: similar", "0.9450", "points lost 0.5 [")
    assert parse_matrix(out, "points lost, direct matching")["x", "y"] == "0.5"
    assert says(out, "task loss matching  ", " 0  ", " 2  ")
    _, text, _ = (two_methods / "out" / "v.md").read_text().split("```")
    assert out.startswith(text.removeprefix("text\n"))
    rows = read_csv(two_methods / "out" / "v.csv")
    assert [row["verdict"] for row in rows] == [SIMILAR, UNDECIDED, NOT_MATCHED, NOT_MATCHED]
    assert rows[0]["cka"] == "0.5" and rows[1]["cka"] == ""
    assert (two_methods / "out" / "v.png").exists()
    caption = caption_of(drawn_figures["v.png"])
    assert says(caption, "1 of 2 by direct matching", "0 of 2 by task loss matching")

    write_table(
        two_methods / "t.csv", SimilarityRow, [of_networks("other.pt", values={"cka": 0.5})]
    )
    options = [
        "-o",
        "w.csv",
        "--skill",
        "0.59",
        "--title",
        "A title",
        "-sim",
        "t.csv",
    ]
    out, err = run(SCRIPT, "dm", *options, cwd=two_methods)
    assert says(err, "-sim: no row", "these stitches")
    assert "x -> y" not in out
    _, cells = drawn_figures["w.png"].axes
    assert [text.get_text() for text in cells.texts] == ["0.5\n0.60", "0.5"]
    assert [row["verdict"] for row in read_csv(two_methods / "w.csv")] == [UNDECIDED, UNDECIDED]
    caption = caption_of(drawn_figures["w.png"])
    assert says(caption, f"{N:,} test inputs")
    assert drawn_figures["w.png"].get_suptitle() == "A title"
    (two_methods / "empty").mkdir()
    assert says(error_line(SCRIPT, "empty", cwd=two_methods), "empty: no finished", "run")


def test_a_verdict_replaces_the_figures_of_the_verdict_before(two_methods):
    """All of them, and no file of the user's, which may have the name of a page."""
    users = ["v_2.png", "v_2.pdf", "v_2.txt", "v_3.csv", "v_groups.csv"]
    for name in users:
        (two_methods / name).write_text("mine")
    run(SCRIPT, "dm", "tlm", "-o", "v.csv", cwd=two_methods)
    assert {"v.png", "v.pdf", "v.txt"} < names_in(two_methods)
    with pages.left_out():
        run(SCRIPT, "dm", "-o", "v.csv", cwd=two_methods)
    assert not {"v.png", "v.pdf", "v.txt"} & names_in(two_methods)
    assert {(two_methods / name).read_text() for name in users} == {"mine"}


def test_a_single_verdict_has_its_evidence(tmp_path, drawn_figures):
    write_run(tmp_path / "runs", "1", n_right=945)
    write_evaluation(tmp_path / "runs", {"1": 0.5})
    run(SCRIPT, "runs", "-o", "v.csv", cwd=tmp_path)
    assert list(drawn_figures) == ["v.png"]


def test_pairs_of_all_networks_are_tested_together(tmp_path):
    """The false discovery rate is that of a method and of two types of networks, whatever the
    number of pairs of networks."""
    for number in range(6):
        networks = {"front_model_path": f"f{number}.pt", "end_model_path": "g.pt"}
        write_run(tmp_path, str(number), n_right=945 if number == 0 else 900, **networks)
    write_run(tmp_path, "6", n_right=945, front_model_path="h.pt", front_model_type="resnet34")
    alone = [row.p_below for row in judge_stitches(runs_of(tmp_path), limits=Limits(pairwise=True))]
    together = [row.p_below for row in judge_stitches(runs_of(tmp_path))]
    assert together[:6] == pytest.approx(stats.false_discovery_control(alone[:6]))
    assert together[0] > 5 * alone[0] and together[6] == alone[6]
