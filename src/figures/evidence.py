"""Figure 1, evidence: which stitches keep the accuracy, and follow the end network."""

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.core.console import layer_in_words
from src.core.grouping import grouped
from src.figures.curves import on_scale, scale_points, scale_skill
from src.figures.maps import frame_cells, mean_number, name_cells, write_in_cell
from src.figures.pages import CM, Look, draw_figure, draw_pages, write_letters
from src.figures.shown import Shown, of_stitches, of_verdicts
from src.results.verdict_rows import VerdictRow
from src.verdict import ACCURATE_ONLY, INCONCLUSIVE, NOT_MATCHED, SIMILAR, VERDICTS, Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NETWORKS = ("the front network", "the end network")  # on axes, unless their names are known
TINTS = {
    SIMILAR: "#8fbfe8",
    ACCURATE_ONLY: "#fbd3a2",
    NOT_MATCHED: "#ededed",
    INCONCLUSIVE: "white",
}
CORNERS = {  # of the points, where a verdict stands, and its colour
    SIMILAR: (0, 1, "#0b3d6e"),
    ACCURATE_ONLY: (0, 0, "#7a4300"),
    NOT_MATCHED: (1, 1, "#555555"),
}
LOOKS: tuple[Look, ...] = (  # of the two methods: dark and light, for print in grey
    {"color": "#08407f", "markeredgecolor": "white", "marker": "o"},
    {"color": "#ff8fbf", "markeredgecolor": "#5c0a2e", "marker": "D"},
)
LINES = ("#08407f", "#c2185b")
MANY = 200  # points from here on have no intervals
NARROW = 12  # cm: maps stand below the points
TITLE = 28  # characters in a line above a map
FEW = 8  # layers; with more, lines around cells are thinner

Stitch = Mapping[str, Shown]  # the values of a stitch by quantity
Series = Sequence[Stitch]  # the stitches of a method


def draw_evidence(
    path: Path,
    rows: Sequence[VerdictRow],
    limits: Limits,
    *,
    networks: tuple[str, str] = NETWORKS,
    **texts: Any,
) -> list[Path]:
    """Draw verdicts: accuracy drop against skill, and a map a method. Return the written paths.

    A figure has two methods (or pairs of architectures); further ones go into NAME_2.png and so on.

    Args:
        networks: the names of both on axes.
        texts: `source` and `remark`, see `draw_pages`.
    """
    methods = _methods(list(of_verdicts(rows)))
    draw = partial(_draw, limits=limits, networks=networks)
    return draw_pages(path, methods, draw, on_page=2, **texts)


def evidence_figure(
    stitches: Mapping[str, Sequence[Any]],
    limits: Limits,
    *,
    networks: tuple[str, str] = NETWORKS,
    source: str = "",
) -> "Figure":
    """Return the figure of judged stitches by title of their method, without writing a file.

    Layers of the same name are framed if both networks have the same layers.
    """
    shown: list[Shown] = []
    for title, rows in stitches.items():
        names = {row.front_layer for row in rows}
        framed = {(name, name) for name in names if names == {row.end_layer for row in rows}}
        shown += of_stitches(rows, title, framed)
    draw = partial(_draw, limits=limits, networks=networks)
    return draw_figure(_methods(shown), draw, source=source)


def _methods(rows: Sequence[Shown]) -> list[tuple[str, Series]]:
    """Return the stitches of each method."""
    methods: list[tuple[str, Series]] = []
    for method, of_method in grouped(rows, lambda row: row.method).items():
        stitches = grouped(of_method, lambda row: (row.networks, row.layers)).values()
        methods.append((method, [{row.quantity: row for row in stitch} for stitch in stitches]))
    return methods


def _draw(
    figure: "Figure",
    methods: Sequence[tuple[str, Series]],
    *,
    limits: Limits,
    networks: tuple[str, str],
) -> str:
    """Draw the points and the map of each method; return the caption."""
    width = figure.get_figwidth() / CM
    maps = [method for method, _ in methods]
    layout: Any = [["", *maps]]
    if width < NARROW:
        layout = [[""] * len(maps), maps]
        panels = figure.subplot_mosaic(layout, height_ratios=[1.2, 1])
        figure.set_figheight(13 * CM)
    else:
        panels = figure.subplot_mosaic(layout, width_ratios=[1.3, *(1 for _ in maps)])
        figure.set_figheight(0.4 * width * CM)
    write_letters(list(panels.values()))
    _draw_plane(panels[""], [stitch for _, series in methods for stitch in series], limits)
    for place, (method, series) in enumerate(methods):
        _draw_points(panels[""], series, LOOKS[place], LINES[place], limits)
        axes = panels[method]
        _draw_map(axes, series)
        _head(axes, method, LOOKS[place])
        axes.set_xlabel(f"into layer of {networks[1]}")
        if place == 0:
            axes.set_ylabel(f"from layer of {networks[0]}")
        elif _layers(series) == _layers(methods[0][1]):
            axes.set_yticks([])
    return _caption(methods)


