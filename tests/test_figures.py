"""Figures: what they show and how large they are, drawn without a display."""

import importlib.util
import itertools
import math

import pytest

pytest.importorskip("matplotlib")
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from src.ground import figures
from src.ground.curves import CurvePanel, Point, curves
from src.ground.figure_files import remove_figure
from src.ground.figures import ORANGE, YELLOW
from src.ground.style import style_sheets, use_style
from src.reports import verdict_maps
from src.reports.heat_maps import Labels, maps, maps_figure
from src.reports.map_panels import BLANK, ClassMap, HeatMap, Sign
from src.tables.matrices import Matrix
from src.verdict import VERDICTS, Limits
from tests.commands import PDF, PNG, caption_of, error_line, says

pytestmark = pytest.mark.usefixtures("laid_out")
AXES = Labels("front layer", "end layer")
LAYERS = [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)]
METHODS = ("direct matching", "repair matching", "covariance matching", "task loss matching")
SIGNS = {
    "similar": Sign(YELLOW),
    "accurate but out of distribution": Sign(ORANGE, "xx"),
    "undecided": Sign("white", ".."),
}
COLUMN_CM = 8.5
PAGE_CM = 17


def of_layers(*values: list) -> Matrix:
    """One column of two layers."""
    return Matrix(["a", "b"], ["c"], values)


def of_one_class(name: str) -> dict[str, Matrix]:
    """A cell of a class above a blank cell."""
    return {other: of_layers([float(other == name)], [math.nan]) for other in SIGNS}


def square(layers: list[str], value=0.5) -> Matrix:
    """A matrix of equal values over layers."""
    return Matrix(layers, layers, [[value] * len(layers) for _ in layers])


def panels_of(figure) -> list:
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def bars_of(figure) -> list:
    return [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]


def lines_and_columns(figure) -> tuple[int, int]:
    """The number of lines of panels, and of panels in a line."""
    places = [axes.get_subplotspec() for axes in panels_of(figure)]
    lines = {place.rowspan.start for place in places}
    columns = {place.colspan.start for place in places}
    return len(lines), len(columns)


def texts_of(figure) -> list:
    """All texts of a figure that are shown."""
    texts = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return [text for text in texts if text.get_text().strip()]


def boxes_of(figure) -> dict:
    """The texts with their places on the drawn figure, without labels of ticks that are not drawn."""
    figure.draw_without_rendering()
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            for tick in axis.get_major_ticks():
                labels = (tick.label1, tick.label2)
                low, high = sorted(axis.get_view_interval())
                is_seen = low <= tick.get_loc() <= high
                hidden |= {label for label in labels if not (is_seen and label.get_visible())}
    return {text: box_of(text) for text in texts_of(figure) if text not in hidden}


def box_of(text) -> Bbox:
    """The place of a text, without the blank lines at its end that keep a title of a row up."""
    box = text.get_window_extent()
    lines = text.get_text().split("\n")
    n_blank = sum(not line for line in lines)
    return Bbox.from_extents(box.x0, box.y0 + box.height * n_blank / len(lines), box.x1, box.y1)


def overlaps(figure) -> list[tuple[str, str]]:
    """The pairs of texts that cover each other by more than half a point."""
    margin = 0.5 * figure.dpi / 72
    boxes = list(boxes_of(figure).items())
    pairs = []
    for (text, box), (other_text, other_box) in itertools.combinations(boxes, 2):
        width = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
        height = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
        if width > margin and height > margin:
            pairs.append((text.get_text(), other_text.get_text()))
    return pairs


def width_in_cm(figure) -> float:
    """The width of the file, in which all that is drawn has room."""
    assert figure.get_tightbbox().width <= figure.get_figwidth()
    return 2.54 * figure.get_figwidth()


def test_bright_stands_for_similar(tmp_path, drawn_figures):
    values = of_layers([0.25], [1.5])
    difference = HeatMap.difference(of_layers([-0.75], [0.5]))
    panels = {"cka": HeatMap(values), "distance": HeatMap(values, (2, 0)), "difference": difference}
    maps(tmp_path / "f.png", {"": panels}, labels=AXES)
    images = [axes.images[0] for axes in panels_of(drawn_figures["f.png"])]
    assert [image.get_cmap().name for image in images] == ["viridis", "viridis_r", "cividis"]
    assert [image.get_clim() for image in images] == [(0, 1), (0, 2), (-0.75, 0.75)]
    similar, unlike = (sum(images[1].cmap(images[1].norm(value))[:3]) for value in (0, 2))
    assert similar > unlike
    # The bright end of each bar is on its right
    ends = [bar.get_xlim() for bar in bars_of(drawn_figures["f.png"])]
    assert ends == [(0, 1), (2, 0), (-0.75, 0.75)]
    assert HeatMap.difference(of_layers([0.0], [math.nan])).scale == (-1, 1)  # nothing is white


