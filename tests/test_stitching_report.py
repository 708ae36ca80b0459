"""The tables and figures of folders of stitches: rows read from runs, captions, grids and
comparisons."""

import itertools
import json
import math
from dataclasses import replace

import pytest

from src.collected.grid_matrices import printed_matrices
from src.collected.named_networks import NamedNetwork
from src.ground import html_page
from src.ground.console import decimals, table
from src.ground.errors import UserError
from src.reports.captions import describe_stitches
from src.reports.grid_tables import compare, draw, write_grid
from src.reports.map_panels import HeatMap
from src.runs.folders import read_run
from src.tables.matrices import accuracies
from src.tables.network_names import networks_in_words
from src.tables.stitch_rows import StitchRow
from src.values import IntervalEstimate
from tests.commands import caption_of, says
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
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return read_run(folder)


def test_runs_of_the_public_code_matched_nothing_where_nothing_is_matched(tmp_path):
    """Its summary.txt says 0."""
    metrics = {
        "accuracy": 0.75,
        "front_accuracy": 0.9,
        "end_accuracy": 0.8,
        "representation_difference": 0.25,
    }
    assert run(tmp_path / "a").row.matching_error is None
    assert (
        run(tmp_path / "b", metrics=metrics | {"matching_error": None}).row.matching_error is None
    )
    matched = run(tmp_path / "c", metrics=metrics | {"matching_error": 0.125}, init="pinv").row
    assert (
        matched.matching_error == 0.125
        and matched.end_accuracy == 0.8
        and math.isnan(matched.agreement)
    )
    networks = run(tmp_path / "e", front_model_path="./m//a.pt", end_model_path=None).row
    assert networks.front_model_path == "m/a.pt" and networks.end_model_path is None
    write_grid(tmp_path / "grid.csv", [run(tmp_path / "d").row])
    assert ",,0.25," in (tmp_path / "grid.csv").read_text()
    (found,) = grid_rows(tmp_path)
    assert found.accuracy == 0.75 and found.objective == "task"  # which it does not name


def test_the_caption_says_what_all_rows_share():
    rows = [stitch_row(n_images=1360), stitch_row(end_layer="layer3.0", seed=1, n_images=1360)]
    assert describe_stitches(rows) == (
        "Stitches a → b (both resnet18) by task loss matching, on 1,360 test images of digits.\n\n"
        "Stitching layers: 1×1 convolutions (maps of another size are resized). Task loss matching: trained for "
        "3 epochs on the cross-entropy, from a random start."
    )
    back = stitch_row(front_model_path="b.pt", end_model_path="a.pt", init="pinv", n_epochs=0)
    of_two = describe_stitches([stitch_row(), back])
    assert says(of_two, "Stitches resnet18 → resnet18 by task loss matching and direct matching")
    assert says(of_two, "Task loss matching: trained for 3 epochs")
    assert says(of_two, "fitted to 100 training images", "Direct matching: least squares.")
    auto = replace(back, n_pinv_init_samples="auto", n_matched=200)
    assert says(
        describe_stitches([auto]), "to 200 training images (chosen for each pair of layers)"
    )
    soft = stitch_row(objective="soft", init="pinv")
    assert says(
        describe_stitches([soft]), "Soft matching: trained for 3", "KL", "from least squares."
    )
    paths = {
        "front_model_path": "/home/me/m/a.pt",
        "front_model_type": "/home/me/nets/own.py:build",
    }
    shortened = describe_stitches([stitch_row(**paths, dataset="/data/sets/flowers")])
    assert says(
        shortened, "Stitches a (build) → b (resnet18) by task", "on test images of flowers."
    )


def test_the_caption_names_networks_by_what_tells_them_apart():
    """By the folder of numbered checkpoints, and by more of the path where that is not enough."""
    paths = {
        "front_model_path": "models/digits0/model_15.pt",
        "end_model_path": "models/digits1/model_15.pt",
    }
    assert says(describe_stitches([stitch_row(**paths)]), "digits0 → digits1 (both resnet18)")
    paths = {name: f"/home/me/{path}" for name, path in paths.items()}
    epochs = paths | {"end_model_path": "/home/me/models/digits0/model_5.pt"}
    assert says(describe_stitches([stitch_row(**epochs)]), "model_15 → model_5 (both resnet18)")
    untrained = paths | {"front_model_path": "-"}
    assert says(describe_stitches([stitch_row(**untrained)]), "untrained → digits1 (both resnet18)")


