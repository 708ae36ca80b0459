"""Figures: what they show and how large they are, drawn without a display."""

import importlib.util
import math

import pytest

from src.results import figures
from src.results.curves import Point, curves
from src.results.heat_maps import ClassMap, HeatMap, maps
from src.results.matrices import Matrix
from tests.commands import PDF, PNG, caption_of

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.usefixtures("rendered")
AXES = {"row_label": "front layer", "column_label": "end layer"}


@pytest.fixture
def rendered(render_figure, monkeypatch):
    monkeypatch.setattr(figures, "_save", render_figure)


def of_layers(*values: list) -> Matrix:
    """One column of two layers."""
    return Matrix(["a", "b"], ["c"], values)


def panels_of(figure) -> list:
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def test_bright_stands_for_similar(tmp_path, drawn_figures):
    values = of_layers([0.25], [1.5])
    difference = HeatMap.difference(of_layers([-0.75], [0.5]))
    panels = {"cka": HeatMap(values), "distance": HeatMap(values, (2, 0)), "difference": difference}
    maps(tmp_path / "f.png", panels, **AXES)
    images = [axes.images[0] for axes in panels_of(drawn_figures["f.png"])]
    assert [image.get_cmap().name for image in images] == ["viridis", "viridis_r", "RdBu_r"]
    assert [image.get_clim() for image in images] == [(0, 1), (0, 2), (-0.75, 0.75)]
    assert (tmp_path / "f.png").read_bytes().startswith(PNG)
    similar, unlike = (sum(images[1].cmap(images[1].norm(value))[:3]) for value in (0, 2))
    assert similar > unlike
    assert HeatMap.difference(of_layers([0.0], [math.nan])).scale == (-1, 1)  # nothing is white
    assert drawn_figures["f.png"].axes[0].get_gridspec().get_geometry() == (1, 3)
    maps(tmp_path / "g.png", {str(i): HeatMap(values) for i in range(5)}, **AXES)
    assert drawn_figures["g.png"].axes[0].get_gridspec().get_geometry() == (2, 3)


def test_cells_without_a_value_stay_blank_and_marked_ones_have_a_corner(tmp_path, drawn_figures):
    panels = {"accuracy": HeatMap(of_layers([0.5], [math.nan]), marked=[("b", "c")])}
    maps(
        tmp_path / "f.png",
        panels | {"signs": HeatMap(of_layers([-0.004], [-0.006]), (-1, 1))},
        **AXES,
    )
    axes, other = panels_of(drawn_figures["f.png"])
    assert [text.get_text() for text in axes.texts] == ["0.50"]
    assert [text.get_text() for text in other.texts] == ["0.00", "-0.01"]  # 0 has none
    (corner,) = axes.patches
    assert corner.get_xy()[0].tolist() == [0.5, 0.5]  # the upper right of the second row
    assert axes.get_xlim() == (-0.5, 0.5) and axes.get_ylim() == (1.5, -0.5)


def test_text_is_readable_and_nothing_overlaps(tmp_path, drawn_figures):
    """The numbers of eight layers fit into their cells, at 7 points and more; title and caption
    into the figure."""
    names = [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)]
    text = "Networks: models/a/model_10.pt (resnet18) → models/b/model_10.pt (resnet18). Data: cifar10."
    panels = {"t": HeatMap(Matrix(names, names, [[-0.25] * 8] * 8))}
    maps(tmp_path / "f.pdf", panels, **AXES, title="A title", caption=text)
    figure = drawn_figures["f.pdf"]
    axes, (below,) = figure.axes[0], figure.legends
    ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
    assert {
        text.get_fontsize() for text in (*ticks, axes.title, axes.xaxis.label, below.get_title())
    } == {8}
    figure.draw_without_rendering()
    width = axes.get_window_extent().width / 8
    assert all(
        text.get_fontsize() >= 7 and text.get_window_extent().width < width for text in axes.texts
    )
    assert caption_of(figure) == text and figure.get_suptitle() == "A title"
    box = below.get_window_extent()
    assert (
        0 <= box.x0
        and box.x1 <= figure.bbox.width
        and box.y1 <= axes.xaxis.label.get_window_extent().y0
    )


def test_titles_break_between_words_and_after_separators(tmp_path, drawn_figures):
    long = "direct matching (front_model_path=models/a_rather_long_name/model_10.pt, n_epochs=0)"
    maps(tmp_path / "f.png", {long: HeatMap(of_layers([0.5], [1]))}, **AXES, title="x" * 200)
    axes = panels_of(drawn_figures["f.png"])[0]
    lines = axes.get_title().split("\n")
    assert "".join(lines).replace(" ", "") == long.replace(" ", "")
    assert all(line[-1] in "/=_-" or f"{line} " in long or long.endswith(line) for line in lines)
    assert max(map(len, lines)) <= 40 and len(lines) > 1
    assert drawn_figures["f.png"].get_suptitle() == "x" * 200


def test_vectors(tmp_path):
    for name in ("a.pdf", "b.pdf"):
        maps(
            tmp_path / name,
            {"t": HeatMap(of_layers([0.5], [1]))},
            **AXES,
            title="a/$x_{$.pt is no formula",
        )
    written = (tmp_path / "a.pdf").read_bytes()
    assert written.startswith(PDF) and written == (tmp_path / "b.pdf").read_bytes()
    assert b"/TrueType" in written or b"/CIDFontType2" in written  # text, not outlines


def test_class_maps_have_one_legend_below(tmp_path, drawn_figures):
    colours = {
        "similar": "#4daf4a",
        "accurate but out of distribution": "#ff9f1c",
        "undecided": "#ffffff",
    }
    cells = of_layers([("similar", 0.9)], [None])
    panels = {name: ClassMap(cells, colours) for name in ("dm", "tlm")}
    maps(tmp_path / "f.png", panels, **AXES, caption="Data: digits.")
    figure = drawn_figures["f.png"]
    assert [len(axes.patches) for axes in figure.axes] == [1, 1]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(colours) and caption_of(
        figure
    ) == "Data: digits."


def test_curves_of_one_figure_have_one_scale_and_one_legend_and_layers_keep_their_order(
    tmp_path, drawn_figures
):
    lines = {"layer1.0": {1: 0.3, 2: 0.5, 64: 0.9}, "layer2.0": {64: 0.8, 1: math.nan}}
    curves(
        tmp_path / "f.png",
        {"cka": lines, "pwcca": {"layer2.0": {1: -2.0, 64: 0.5}}},
        x_label="rank",
        y_label="y",
    )
    figure = drawn_figures["f.png"]
    one, other = figure.axes
    assert (
        one.get_ylim() == other.get_ylim() and one.get_ylim()[0] <= -2 and one.get_ylim()[1] >= 0.9
    )
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["layer1.0", "layer2.0"]
    assert one.lines[1].get_color() == other.lines[0].get_color() != one.lines[0].get_color()
    points = {"stem": Point(0.5, 0.4, 0.6), "attic": Point(0.7, 0.6, 0.8)}
    curves(
        tmp_path / "g.png",
        {"accuracy": {"dm": points}},
        x_label="layer",
        layers=["stem", "body", "attic"],
    )
    (axes,) = drawn_figures["g.png"].axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["stem", "body", "attic"]
    assert axes.lines[0].get_xydata().tolist() == [[0, 0.5], [2, 0.7]]


def test_without_matplotlib_a_warning_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    maps(tmp_path / "f.png", {"t": HeatMap(of_layers([0.5], [1]))}, **AXES)
    assert "f.png was not drawn: matplotlib is not installed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