def test_a_quantity_is_a_line_with_one_bar_and_a_method_a_column(tmp_path, drawn_figures):
    layers = ["layer1", "layer2", "layer3", "layer4"]
    quantities = {
        "accuracy": HeatMap(square(layers)),
        "noise dose": HeatMap(square(layers), (0.2, 0)),
    }
    maps(tmp_path / "f.png", {method: quantities for method in METHODS}, labels=AXES)
    figure = drawn_figures["f.png"]
    panels = panels_of(figure)
    assert lines_and_columns(figure) == (2, 4)
    titles = [axes.get_title().replace("\n", " ") for axes in panels]
    assert titles == [*METHODS, "", "", "", ""]
    assert [axes.get_ylabel() for axes in panels] == ["front layer", "", "", ""] * 2
    assert [axes.get_xlabel() for axes in panels] == [""] * 4 + ["end layer"] * 4
    bars = bars_of(figure)
    assert [bar.get_ylabel() for bar in bars] == ["accuracy", "noise dose"]
    assert [bar.get_ylim() for bar in bars] == [(0, 1), (0.2, 0)]  # bright is above
    shown = [text.get_text() for text in boxes_of(figure)]
    assert shown.count("layer1") == 2 + 4
    caption = caption_of(figure)
    assert says(caption, "(a–d) accuracy; (e–h) noise dose. Bright is similar.")
    letters = [axes.get_title(loc="left").strip() for axes in panels]
    assert letters == list("abcdefgh")
    assert not overlaps(figure)


def test_panels_with_layers_or_scales_of_their_own_are_labelled(tmp_path, drawn_figures):
    experiments = {
        "a": {"accuracy": HeatMap(square(["x", "y"])), "κ": HeatMap(square(["x", "y"]))},
        "b": {"accuracy": HeatMap(square(["z"])), "κ": HeatMap(square(["z"]), (0, 2))},
    }
    maps(tmp_path / "f.png", experiments, labels=AXES)
    figure = drawn_figures["f.png"]
    shown = [text.get_text() for text in boxes_of(figure)]
    assert shown.count("x") == 1 + 2 and shown.count("z") == 1 + 2
    assert [bar.get_ylim() for bar in bars_of(figure)] == [(0, 1), (0, 1), (0, 2)]


def test_one_bar_of_colours_explains_panels_of_one_quantity(tmp_path, drawn_figures):
    five = {f"seed={number}": {"accuracy": HeatMap(square(LAYERS))} for number in range(5)}
    maps(tmp_path / "f.png", five, labels=AXES)
    figure = drawn_figures["f.png"]
    assert lines_and_columns(figure) == (2, 3)
    assert [axes.get_title() for axes in panels_of(figure)] == list(five)
    (bar,) = bars_of(figure)
    assert bar.get_window_extent().width < panels_of(figure)[0].get_window_extent().width
    lowest = min(axes.get_window_extent().y0 for axes in panels_of(figure))
    assert bar.get_window_extent().y1 < lowest
    assert not overlaps(figure)


def test_neighbours_of_one_scale_share_a_bar_below(tmp_path, drawn_figures):
    layers = ["x", "y"]
    row = {
        "first": HeatMap(square(layers)),
        "second": HeatMap(square(layers)),
        "difference": HeatMap(square(layers), (-1, 1)),
        "third": HeatMap(square(layers)),
    }
    maps(tmp_path / "f.png", {"": row}, labels=AXES)
    figure = drawn_figures["f.png"]
    assert len(bars_of(figure)) == 3
    lowest = min(axes.get_window_extent().y0 for axes in panels_of(figure))
    assert all(bar.get_window_extent().y1 < lowest for bar in bars_of(figure))
    assert not overlaps(figure)


def test_a_title_is_broken_at_the_width_of_its_panel(tmp_path, drawn_figures):
    quantities = {"accuracy": HeatMap(square(["x", "y"])), "κ": HeatMap(square(["x", "y"]))}
    titles = {
        "covariance matching, residual → transformer, 9 pairs": quantities,
        "other": quantities,
    }
    maps(tmp_path / "f.png", titles, labels=AXES)
    figure = drawn_figures["f.png"]
    assert [axes.get_title().replace("\n", " ") for axes in panels_of(figure)[:2]] == [*titles]
    assert not overlaps(figure)


def test_a_narrow_panel_has_a_narrow_title(tmp_path, drawn_figures):
    layers = ("1", "3", "4", "6", "7")
    titles = {f"mine/nets.py:cnn → mine/nets.py:{end}, 4 pairs of networks": {
        name: HeatMap(Matrix(layers, ends, [[0.5] * len(ends)] * len(layers))) for name in ("penalty", "κ")
    } for end, ends in (("cnn", layers), ("mlp", ("fc1", "fc2", "fc3")))}  # fmt: skip
    maps(tmp_path / "f.png", titles, labels=AXES)
    figure = drawn_figures["f.png"]
    boxes = boxes_of(figure)
    for axes in panels_of(figure)[:2]:
        assert boxes[axes.title].width <= axes.get_window_extent().width


def test_the_caption_says_where_scales_are_turned(tmp_path, drawn_figures):
    matrix = of_layers([0.1], [0.2])
    panels = {"accuracy": HeatMap(matrix), "AUPR": HeatMap(matrix, (1, 0))}
    maps(tmp_path / "f.png", {"": panels}, labels=AXES)
    assert says(caption_of(drawn_figures["f.png"]), "Bright is similar.")
    maps(tmp_path / "g.png", {"": {"accuracy": panels["accuracy"]}}, labels=AXES)
    assert "Bright" not in caption_of(drawn_figures["g.png"])


