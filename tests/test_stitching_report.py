"""The tables and figures of folders of stitches: rows read from runs, captions, grids and
comparisons."""

import json
import math

import pytest

from src.figures.grids import write_grid
from src.figures.matrices import compare
from src.ground.console import decimals, points, table
from src.ground.errors import UserError
from src.results.folders import read_stitches, row_of
from src.results.grid_matrices import printed_matrices
from src.results.network_names import short_names
from src.results.stitch_rows import StitchRow
from src.results.tables import write_table
from src.values import IntervalEstimate
from tests.commands import caption_of, heading, panels_of, says
from tests.result_rows import OPTIONS, stitch_row
from tests.run_content import grid_rows

SUMMARY = (
    "Front model: a.pt \nEnd model: b.pt \nFront layer: layer1.0 \nEnd layer: layer2.0 \nClean accuracy: 0.7500 \n"
    "Normalized PINV difference: 0.0000\nNormalized representation difference: 0.2500\n"
)


def run(folder, *, metrics=None, **options):
    folder.mkdir()
    (folder / "config.txt").write_text(json.dumps(OPTIONS | options))
    (folder / "summary.txt").write_text(SUMMARY)
    if metrics is not None:
        write_table(folder / "grid.csv", StitchRow, [row_of(folder, OPTIONS | options, metrics)])
    ((stitch,), _) = read_stitches(folder)
    return stitch


def test_runs_of_the_public_code_matched_nothing_where_nothing_is_matched(tmp_path):
    """Its summary.txt says 0."""
    assert run(tmp_path / "a").row.matching_error is None
    names = "accuracy front_accuracy end_accuracy representation_difference matching_error"
    metrics = dict(zip(names.split(), (0.75, 0.9, 0.8, 0.25, 0.125), strict=True))
    matched = run(tmp_path / "b", metrics=metrics, init="pinv").row
    assert matched.matching_error == 0.125 and matched.end_accuracy == 0.8
    assert math.isnan(matched.agreement)
    networks = run(tmp_path / "c", front_model_path="./m//a.pt", end_model_path=None).row
    assert networks.front_model_path == "m/a.pt" and networks.end_model_path is None
    write_grid(tmp_path / "grid.csv", [run(tmp_path / "d").row])
    (found,) = grid_rows(tmp_path)
    assert found.accuracy == 0.75 and found.objective == "task"  # which it does not name
    assert found.matching_error is None


def test_the_grid_has_a_panel_for_each_experiment_of_its_layers_all_of_one_scale(
    tmp_path, drawn_figures
):
    rows = [
        stitch_row(),
        stitch_row(accuracy=0.9, init="pinv", n_epochs=0),
        stitch_row(end_layer="layer3.0"),
    ]
    write_grid(tmp_path / "grid.csv", rows, title="Digits")
    ((path, figure),) = drawn_figures.items()
    assert path == "grid.png" and figure.get_suptitle() == "Digits"
    panels = list(panels_of(figure).values())
    assert [heading(axes).split()[0] for axes in panels] == ["init=rand", "init=pinv"]
    assert [axes.images[0].get_clim() for axes in panels] == [(0, 1)] * 2
    assert says(caption_of(figure), "(0.50)", "1 pair of networks, test inputs of digits.")
    assert panels[0].images[0].get_array().filled(-1).tolist() == [[0.5, 0.5]]
    assert panels[1].images[0].get_array().filled(-1).tolist() == [[0.9]]


def at_ranks(*ranks: int | None, **values) -> list[StitchRow]:
    """Stitches at these ranks; a higher rank is more accurate."""
    return [
        stitch_row(
            front_stitch_rank=rank,
            front_pinv_rank=rank,
            accuracy=0.9 if rank is None else rank / 10,
            **values,
        )
        for rank in ranks
    ]


def test_a_sweep_over_ranks_is_one_curve(tmp_path, drawn_figures):
    """Several experiments have a panel each; one rank of a pair, or two that vary apart, make none."""
    rows = [*at_ranks(1, 2, 4, None), *at_ranks(2, 1, end_layer="layer3.0")]
    write_grid(tmp_path / "grid.csv", [*rows, *at_ranks(1, 2, seed=1)])
    first, second = drawn_figures["grid.png"].axes
    assert [line.get_xydata().tolist() for line in first.lines] == [
        [[1, 0.1], [2, 0.2], [4, 0.4]],
        [[1, 0.1], [2, 0.2]],
    ]
    assert len(second.lines) == 1 and "retained rank" in first.get_xlabel()
    one_rank = [*at_ranks(1, 2), *at_ranks(4, end_layer="layer3.0")]
    for rows in (one_rank, [*at_ranks(1, 2), stitch_row(front_pinv_rank=1)]):
        write_grid(tmp_path / "heat.csv", rows)
        assert any(axes.images for axes in drawn_figures["heat.png"].axes)


