"""Figure 1, evidence: which stitches keep the accuracy, and which of them follow the end network."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from src.collected.groups import Names
from src.figures.captions import in_words, joined
from src.figures.cells import frame_cells, name_cells, number, write_in_cell
from src.figures.lines import scale_points
from src.figures.pages import CM, Look, draw_pages, fit, letter, new_figure, styled
from src.figures.shown import Judged, Shown, of_stitches, of_verdicts
from src.ground.grouping import grouped
from src.tables.verdict_rows import VerdictRow
from src.verdict import ACCURATE_ONLY, NOT_MATCHED, SIMILAR, UNDECIDED, VERDICTS, Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NETWORKS = ("the front network", "the end network")  # on axes, unless their names are known
TINTS = {SIMILAR: "#8fbfe8", ACCURATE_ONLY: "#fbd3a2", NOT_MATCHED: "#ededed", UNDECIDED: "white"}
INKS = {SIMILAR: "#0b3d6e", ACCURATE_ONLY: "#7a4300", NOT_MATCHED: "#555555"}
LOOKS = (  # of the two methods: dark and light, for print in grey
    {"color": "#08407f", "markeredgecolor": "white", "marker": "o"},
    {"color": "#ff8fbf", "markeredgecolor": "#5c0a2e", "marker": "D"},
)
LINES = ("#08407f", "#c2185b")
LOWEST = -1.0  # skill; points below stand at the edge
MANY = 200  # points from here on have no intervals
NARROW = 12  # cm: maps stand below the points

TOP = 1.02  # of the axis of skill
FEW = 8  # layers; with more, lines around cells are thinner

Stitch = Mapping[str, Shown]  # the values of a stitch by quantity
Series = Sequence[Stitch]  # the stitches of a method


class Region(NamedTuple):
    """The region of a word, and the corner that the word stands in."""

    word: str
    left: float
    bottom: float
    right: float
    top: float
    horizontal: str
    vertical: str


def draw_evidence(
    path: Path,
    rows: Sequence[VerdictRow],
    limits: Limits,
    *,
    title: str = "",
    width: float | None = None,
    names: Names | None = None,
    source: str = "",
) -> list[Path]:
    """Draw verdicts: points lost against skill, and a map a method. Return the written paths.

    A figure has two methods (or pairs of architectures); further ones go into NAME_2.png and so on.

    Args:
        width: in cm; None: as `--width` says.
        names: of the networks, from a list; None: axes say *front* and *end network*.
        source: the sentence of the caption on networks and images.
    """
    methods = list(_methods(list(of_verdicts(rows))).items())
    networks = {(str(row.front_network), str(row.end_network)) for row in rows}
    titles = NETWORKS
    if names and len(networks) == 1:
        (titles,) = networks
    draw = partial(_draw, limits=limits, titles=titles, source=source)
    return draw_pages(path, methods, draw, on_page=2, title=title, width=width)


def evidence_figure(
    stitches: Mapping[str, Sequence[Judged]], limits: Limits, *, source: str = ""
) -> "Figure":
    """Return the figure of judged stitches by title of their method, without writing a file.

    Layers of the same name are framed if both networks have the same layers.
    """
    shown: list[Shown] = []
    for title, rows in stitches.items():
        names = {row.front_layer for row in rows}
        framed = {(name, name) for name in names if names == {row.end_layer for row in rows}}
        shown += of_stitches(rows, title, framed)
    methods = list(_methods(shown).items())
    with styled():
        figure = new_figure()
        figure.caption = _draw(figure, methods, limits=limits, titles=NETWORKS, source=source)
        fit(figure)
    return figure


def _methods(rows: Sequence[Shown]) -> dict[str, Series]:
    """Return the stitches of each method."""
    methods: dict[str, Series] = {}
    for method, of_method in grouped(rows, lambda row: row.method).items():
        stitches = grouped(of_method, lambda row: (row.networks, row.layers)).values()
        methods[method] = [{row.quantity: row for row in stitch} for stitch in stitches]
    return methods


def _draw(
    figure: "Figure",
    methods_of_page: Sequence[tuple[str, Series]],
    *,
    limits: Limits,
    titles: tuple[str, str],
    source: str,
) -> str:
    """Draw the points and the map of each method; return the caption."""
    methods = dict(methods_of_page)
    n_maps = len(methods)
    width = figure.get_figwidth() / CM
    maps = [f"map {place}" for place in range(n_maps)]
    layout: Any = [["plane"] * n_maps, maps]
    if width < NARROW:
        panels = figure.subplot_mosaic(layout, height_ratios=[1.2, 1])
        figure.set_figheight(13 * CM)
    else:
        layout = [["plane", *maps]]
        panels = figure.subplot_mosaic(layout, width_ratios=[1.3] + [1] * n_maps)
        figure.set_figheight(0.4 * width * CM)
    plane = panels["plane"]
    _draw_plane(plane, methods, limits)
    letter(plane, 0)
    for place, (method, series) in enumerate(methods.items()):
        look = LOOKS[place]
        _draw_points(plane, series, look, LINES[place], limits)
        axes = panels[maps[place]]
        _draw_map(axes, series)
        _head(axes, method, look)
        letter(axes, 1 + place)
        axes.set_xlabel(f"into layer of {titles[1]}")
        if place == 0:
            axes.set_ylabel(f"from layer of {titles[0]}")
        elif _layers(series) == _layers(next(iter(methods.values()))):
            axes.set_yticks([])
    return _caption(methods, limits, source)


def _draw_plane(axes: "Axes", methods: Mapping[str, Series], limits: Limits) -> None:
    """Draw the regions of the words, and set the axes: points lost, and skill at the output."""
    from matplotlib.patches import Rectangle

    tolerance = 100 * limits.tolerance
    stitches = [stitch for series in methods.values() for stitch in series]
    lost = [x for stitch in stitches if math.isfinite(x := stitch["penalty"].value)]
    skills = [y for stitch in stitches if math.isfinite(y := stitch["skill"].low)]
    left = min([-1.0, *lost]) * 1.2
    right = max([2 * tolerance, 10, *lost]) * 1.2
    bottom = max(LOWEST, min([0.0, *skills]) - 0.05)
    scale_points(axes, "x", left, right, tolerance)
    axes.set_ylim(bottom, TOP)
    axes.set_xlabel("accuracy lost by the stitch (points)")
    axes.set_ylabel("skill at the output")
    axes.spines[["top", "right"]].set_visible(False)
    axes.axhline(0, color="0.4", linewidth=0.6, linestyle=":", zorder=1)
    if not skills:
        axes.text(tolerance, 0.6, "skill was not measured", ha="right")
    for region in (
        Region(SIMILAR, left, limits.skill, tolerance, TOP, "left", "top"),
        Region(ACCURATE_ONLY, left, bottom, tolerance, limits.skill, "left", "bottom"),
        Region(NOT_MATCHED, tolerance, bottom, right, TOP, "right", "top"),
    ):
        colour = TINTS[region.word]
        size = (region.right - region.left, region.top - region.bottom)
        axes.add_patch(Rectangle((region.left, region.bottom), *size, color=colour, lw=0, zorder=0))
        is_right = region.horizontal == "right"
        is_top = region.vertical == "top"
        axes.annotate(
            region.word,
            (region.right if is_right else region.left, region.top if is_top else region.bottom),
            xytext=(-3 if is_right else 3, -3 if is_top else 5),
            textcoords="offset points",
            ha=region.horizontal,
            va=region.vertical,
            color=INKS[region.word],
            weight="bold",
            zorder=5,
        )


def _draw_points(axes: "Axes", series: Series, look: Look, line: str, limits: Limits) -> None:
    """Draw a point a stitch with its intervals: hollow if undecided, crossed if it has skill at the
    output but not at the end layer, at the lower edge if it lies below."""
    bottom = axes.get_ylim()[0]
    has_bars = len(series) < MANY
    size = 4.5 if has_bars else 2.5
    for stitch in series:
        lost, skill = stitch["penalty"], stitch["skill"]
        y = max(skill.value, bottom)
        is_below = skill.value < bottom
        options = look | {"linestyle": "", "markersize": size, "zorder": 3}
        options |= {"markeredgewidth": size / 8}
        if skill.word == UNDECIDED:
            options |= {"color": "white", "markeredgecolor": line, "markeredgewidth": size / 5}
        if is_below:
            options |= {"marker": "v", "clip_on": False}
        elif has_bars:
            bars: Look = {"color": line, "linewidth": 0.7, "alpha": 0.6, "zorder": 2}
            axes.hlines(y, lost.low, lost.high, **bars)
            axes.vlines(lost.value, max(skill.low, bottom), skill.high, **bars)
        axes.plot(lost.value, y, **options)
        if skill.word == ACCURATE_ONLY and skill.value > limits.skill:
            axes.plot(lost.value, y, "kx", markersize=size, markeredgewidth=size / 5, zorder=4)


def _draw_map(axes: "Axes", series: Series) -> None:
    """Draw a cell a pair of layers: strips for the words, as wide as their shares of the networks,
    and the means of points lost and of skill."""
    from matplotlib.patches import Rectangle

    cells = grouped(series, lambda stitch: stitch["skill"].layers)
    fronts, ends = _layers(series)
    name_cells(axes, fronts, ends)
    thickness = min(1, FEW / max(len(fronts), len(ends)))
    for (front, end), stitches in cells.items():
        x, y = ends.index(end), fronts.index(front)
        start = x - 0.5
        words = Counter(stitch["skill"].word for stitch in stitches)
        for word in VERDICTS:
            share = words[word] / len(stitches)
            axes.add_patch(Rectangle((start, y - 0.5), share, 1, fc=TINTS[word], lw=0))
            start += share
        axes.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, ec="white", lw=1.2 * thickness)
        )
        if words[UNDECIDED] == len(stitches):
            dashes: Look = {"ec": "0.6", "lw": 0.6 * thickness, "ls": "--"}
            axes.add_patch(Rectangle((x - 0.44, y - 0.44), 0.88, 0.88, fill=False, **dashes))
        write_in_cell(axes, x, y - 0.2, _mean(stitches, "penalty"))
        write_in_cell(axes, x, y + 0.2, _mean(stitches, "skill"), weight="bold")
        if stitches[0]["skill"].is_framed:
            frame_cells(axes, [(y, x)], thickness)


def _layers(series: Series) -> tuple[list[str], list[str]]:
    """Return the front layers and the end layers."""
    pairs = [stitch["skill"].layers for stitch in series]
    fronts = dict.fromkeys(front for front, _ in pairs)
    ends = dict.fromkeys(end for _, end in pairs)
    return list(fronts), list(ends)


def _mean(stitches: Series, quantity: str) -> str:
    """Return the mean of the known values of a quantity as a text."""
    values = [value for stitch in stitches if math.isfinite(value := stitch[quantity].value)]
    return number(sum(values) / len(values), 1 if quantity == "penalty" else 2) if values else ""


def _head(axes: "Axes", method: str, look: Look) -> None:
    """Write the method above its map, with its marker."""
    from matplotlib.lines import Line2D

    marker = Line2D([], [], linestyle="", markersize=4.5, markeredgewidth=0.6, **look)
    label = method.replace(", ", "\n", 1)
    options: Look = {"bbox_to_anchor": (0.5, 1.0), "handlelength": 1, "handletextpad": 0.2}
    axes.legend([marker], [label], loc="lower center", **options)


def _caption(methods: Mapping[str, Series], limits: Limits, source: str) -> str:
    """Return the caption: the shares of similar pairs, the marks, and the source."""
    counts = []
    n_below = 0
    has_strips = False
    for method, series in methods.items():
        words = Counter(stitch["skill"].word for stitch in series)
        counts.append(f"{words[SIMILAR]} of {len(series)} by {method}")
        has_strips = has_strips or len({stitch["skill"].networks for stitch in series}) > 1
        n_below += sum(stitch["skill"].value < LOWEST for stitch in series)
    edge = f"; triangles: skill below {number(LOWEST, 0)}" if n_below else ""
    cells = "dashed: undecided"
    if has_strips:
        cells = "means, strips: shares of pairs of networks"
    return joined(
        f"Similar stitches: {in_words(counts)}.",
        f"Points with 95 % intervals (hollow: undecided; crossed: too little skill at the end layer{edge}), and cells "
        f"with points lost above skill ({cells}; framed: corresponding layers).",
        source,
    )
