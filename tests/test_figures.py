"""Figures: what they show, drawn without a display."""

import math
import warnings
from dataclasses import replace
from itertools import combinations, product

import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from src.figures.curves import draw_depth, draw_ranks
from src.figures.dots import draw_groups
from src.figures.evidence import draw_evidence
from src.figures.maps import draw_layers, draw_networks
from src.figures.pages import CM, COLUMN, NUMBERS, PAGE, remove_figure
from src.figures.shown import SHARE, Shown, of_matrix, of_ranks
from src.results.matrices import Matrix
from src.results.network_names import PAIRS
from src.results.verdict_rows import VerdictRow
from src.verdict import ACCURATE_ONLY, INCONCLUSIVE, NOT_MATCHED, SIMILAR, Limits
from tests.commands import caption_of, panels_of, says


def verdict(
    front=0, end=0, verdict=SIMILAR, accuracy_drop=0.01, skill=0.6, method="dm", networks="ab"
):
    """A verdict on two layers of two networks."""
    low = high = None
    if skill is not None:
        low = skill - 0.1
        high = skill + 0.1
    return VerdictRow(
        method=method,
        networks=" → ".join(networks),
        front_layer=f"blocks.{front}",
        end_layer=f"blocks.{end}",
        verdict=verdict,
        reason="",
        control=None,
        n_runs=1,
        n_networks=1,
        folders="",
        accuracy_drop=accuracy_drop,
        accuracy_drop_low=accuracy_drop - 0.01,
        accuracy_drop_high=accuracy_drop + 0.01,
        skill=skill,
        skill_low=low,
        skill_high=high,
        skill_at_end=skill,
        front_depth=front,
        end_depth=end,
        front_weights=None,
        end_weights=None,
        front_network=networks[0],
        front_group="g",
        end_network=networks[1],
        end_group="g",
        both_ways=None,
        same_run=False,
        further={},
        kind=PAIRS,
    )


def texts_in(axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_gid() == NUMBERS]


def points_in(axes) -> list[tuple]:
    """Place, marker and filling of each point; the first line is the baseline."""
    return [
        (*line.get_xydata()[0], line.get_marker(), line.get_markerfacecolor())
        for line in axes.lines[1:]
    ]


def test_evidence_has_a_point_and_a_cell_a_stitch(tmp_path, drawn_figures):
    """Hollow if inconclusive, crossed without skill at the end layer. A third method stands in a
    further figure."""
    rows = [
        verdict(0, 0),
        verdict(0, 1, INCONCLUSIVE, accuracy_drop=0.04),
        verdict(1, 0, NOT_MATCHED, accuracy_drop=0.7, skill=-16.0),
        verdict(1, 1, ACCURATE_ONLY, skill=0.5),
    ]
    draw_evidence(tmp_path / "v.png", rows, Limits(), source="1 pair of networks.")
    plane, cells = drawn_figures["v.png"].axes
    similar, inconclusive, lost, accurate, cross = points_in(plane)
    assert similar[:3] == (1, 0.6, "o") and similar[3] != "white"
    assert inconclusive[3] == "white" and lost[:3] == (70, -16, "o")
    assert accurate[:2] == cross[:2] and cross[2] == "x"
    assert texts_in(cells) == ["1.0\n0.60", "4.0\n0.60", "70\n−16", "1.0\n0.50"]
    assert says(caption_of(drawn_figures["v.png"]), "1 of 4 by dm", "1 pair of networks.")
    draw_evidence(tmp_path / "v.png", [verdict(method=method) for method in "abc"], Limits())
    assert [len(drawn_figures[name].axes) for name in ("v.png", "v_2.png")] == [3, 2]


def test_cells_of_several_networks_have_strips_and_means(tmp_path, drawn_figures):
    rows = [verdict(), verdict(verdict=NOT_MATCHED, accuracy_drop=0.09, skill=0.2, networks="ca")]
    draw_evidence(tmp_path / "v.png", rows, Limits())
    plane, cells = drawn_figures["v.png"].axes
    assert len(points_in(plane)) == 2 and texts_in(cells) == ["5.0\n0.40"]
    strips = [patch.get_width() for patch in cells.patches if patch.get_fill()]
    assert [width for width in strips if width] == [0.5, 0.5]


def of_layers(n: int, value: float = 0.5) -> Matrix:
    names = [f"blocks.{number}" for number in range(n)]
    return Matrix(names, names, [[value] * n for _ in names])


def test_a_map_has_its_title_once(tmp_path, drawn_figures):
    titles = ("linear CKA", "linear CKA, calibrated")
    rows = [row for title in titles for row in of_matrix(of_layers(2), title, title)]
    draw_layers(tmp_path / "m.png", rows)
    drawn = [axes.get_title() for axes in drawn_figures["m.png"].axes if axes.images]
    assert drawn == ["linear CKA", "linear CKA\ncalibrated"]


def test_maps_of_different_layers_have_room(tmp_path, drawn_figures):
    """Of two networks of a user with long names of layers: titles do not touch, and cells hold numbers."""
    layers = {"conv": ["net.0", "net.2"], "mlp": ["blocks.0.linear", "blocks.1.linear"]}
    rows = []
    for method, front, end in product(("direct matching", "covariance"), layers, layers):
        title = f"{method}, nets/arch.py:{front} → nets/arch.py:{end}, mean of 16 experiments"
        matrix = Matrix(layers[front], layers[end], [[0.5, 0.5], [0.5, 0.5]])
        rows += of_matrix(matrix, "accuracy", title)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_layers(tmp_path / "f.png", rows)
    assert sorted(drawn_figures) == ["f.png", "f_2.png"]
    for figure in drawn_figures.values():
        panels = panels_of(figure).values()
        assert len(panels) == 4
        titles = [axes.title.get_window_extent() for axes in panels]
        assert not any(first.overlaps(second) for first, second in combinations(titles, 2))
        assert all(title.x1 <= figure.bbox.x1 for title in titles)
        assert all("arch.py" not in axes.get_title() and len(axes.texts) == 4 for axes in panels)


