"""Verdicts: the rule by hand, intervals of runs and seeds, what is read from folders, and misc/verdict.py."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from misc.verdict import main
from src.choices.scores import SCORES
from src.ood.evaluated import evaluation_file, read_evaluations, with_evaluations
from src.ood.rows import EvaluationRow, StitchValidity
from src.results.tables import columns, read_table, to_record, write_table
from src.similarity.rows import Null, SimilarityRow
from src.stitching.folders import StitchingRun, read_runs
from src.training.recorded import EpochRow
from src.verdict import Limits, intervals, judge, report
from src.verdict.intervals import of_difference, of_share
from src.verdict.judging import FAR, LABEL, NOT_SIMILAR, SIMILAR, UNDECIDED
from src.verdict.rows import IntervalRow, VerdictRow
from tests.commands import ON_DIGITS, ROOT, caption_of, read_csv, run
from tests.goldens import DATA
from tests.result_rows import evaluation_row, similarity_row
from tests.tiny_networks import PLAIN

SCRIPT = "misc/verdict.py"
LIMITS = Limits(tolerance=0.05)
N, N_CLASSES = 1000, 10
OPTIONS = {
    "front_model_path": "f.pt", "end_model_path": "g.pt", "front_model_type": "resnet18", "end_model_type": "resnet18",
    "front_layer": "x", "end_layer": "y", "stitching_type": "rc2c_pre", "init": "pinv", "front_stitch_rank": None,
    "front_pinv_rank": None, "seed": 0, "dataset": "digits", "n_epochs": 0, "n_pinv_init_samples": 100,
    "objective": "task", "gpu": -1,
}  # fmt: skip
LABELS = np.arange(N) % N_CLASSES

VALID = StitchValidity(0.9, 0.8, 0.1, 1.0, 0.9, 0.05, 0.01, 0.02)
OFF, COLLAPSED = VALID._replace(noise_dose=0.06), VALID._replace(shrinkage_dose=0.16)

COLUMNS = columns(VerdictRow)


def predicted(n_right: int) -> np.ndarray:
    """Right on the first images, and on the others the next class."""
    return np.where(np.arange(N) < n_right, LABELS, (LABELS + 1) % N_CLASSES)


def write_run(
    folder: Path, name: str, *, n_right: int, n_end_right: int = 950, n_control: int = 0, keep: bool = True, **options
) -> None:
    """A finished run whose stitch and end network, and label-only control if any, are right on so many test images."""
    if n_control:
        right = {"n_right": n_control, "n_end_right": n_end_right}
        write_run(folder, f"{name}0000", **right, **options | {"control": "labels"})
    path = folder / f"2025-01-01_00-00-00.{name}"
    path.mkdir(parents=True)
    metrics = {"accuracy": n_right / N, "front_accuracy": 0.9, "end_accuracy": n_end_right / N, "kappa": 0.5,
               "n_images": N}  # fmt: skip
    metrics |= {"agreement": 0.75, "matching_error": None, "representation_difference": 0.25}
    (path / "metrics.json").write_text(json.dumps(metrics))
    (path / "summary.txt").write_text(f"Clean accuracy: {n_right / N}\n")
    if keep:
        arrays = {"stitched": predicted(n_right), "end": predicted(n_end_right), "front": LABELS, "labels": LABELS}
        np.savez_compressed(path / "predictions.npz", **{k: v.astype(np.int16) for k, v in arrays.items()})
    (path / "config.txt").write_text(json.dumps(OPTIONS | options))


def write_evaluation(
    folder: Path,
    aurocs: dict[str, float],
    *,
    detector: str = "energy",
    validity=VALID,
) -> None:
    """The evaluation of runs by a detector: AUROCs with intervals of ± 0.01, and one validity for all of them."""
    rows = [
        evaluation_row(
            auroc=auroc, auroc_low=auroc - 0.01, auroc_high=auroc + 0.01, detector=detector,
            folder=f"2025-01-01_00-00-00.{run}", **(validity._asdict() if validity else {}),
        )
        for run, auroc in aurocs.items()
    ]  # fmt: skip
    write_table(evaluation_file(folder, detector), EvaluationRow, rows)


def runs_of(folder: Path) -> list[StitchingRun]:
    runs, skipped = read_runs(folder)
    assert not skipped
    return with_evaluations(runs, SCORES)


def verdict_on(folder: Path, similarities=(), *, pool: bool = False, **limits) -> VerdictRow:
    rows = judge(runs_of(folder), similarities, limits=LIMITS._replace(**limits), pool=pool)
    (verdict,) = (row for row in rows if row.control != "labels")
    return verdict


def of_networks(front: str = "f.pt", end: str = "g.pt", **values) -> SimilarityRow:
    return similarity_row(model1=front, model2=end, **values)


CLOSER = "accurate, in distribution, and more than the label"
NO_CLOSER = "accurate, but no closer to the end network than its label-only control"


@pytest.mark.parametrize(
    ("validity", "n_control", "expected"),
    [
        (VALID, 930, (SIMILAR, CLOSER)),
        (VALID, 943, (LABEL, NO_CLOSER)),  # β is above 0, but its interval is not
        (VALID, 949, (LABEL, NO_CLOSER)),
        (VALID, 950, (LABEL, NO_CLOSER)),  # the control is the end network, and β not defined
        (None, 945, (LABEL, NO_CLOSER)),
        (None, 930, (UNDECIDED, "accurate, but its doses are not known")),
        (VALID._replace(noise_dose=float("nan")), 930, (UNDECIDED, "accurate, but its doses are not known")),
        (VALID, 0, (UNDECIDED, "accurate, but there is no label-only control")),
        (OFF, 930, (FAR, "accurate, but off the manifold")),
        (COLLAPSED, 945, (FAR, "accurate, but collapsed")),
        (COLLAPSED, 0, (FAR, "accurate, but collapsed")),
    ],
)  # fmt: skip
def test_accurate_pairs(tmp_path, validity, n_control, expected):
    write_run(tmp_path, "1", n_right=945, n_control=n_control)
    write_evaluation(tmp_path, {"1": 0.99}, validity=validity)
    verdict = verdict_on(tmp_path)
    assert (verdict.verdict, verdict.reason) == expected
    assert verdict.p_below < 1e-6 < verdict.p_above


def test_a_similar_pair_with_all_that_was_measured(tmp_path):
    write_run(tmp_path, "1", n_right=945, n_control=930)
    write_evaluation(tmp_path, {"1": 0.6})
    write_evaluation(tmp_path, {"1": 0.9}, detector="knn")
    rows = [
        of_networks(values={"cka": 0.8}, nulls={"cka": Null(0.005, 0.3, 0.7)}),
        of_networks(rank1=4, values={"cka": 0.1}),
        of_networks(end="other.pt", values={"cka": 0.2}),
    ]
    verdict = verdict_on(tmp_path, rows)
    assert (verdict.method, *verdict.pair) == ("direct matching", "x", "y")
    assert (verdict.verdict, verdict.side, verdict.noise_dose) == (SIMILAR, "in distribution", 0.01)
    assert verdict.accuracy == 0.945 and verdict.penalty == pytest.approx(0.005)
    assert 0 <= verdict.penalty_low < 0.005 < verdict.penalty_high < 0.02  # paired: five images differ
    assert verdict.accuracy_high - verdict.accuracy_low > 2 * (verdict.penalty_high - verdict.penalty_low)
    assert verdict.beta == pytest.approx(1 - 5 / 20) and 0 < verdict.beta_low < 0.75 < verdict.beta_high < 1
    assert verdict.rho == pytest.approx(5 / 50) and 0 < verdict.rho_low < 0.1 < verdict.rho_high < 0.5
    similarities = {"cka": 0.8, "cka_p_value": 0.005, "cka_null_95": 0.3, "cka_calibrated": 0.7}
    aurocs = {"auroc_energy": 0.6, "auroc_low_energy": 0.59, "auroc_high_energy": 0.61}
    aurocs |= {"auroc_knn": 0.9, "auroc_low_knn": 0.89, "auroc_high_knn": 0.91}
    assert verdict.others == pytest.approx(aurocs | similarities)
    assert (verdict.agreement, verdict.kappa, verdict.representation_difference) == (0.75, 0.5, 0.25)
    record = to_record(verdict)
    assert set(COLUMNS) <= set(record) and record["density"] == 0.9 and record["seed_spread"] is None


def test_a_control_knows_no_more_than_itself(tmp_path):
    write_run(tmp_path, "1", n_right=945, n_control=940)
    write_evaluation(tmp_path, {"1": 0.6, "10000": 0.6})
    stitch, control = sorted(judge(runs_of(tmp_path), limits=LIMITS), key=lambda row: row.control or "")
    assert (control.method, control.control) == ("direct matching of labels alone", "labels")
    assert (control.verdict, control.beta) == (LABEL, 0) and (stitch.control, stitch.n_runs) == (None, 1)
    assert control.p_below == pytest.approx(of_penalty(940))  # tested apart
    *_, line = report.sentences([stitch, control], LIMITS)
    assert line == "Control: of 1 stitches made on other images of the same class 0 are similar (none may be)."


def of_penalty(n_right: int) -> float:
    end, stitched = ((predicted(n) == LABELS)[None] for n in (950, n_right))
    return of_difference([end], [stitched]).p_below(LIMITS.tolerance)


def test_where_networks_never_disagree_rho_is_empty(tmp_path):
    write_run(tmp_path, "1", n_right=945, n_end_right=N)  # the front network is always right
    verdict = verdict_on(tmp_path)
    assert (verdict.rho, verdict.rho_low, verdict.rho_high) == (None, None, None)


def test_penalties_above_the_tolerance_or_unclear(tmp_path):
    for name, n_right in {"low": 700, "wide": 905}.items():
        write_run(tmp_path / name, "1", n_right=n_right)
        write_evaluation(tmp_path / name, {"1": 0.5})
    low, wide = (verdict_on(tmp_path / name) for name in ("low", "wide"))
    assert (low.verdict, low.reason) == (NOT_SIMILAR, "the penalty is above the tolerance")
    assert (wide.verdict, wide.reason) == (UNDECIDED, "the penalty may lie on either side of the tolerance")
    assert verdict_on(tmp_path / "low", tolerance=0.4).reason == "accurate, but there is no label-only control"
    write_run(tmp_path / "close", "1", n_right=949)
    needed = verdict_on(tmp_path / "close", tolerance=0.003)
    assert needed.reason == "1000 test images are too few for this tolerance: 1277 are needed"
    write_run(tmp_path / "chance", "1", n_right=110, n_end_right=100)
    assert verdict_on(tmp_path / "chance").reason == "the end network is at chance"
    write_run(tmp_path / "old", "1", n_right=940, keep=False)
    old = verdict_on(tmp_path / "old")
    assert old.verdict == UNDECIDED and old.reason.startswith("no predictions")
    assert (old.accuracy, old.accuracy_low, old.rho) == (0.94, None, None)


def change_metrics(folder: Path, **values) -> None:
    (path,) = folder.glob("*/metrics.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("options", [{}, {"n_epochs": 1}, {"front_stitch_rank": 4}, {"n_right": 600}])
def test_a_stitch_matched_on_too_few_images_is_not_dissimilar(tmp_path, options):
    """The fit says so only of stitches that are as they were matched, and explains no penalty of 0.35."""
    write_run(tmp_path, "1", **{"n_right": 700} | options)
    change_metrics(tmp_path, r2_matched=0.9, r2_test=0.5)
    verdict = verdict_on(tmp_path)
    expected = (NOT_SIMILAR, "the penalty is above the tolerance")
    assert (verdict.verdict, verdict.reason) == (expected if options else (UNDECIDED, "matched on too few images"))


@pytest.mark.parametrize(
    ("losses", "is_done"), [([2, 1.0], False), ([2, 1, 0.99], True), ([1] * 5 + [0.9] * 5, True), ([1, 0.5], False),
                            ([3, 2, 1, 0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.90], False), ([1], False)],
)  # fmt: skip
def test_training_that_had_not_converged(tmp_path, losses, is_done):
    write_run(tmp_path, "1", n_right=700, init="rand", n_epochs=len(losses))
    (folder,) = tmp_path.iterdir()
    write_table(folder / "training_logs.csv", EpochRow, [EpochRow(None, loss, 0.5, 1.0) for loss in losses])
    verdict = verdict_on(tmp_path)
    assert verdict.reason == ("the penalty is above the tolerance" if is_done else "the training had not converged")
    assert verdict.verdict == (NOT_SIMILAR if is_done else UNDECIDED)


def test_many_pairs_are_tested_together(tmp_path):
    """A penalty that one test would find below the tolerance is undecided among sixteen, unless tested by itself."""
    for i in range(16):
        write_run(tmp_path, str(i), n_right=905, front_layer=f"l{i}")
    write_run(tmp_path, "good", n_right=918, n_control=880, front_layer="x")
    write_evaluation(tmp_path, {"good": 0.5})
    runs = runs_of(tmp_path)
    together, alone = (
        {row.front_layer: row for row in judge(runs, limits=LIMITS._replace(pairwise=pairwise)) if not row.control}
        for pairwise in (False, True)
    )
    assert alone["x"].verdict == SIMILAR and together["x"].verdict == UNDECIDED
    assert together["x"].p_below == pytest.approx(17 * alone["x"].p_below)
    assert together["x"].penalty_high == alone["x"].penalty_high  # intervals are of one pair


def test_a_stitch_at_chance_is_not_similar_however_it_was_matched(tmp_path):
    write_run(tmp_path, "1", n_right=110, n_end_right=300)
    change_metrics(tmp_path, r2_matched=0.9, r2_test=0.5)
    assert verdict_on(tmp_path).verdict == NOT_SIMILAR


def test_an_end_network_that_was_never_trained_is_like_nothing(tmp_path, monkeypatch):
    """Also behind a head of exec_probe.py --with-head; of a low accuracy the output says so."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "fresh", "1", n_right=945, n_control=930, end_model_path="-")
    write_run(tmp_path / "head", "1", n_right=208, n_end_right=210, n_control=150, end_model_path="head/model_5.pt")
    for name in ("fresh", "head"):
        write_evaluation(tmp_path / name, {"1": 0.5})
    assert verdict_on(tmp_path / "head").verdict == SIMILAR
    assert report.sentences([verdict_on(tmp_path / "head")], LIMITS)[-1].endswith("alone is right about 21%.")
    (tmp_path / "head" / "model_5.config.txt").write_text(json.dumps({"model_path": "-"}))
    for name in ("fresh", "head"):
        verdict = verdict_on(tmp_path / name)
        assert (verdict.verdict, verdict.reason) == (UNDECIDED, "the end network was never trained")