def test_panels_go_on_in_the_next_line_and_on_the_next_page(tmp_path, drawn_figures):
    seven = {f"quantity {number}": HeatMap(square(LAYERS)) for number in range(7)}
    maps(tmp_path / "seven.png", {"": seven}, labels=AXES)
    assert lines_and_columns(drawn_figures["seven.png"]) == (3, 3)
    assert all(axes.texts for axes in panels_of(drawn_figures["seven.png"]))

    # A table keeps its lines: the methods that do not fit have a page of their own
    quantities = {"accuracy": HeatMap(square(LAYERS[:4])), "κ": HeatMap(square(LAYERS[:4]), (0, 2))}
    eight = {f"method {number}": quantities for number in range(8)}
    maps(tmp_path / "eight.png", eight, labels=AXES, caption="C.")
    first, second = drawn_figures["eight.png"], drawn_figures["eight_2.png"]
    assert lines_and_columns(first) == lines_and_columns(second) == (2, 4)
    titles = [axes.get_title() for axes in panels_of(first) + panels_of(second) if axes.get_title()]
    assert titles == list(eight)
    caption = (tmp_path / "eight_2.txt").read_text()
    assert caption == "C. (a–d) accuracy; (e–h) κ.\n"
    assert lines_and_columns(maps_figure(eight, labels=AXES)) == (2, 8)


def test_the_caption_of_a_page_is_about_its_experiments(tmp_path, drawn_figures):
    quantities = {"accuracy": HeatMap(square(LAYERS[:4])), "κ": HeatMap(square(LAYERS[:4]), (0, 2))}
    eight = {f"method {number}": quantities for number in range(8)}
    maps(tmp_path / "f.png", eight, labels=AXES, caption=lambda titles: f"Of {', '.join(titles)}.")
    of_pages = [caption_of(drawn_figures[name]) for name in ("f.png", "f_2.png")]
    assert says(of_pages[0], "Of method 0, method 1, method 2, method 3.")
    assert says(of_pages[1], "Of method 4, method 5, method 6, method 7.")


def test_methods_that_do_not_fit_one_page_have_a_page_each_with_equal_columns(
    tmp_path, drawn_figures
):
    layers_of = {"cnn": ["pool1", "pool2", "pool3", "pool4"], "mlp": ["2", "4"]}
    kinds = list(itertools.product(layers_of, repeat=2))
    table = {}
    for method, (front, end) in itertools.product(METHODS[:2], kinds):
        values = [[0.5] * len(layers_of[end])] * len(layers_of[front])
        panel = HeatMap(Matrix(layers_of[front], layers_of[end], values))
        table[f"{method}\n{front} → {end}"] = {"accuracy": panel, "κ": panel}
    maps(tmp_path / "f.png", table, labels=AXES)
    assert len(drawn_figures) == 2
    for figure, method in zip(drawn_figures.values(), METHODS, strict=False):
        panels = panels_of(figure)
        assert panels[0].get_title(loc="right").strip() == method
        assert [axes.get_title() for axes in panels[:4]] == [f"{a} → {b}" for a, b in kinds]
        assert all(axes.texts for axes in panels)  # the numbers fit
        assert not overlaps(figure)


def test_pages_have_one_scale_and_are_no_higher_than_one_and_a_half_of_their_width(
    tmp_path, drawn_figures
):
    layers = [f"blocks.{number}" for number in range(24)]
    many = {}
    for number in range(12):
        many[f"seed={number}"] = {"κ": HeatMap(square(layers, 0.1 * number), (0, 0.5))}
    maps(tmp_path / "f.png", many, labels=AXES)
    assert len(drawn_figures) > 1
    panels = [*itertools.chain.from_iterable(map(panels_of, drawn_figures.values()))]
    assert len(panels) == 12
    assert {axes.images[0].get_clim() for axes in panels} == {(0, 0.5)}
    for figure in drawn_figures.values():
        width, height = figure.get_size_inches()
        assert height <= 1.5 * width + 1e-6
        assert not overlaps(figure)