def test_the_caption_has_the_accuracies_of_several_end_networks():
    """By group, if a list names them; that of a single end network stands in the figure."""
    rows = [
        stitch_row(end_model_path=f"{end}.pt", end_accuracy=accuracy)
        for end, accuracy in {"x": 0.75, "y": 0.875, "z": 0.5}.items()
    ]
    assert says(describe_stitches(rows), "Accuracy of the end networks: 0.50 to 0.88.")
    named = {row.network_keys[0]: NamedNetwork("a", "early", training="a") for row in rows}
    for row, (name, group) in zip(
        rows, {"x": "early", "y": "early", "z": "late"}.items(), strict=True
    ):
        named[row.network_keys[1]] = NamedNetwork(name, group, training=name)
    caption = describe_stitches(rows, names=named)
    assert says(caption, "Accuracy of the end networks: early 0.75 to 0.88, late 0.50.")
    assert "Accuracy of the end" not in describe_stitches(rows[:1])


def test_the_caption_has_the_names_of_a_list():
    """Of one pair and of few networks; of many networks it has the number and the groups."""
    groups = {"a": "clean", "b": "clean", "c": "noisy", "d": "noisy", "e": "noisy", "f": "noisy"}
    groups["g"] = "/home/me/nets/own.py:build"
    rows = []
    named = {}
    for front, end in itertools.permutations(groups, 2):
        row = stitch_row(front_model_path=f"{front}.pt", end_model_path=f"{end}.pt")
        rows += [row, replace(row, seed=1)]
        for key, name in zip(row.network_keys, (front, end), strict=True):
            named[key] = NamedNetwork(name, groups[name], training=name)
    of_two = [row for row in rows if {row.front_model_path, row.end_model_path} == {"a.pt", "b.pt"}]
    assert says(describe_stitches(of_two[:2], names=named), "Stitches a → b by task loss")
    assert says(describe_stitches(of_two, names=named), "Stitches of 2 pairs of networks (a, b) by")
    of_seven = describe_stitches(rows, names=named)
    assert says(of_seven, "42 pairs of 7 networks", "(2 clean, 4 noisy, ", "1 build)")


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
    panels = [axes for axes in figure.axes if axes.images]
    assert path == "grid.png" and figure.get_suptitle() == "Digits"
    assert [axes.get_title().split("\n")[0] for axes in panels] == ["init=rand", "init=pinv"]
    assert [axes.images[0].get_clim() for axes in panels] == [(0, 1)] * 2
    assert "images of digits." in caption_of(figure)
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
    rows = [*at_ranks(1, 2, 4, None), *at_ranks(2, 1, end_layer="layer3.0")]
    write_grid(tmp_path / "grid.csv", rows)
    (axes,) = drawn_figures["grid.png"].axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [
        [[1, 0.1], [2, 0.2], [4, 0.4]],
        [[1, 0.1], [2, 0.2]],
    ]
    assert "retained rank" in axes.get_xlabel() and axes.get_ylabel().startswith("accuracy")
    assert says(caption_of(drawn_figures["grid.png"]), "full rank (mean): 0.90")
    # several experiments have a panel each, and many pairs of layers a line of their mean
    many = [row for layer in range(11) for row in at_ranks(1, 2, end_layer=f"layer{layer}")]
    write_grid(tmp_path / "many.csv", [*many, *at_ranks(1, 2, seed=1)])
    first, second = drawn_figures["many.png"].axes
    assert len(first.lines) == len(second.lines) == 1
    assert first.lines[0].get_color() != second.lines[0].get_color()
    # one rank of a pair, or two ranks that vary apart, make no curve
    one_rank = [*at_ranks(1, 2), *at_ranks(4, end_layer="layer3.0")]
    for rows in (one_rank, [*at_ranks(1, 2), stitch_row(front_pinv_rank=1)]):
        write_grid(tmp_path / "heat.csv", rows)
        assert any(axes.images for axes in drawn_figures["heat.png"].axes)


def test_more_than_twelve_experiments_are_drawn_as_means(tmp_path, drawn_figures, capsys):
    rows = []
    for seed in range(13):
        rows.append(stitch_row(seed=seed, accuracy=seed / 13))
        rows.append(stitch_row(seed=seed, n_epochs=0, init="pinv", accuracy=0.5))
    write_grid(tmp_path / "grid.csv", rows)
    panels = images_of(drawn_figures["grid.png"])
    trained, solved = panels
    assert says(trained, "task loss matching", "mean of 13")
    assert says(solved, "direct matching", "mean of 13")
    (mean,) = panels[trained].axes.texts
    assert mean.get_text() == "0.46"
    assert says(capsys.readouterr().err, "means of 26", f"{tmp_path / 'grid.csv'} has all")