def test_controls_are_recognised(tmp_path):
    for name, options in {
        "1": {"front_model_path": "g.pt", "front_layer": "y"}, "2": {"front_model_path": "g.pt"},
        "3": {"front_model_path": "-"}, "4": {}, "5": {"front_layer": "y"},
    }.items():  # fmt: skip
        right = {"n_right": 945, "n_control": 900} if name == "1" else {"n_right": 500}
        write_run(tmp_path, name, **right, **options)
    write_evaluation(tmp_path, {"1": 0.5})
    verdicts = judge(runs_of(tmp_path), limits=LIMITS)
    assert [row.control for row in verdicts] == ["self", None, "labels", "fresh", None, None]
    *_, own, fresh, labels = report.sentences(verdicts, LIMITS)
    assert own.startswith("Control: of 1 layers stitched to themselves 1 are similar (all must be, but where the label")
    assert fresh == "Control: of 1 stitches from networks that were never trained 0 are similar (none may be)."


def test_independent_networks_are_taken_together_on_demand(tmp_path, capsys):
    for i, n_right in enumerate((950, 900, 850)):
        networks = {"front_model_path": f"f{i}.pt", "end_model_path": f"g{i}.pt"}
        write_run(tmp_path / "three", str(i), n_right=n_right, **networks)
    assert len(judge(runs_of(tmp_path / "three"), limits=LIMITS)) == 3
    assert "direct matching: 3 pairs of networks share no network; --pool takes them" in capsys.readouterr().err
    verdict = verdict_on(tmp_path / "three", pool=True)
    assert (verdict.n_runs, verdict.n_networks, verdict.networks) == (3, 3, "3 pairs of networks")
    assert verdict.seed_spread is None and verdict.penalty == pytest.approx(0.05) and verdict.verdict == UNDECIDED
    of_networks_alone = 4.302653 * 0.05 / math.sqrt(3)  # half of Student's interval, with two degrees of freedom
    assert verdict.penalty_high - 0.05 == pytest.approx(of_networks_alone, rel=0.1)
    assert report.sentences([verdict], LIMITS)[-1].startswith("With fewer than 5 pairs of networks hardly any stitch")


