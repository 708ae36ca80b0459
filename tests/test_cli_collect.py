"""misc/collect_results.py as a user runs it, on runs of this suite and on those of the public
code."""

import re
import shutil

import pytest

from tests.commands import error_line, panels_of, read_csv, run, says
from tests.goldens import DATA
from tests.written_runs import N, write_run

pytestmark = pytest.mark.usefixtures("in_tmp_path")

SCRIPT = "misc/collect_results.py"
PUBLIC = DATA / "public_runs"
TRAINED = sorted(config.parent for config in (PUBLIC / "trained").glob("*/config.txt"))


def copy_run(source, target, accuracy: float | None = None) -> None:
    """Copy a run of the public code, if wanted with another accuracy."""
    shutil.copytree(source, target)
    if accuracy is not None:
        summary = target / "summary.txt"
        summary.write_text(
            re.sub("Clean accuracy: .*", f"Clean accuracy: {accuracy} ", summary.read_text())
        )


def test_each_experiment_has_a_matrix_of_its_own(tmp_path):
    for name, n_right, layer, options in (
        ("1", 940, "layer4.0", {}),
        ("2", 900, "layer4.1", {}),
        ("3", 800, "layer4.1", {"objective": "hint", "n_epochs": 1}),
    ):
        write_run(tmp_path / "x", name, n_right=n_right, front_layer=layer, **options)
    lines = run(SCRIPT, "x").out.splitlines()
    assert lines[0] == "n_epochs=0" and lines[4] == "n_epochs=1"
    values = [["layer4.0", "0.9400"], ["layer4.1", "0.9000"], ["layer4.1", "0.8000"]]
    assert [lines[i].split() for i in (2, 3, 6)] == values and len(lines) == 7
    assert {(row["objective"], row["n_epochs"]) for row in read_csv("x/grid.csv")} == {
        ("task", "0"),
        ("hint", "1"),
    }
    table = read_csv("x/grid_intervals.csv")
    assert {row["method"] for row in table} == {"direct matching", "hint matching"} and len(
        table
    ) == 3
    for row in table:  # near those of the binomial distribution
        accuracy, low, high = (float(row[f"accuracy{end}"]) for end in ("", "_low", "_high"))
        assert high - low == pytest.approx(
            2 * 1.96 * (accuracy * (1 - accuracy) / N) ** 0.5, abs=0.002
        )


def test_a_sweep_over_ranks_is_one_table(tmp_path):
    for name, rank in (("1", 1), ("2", 8), ("3", None)):
        ranks = {"front_stitch_rank": rank, "front_pinv_rank": rank}
        write_run(tmp_path / "x", name, n_right=500 if rank == 1 else 900, **ranks)
    header, row = run(SCRIPT, "x").out.splitlines()
    assert header.split() == ["rank", "1", "rank", "8", "full"]
    assert row.split() == ["x", "->", "y", "0.5000", "0.9000", "0.9000"]


def test_runs_of_the_public_code(tmp_path):
    out = run(SCRIPT, PUBLIC / "trained", "-o", "all.csv").out
    assert [line.split() for line in out.splitlines()] == [
        ["layer1.0", "layer2.0"],
        ["layer2.0", "nan", "0.7600"],
        ["layer3.1", "nan", "0.7700"],
        ["layer4.1", "0.5400", "nan"],
    ]
    rows = read_csv("all.csv")
    assert [row["accuracy"] for row in rows] == ["0.76", "0.77", "0.54"]
    written = {
        "init": "pinv",
        "seed": "0",
        "objective": "task",
        "n_epochs": "0",
        "matching_error": "0.0811",
        "representation_difference": "0.0821",
        "front_accuracy": "nan",
        "kappa": "nan",
    }
    assert {name: rows[0][name] for name in written} == written
    assert (tmp_path / "all.png").exists()


def test_the_arguments_of_the_public_script(tmp_path):
    """The folder and the types of both networks, by which that script tells the order of the
    layers."""
    for source in TRAINED:
        copy_run(source, tmp_path / "n" / source.name)
    assert run(SCRIPT, "n", "resnet18", "resnet18").out == run(SCRIPT, "n").out != ""
    line = error_line(SCRIPT, "n", "resnet18", "resnet34")
    assert says(line, "n has", "resnet18 to resnet18", "not ", "resnet18 to resnet34")


def test_unfinished_and_damaged_runs_are_skipped_and_named(tmp_path):
    unfinished, damaged, whole = (tmp_path / "n" / source.name for source in TRAINED)
    for source in TRAINED:
        copy_run(source, tmp_path / "n" / source.name)
    (unfinished / "config.txt").unlink()
    (damaged / "config.txt").write_text("{}")
    one, two = (
        line for line in run(SCRIPT, "n").err.splitlines() if line.startswith("warning: skipped: ")
    )
    assert unfinished.name in one and "did not finish" in one
    assert damaged.name in two and "missing or damaged" in two
    assert [row["folder"] for row in read_csv("n/grid.csv")] == [whole.name]


def test_two_folders_are_compared(tmp_path, drawn_figures, laid_out):
    for source in TRAINED:
        copy_run(source, tmp_path / "one" / source.name)
        copy_run(source, tmp_path / "other" / source.name, accuracy=0.5)
    out = run(SCRIPT, "one", "other").out
    lines = out.splitlines()
    assert [lines[i] for i in (0, 5, 10)] == ["one", "other", "other − one"] and len(lines) == 15
    assert not list((tmp_path / "one").glob("grid*"))  # it writes nothing unless asked to
    assert run(SCRIPT, "one", "other", "-o", "new/both.csv").out == out
    panels = panels_of(drawn_figures["both.png"])
    assert list(panels) == ["one accuracy", "other accuracy", "other − one difference"]
    assert [text.get_text() for text in panels["other accuracy"].texts] == ["0.50"] * 3
    assert [row["accuracy_2"] for row in read_csv("new/both.csv")] == ["0.5"] * 3


def test_two_folders_of_different_data(tmp_path):
    for dataset in ("digits", "mnist5k"):
        write_run(tmp_path / dataset, "1", n_right=900, dataset=dataset)
    err = run(SCRIPT, "digits", "mnist5k").err
    assert says(err, "digits and mnist5k", "different data")
    write_run(tmp_path / "other", "1", n_right=800, dataset="digits")
    assert not run(SCRIPT, "digits", "other").err


def test_from_below_all_are_written_and_of_repeated_ones_the_newest_counts(tmp_path, drawn_figures):
    for name, accuracy in (("a/2026-11-25_10-25-39.5", 0.25), ("b/2026-11-25_10-25-32.5", 0.5)):
        copy_run(TRAINED[0], tmp_path / "n" / name, accuracy)
    out, err = run(SCRIPT, "n", "-r", "-o", "all.csv")
    assert (
        out.split()[-1] == "0.2500" and "1 result repeats another" in err and "skipped" not in err
    )
    assert [row["accuracy"] for row in read_csv("all.csv")] == ["0.5", "0.25"]
    assert "0.25" in [text.get_text() for text in drawn_figures["all.png"].axes[0].texts]
    (measured,) = (row for row in read_csv("all_measurements.csv") if row["measure"] == "accuracy")
    assert measured["value"] == "0.25"
    inside = tmp_path / "n" / "a" / "2026-11-25_10-25-39.5"
    assert says(error_line(SCRIPT, ".", "-r", cwd=inside), "is a run", "-o")
    (tmp_path / "empty").mkdir()
    assert says(error_line(SCRIPT, "empty", "-r"), "no finished", "run")
