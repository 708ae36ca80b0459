"""Figures: what they show, drawn without a display."""

import math
import warnings
from itertools import combinations, permutations, product

import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from src.figures.curves import draw_depth, draw_ranks
from src.figures.groups import draw_groups
from src.figures.maps import Map, draw_layers, maps_of_networks
from src.figures.pages import CM, COLUMN, NUMBERS, PAGE, remove_figure
from src.figures.verdicts import MARK, draw_points, draw_verdicts
from src.results.reports import SHARES, compare_groups, over_depth
from src.verdict import ACCURATE_ONLY, INCONCLUSIVE, NOT_MATCHED, SIMILAR, Limits
from tests import frames
from tests.commands import caption_of, panels_of, says

LONG = "a_name_of_thirty_letters_{:05d}"


def stitch(layers="xx", verdict=SIMILAR, accuracy_drop=0.01, skill=0.6, networks="ab", **values):
    """A verdict on two layers of two networks."""
    row = frames.row(*networks, layers, skill=skill, verdict=verdict, accuracy_drop=accuracy_drop)
    ends = {f"skill_{end}": skill + sign * 0.1 for end, sign in (("low", -1), ("high", 1))}
    drops = {
        f"accuracy_drop_{end}": accuracy_drop + sign * 0.01
        for end, sign in (("low", -1), ("high", 1))
    }
    return row | ends | drops | {"skill_at_end": 0.05, "networks": " → ".join(networks)} | values


def texts_in(axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_gid() == NUMBERS]


def shares_in(axes, colour: str) -> list[float]:
    """The widths of the strips of a colour."""
    from matplotlib.colors import to_rgba

    return [
        patch.get_width()
        for patch in axes.patches
        if patch.get_fill() and patch.get_width() and patch.get_facecolor() == to_rgba(colour)
    ]


def test_a_map_has_the_numbers_of_each_stitch(tmp_path, drawn_figures):
    """Not matched has its accuracy drop alone; accurate only, the skill that is too low."""
    rows = [
        stitch(),
        stitch("xy", INCONCLUSIVE, accuracy_drop=0.04),
        stitch("yx", NOT_MATCHED, accuracy_drop=0.7, skill=-16.0),
        stitch("yy", ACCURATE_ONLY, skill=0.5),
    ]
    frame = frames.frame(rows)
    draw_verdicts(tmp_path / "v.png", frame, Limits(), source="1 pair of networks.")
    (cells,) = drawn_figures["v.png"].axes
    assert texts_in(cells) == ["1.0\n0.60", "4.0\n0.60", "70", f"1.0\n0.05{MARK}"]
    assert says(caption_of(drawn_figures["v.png"]), "1 of 4 by dm", MARK, "1 pair of networks.")
    draw_points(tmp_path / "p.png", frame, Limits())
    (plane,) = drawn_figures["p.png"].axes
    faces = {
        (line.get_xdata()[0], line.get_ydata()[0]): line.get_markerfacecolor()
        for line in plane.lines
        if line.get_marker() == "o" and len(line.get_xdata())
    }
    assert faces[4.0, 0.6] == "white" != faces[1.0, 0.6]
    assert [text.get_text() for text in plane.texts].count(MARK) == 1
    assert says(plane.get_ylabel(), "logarithmic below −1")
    draw_points(tmp_path / "q.png", frame[frame.skill > -1], Limits())
    assert drawn_figures["q.png"].axes[0].get_ylabel() == "skill at the output"


def test_two_methods_of_equal_verdicts_have_one_map(tmp_path, drawn_figures):
    rows = [stitch(method=method) for method in ("dm", "covariance")]
    draw_verdicts(tmp_path / "v.png", frames.frame(rows), Limits())
    assert len(drawn_figures["v.png"].axes) == 1
    (below,) = drawn_figures["v.png"].texts
    assert " ".join(below.get_text().split()) == "All verdicts by covariance are those by dm."
    rows[1]["verdict"] = ACCURATE_ONLY
    draw_verdicts(tmp_path / "v.png", frames.frame(rows), Limits())
    assert len(drawn_figures["v.png"].axes) == 2