def test_seeds_count(tmp_path):
    for i, n_right in enumerate((950, 940, 900)):
        write_run(tmp_path, str(i), n_right=n_right, seed=i, n_control=800)
    verdict = verdict_on(tmp_path)
    assert (verdict.n_runs, verdict.n_networks, verdict.seed_spread) == (3, 1, pytest.approx(0.05))
    assert verdict.accuracy == pytest.approx(0.93) and verdict.beta == pytest.approx(1 - 20 / 150)
    right = np.stack([predicted(n) == LABELS for n in (950, 940, 900)])
    assert (verdict.accuracy_low, verdict.accuracy_high) == pytest.approx(of_share([right]).interval())
    one_seed, _ = of_share([right[:1]]).interval()
    assert verdict.accuracy_low < one_seed - 0.05
    shutil.rmtree(next(tmp_path.glob("*.10000")))
    assert verdict_on(tmp_path).beta is None  # each seed has a control of its own


def test_a_method_moderates_the_variances_of_its_pairs(tmp_path):
    for front, accuracies in {"x": (940, 940), "z": (940, 880)}.items():
        for seed, n_right in enumerate(accuracies):
            write_run(tmp_path, f"{seed}{ord(front)}", n_right=n_right, seed=seed, front_layer=front)
    rows = judge(runs_of(tmp_path), limits=LIMITS)
    alone = [verdict_on_runs([run for run in runs_of(tmp_path) if run.row.pair == row.pair]) for row in rows]
    widths = [[row.penalty_high - row.penalty_low for row in each] for each in (rows, alone)]
    assert widths[0][0] > widths[1][0] and widths[0][1] < widths[1][1]