def _draw_plane(axes: "Axes", stitches: Series, limits: Limits) -> None:
    """Draw the regions of the words, and set the axes: accuracy drop, and skill at the output."""
    tolerance = 100 * limits.tolerance
    lost = [x for stitch in stitches if math.isfinite(x := stitch["accuracy_drop"].value)]
    skills = [y for stitch in stitches if math.isfinite(y := stitch["skill"].low)]
    left = min([-1.0, *lost]) * 1.2
    right = max([2 * tolerance, 10, *lost]) * 1.2
    scale_points(axes, "x", left, right, tolerance)
    scale_skill(axes, "y", min([0.0, *skills]))
    bottom, top = axes.get_ylim()
    axes.set(xlabel="accuracy drop by the stitch (points)", ylabel="skill at the output")
    axes.spines[["top", "right"]].set_visible(False)
    axes.axhline(0, color="0.4", linewidth=0.6, linestyle=":", zorder=1)
    if not skills:
        axes.text(tolerance, 0.6, "skill was not measured", ha="right")
    accurate = (left, tolerance)
    look: Look = {"linewidth": 0, "zorder": 0}
    axes.fill_between(accurate, limits.skill, top, color=TINTS[SIMILAR], **look)
    axes.fill_between(accurate, bottom, limits.skill, color=TINTS[ACCURATE_ONLY], **look)
    axes.fill_between((tolerance, right), bottom, top, color=TINTS[NOT_MATCHED], **look)
    for verdict, (x, y, colour) in CORNERS.items():
        axes.text(
            0.02 + 0.96 * x,
            0.02 + 0.96 * y,
            verdict,
            transform=axes.transAxes,
            ha=("left", "right")[x],
            va=("bottom", "top")[y],
            color=colour,
            weight="bold",
            zorder=5,
        )


def _draw_points(axes: "Axes", series: Series, look: Look, line: str, limits: Limits) -> None:
    """Draw a point a stitch with its intervals: hollow if inconclusive, crossed if it has skill at the
    output but not at the end layer."""
    size = 4.5 if len(series) < MANY else 2.5
    for stitch in series:
        lost, skill = stitch["accuracy_drop"], stitch["skill"]
        options = {**look, "linestyle": "", "markersize": size, "markeredgewidth": size / 8}
        if skill.verdict == INCONCLUSIVE:
            options |= {"color": "white", "markeredgecolor": line, "markeredgewidth": size / 5}
        if len(series) < MANY:
            bars: Look = {"color": line, "linewidth": 0.7, "alpha": 0.6, "zorder": 2}
            axes.hlines(skill.value, lost.low, lost.high, **bars)
            axes.vlines(lost.value, skill.low, skill.high, **bars)
        axes.plot(lost.value, skill.value, zorder=3, **options)
        if skill.verdict == ACCURATE_ONLY and skill.value > limits.skill:
            options = {"markersize": size, "markeredgewidth": size / 5}
            axes.plot(lost.value, skill.value, "kx", zorder=4, **options)


def _draw_map(axes: "Axes", series: Series) -> None:
    """Draw a cell a pair of layers: strips for the words, as wide as their shares of the networks,
    and the means of accuracy drop and of skill."""
    from matplotlib.patches import Rectangle

    fronts, ends = _layers(series)
    name_cells(axes, list(map(layer_in_words, fronts)), list(map(layer_in_words, ends)))
    thickness = min(1, FEW / max(len(fronts), len(ends)))
    for (front, end), stitches in grouped(series, lambda stitch: stitch["skill"].layers).items():
        x, y = ends.index(end), fronts.index(front)
        start = x - 0.5
        words = Counter(stitch["skill"].verdict for stitch in stitches)
        for verdict in VERDICTS:
            share = words[verdict] / len(stitches)
            axes.add_patch(Rectangle((start, y - 0.5), share, 1, fc=TINTS[verdict], lw=0))
            start += share
        border: Look = {"fill": False, "ec": "0.8", "lw": 0.6 * thickness}
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **border))
        lost = mean_number([stitch["accuracy_drop"].value for stitch in stitches], 1)
        skill = mean_number([stitch["skill"].value for stitch in stitches])
        write_in_cell(axes, x, y, f"{lost}\n{skill}".strip())
        if stitches[0]["skill"].is_framed:
            frame_cells(axes, [(y, x)], thickness)


def _layers(series: Series) -> tuple[list[str], list[str]]:
    """Return the front layers and the end layers."""
    fronts = dict.fromkeys(stitch["skill"].layers[0] for stitch in series)
    ends = dict.fromkeys(stitch["skill"].layers[1] for stitch in series)
    return list(fronts), list(ends)


def _head(axes: "Axes", method: str, look: Look) -> None:
    """Write the method above its map, with its marker."""
    from matplotlib.lines import Line2D

    marker = Line2D([], [], linestyle="", markersize=4.5, markeredgewidth=0.6, **look)
    options: Look = {"bbox_to_anchor": (0.5, 1.0), "handlelength": 1, "handletextpad": 0.2}
    lines = [textwrap.fill(line, TITLE) for line in method.split(", ", 1)]
    axes.legend([marker], ["\n".join(lines)], loc="lower center", **options)


def _caption(methods: Sequence[tuple[str, Series]]) -> str:
    """Return the shares of similar pairs, and the marks."""
    counts = []
    cells = ""
    for method, series in methods:
        n_similar = sum(stitch["skill"].verdict == SIMILAR for stitch in series)
        counts.append(f"{n_similar} of {len(series)} by {method}")
        if len({stitch["skill"].networks for stitch in series}) > 1:
            cells = "; numbers: means; strips: shares of pairs of networks"
    n_stitches = sum(len(series) for _, series in methods)
    intervals = ", with 95 % intervals" if n_stitches < MANY else ""
    text = (
        f"Similar stitches: {'; '.join(counts)}. Points: stitches{intervals} (hollow: inconclusive; crossed: "
        "low skill at the end layer). Skill is 1 for the end network itself, 0 for untrained features that are "
        "given the class. Cells: accuracy drop above skill, coloured by verdict (white: inconclusive; framed: "
        f"corresponding layers{cells})."
    )
    skills = [stitch["skill"] for _, series in methods for stitch in series]
    return f"{text} {on_scale(skills)}".strip()