def test_cells_without_a_value_stay_blank_and_marked_ones_have_a_corner(tmp_path, drawn_figures):
    panels = {"accuracy": HeatMap(of_layers([0.5], [math.nan]), marked=[("b", "c")])}
    signs = {"signs": HeatMap(of_layers([-0.004], [-0.006]), (-1, 1))}
    maps(tmp_path / "f.png", {"": panels | signs}, labels=AXES._replace(blank="not stitched"))
    axes, other = panels_of(drawn_figures["f.png"])
    assert [text.get_text() for text in axes.texts] == ["0.50"]
    assert [text.get_text() for text in other.texts] == ["0.00", "−0.01"]  # 0 has none
    (corner,) = axes.patches
    assert corner.get_xy()[0].tolist() == [0.5, 0.5]  # the upper right of the second row
    assert axes.get_xlim() == (-0.5, 0.5) and axes.get_ylim() == (1.5, -0.5)
    # The legend explains blank cells, which a hatch tells from bright ones in grey
    (legend,) = drawn_figures["f.png"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["not stitched"]
    assert legend.get_patches()[0].get_hatch() == axes.patch.get_hatch() != ""
    maps(tmp_path / "g.png", {"": signs}, labels=AXES)
    assert not drawn_figures["g.png"].legends


def test_a_cell_of_several_classes_has_a_strip_for_each_share(tmp_path, drawn_figures):
    """In the order of the signs; classes without a share have no strip."""
    shares = {name: of_layers([0.0], [0.0]) for name in SIGNS}
    shares |= {"undecided": of_layers([0.75], [1.0]), "similar": of_layers([0.25], [0.0])}
    maps(tmp_path / "f.png", {"": {"verdicts": ClassMap(shares, SIGNS)}}, labels=AXES)
    (axes,) = panels_of(drawn_figures["f.png"])
    first, second = strips_of(axes, 0), strips_of(axes, 1)
    assert [strip.get_hatch() for strip in first] == ["", ".."]
    assert [strip.get_hatch() for strip in second] == [".."]
    similar, undecided = first
    assert undecided.get_width() == pytest.approx(3 * similar.get_width())
    assert undecided.get_x() == pytest.approx(similar.get_x() + similar.get_width())
    (whole,) = second
    assert whole.get_width() == pytest.approx(similar.get_width() + undecided.get_width())
    assert not axes.texts


def strips_of(axes, row: int) -> list:
    """The strips of the cell of a row, from left to right, on a white cell."""
    of_row = [patch for patch in axes.patches if round(patch.get_center()[1]) == row]
    cell, *strips = of_row
    assert cell.get_width() == cell.get_height() == 1
    return strips


def test_text_is_readable_and_nothing_overlaps(tmp_path, drawn_figures):
    """Three panels of eight layers fit the width of a page, with numbers of 7 points in the cells."""
    text = "Networks: models/a/model_10.pt (resnet18) → models/b/model_10.pt (resnet18). Data: cifar10."
    names = ("accuracy", "skill", "penalty")
    panels = {name: HeatMap(square(LAYERS)) for name in names}
    maps(
        tmp_path / "f.png", {"direct matching": panels}, labels=AXES, title="A title", caption=text
    )
    figure = drawn_figures["f.png"]
    boxes = boxes_of(figure)
    assert {text.get_fontsize() for text in boxes} == {7, 8}  # the title of the figure has 8
    assert not overlaps(figure)
    assert width_in_cm(figure) == pytest.approx(PAGE_CM, abs=0.01)
    for axes in panels_of(figure):
        cell = axes.get_window_extent().width / 8
        assert len(axes.texts) == 64
        assert all(boxes[number].width < cell for number in axes.texts)
    assert text in caption_of(figure) and figure.get_suptitle() == "A title"


def test_signed_numbers_have_wider_cells_and_too_many_cells_have_none(tmp_path, drawn_figures):
    maps(
        tmp_path / "f.png",
        {"": {"difference": HeatMap.difference(square(LAYERS, -0.25))}},
        labels=AXES,
    )
    (axes,) = panels_of(drawn_figures["f.png"])
    boxes = boxes_of(drawn_figures["f.png"])
    assert all(boxes[text].width < axes.get_window_extent().width / 8 for text in axes.texts)
    many = [f"blocks.{number}" for number in range(12)]
    panels = {str(number): HeatMap(square(many)) for number in range(3)}
    maps(tmp_path / "g.png", {"": panels}, labels=AXES)
    figure = drawn_figures["g.png"]
    assert not any(axes.texts for axes in panels_of(figure))
    assert "table" in caption_of(figure)
    assert width_in_cm(figure) == pytest.approx(PAGE_CM, abs=0.01) and not overlaps(figure)


def test_titles_break_between_words_and_after_separators(tmp_path, drawn_figures):
    long = "direct matching (front_model_path=models/a_rather_long_name/model_10.pt, n_epochs=0)"
    panels = {long: HeatMap(square(LAYERS))}
    maps(tmp_path / "f.png", {"": panels}, labels=AXES, title="x" * 200)
    (axes,) = panels_of(drawn_figures["f.png"])
    lines = axes.get_title().split("\n")
    assert "".join(lines).replace(" ", "") == long.replace(" ", "")
    assert all(line[-1] in "/=" or f"{line} " in long or long.endswith(line) for line in lines)
    assert drawn_figures["f.png"].get_suptitle() == "x" * 200
    with figures.styled():
        assert (
            figures.wrap("a task-loss resnet18_samewidth", 1.0) == "a task-loss\nresnet18_samewidth"
        )
        assert figures.wrap("resnet18_samewidth_samesize", 1.0) == "resnet18_\nsamewidth_samesize"


def test_a_figure_is_written_as_pixels_and_as_vectors(tmp_path, rendered):
    panels = {"t": HeatMap(of_layers([0.5], [1]))}
    for name in ("a.pdf", "b.png"):
        maps(tmp_path / name, {"": panels}, labels=AXES, title="a/$x_{$.pt is no formula")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    written = (tmp_path / "a.pdf").read_bytes()
    assert written.startswith(PDF) and written == (tmp_path / "b.pdf").read_bytes()
    assert b"/TrueType" in written or b"/CIDFontType2" in written  # text, not outlines


def test_all_that_a_panel_can_have_is_written(tmp_path, rendered):
    """Hatches, frames, corners and numbers of heat maps; bands, bars, marks and pale lines of curves."""
    values = of_layers([0.5], [math.nan])
    panels = {
        "κ": HeatMap(values, (0, 0.5), marked=[("b", "c")]),
        "difference": HeatMap.difference(of_layers([-0.75], [0.5])),
        "verdict": ClassMap(of_one_class("undecided"), SIGNS),
    }
    labels = AXES._replace(blank="not stitched", framed={"": {("a", "c")}})
    maps(tmp_path / "f.png", {"": panels}, labels=labels, title="A title")
    points = {"x": Point(0.5, 0.4, 0.6), "y": Point(0.5, is_of_few=True)}
    panel = CurvePanel({"a": points, "b": {"x": 0.8}}, "share", marks={"limit": 0.75}, pale=["b"])
    curves(tmp_path / "g.png", [panel, panel], x_label="layer", layers=["x", "y"])
    for name in "fg":
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)
        assert (tmp_path / f"{name}.pdf").read_bytes().rstrip().endswith(b"%%EOF")