def verdict_on_runs(runs: list[StitchingRun]) -> VerdictRow:
    (verdict,) = judge(runs, limits=LIMITS)
    return verdict


def test_pairs_that_share_a_network_are_not_taken_together(tmp_path):
    """Such as both directions of a pair, or an untrained front network as a control."""
    write_run(tmp_path, "1", n_right=940)
    write_run(tmp_path, "2", n_right=930, front_model_path="g.pt", end_model_path="f.pt")
    write_run(tmp_path, "3", n_right=500, front_model_path="-")
    verdicts = judge(runs_of(tmp_path), limits=LIMITS)
    assert {verdict.networks: verdict.accuracy for verdict in verdicts} == {
        "f.pt → g.pt": 0.94, "g.pt → f.pt": 0.93, "- (resnet18, seed 0) → g.pt": 0.5,
    }  # fmt: skip
    assert list(report.by_title(verdicts)) == [f"direct matching, {verdict.networks}" for verdict in verdicts]
    assert list(report.by_title(verdicts[:1])) == ["direct matching"]


def test_no_seed_of_fresh_weights_is_lost(tmp_path):
    """Networks that share the end network are judged apart, whose path is one."""
    for i, n_right in enumerate((500, 400)):
        write_run(tmp_path, str(i), n_right=n_right, front_model_path="-", seed=i)
    verdicts = judge(runs_of(tmp_path), limits=LIMITS)
    assert {verdict.networks: verdict.accuracy for verdict in verdicts} == {
        "- (resnet18, seed 0) → g.pt": 0.5, "- (resnet18, seed 1) → g.pt": 0.4,
    }  # fmt: skip


