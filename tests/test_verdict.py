"""Verdicts on folders of runs: what is gathered of networks, seeds and evaluations, and
misc/verdict.py. The rules are tested on values, in test_judging.py."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from src.core.values import Null
from src.figures import pages, words
from src.results.frame import frame_of_records, judge_stitches
from src.results.run import write_logs
from src.results.stitches import EvaluationFiles
from src.results.tables import EVALUATIONS, SIMILARITIES, write_table
from src.statistics.intervals import of_share
from src.verdict import INCONCLUSIVE, NOT_MATCHED, SIMILAR, VERDICTS, Limits
from tests.commands import caption_of, error_line, names_in, read_csv, run, says
from tests.frames import rows_of
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
    """Their rules are tested on values, in test_judging.py."""
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