def test_class_maps_have_colours_hatches_and_one_legend_below(tmp_path, drawn_figures):
    cells = of_one_class("similar")
    verdicts = ClassMap(cells, SIGNS, note="what is alike", meaning="one of three")
    panels = {"verdict": verdicts, "again": ClassMap(cells, SIGNS)}
    maps(
        tmp_path / "f.png",
        {"": panels},
        labels=AXES._replace(blank="not stitched"),
        caption="On digits.",
    )
    figure = drawn_figures["f.png"]
    assert [len(strips_of(axes, 0)) for axes in figure.axes] == [1, 1]
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["similar", "not stitched"]  # classes that a cell has
    hatches = [patch.get_hatch() for patch in legend.get_patches()]
    assert hatches[0] == "" != hatches[1]
    assert to_hex(legend.get_patches()[0].get_facecolor()) == YELLOW.lower()
    assert [axes.get_title() for axes in figure.axes] == ["verdict", "again"]
    text, _, definitions = caption_of(figure).split("\n")
    assert text == "On digits. (a) verdict (what is alike); (b) again."
    assert definitions == "Verdict: one of three."
    assert not overlaps(figure)


def test_the_verdicts_of_two_methods_fit_a_column_of_a_paper_and_of_four_a_page(
    tmp_path, drawn_figures
):
    layers = ["layer1", "layer2", "layer3", "layer4"]
    verdicts = {name: square(layers, float(name == "similar")) for name in SIGNS}
    row = {
        "accuracy": HeatMap(square(layers)),
        "skill": HeatMap(square(layers), (0.5, 1)),
        "verdict": ClassMap(verdicts, SIGNS),
    }
    for n_methods, width in ((2, COLUMN_CM), (4, PAGE_CM)):
        maps(tmp_path / "f.png", {method: row for method in METHODS[:n_methods]}, labels=AXES)
        figure = drawn_figures["f.png"]
        assert lines_and_columns(figure) == (3, n_methods)
        assert all(axes.texts or axes.patches for axes in panels_of(figure))
        assert not overlaps(figure)
        assert width_in_cm(figure) == pytest.approx(width, abs=0.01)


def test_a_heading_stands_once_above_its_panels(tmp_path, drawn_figures):
    """The first line of titles that neighbours share; titles that share none stay whole."""
    panel = {"accuracy": HeatMap(square(["a", "b", "c"]))}
    shared = ("dm\na → b", "dm\nb → a", "tlm\na → b")
    maps(tmp_path / "f.png", dict.fromkeys(shared, panel), labels=AXES)
    panels = panels_of(drawn_figures["f.png"])
    assert [axes.get_title(loc="right").strip() for axes in panels] == ["dm", "", "tlm"]
    assert [axes.get_title() for axes in panels] == ["a → b", "b → a", "a → b"]
    maps(tmp_path / "g.png", dict.fromkeys(shared[1:], panel), labels=AXES)
    panels = panels_of(drawn_figures["g.png"])
    assert [axes.get_title(loc="right") for axes in panels] == ["", ""]
    assert [axes.get_title() for axes in panels] == list(shared[1:])
    lines = {"front": {"x": 0.5}}
    page = [
        CurvePanel(lines, "share", title=f"into {end}", heading=name)
        for name in ("dm", "tlm")
        for end in "ab"
    ]
    curves(tmp_path / "h.png", page, x_label="layer", layers=["x"], caption="Shares.")
    panels = drawn_figures["h.png"].axes
    assert [axes.get_title(loc="right").strip() for axes in panels] == ["dm", "", "tlm", ""]
    assert [axes.get_title() for axes in panels] == ["into a", "into b"] * 2
    assert caption_of(drawn_figures["h.png"]) == "Shares. (a, b) dm; (c, d) tlm."


def luminance(colour: str) -> float:
    """The brightness of a colour in grey print, from 0 to 1."""
    red, green, blue = to_rgb(colour)
    return 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2


def test_verdicts_differ_in_hatch_or_brightness():
    """As in heat maps, similar is bright and not matched is dark."""
    assert set(verdict_maps.SIGNS) == set(VERDICTS)
    brightness = {name: luminance(sign.colour) for name, sign in verdict_maps.SIGNS.items()}
    assert brightness["similar"] > 2 * brightness["not matched"]
    signs = [*verdict_maps.SIGNS.values(), BLANK]
    for first, second in itertools.combinations(signs, 2):
        is_apart = abs(luminance(first.colour) - luminance(second.colour)) > 0.3
        assert first.hatch != second.hatch or is_apart


def test_lines_differ_in_colour_marker_and_style():
    with figures.styled():
        looks = figures.looks_of_lines(20)
    assert len({tuple(look.values()) for look in looks}) == 20
    for one, following in itertools.pairwise(looks):
        assert all(one[name] != following[name] for name in ("color", "marker", "linestyle"))


def test_no_colour_is_twice_in_a_legend():
    with figures.styled():
        looks = figures.looks_of_lines(30)
    assert len({look["color"] for look in looks}) == 30