def test_the_caption_of_a_grid_has_the_accuracy_of_its_only_end_network(tmp_path, drawn_figures):
    row = stitch_row(end_accuracy=0.875)
    write_grid(tmp_path / "one.csv", [row, replace(row, end_layer="layer3.0")])
    write_grid(tmp_path / "two.csv", [row, replace(row, end_model_path="c.pt")])
    write_grid(tmp_path / "unknown.csv", [replace(row, end_accuracy=math.nan)])
    sentence = "Accuracy (end network"
    assert f"{sentence}: 0.875)." in caption_of(drawn_figures["one.png"])
    for name in ("two.png", "unknown.png"):
        assert sentence not in caption_of(drawn_figures[name])


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
    images = images_of(drawn_figures["grid.png"]).values()
    matrices = printed_matrices(rows).items()
    for (pairs, n, mean), (title, matrix), image in zip(kinds, matrices, images, strict=True):
        assert says(title, "task loss matching", pairs, n)
        assert matrix.values == [[mean]] and image.get_array().item() == mean


def test_a_figure_of_more_than_twelve_means_says_so(tmp_path, drawn_figures, capsys):
    rows = [stitch_row(n_epochs=n) for n in range(1, 14)]
    write_grid(tmp_path / "grid.csv", rows)
    figure = drawn_figures["grid.png"]
    assert len(images_of(figure)) == 12
    assert says(caption_of(figure), "first 12 of 13 means", "CSV has all")
    assert len(printed_matrices(rows)) == 13


def test_the_caption_says_which_experiments_a_figure_shows(
    tmp_path, drawn_figures, laid_out, capsys
):
    """A column of panels each, of at most twelve panels."""
    panels = {}
    for number in range(7):
        matrix = accuracies([stitch_row(accuracy=number / 10)])
        panels[f"seed={number}"] = {"AUROC": HeatMap(matrix), "AUPR": HeatMap(matrix)}
    draw(tmp_path / "o.csv", panels, caption="Images: 360.")
    assert len([axes for axes in drawn_figures["o.png"].axes if axes.images]) == 12
    caption = caption_of(drawn_figures["o.png"])
    assert says(caption, "Images: 360. ", "last 6 of 7 experiments", "CSV has all")
    assert says(capsys.readouterr().err, "o.png", "last 6 of 7 experiments")
    panels["seed=6"] |= {f"quantity {n}": HeatMap(matrix) for n in range(5)}
    draw(tmp_path / "o.csv", panels)
    assert says(caption_of(drawn_figures["o.png"]), "last of 7 experiments", "CSV has all")
    assert says(capsys.readouterr().err, "o.png", "last of 7 experiments")
    del panels["seed=6"]
    draw(tmp_path / "o.csv", panels, caption="Images: 360.")
    assert "shown" not in caption_of(drawn_figures["o.png"])


def images_of(figure) -> dict:
    """The images of heat maps by the titles of their panels."""
    panels = [axes for axes in figure.axes if axes.images]
    return {" ".join(axes.get_title().split()): axes.images[0] for axes in panels}


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
    figure = drawn_figures["c.png"]
    images = images_of(figure)
    *titles, difference = images
    assert titles == ["direct matching", "task loss matching"]
    assert difference == " − ".join(reversed(titles))
    assert [image.get_clim() for image in images.values()] == [(0, 1), (0, 1), (-0.25, 0.25)]
    assert says(caption_of(figure), "Direct matching: least", "Task loss matching: trained")


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
        assert networks_in_words(paths, ["r", "r"]) == "x/a → y/a (both r)"


def test_no_number_is_minus_zero(capsys):
    """In a printed matrix, an interval and a table of a page."""
    table("m", ["a"], ["x", "y", "z"], [[-1e-6, -0.00006, math.nan]])
    assert capsys.readouterr().out.split()[-3:] == ["0.0000", "-0.0001", "nan"]
    assert str(IntervalEstimate(-1e-6, -0.25, 1e-6)) == "0.0000 [-0.2500, 0.0000]"
    assert ">0.0000<" in html_page.table("t", ["x"], [[-1e-6]])
    assert [decimals(x, sign="+") for x in (-1e-6, 0.25, -0.25)] == [
        "+0.0000",
        "+0.2500",
        "-0.2500",
    ]