def test_means_keep_kinds_of_pairs_of_networks_apart(tmp_path, drawn_figures):
    """Trained networks, a network with itself, and an untrained network on either side."""
    rows = [stitch_row(seed=0, accuracy=0.0)]  # of an earlier run of the same experiment
    rows += [stitch_row(seed=seed, accuracy=0.75) for seed in range(10)]
    rows += [stitch_row(seed=seed, accuracy=0.125, front_model_path="-") for seed in (0, 1)]
    rows.append(stitch_row(accuracy=0.25, end_model_path="-"))
    rows.append(stitch_row(accuracy=1.0, end_model_path="a.pt"))
    kinds = (  # the last of repeated runs counts
        ("pairs of networks", "mean of 10", 0.75),
        ("itself", "1 experiment", 1.0),
        ("untrained front", "mean of 2", 0.125),
        ("untrained end", "1 experiment", 0.25),
    )
    write_grid(tmp_path / "grid.csv", rows)
    images = [axes.images[0] for axes in panels_of(drawn_figures["grid.png"]).values()]
    matrices = printed_matrices(rows).items()
    for (pairs, n, mean), (title, matrix), image in zip(kinds, matrices, images, strict=True):
        assert says(title, "task loss matching", pairs, n)
        assert matrix.values == [[mean]] and image.get_array().item() == mean


def matched(accuracy: float, **values) -> StitchRow:
    return stitch_row(accuracy=accuracy, init="pinv", n_epochs=0, **values)


def test_two_experiments_are_compared_by_the_second_less_the_first(tmp_path, drawn_figures):
    first = [matched(0.5), matched(0.75, end_layer="layer3.0"), matched(1.0, end_layer="layer4.0")]
    second = [stitch_row(accuracy=0.75), stitch_row(accuracy=0.5, end_layer="layer3.0")]
    compare(["dm", "tlm"], [first, second], tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_text() == (
        "front_layer,end_layer,accuracy_1,accuracy_2,difference\nlayer1.0,layer2.0,0.5,0.75,0.25\n"
        "layer1.0,layer3.0,0.75,0.5,-0.25\nlayer1.0,layer4.0,1.0,nan,nan\n"
    )
    panels = panels_of(drawn_figures["c.png"])
    limits = [axes.images[0].get_clim() for axes in panels.values()]
    assert limits == [(0, 1), (0, 1), (-0.25, 0.25)]


def test_folders_that_are_compared(capsys):
    """Methods of one name are told apart by them; each holds one experiment."""
    compare(["a", "b"], [[stitch_row()], [stitch_row(n_epochs=9)]])
    assert capsys.readouterr().out.splitlines()[::3] == ["a", "b", "b − a"]
    with pytest.raises(
        UserError, match=r"^b holds 2 experiments \(seed=0; seed=1\); to compare two folders, give"
    ):
        compare(["a", "b"], [[stitch_row()], [stitch_row(), stitch_row(seed=1)]])
    with pytest.raises(UserError, match="^a is given twice"):
        compare(["a", "a"], [[stitch_row()], [stitch_row()]])


def test_equal_names_of_files_are_told_apart_by_folders():
    for paths in (["/data/long/path/x/a.pt", "/home/me/y/a.pt"], ["x/a.pt", "y/a.pt"]):
        assert short_names(paths) == ["x/a", "y/a"]


def test_no_number_is_minus_zero(capsys):
    """In a printed matrix, an interval and points."""
    table("m", ["a"], ["x", "y", "z"], [[-1e-6, -0.00006, math.nan]])
    assert capsys.readouterr().out.split()[-3:] == ["0.0000", "-0.0001", "nan"]
    assert str(IntervalEstimate(-1e-6, -0.25, 1e-6)) == "0.0000 [-0.2500, 0.0000]"
    assert points(-1e-6) == "0.0" and points(-0.0006, sign="+") == "-0.1"
    assert [decimals(x) for x in (-1e-6, 0.25, -0.25)] == ["0.0000", "0.2500", "-0.2500"]