def test_maps_of_groups_have_shares_of_verdicts(tmp_path, drawn_figures):
    """Of four ways within a group and across, those of the first group are half similar."""
    frame = all_pairs()
    of_first = (frame.front_group == "one") & (frame.end_group == "one")
    frame.loc[of_first & (frame.front_network == "a"), "verdict"] = NOT_MATCHED
    draw_verdicts(tmp_path / "v.png", frame, Limits())
    drawn = {axes.get_title(): axes for axes in drawn_figures["v.png"].axes}
    assert list(drawn) == ["one → one (2)", "one → two (4)", "two → one (4)", "two → two (2)"]
    assert texts_in(drawn["one → one (2)"]) == ["50", "50"]
    assert shares_in(drawn["one → one (2)"], "0.8") == [0.5, 0.5]
    assert texts_in(drawn["one → two (4)"]) == ["100", "100"]


def test_maps_of_unlike_networks_have_their_own_layers(tmp_path, drawn_figures):
    deep = {"front_type": "deep", "end_type": "flat"}
    flat = {"front_type": "flat", "end_type": "deep"}
    rows = [stitch(layers, **deep) for layers in product("abc", "xy")]
    rows += [stitch(layers, networks="ba", **flat) for layers in product("xy", "abc")]
    draw_verdicts(tmp_path / "v.png", frames.frame(rows), Limits())
    first, second = drawn_figures["v.png"].axes
    assert (first.get_ylabel(), first.get_xlabel()) == ("from layer of a", "into layer of b")
    assert [len(axes.get_yticks()) for axes in (first, second)] == [3, 2]


def all_pairs(**values) -> pd.DataFrame:
    """Stitches of all ordered pairs of four networks in two groups, at two layers."""
    rows = [
        stitch(layer + layer, networks=pair, skill=frames.skill(*pair), **values)
        for pair, layer in product(permutations(frames.NAMES, 2), "xy")
    ]
    return frames.frame(rows)


def test_rows_to_be_compared_stand_together(tmp_path, drawn_figures):
    compared = compare_groups(all_pairs(), [*SHARES, "skill"])
    draw_groups(tmp_path / "g.png", compared, Limits())
    bars, skills = drawn_figures["g.png"].axes
    names = [label.get_text() for label in bars.get_yticklabels()]
    assert names == ["from one (2)", "from two (4)", "from two (2)", "from one (4)"]
    assert {"into one", "into two"} <= {text.get_text() for text in bars.texts}
    (values,) = (line.get_xdata() for line in skills.lines if line.get_marker() == "D")
    expected = compared.groups[compared.groups.quantity == "skill"].set_index("networks").value
    assert sorted(values) == pytest.approx(sorted(expected))
    assert any(text.get_text().startswith("p ") for text in skills.texts)


def test_an_interval_that_the_axis_cuts_has_a_mark(tmp_path, drawn_figures):
    compared = compare_groups(all_pairs(), [*SHARES, "skill"])
    compared.groups["low"] = -50.0
    compared.groups["high"] = 0.5
    draw_groups(tmp_path / "g.png", compared, Limits())
    marks = [line.get_marker() for line in drawn_figures["g.png"].axes[1].lines]
    assert marks.count("<") == 4 and ">" not in marks


def of_layers(n: int, value: float = 0.5) -> pd.DataFrame:
    names = [f"blocks.{number}" for number in range(n)]
    return pd.DataFrame(value, names, names)


def test_a_map_has_its_title_once(tmp_path, drawn_figures):
    titles = ("linear CKA", "linear CKA, calibrated")
    maps = [Map("cka", of_layers(2), title) for title in titles]
    draw_layers(tmp_path / "m.png", maps)
    drawn = [axes.get_title() for axes in drawn_figures["m.png"].axes if axes.images]
    assert drawn == ["linear CKA", "linear CKA\ncalibrated"]