def test_methods_are_kept_apart_and_named(tmp_path):
    for name, options in {
        "1": {}, "2": {"init": "rand", "n_epochs": 10}, "3": {"init": "pinv", "n_epochs": 10},
        "4": {"init": "ridge"}, "5": {"init": "rand", "n_epochs": 10, "objective": "hint"},
    }.items():  # fmt: skip
        write_run(tmp_path, name, n_right=900, **options)
    assert [verdict.method for verdict in judge(runs_of(tmp_path), limits=LIMITS)] == [
        "direct matching", "task loss matching (init=rand)", "task loss matching (init=pinv)", "ridge matching",
        "hint matching",
    ]  # fmt: skip


def test_sentences(tmp_path):
    for name, (front, n_right, n_control) in {
        "1": ("y", 945, 800), "2": ("x", 945, 800), "3": ("z", 500, 0), "4": ("w", 905, 0), "5": ("v", 945, 0),
    }.items():  # fmt: skip
        write_run(tmp_path, name, n_right=n_right, n_control=n_control, front_layer=front)
    write_evaluation(tmp_path, dict.fromkeys("1345", 0.5))
    (valid,) = read_evaluations(tmp_path, ["energy"]).values()
    off = valid[0]._replace(**OFF._asdict(), folder=valid[0].folder.replace(".1", ".2"))
    write_table(evaluation_file(tmp_path, "energy"), EvaluationRow, [*valid, off])
    verdicts = judge(runs_of(tmp_path), limits=LIMITS)
    rule, counts, undecided, same, far, _ = report.sentences(verdicts, LIMITS)
    assert "below 5 points (score tests, all pairs of a method together (Holm))" in rule
    assert "at most 5% of noise and 15% of shrinkage" in rule and "(β above 0)" in rule
    assert counts == (
        "Direct matching: of 5 pairs 1 are similar, 0 accurate by the label alone, 1 accurate but out of distribution, "
        "1 not similar, 2 undecided."
    )
    assert "the penalty may lie on either side of the tolerance (1)" in undecided
    assert "accurate, but there is no label-only control (1)" in undecided
    assert same == "Of the 1 pairs of layers of the same name 1 are similar."
    assert far == "Out of distribution: 1 off the manifold."


