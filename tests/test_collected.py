"""The tables and figures of folders of stitches (misc/collect_results.py), of this suite and of the
public code: rows read from runs, captions and grids."""

import json
import math
import re
import shutil

import pytest

from misc.compare import names_of
from src.core.console import decimals, points, table
from src.core.values import IntervalEstimate, Pair
from src.results.network_names import NamedNetwork, short_names
from src.results.stitches import GRID, columns_of, read_stitches
from src.results.tables import read_table, write_table
from tests.commands import error_line, panels_of, read_csv, run, says
from tests.goldens import DATA
from tests.result_rows import OPTIONS
from tests.written_runs import write_run

SUMMARY = (
    "Front model: a.pt \nEnd model: b.pt \nFront layer: layer1.0 \nEnd layer: layer2.0 \nClean accuracy: 0.7500 \n"
    "Normalized PINV difference: 0.0000\nNormalized representation difference: 0.2500\n"
)


def written(folder, *, metrics=None, **options):
    folder.mkdir()
    (folder / "config.txt").write_text(json.dumps(OPTIONS | options))
    (folder / "summary.txt").write_text(SUMMARY)
    if metrics is not None:
        layers = {name: OPTIONS[name] for name in Pair._fields}
        record = {**columns_of(OPTIONS | options), **layers, **metrics, "folder": folder.name}
        write_table(folder / "grid.csv", GRID, [record])
    ((stitch,), _) = read_stitches(folder)
    return stitch


def test_runs_of_the_public_code_matched_nothing_where_nothing_is_matched(tmp_path):
    """Its summary.txt says 0."""
    assert written(tmp_path / "a").record["matching_error"] is None
    names = "accuracy front_accuracy end_accuracy representation_difference matching_error"
    metrics = dict(zip(names.split(), (0.75, 0.9, 0.8, 0.25, 0.125), strict=True))
    matched = written(tmp_path / "b", metrics=metrics, init="pinv").record
    assert matched["matching_error"] == 0.125 and matched["end_accuracy"] == 0.8
    assert math.isnan(matched["agreement"])
    networks = written(tmp_path / "c", front_model_path="./m//a.pt", end_model_path=None).record
    assert networks["front_model_path"] == "m/a.pt" and networks["end_model_path"] is None
    write_table(tmp_path / "grid.csv", GRID, [written(tmp_path / "d").record])
    (found,) = read_table(tmp_path / "grid.csv", GRID)
    assert found["accuracy"] == 0.75 and found["objective"] == "task"  # which it does not name
    assert found["matching_error"] is None


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/data/long/path/x/a.pt", "/home/me/y/a.pt"], ["x/a", "y/a"]),
        (["x/a.pt", "y/a.pt", "x/a.pt"], ["x/a", "y/a", "x/a"]),
        (["/data/1/x/a.pt", "/data/2/x/a.pt"], ["1/x/a", "2/x/a"]),
        (["x/model_5.pt", "7/final_model.pt", "-"], ["x", "network 7", "untrained"]),
        (["x/model_5.pt", "x/model_6.pt"], ["model_5", "model_6"]),
        (["/data/x/a.pt", "/data/x/a.pth"], ["a (1)", "a (2)"]),
    ],
)
def test_names_of_checkpoints_are_short_and_unique(paths, names):
    assert short_names(paths) == names


@pytest.mark.parametrize(
    ("paths", "types", "names"),
    [
        (("a/model_5.pt", "b/model_10.pt"), ("cnn", "cnn"), ["a", "b"]),
        (("model_5.pt", "model_10.pt"), ("cnn", "vit"), ["model_5", "model_10"]),
        (("-", "-"), ("cnn", "vit"), ["cnn", "vit"]),
        (("x/a.pt", "y/a.pt"), ("cnn", "cnn"), ["x_a", "y_a"]),
        (("a/model_5.pt", "a/model_10.pt"), ("cnn", "cnn"), ["model_5", "model_10"]),
        (("x/cat.pt", "y/dog.pt"), ("cnn", "cnn"), ["cat", "dog"]),
    ],
)
def test_two_networks_are_named_by_file_folder_or_type(paths, types, names):
    assert names_of(*map(NamedNetwork, paths, types)) == names


def test_no_number_is_minus_zero(capsys):
    """In a printed matrix, an interval and points."""
    table("m", ["a"], ["x", "y", "z"], [[-1e-6, -0.00006, math.nan]])
    assert capsys.readouterr().out.split()[-3:] == ["0.0000", "-0.0001", "nan"]
    assert str(IntervalEstimate(-1e-6, -0.25, 1e-6)) == "0.0000 [-0.2500, 0.0000]"
    assert points(-1e-6) == "0.0" and points(-0.0006, sign="+") == "-0.1"
    assert [decimals(x) for x in (-1e-6, 0.25, -0.25)] == ["0.0000", "0.2500", "-0.2500"]


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


def test_each_experiment_has_a_matrix_of_its_own(tmp_path, drawn_figures):
    for name, n_right, layer, options in (
        ("1", 940, "layer4.0", {}),
        ("2", 900, "layer4.1", {}),
        ("3", 800, "layer4.1", {"objective": "hint", "n_epochs": 1}),
    ):
        write_run(tmp_path / "x", name, n_right=n_right, front_layer=layer, **options)
    lines = run(SCRIPT, "x").out.splitlines()
    panels = [axes.images[0] for axes in panels_of(drawn_figures["collected.png"]).values()]
    assert [panel.get_clim() for panel in panels] == [(0, 1)] * 2
    assert [panel.get_array().ravel().tolist() for panel in panels] == [[0.94, 0.9], [0.8]]
    assert lines[0] == "direct matching" and lines[4] == "hint matching"
    values = [["layer4.0", "0.9400"], ["layer4.1", "0.9000"], ["layer4.1", "0.8000"]]
    assert [lines[i].split() for i in (2, 3, 6)] == values and len(lines) == 7
    assert {(row["objective"], row["n_epochs"]) for row in read_csv("x/collected.csv")} == {
        ("task", "0"),
        ("hint", "1"),
    }


def test_more_than_twelve_experiments_are_all_in_the_table(tmp_path, drawn_figures):
    for place in range(14):
        trained = {"init": "rand", "n_epochs": 1, "objective": "task", "learning_rate": place / 100}
        write_run(tmp_path / "x", f"{place}", n_right=900, **trained)
    out, err = run(SCRIPT, "x")
    assert says(err, "12 of 14 experiments") and out.count("-lr") == 4
    assert len(panels_of(drawn_figures["collected.png"])) == 12
    assert len(read_csv("x/collected.csv")) == 14


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
        "front_accuracy": "",
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
    assert says(error_line(SCRIPT, "n", "resnet18"), "types of both networks")


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
    assert [row["folders"] for row in read_csv("n/collected.csv")] == [whole.name]


def test_from_below_all_are_written_and_of_repeated_ones_the_newest_counts(tmp_path, drawn_figures):
    for name, accuracy in (("a/2026-11-25_10-25-39.5", 0.25), ("b/2026-11-25_10-25-32.5", 0.5)):
        copy_run(TRAINED[0], tmp_path / "n" / name, accuracy)
    out, err = run(SCRIPT, "n", "-o", "all.csv")
    assert (
        out.split()[-1] == "0.2500"
        and "1 result repeats another of the same experiment (" in err
        and "skipped" not in err
    )
    assert [row["accuracy"] for row in read_csv("all.csv")] == ["0.25"]
    assert "0.25" in [text.get_text() for text in drawn_figures["all.png"].axes[0].texts]