def test_maps_of_different_layers_have_room(tmp_path, drawn_figures):
    """Of two networks of a user with long names of layers: titles do not touch, and cells hold numbers."""
    layers = {"conv": ["net.0", "net.2"], "mlp": ["blocks.0.linear", "blocks.1.linear"]}
    maps = []
    for method, front, end in product(("direct matching", "covariance"), layers, layers):
        title = f"{method}, nets/arch.py:{front} → nets/arch.py:{end}, mean of 16 experiments"
        matrix = pd.DataFrame(0.5, layers[front], layers[end])
        maps.append(Map("accuracy", matrix, title))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_layers(tmp_path / "f.png", maps)
    figure = drawn_figures["f.png"]
    panels = panels_of(figure).values()
    assert len(panels) == 8
    titles = [axes.title.get_window_extent() for axes in panels]
    assert not any(first.overlaps(second) for first, second in combinations(titles, 2))
    assert all(title.x1 <= figure.bbox.x1 for title in titles)
    assert all("arch.py" not in axes.get_title() and len(axes.texts) == 4 for axes in panels)


def test_a_map_of_networks_has_a_cell_a_pair(tmp_path, drawn_figures):
    compared = compare_groups(all_pairs(), ["skill"])
    draw_layers(tmp_path / "n.png", maps_of_networks(compared.means))
    values = drawn_figures["n.png"].axes[0].images[0].get_array()
    assert values.shape == (4, 4) and np.isfinite(values.filled(math.nan)).sum() == 12


def test_skill_comes_first_and_intervals_lie_in_the_frame(tmp_path, drawn_figures):
    frame = all_pairs()
    depths = over_depth(frame, ["accuracy_drop", "skill"])
    draw_depth(tmp_path / "d.png", depths, Limits())
    first, second = drawn_figures["d.png"].axes
    assert "skill" in first.get_ylabel() and second.get_ylabel().endswith("(percentage points)")
    for axes, rows in ((first, depths[depths.quantity == "skill"]),):
        low, high = axes.get_ylim()
        assert low <= rows.low.min() or rows.low.isna().all()
        assert high >= rows.high.max() or rows.high.isna().all()
    names = {text.get_text() for text in first.texts}
    assert names == {"one → one", "one → two", "two → one", "two → two"}


def test_ranks_are_relative_to_the_largest_one_beside_the_probe(tmp_path, drawn_figures):
    lines = {"cka": {1: 0.4, 4: 0.8, None: 0.9}, "probe": {1: 0.3, 4: 0.6}}
    options = {"y_title": "value", "truth": "probe", "rho": {"x": {"cka": 1.0}}}
    draw_ranks(tmp_path / "r.png", {"x": lines}, **options)
    (axes,) = drawn_figures["r.png"].axes
    drawn = [list(line.get_ydata()) for line in axes.lines[:2]]
    assert drawn == [[0.5, 1.0], [0.5, 1.0]]
    assert {text.get_text() for text in axes.texts} == {"cka ρ\N{NO-BREAK SPACE}1.00", "probe"}
    assert axes.get_legend() is None and says(caption_of(drawn_figures["r.png"]), "1.00 (cka)")


def long_names() -> pd.DataFrame:
    """Stitches of four networks in two groups, whose names and layers have thirty letters."""
    frame = all_pairs(dataset="digits")
    names = [
        *dict.fromkeys(frame[["front_network", "front_layer", "front_group"]].to_numpy().ravel())
    ]
    long = {name: LONG.format(number) for number, name in enumerate(names)}
    columns = [
        f"{side}_{name}" for side in ("front", "end") for name in ("network", "group", "layer")
    ]
    frame[columns] = frame[columns].replace(long)
    return frame.assign(networks=frame.front_network + " → " + frame.end_network)


LETTERS = {LONG.format(1): "x", LONG.format(3): "y"}  # of layers


def by_two_methods(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.assign(method="tlm")], ignore_index=True)


def of_four_groups() -> pd.DataFrame:
    """Stitches within four groups and between them, by two methods; layers have short names."""
    rows = long_names().replace({"front_layer": LETTERS, "end_layer": LETTERS})
    pairs = [
        rows[:4].assign(front_group=front, end_group=end)
        for front, end in product(NAMES[:4], NAMES[:4])
    ]
    frame = by_two_methods(pd.concat(pairs, ignore_index=True))
    return frame.assign(verdict=[(SIMILAR, INCONCLUSIVE)[n % 3 == 0] for n in range(len(frame))])