def test_damaged_predictions_are_named_and_left_out(tmp_path, capsys):
    write_run(tmp_path, "1", n_right=900)
    (path,) = tmp_path.glob("*/predictions.npz")
    path.write_bytes(path.read_bytes()[:100])
    assert verdict_on(tmp_path).reason.startswith("no predictions")
    assert "predictions.npz is damaged" in capsys.readouterr().err


def test_one_network_under_several_names_is_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i, folder in enumerate(("", "./", f"{tmp_path}/")):
        paths = {"front_model_path": f"{folder}f.pt", "end_model_path": f"{folder}g.pt"}
        write_run(tmp_path / "one", str(i), n_right=900, seed=i, **paths)
    verdict = verdict_on(tmp_path / "one", [of_networks("./f.pt", f"{tmp_path}/g.pt", values={"cka": 0.8})])
    assert (verdict.n_runs, verdict.n_networks, verdict.others) == (3, 1, {"cka": 0.8})
    for i in range(3):
        write_run(tmp_path / "fresh", str(i), n_right=900, seed=i, front_model_path="-", end_model_path="-")
    of_fresh = of_networks("-", "-", values={"cka": 0.8}, seed=1)
    assert verdict_on(tmp_path / "fresh", [of_fresh], pool=True).n_networks == 3
    assert verdict_on(tmp_path / "fresh", [of_fresh], pool=True).others == {"cka": 0.8}
    assert verdict_on(tmp_path / "fresh", [of_fresh._replace(seed=7)], pool=True).others == {}  # other weights
    assert "repeat" not in capsys.readouterr().err


def test_a_copy_of_a_checkpoint_is_the_same_network(tmp_path, monkeypatch):
    """Of runs and of similarities; another checkpoint is another network."""
    monkeypatch.chdir(tmp_path)
    for name in ("f.pt", "copy.pt", "g.pt", "other.pt"):
        (tmp_path / name).write_text("f" if name == "copy.pt" else name[0])
    for seed, front in enumerate(("f.pt", "copy.pt")):
        write_run(tmp_path / "one", str(seed), n_right=900, seed=seed, front_model_path=front)
    verdict = verdict_on(tmp_path / "one", [of_networks("copy.pt", values={"cka": 0.8})])
    assert (verdict.n_runs, verdict.n_networks, verdict.others) == (2, 1, {"cka": 0.8})
    write_run(tmp_path / "one", "2", n_right=900, seed=2, front_model_path="other.pt")
    assert [row.n_runs for row in judge(runs_of(tmp_path / "one"), limits=LIMITS)] == [2, 1]


def test_of_repeated_runs_the_last_one_counts(tmp_path, capsys):
    write_run(tmp_path, "1", n_right=500)
    write_run(tmp_path, "2", n_right=900)
    (verdict,) = judge([*runs_of(tmp_path), *runs_of(tmp_path)], limits=LIMITS)
    assert (verdict.n_runs, verdict.accuracy) == (1, 0.9)
    assert "warning: 3 results repeat others of the same experiment" in capsys.readouterr().err


def test_one_end_network_that_may_be_at_chance_leaves_it_undecided(tmp_path):
    for name, n_end_right, keep in (("bad", 100, True), ("unknown", 450, False)):
        for i in range(3):
            networks = {"front_model_path": f"f{i}.pt", "end_model_path": f"g{i}.pt"}
            right = {"n_right": n_end_right - i if i else 950, "n_end_right": n_end_right - i if i else 950}
            write_run(tmp_path / name, str(i), **right, keep=keep, **networks)
        write_evaluation(tmp_path / name, dict.fromkeys("012", 0.5))
        assert verdict_on(tmp_path / name, pool=True).reason == "the end network is at chance"


def test_every_run_counts(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, str(seed), n_right=945, seed=seed, n_control=900)
    write_evaluation(tmp_path, {"0": 0.5, "1": 0.6})
    assert verdict_on(tmp_path).verdict == SIMILAR
    assert verdict_on(tmp_path).others["auroc_energy"] == 0.55
    write_evaluation(tmp_path, {"0": 0.5})
    assert verdict_on(tmp_path).reason == "accurate, but its doses are not known"  # of run 1
    write_evaluation(tmp_path, {"1": 0.5}, validity=OFF)
    assert verdict_on(tmp_path).reason == "accurate, but off the manifold"  # more than an unknown one


def test_evaluations_of_other_data_are_left_out(tmp_path, capsys):
    write_run(tmp_path, "1", n_right=945)
    write_evaluation(tmp_path, {"1": 0.5})
    (row,) = read_evaluations(tmp_path, ["energy"])["energy"]
    write_table(evaluation_file(tmp_path, "energy"), EvaluationRow, [row._replace(dataset="mnist")])
    assert not verdict_on(tmp_path).others
    assert "evaluation by energy is of mnist, on which nothing was stitched" in capsys.readouterr().err