def test_curves_have_one_legend_and_layers_keep_their_order(tmp_path, drawn_figures):
    lines = {"layer1.0": {1: 0.3, 2: 0.5, 64: 0.9}, "layer2.0": {64: 0.8, 1: math.nan}}
    pwcca = {"layer2.0": {1: -2.0, 64: 0.5}}
    curves(
        tmp_path / "f.png",
        [CurvePanel(lines, "cka"), CurvePanel(pwcca, "pwcca")],
        x_label="retained rank (components)",
    )
    figure = drawn_figures["f.png"]
    one, other = figure.axes
    assert reaches(one, 0, 1) and reaches(other, -2, 1)
    assert [axes.get_ylabel() for axes in figure.axes] == ["cka", "pwcca"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["layer1.0", "layer2.0"]
    assert one.lines[1].get_color() == other.lines[0].get_color() != one.lines[0].get_color()
    assert one.lines[1].get_marker() == other.lines[0].get_marker() != one.lines[0].get_marker()
    points = {"stem": Point(0.5, 0.4, 0.6), "attic": Point(0.7, 0.6, 0.8)}
    layers = ["stem", "body", "attic"]
    curves(
        tmp_path / "g.png", [CurvePanel({"dm": points}, "accuracy")], x_label="layer", layers=layers
    )
    (axes,) = drawn_figures["g.png"].axes
    assert [text.get_text() for text in axes.get_xticklabels()] == layers
    assert axes.lines[0].get_xydata().tolist() == [[0, 0.5], [2, 0.7]]


def test_axes_reach_over_values_and_bands(tmp_path, drawn_figures):
    points = {1: Point(0.9, 0.45, 0.95), 64: Point(0.8, 0.7, 0.9)}
    panels = [
        CurvePanel({"dm": points}, "accuracy", (0.5, 1.0)),
        CurvePanel({"dm": {1: 1.5, 64: 3.0}}, "ratio", (0, math.inf)),
    ]
    curves(tmp_path / "f.png", panels, x_label="retained rank (components)")
    accuracy, ratio = drawn_figures["f.png"].axes
    assert reaches(accuracy, 0.45, 1) and reaches(ratio, 0, 3)


def test_only_named_figures_are_drawn_where_figures_are_left_out(tmp_path, drawn_figures):
    def draw(*names: str) -> None:
        for name in names:
            curves(tmp_path / name, [CurvePanel({"a": {1: 0.5, 2: 0.6}}, "cka")], x_label="rank")

    with figures.left_out(except_for=["b.png"]):
        draw("a.png", "b.png")
        with figures.left_out():
            draw("b_2.png")
    draw("c.png")
    assert list(drawn_figures) == ["b.png", "c.png"]


def reaches(axes, low: float, high: float) -> bool:
    """Whether the vertical axis has two ends and little room beyond them, for whole markers."""
    first, last = axes.get_ylim()
    room = 0.1 * (high - low)
    return low - room < first < low and high < last < high + room


def test_no_marker_lies_on_the_frame(tmp_path, drawn_figures):
    panel = CurvePanel({"a": {"x": 0.0, "y": 1.0}}, "accuracy")
    curves(tmp_path / "c.png", [panel], x_label="layer", layers=["x", "y"])
    (axes,) = drawn_figures["c.png"].axes
    assert reaches(axes, 0, 1)
    first, last = axes.get_xlim()
    assert first < 0 and last > 1


def test_a_mean_of_few_networks_has_open_markers_and_no_band(tmp_path, drawn_figures):
    sure = {1: Point(0.5, 0.4, 0.6), 2: Point(0.5, 0.4, 0.6)}
    unsure = {1: Point(0.2, is_of_few=True), 2: Point(0.3, is_of_few=True)}
    panel = CurvePanel({"sure": sure, "unsure": unsure}, "accuracy")
    curves(tmp_path / "c.png", [panel], x_label="rank", x_range=(0, 3))
    (axes,) = drawn_figures["c.png"].axes
    filled, hollow = axes.lines
    assert hollow.get_markerfacecolor() == "white" != filled.get_markerfacecolor()
    band, none = axes.collections
    assert {y for _, y in band.get_paths()[0].vertices} == {0.4, 0.6} and not none.get_paths()
    (legend,) = drawn_figures["c.png"].legends
    assert [line.get_markerfacecolor() == "white" for line in legend.get_lines()] == [False, True]


@pytest.mark.parametrize(("largest", "scale"), [(12, "linear"), (60, "symlog")])
def test_an_axis_is_logarithmic_where_values_are_far_beyond_a_limit(
    largest, scale, tmp_path, drawn_figures
):
    """All panels of the quantity have one scale, also those without such a value."""
    panels = [
        CurvePanel({"a": {1: -2, 2: most}}, "penalty", (0, math.inf), linear_up_to=5)
        for most in (4, largest)
    ]
    curves(tmp_path / "c.png", panels, x_label="depth", x_range=(1, 2))
    first, second = drawn_figures["c.png"].axes
    assert first.get_yscale() == second.get_yscale() == scale
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[0] < -2 and first.get_ylim()[1] > largest


def test_pale_lines_step_back_and_the_legend_says_why(tmp_path, drawn_figures):
    lines = {"kept": {"x": 0.8, "y": 0.7}, "lost": {"x": 0.6, "y": 0.5}}
    panel = CurvePanel(
        lines, "share", (0.5, 1), marks={"limit": 0.75, "chance": 0.5}, pale=["lost"]
    )
    words = {"strong": "is accurate", "pale": "is not"}
    curves(tmp_path / "c.png", [panel], x_label="layer", layers=["x", "y"], **words)
    figure = drawn_figures["c.png"]
    (axes,) = figure.axes
    pale, strong, *marks = axes.lines
    assert pale.get_linewidth() < strong.get_linewidth()
    assert [mark.get_ydata()[0] for mark in marks] == [0.75, 0.5]
    (legend,) = figure.legends
    of_lines = ["kept", "lost", "limit", "chance"]
    assert [text.get_text() for text in legend.get_texts()] == [*of_lines, *words.values()]


def test_a_column_is_as_wide_as_its_layers(tmp_path, drawn_figures):
    layers = ["a", "b", "c", "d"]
    panels = [CurvePanel({"x": dict.fromkeys(layers[start:], 0.7)}, "share") for start in (0, 2)]
    curves(tmp_path / "c.png", panels, x_label="layer", layers=layers)
    long, short = drawn_figures["c.png"].axes
    assert [label.get_text() for label in short.get_xticklabels()] == ["c", "d"]
    steps = [
        axes.get_position().width / (axes.get_xlim()[1] - axes.get_xlim()[0])
        for axes in (long, short)
    ]
    assert steps[0] == pytest.approx(steps[1], rel=0.02)


@pytest.mark.parametrize("n_panels", [1, 2, 4, 6])
def test_curves_fit_a_column_or_a_page(tmp_path, drawn_figures, n_panels):
    lines = {f"{method}, {name}": dict.fromkeys(LAYERS, 0.5) for method in METHODS for name in "ab"}
    panels = [CurvePanel(lines, "accuracy", title=f"panel {number}") for number in range(n_panels)]
    caption = "Means over pairs of 10 networks; bands: 95 % over networks."
    curves(tmp_path / "f.png", panels, x_label="layer", layers=LAYERS, caption=caption)
    figure = drawn_figures["f.png"]
    assert not overlaps(figure)
    width = COLUMN_CM if n_panels == 1 else PAGE_CM
    assert width_in_cm(figure) == pytest.approx(width, abs=0.01)


def test_without_matplotlib_a_warning_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    maps(tmp_path / "f.png", {"": {"t": HeatMap(of_layers([0.5], [1]))}}, labels=AXES)
    assert says(capsys.readouterr().err, "f.png was not drawn", "matplotlib")
    assert not list(tmp_path.iterdir())


def test_panels_of_one_quantity_have_one_vertical_axis(tmp_path, drawn_figures):
    """Those of distances have their own: measures differ in their units."""
    curve = {"a": {"x": 0.5, "y": 0.6}}
    far = {"a": {"x": 0.1, "y": 30.0}}
    panels = [CurvePanel(lines, "ratio", (0, math.inf), heading="dm") for lines in (curve, far)]
    panels += [
        CurvePanel(lines, "distance", (0, math.inf), heading="d", has_own_scale=True)
        for lines in (curve, far)
    ]
    curves(tmp_path / "c.png", panels, x_label="layer", layers=["x", "y"])
    ratio, ratio_far, near, distant = (axes.get_ylim() for axes in drawn_figures["c.png"].axes)
    assert ratio == ratio_far == distant and near[1] < 1


def test_a_panel_without_values_is_drawn_empty(tmp_path, drawn_figures):
    """Some measures are undefined at every rank, such as CCA of maps of unequal sizes by positions."""
    undefined = {"a – b": {1: math.nan, 2: math.nan}}
    defined = {"a – b": {1: 0.5, 2: 0.75}}
    panels = [CurvePanel(undefined, "CCA"), CurvePanel(defined, "CKA")]
    curves(tmp_path / "f.png", panels, x_label="rank")
    empty, drawn = panels_of(drawn_figures["f.png"])
    assert drawn.get_xscale() == "log" and len(drawn.lines) == len(empty.lines)
    curves(tmp_path / "g.png", panels[:1], x_label="rank")  # no logarithmic axis without a value
    (empty,) = panels_of(drawn_figures["g.png"])
    assert empty.get_xscale() == "linear"


def test_a_style_sheet_of_the_user_goes_over_the_style(tmp_path, drawn_figures):
    """Its settings count, and all others stay; the next figure is as usual."""
    sheet = tmp_path / "mine.mplstyle"
    sheet.write_text("axes.titlesize: 11\naxes.prop_cycle: cycler(color=['k', '0.5'])\n")
    panel = CurvePanel(
        {"a": {1: 0.5, 2: 0.75}, "b": {1: 0.25, 2: 0.5}}, "accuracy", title="A panel"
    )
    with use_style(str(sheet)):
        curves(tmp_path / "mine.png", [panel], x_label="rank")
    curves(tmp_path / "usual.png", [panel], x_label="rank")
    (mine,) = drawn_figures["mine.png"].axes
    (usual,) = drawn_figures["usual.png"].axes
    assert (mine.title.get_fontsize(), usual.title.get_fontsize()) == (11, 7)
    assert mine.xaxis.label.get_fontsize() == usual.xaxis.label.get_fontsize() == 7
    assert [line.get_color() for line in mine.lines] == ["k", "0.5"]
    assert width_in_cm(mine.figure) == pytest.approx(COLUMN_CM, abs=0.01)


def test_a_style_sheet_cannot_take_the_layout_away(tmp_path, drawn_figures):
    sheet = tmp_path / "mine.mplstyle"
    sheet.write_text("figure.constrained_layout.use: False\n")
    panels = {"": {"κ": HeatMap(square(LAYERS))}}
    with use_style(str(sheet)):
        maps(tmp_path / "mine.png", panels, labels=AXES)
    maps(tmp_path / "usual.png", panels, labels=AXES)
    mine, usual = (drawn_figures[name].get_size_inches() for name in ("mine.png", "usual.png"))
    assert list(mine) == list(usual)


def test_a_style_sheet_counts_until_its_block_ends(tmp_path):
    sheet = tmp_path / "mine.mplstyle"
    sheet.write_text("axes.titlesize: 11\n")
    with use_style(str(sheet)):
        with use_style(None):
            assert style_sheets() == [sheet]
        assert style_sheets() == [sheet]
    assert style_sheets() == []


@pytest.mark.parametrize("text", ["font.size: 0", "image.cmap: foo", "figure.dpi: 0"])
def test_a_style_sheet_that_nothing_can_be_drawn_in_is_one_line(tmp_path, text):
    sheet = tmp_path / "wrong.mplstyle"
    sheet.write_text(f"{text}\n")
    line = error_line("misc/sensitivity_figure.py", "t.csv", "-o", "f.png", "--style", str(sheet))
    assert says(line, "--style", "wrong.mplstyle", "cannot draw", "give a style sheet")


@pytest.mark.parametrize("text", ["font.siz: 9", "font.size: large", "font.size", None])
def test_a_wrong_style_sheet_is_one_line(tmp_path, text):
    sheet = tmp_path / "wrong.mplstyle"
    if text is not None:
        sheet.write_text(f"axes.titlesize: 11\n{text}\n")
    line = error_line("misc/sensitivity_figure.py", "t.csv", "-o", "f.png", "--style", str(sheet))
    assert "--style" in line and "wrong.mplstyle" in line
    assert text is None or f"line 2 ('{text}')" in line


def test_the_caption_tells_titles_with_commas_apart(tmp_path, drawn_figures):
    titles = ("linear CKA", "linear CKA, calibrated")
    panels = {"": {title: HeatMap(square(LAYERS)) for title in titles}}
    maps(tmp_path / "f.png", panels, labels=AXES)
    assert says(caption_of(drawn_figures["f.png"]), "(a) linear CKA; (b) linear CKA, calibrated.")


def test_the_caption_is_a_text_file_and_not_in_the_image(tmp_path, drawn_figures):
    maps(tmp_path / "f.png", {"": {"κ": HeatMap(square(LAYERS))}}, labels=AXES, caption="Data: a.")
    text = "Data: a. κ."
    assert (tmp_path / "f.txt").read_text() == f"{text}\n"
    assert not any("Data" in text.get_text() for text in texts_of(drawn_figures["f.png"]))


def test_layers_of_the_same_name_are_framed(tmp_path, drawn_figures):
    """Those that are given for the experiment of a panel, if it has both."""
    labels = AXES._replace(framed={"one": {("b", "b")}, "two": {("b", "b")}, "three": {("a", "c")}})
    values = {"accuracy": HeatMap(Matrix(["a", "b"], ["b", "c"], [[0.5, 0.5], [0.5, 0.5]]))}
    others = {"accuracy": HeatMap(Matrix(["a", "b"], ["a", "y", "z"], [[0.5] * 3] * 2))}
    panels = {"one": values, "two": others, "three": values}
    maps(tmp_path / "f.png", panels, labels=labels)
    one, two, three = panels_of(drawn_figures["f.png"])
    assert [cell_of(patch) for patch in one.patches] == [(1, 0)]  # row b, column b
    assert not two.patches
    assert [cell_of(patch) for patch in three.patches] == [(0, 1)]
    assert says(caption_of(drawn_figures["f.png"]), "Frames: ", "same name")
    maps(tmp_path / "g.png", {"": others}, labels=labels)
    assert not panels_of(drawn_figures["g.png"])[0].patches
    assert "Frames" not in caption_of(drawn_figures["g.png"])


def cell_of(patch) -> tuple[int, int]:
    """The row and the column of the cell that a patch frames."""
    x, y = patch.get_center()
    return round(y), round(x)


def test_scales_show_what_a_number_is_judged_by(tmp_path, drawn_figures):
    """The limit of a penalty, in points of accuracy, is the middle of the colours, and marked."""
    limits = Limits(tolerance=0.02, skill=0.25)
    matrix = of_layers([-0.01], [0.6])
    panels = {
        name: verdict_maps.heat_map(name, matrix, limits)
        for name in ("penalty", "skill", "agreement")
    }
    maps(tmp_path / "f.png", {"": panels}, labels=AXES)
    figure = drawn_figures["f.png"]
    penalty, skill, agreement = (axes.images[0] for axes in panels_of(figure))
    assert penalty.norm(2) == 0.5 and penalty.get_clim() == (0, pytest.approx(10))
    points = [text.get_text() for text in panels_of(figure)[0].texts]
    assert points == ["−1.0", "60.0"]
    assert skill.norm(0.25) == 0.5 and skill.get_clim() == (0, 1)
    assert agreement.get_clim() == (0, 1)
    ticks = [[text.get_text() for text in bar.get_xticklabels()] for bar in bars_of(figure)]
    assert ticks == [["0", "2", "10"], ["0", "0.25", "1"], ["0", "0.5", "1"]]
    marks = [len(bar.lines) for bar in bars_of(figure)]
    assert marks == [1, 1, 0]


@pytest.mark.parametrize("tolerance", [0, 0.5, 1])
def test_every_tolerance_has_a_scale(tolerance, tmp_path):
    panel = verdict_maps.heat_map("penalty", of_layers([0.1], [0.9]), Limits(tolerance, 0.5))
    maps(tmp_path / "f.png", {"": {"penalty": panel}}, labels=AXES)
    dark, bright = panel.scale
    assert dark > bright


def test_the_pages_of_a_figure_are_removed_and_no_other_figure(tmp_path):
    """A figure with a table of its own, such as v_3.csv, is no page, nor are files of the user's."""
    endings = (".png", ".pdf", ".txt")
    pages = [f"v{page}{ending}" for page in ("", "_2", "_4") for ending in endings]
    others = ["v.csv", "v_3.csv", "v_3.png", "v_4.config.txt", "v_x.png", "v_2_2.png", "w.png"]
    others += ["v_5.png", "v_5.txt", "w.txt"]
    for name in [*pages, *others]:
        (tmp_path / name).touch()
    remove_figure(tmp_path / "v.csv", start=3)
    assert {path.name for path in tmp_path.iterdir()} == {*others, *pages[:6]}
    remove_figure(tmp_path / "v.csv")
    remove_figure(tmp_path / "w.csv")
    assert {path.name for path in tmp_path.iterdir()} == {*others}