def draw_ranks_of(path, names):
    lines = {name: {1: 0.1 * number, 4: 0.5} for number, name in enumerate(names)}
    return draw_ranks(path, {names[0]: lines}, y_title="similarity")


NAMES = [LONG.format(number) for number in range(5)]
NO_VALUE = [Map("skill", of_layers(2, math.nan))]
CASES = {
    "verdicts": lambda path: draw_verdicts(path, long_names(), Limits()),
    "two networks": lambda path: draw_verdicts(path, long_names()[:2], Limits()),
    "points": lambda path: draw_points(path, long_names()[:2], Limits()),
    "no skill": lambda path: draw_points(path, long_names()[:2].assign(skill=math.nan), Limits()),
    "no tolerance": lambda path: draw_points(
        path, frames.frame([stitch(skill=-16.0)]), Limits(0.0)
    ),
    "30 layers": lambda path: draw_layers(path, [Map("cka", of_layers(30))]),
    "layers": lambda path: draw_layers(path, [Map("cka", pd.DataFrame(np.eye(5), NAMES, NAMES))]),
    "no value": lambda path: draw_layers(path, NO_VALUE),
    "groups": lambda path: draw_groups(
        path, compare_groups(long_names(), [*SHARES, "skill"]), Limits()
    ),
    "groups without skill": lambda path: draw_groups(
        path, compare_groups(long_names().assign(skill=math.nan), SHARES), Limits()
    ),
    "groups by two methods": lambda path: draw_groups(
        path, compare_groups(by_two_methods(long_names()), [*SHARES, "skill"]), Limits()
    ),
    "four groups": lambda path: draw_verdicts(path, of_four_groups(), Limits()),
    "networks": lambda path: draw_layers(
        path, maps_of_networks(compare_groups(long_names(), ["skill"]).means)
    ),
    "depth": lambda path: draw_depth(path, over_depth(long_names(), ["skill"]), Limits()),
    "ranks": lambda path: draw_ranks_of(path, NAMES),
}
WIDE = ("30 layers",)


@pytest.mark.parametrize("case", CASES)
def test_every_figure_has_its_width_and_no_text_over_another(
    case, tmp_path, drawn_figures, rendered
):
    """With names of thirty letters, and without a warning of matplotlib."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CASES[case](tmp_path / "f.png")
    figure = drawn_figures["f.png"]
    assert figure.get_figwidth() / CM == pytest.approx(PAGE if case in WIDE else COLUMN)
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")
    assert 1 < len(caption_of(figure).split()) <= 45
    assert not overlapping(figure)


def overlapping(figure) -> list[tuple[str, str]]:
    """The texts of a figure whose boxes overlap by more than a pixel."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip()
    ]
    pairs = []
    for (first, box), (second, other) in combinations(boxes, 2):
        shared = Bbox.intersection(box, other)
        if shared is not None and min(shared.width, shared.height) > 1:
            pairs.append((first, second))
    return pairs


def test_a_matplotlibrc_counts_where_the_style_says_nothing(tmp_path, drawn_figures):
    import matplotlib

    with matplotlib.rc_context({"font.family": ["serif"], "font.size": 20}):
        draw_layers(tmp_path / "mine.png", [Map("cka", of_layers(2), "a")])
    name = drawn_figures["mine.png"].axes[0].xaxis.label
    assert name.get_fontfamily() == ["serif"] and name.get_fontsize() == 7


def test_a_figure_holds_its_caption(tmp_path, rendered):
    draw_layers(tmp_path / "f.png", [Map("skill", of_layers(2), "a → b")])
    caption = Image.open(tmp_path / "f.png").text["Description"]
    assert says(caption, "Closest by", "a → b", "Darker cells")
    assert b"/Subject" in (tmp_path / "f.pdf").read_bytes()
    assert not (tmp_path / "f.txt").exists()


def test_a_figure_is_removed_and_no_other_file(tmp_path):
    for name in ("v.csv", "v.png", "v.pdf", "v_2.png", "v_2.pdf", "w.png"):
        (tmp_path / name).touch()
    remove_figure(tmp_path / "v.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"v.csv", "v_2.png", "v_2.pdf", "w.png"}