def test_of_several_tables_of_similarity_the_last_counts(tmp_path):
    write_run(tmp_path, "1", n_right=945)
    tables = [
        of_networks(values={"cka": 0.8, "cka_debiased": 0.7}, nulls={"cka": Null(0.005, 0.3, 0.7)}),
        of_networks(values={"cka": 0.9}),
        of_networks(values={"cka": 0.1}, dataset="mnist"),
        of_networks(values={"cka": 0.2}, model1_type="vit"),
    ]
    expected = {"cka": 0.9, "cka_debiased": 0.7, "cka_p_value": 0.005, "cka_null_95": 0.3, "cka_calibrated": 0.7}
    assert verdict_on(tmp_path, tables).others == expected


def test_script_writes_table_sentences_and_maps(tmp_path, run_script, run_here):
    for front, n_control in (("x", 900), ("y", 0)):
        write_run(tmp_path / "dm", str(ord(front)), n_right=945, n_control=n_control, front_layer=front)
        write_run(tmp_path / "tlm", front, n_right=500, front_layer=front, init="rand", n_epochs=3)
    write_evaluation(tmp_path / "dm", {"120": 0.5, "121": 0.9})
    (lacking,) = (tmp_path / "dm").glob("*.121")
    (lacking / "run.json").write_text(json.dumps({"command": "exec_stitch.py f.pt g.pt -dir dm"}))
    measured = of_networks(values={"cka": 0.5})
    write_table(tmp_path / "s.csv", SimilarityRow, [measured])
    out = run_script(SCRIPT, "dm", "tlm", "-sim", "s.csv", "-o", "out/v.csv", "--verbose")
    assert "direct matching, f.pt → g.pt: x -> y: similar (accuracy 0.9450, penalty 0.0050 [" in out
    assert "Task loss matching: of 2 pairs 0 are similar, 0 accurate by the label alone, 0 accurate but" in out
    assert "β, direct matching\n         y\nx   0.9000\ny      nan\n" in out and "noise dose, direct matching" in out
    text = (tmp_path / "out" / "v.md").read_text().splitlines()[2:]
    command = "Make the label-only controls: python exec_stitch.py f.pt g.pt -dir dm --control labels"
    assert out.strip().splitlines()[-len(text) - 1 :] == [*text, command]
    rows = read_csv(tmp_path / "out" / "v.csv")
    assert list(rows[0])[: len(COLUMNS)] == COLUMNS and [row["verdict"] for row in rows] == [
        SIMILAR, UNDECIDED, UNDECIDED, NOT_SIMILAR, NOT_SIMILAR,
    ]  # fmt: skip
    assert rows[0]["cka"] == "0.5" and rows[1]["cka"] == "" and rows[0]["auroc_energy"] == "0.5"
    for name in ("v.png", "v_numbers.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    short = run_here(SCRIPT, "dm", "--pdf", "-o", "w.csv", "--shrinkage-dose", "1", "--title", "A title")
    assert "x -> y" not in short and (tmp_path / "w.pdf").read_bytes().startswith(b"%PDF")
    assert not (tmp_path / "w.png").exists()
    assert [row["verdict"] for row in read_csv(tmp_path / "w.csv")] == [FAR, FAR, UNDECIDED]


def test_the_map_says_what_it_shows(tmp_path, drawn_figures):
    for name in ("dm", "tlm"):
        more = {"init": "rand", "n_epochs": 3} if name == "tlm" else {}
        write_run(tmp_path / name, "x", n_right=945, front_layer="x", **more)
    folders = [str(tmp_path / name) for name in ("dm", "tlm")]
    for name, chosen in (("one", folders[:1]), ("both", folders)):
        assert main([*chosen, "-o", str(tmp_path / f"{name}.csv"), "--title", "A title"]) == 0
    one, both = (caption_of(drawn_figures[f"{name}.png"]) for name in ("one", "both"))
    assert "Method: direct matching (" in one and f"Images: {N}. Similar: less than 5 points are lost" in one
    assert "f.pt" in both and "g.pt" in both and "Method" not in both
    assert drawn_figures["one.png"].get_suptitle() == "A title"


def test_script_says_what_is_missing(tmp_path, run_here):
    (tmp_path / "empty").mkdir()
    error = run_here(SCRIPT, "empty", status=2)
    assert error.startswith("verdict.py: error: ") and "empty: no finished stitching run; give folders that" in error
    write_run(tmp_path / "dm", "1", n_right=945)
    (tmp_path / "p.csv").write_text("model,layer,rank,accuracy,train_accuracy,loss,seed,epochs\n")
    assert "p.csv is no table of similarity (" in run_here(SCRIPT, "dm", "-sim", "p.csv", status=2)


def test_stitches_of_a_real_network(in_tmp_path):
    """Stitched to itself at a layer, by direct matching on many samples, it is similar; it loses from a later layer."""
    kind = f"{ROOT}/tests/tiny_networks.py:plain_network"
    networks = [PLAIN, PLAIN, kind, kind, "4,7", "4"]
    options = ["-e", "0", "-i", "pinv", "-pinv-samples", "500", "--mod-only-stitch", "-dir", "dm"]
    for control in ([], ["--control", "labels"]):
        run("exec_stitch.py", *networks, "rc2c_pre", *ON_DIGITS, *options, *control)
    options = ["--front-type", kind, "--end-type", kind, "--detector", "mahalanobis", "-scd", "photo_patches"]
    run("exec_eval_stitcher_ood.py", "results/dm", *ON_DIGITS, *options)
    options = ["-n", "100", "--permutations", "19", "--metrics", "cka", "cka_debiased", "-o", "s.csv"]
    run("exec_compute_low_rank_sim_metrics.py", *networks, *ON_DIGITS, *options)
    run(SCRIPT, "results/dm", "-sim", "s.csv")
    rows = [row for row in read_csv("verdict.csv") if row["control"] != "labels"]
    own, other = (row for layer in "47" for row in rows if row["front_layer"] == layer)
    assert float(own["end_accuracy"]) > 0.7
    assert abs(float(own["penalty"])) < 0.01 and float(own["penalty_high"]) < 0.05
    assert float(own["cka"]) == pytest.approx(1) and float(own["cka_debiased_calibrated"]) == pytest.approx(1)
    assert float(own["beta"]) > 0.95 and float(own["beta_low"]) > 0.7 and own["rho"] == ""
    assert float(own["auroc_mahalanobis"]) < 0.6 and own["verdict"] == SIMILAR and own["control"] == "self"
    assert float(other["penalty"]) > 0.3 and float(other["agreement"]) < 0.6 and other["verdict"] == NOT_SIMILAR


def test_folders_of_the_public_code_are_read():
    runs = runs_of(DATA / "public_runs" / "det")
    assert all(run.predictions is None for run in runs)
    verdicts = judge(runs, limits=LIMITS)
    assert {verdict.verdict for verdict in verdicts} == {UNDECIDED}
    assert {verdict.penalty for verdict in verdicts} == {None}  # it keeps no end accuracy


def test_intervals_are_those_of_the_verdict(tmp_path):
    for i, n_right in enumerate((950, 940, 900)):
        write_run(tmp_path, str(i), n_right=n_right, seed=i)
    write_run(tmp_path, "4", n_right=500, end_layer="z")
    runs = runs_of(tmp_path)
    rows, verdicts = list(intervals(runs)), judge(runs, limits=LIMITS)
    assert rows == [IntervalRow(*(getattr(verdict, name) for name in IntervalRow._fields)) for verdict in verdicts]
    write_table(tmp_path / "i.csv", IntervalRow, rows)
    assert read_table(tmp_path / "i.csv", IntervalRow) == rows


def test_controls_do_not_keep_repetitions_apart(tmp_path):
    for name, networks in {"1": ("f1.pt", "g1.pt"), "2": ("f2.pt", "g2.pt"), "3": ("g1.pt", "g1.pt"),
                           "4": ("-", "g1.pt")}.items():  # fmt: skip
        write_run(tmp_path, name, n_right=940, front_model_path=networks[0], end_model_path=networks[1])
    titles = [row.networks for row in judge(runs_of(tmp_path), limits=LIMITS, pool=True)]
    assert titles == ["2 pairs of networks", "g1.pt → g1.pt", "- (resnet18, seed 0) → g1.pt"]


def test_data_sets_are_judged_apart(tmp_path):
    for dataset in ("digits", "mnist"):
        write_run(tmp_path, dataset, n_right=905, dataset=dataset)
    verdicts = judge(runs_of(tmp_path), limits=LIMITS)
    assert [row.method for row in verdicts] == [f"direct matching (dataset={name})" for name in ("digits", "mnist")]
    assert verdicts[0].p_above == pytest.approx(judge(runs_of(tmp_path)[:1], limits=LIMITS)[0].p_above)