def means(n: int = 2) -> list[Shown]:
    """Means of all pairs of networks of two groups."""
    rows = []
    networks = [(f"{group}{number}", group) for group in ("noisy", "clean") for number in range(n)]
    for front, front_group in networks:
        for end, end_group in networks:
            if front != end:
                of_pair = {"networks": (front, end), "groups": (front_group, end_group)}
                for quantity, value in ((SHARE, 0.5), ("accuracy_drop", 7.0), ("skill", -16.0)):
                    rows.append(Shown(quantity, value, method="dm", **of_pair))
    return rows


def test_maps_of_two_methods_have_the_networks_of_both(tmp_path, drawn_figures):
    other = Shown("skill", 0.5, method="tlm", networks=("clean0", "new"), groups=("clean", "new"))
    draw_networks(tmp_path / "n.png", [*means(), other], are_paths=False)
    drawn = [axes.images[0].get_array() for axes in drawn_figures["n.png"].axes if axes.images]
    assert [values.shape for values in drawn[:2]] == [(5, 5), (5, 5)]
    assert [values.count() for values in drawn[:2]] == [12, 1]


def of_groups() -> list[Shown]:
    """Means over pairs of networks, the first with an interval."""
    keys = dict.fromkeys((row.quantity, row.groups) for row in means())
    rows = [Shown(quantity, 0.5, method="dm", groups=groups) for quantity, groups in keys]
    return [replace(rows[0], low=0.4, high=0.6), *rows[1:]]


CASES = {
    "evidence": lambda path: draw_evidence(
        path, [verdict(), verdict(front=1, skill=None), verdict(end=1, skill=-16.0)], Limits()
    ),
    "no tolerance": lambda path: draw_evidence(path, [verdict(skill=-16.0)], Limits(0.0)),
    "30 layers": lambda path: draw_layers(path, list(of_matrix(of_layers(30), "cka"))),
    "no value": lambda path: draw_layers(path, list(of_matrix(of_layers(2, math.nan), "skill"))),
    "groups": lambda path: draw_groups(path, means(), of_groups()),
    "networks": lambda path: draw_networks(path, means(), are_paths=False),
    "one layer": lambda path: draw_depth(
        path, [Shown("skill", -16.0, -17.0, -15.0, 6, method="dm", place=1.0)], Limits()
    ),
    "ranks": lambda path: draw_ranks(
        path, list(of_ranks({"cka": {1: 0.5, 4: math.nan}})), y_title="similarity"
    ),
}


NARROW = ("networks", "no value")  # a single map


@pytest.mark.parametrize("case", CASES)
def test_every_figure_has_its_width_and_is_drawn_without_a_warning(
    case, tmp_path, drawn_figures, rendered
):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CASES[case](tmp_path / "f.png")
    figure = drawn_figures["f.png"]
    assert figure.get_figwidth() / CM == pytest.approx(COLUMN if case in NARROW else PAGE)
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")
    assert 1 < len(caption_of(figure).split()) <= 60


def test_a_matplotlibrc_counts_where_the_style_says_nothing(tmp_path, drawn_figures):
    import matplotlib

    with matplotlib.rc_context({"font.family": ["serif"], "font.size": 20}):
        draw_layers(tmp_path / "mine.png", list(of_matrix(of_layers(2), "cka", "a")))
    name = drawn_figures["mine.png"].axes[0].xaxis.label
    assert name.get_fontfamily() == ["serif"] and name.get_fontsize() == 7


def test_captions_speak_of_intervals_where_there_are_some(tmp_path, drawn_figures):
    for n, has_intervals in ((199, True), (200, False)):
        rows = [verdict(place, 0) for place in range(n)]
        draw_evidence(tmp_path / "v.png", rows, Limits())
        assert ("95 % intervals" in caption_of(drawn_figures["v.png"])) == has_intervals


def test_a_figure_holds_its_caption(tmp_path, rendered):
    draw_layers(tmp_path / "f.png", list(of_matrix(of_layers(2), "skill", "a → b")))
    caption = Image.open(tmp_path / "f.png").text["Description"]
    assert says(caption, "Most similar by a → b", "Dark cells")
    assert b"/Subject" in (tmp_path / "f.pdf").read_bytes()
    assert not (tmp_path / "f.txt").exists()


def test_the_pages_of_a_figure_are_removed_and_no_other_figure(tmp_path):
    """A figure with a table of its own, such as v_3.csv, is no page, nor are files of the user's."""
    endings = (".png", ".pdf")
    pages = [f"v{page}{ending}" for page in ("", "_2", "_4") for ending in endings]
    others = ["v.csv", "v_3.csv", "v_3.png", "v_4.config.txt", "v_x.png", "v_2_2.png", "w.png"]
    others += ["v_5.png", "v_5.txt", "w.txt"]
    for name in [*pages, *others]:
        (tmp_path / name).touch()
    remove_figure(tmp_path / "v.csv", start=3)
    assert {path.name for path in tmp_path.iterdir()} == {*others, *pages[:4]}
    remove_figure(tmp_path / "v.csv")
    remove_figure(tmp_path / "w.csv")
    assert {path.name for path in tmp_path.iterdir()} == {*others}
