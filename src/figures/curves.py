"""Figure 3, depth, and curves over ranks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.choices.similarity import SIMILARITY
from src.core.console import listed
from src.core.grouping import grouped
from src.figures.maps import number
from src.figures.pages import CM, Look, draw_pages, panels_in, span
from src.figures.shown import Shown, scale_of
from src.results.quantities import QUANTITIES
from src.verdict import Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SKILL_TICKS = (-100, -30, -10, -3, -1, -0.5, 0, 0.5, 1)
TICKS = (-50, -20, -10, -5, -2, 0, 1, 2, 5, 10, 20, 50, 100)  # points of accuracy
ROOM = 4.2  # cm of width, for a panel at least
HEIGHT = 5.2  # cm, of a panel with what is above and below it
LABEL = 4.2  # cm of width, for the label of a line
LINE = 0.36  # cm, a line of labels
MOST = 12  # panels on a page
NAMED = 12  # layers or ranks at most, for all of them on the axis
UPRIGHT = 4  # more names of layers are turned
LIMIT: Look = {"color": "0.4", "linewidth": 0.6, "linestyle": ":", "zorder": 1}

Lines = Mapping[str, Sequence[Shown]]  # the rows of a panel by label
Panel = tuple[str, str, Lines]  # its quantity, its title and its lines


def draw_depth(path: Path, rows: Sequence[Shown], limits: Limits, **texts: Any) -> list[Path]:
    """Draw means over relative depth: a panel a quantity, a line a method, or with groups a panel a
    quantity and method, a line a pair of groups. Return the written paths.

    Args:
        rows: from `of_depths`. Of the measures of similarity, the figure has those in the rows.
        texts: `source` and `remark`, see `draw_pages`.
    """
    rows = [row for row in rows if math.isfinite(row.value)]
    has_groups = any(row.groups != ("", "") for row in rows)

    def panel(row: Shown) -> tuple[str, str]:
        quantity = row.quantity if row.quantity in QUANTITIES else SIMILARITY
        return quantity, row.method if has_groups else ""

    def label(row: Shown) -> str:
        is_directed = row.quantity in QUANTITIES or len(set(row.groups)) == 1
        of_groups = (" → " if is_directed else ", ").join(row.groups)
        return of_groups if has_groups else row.method

    panels = [
        (*key, grouped(sorted(of_panel, key=lambda row: (row.groups, row.place)), label))
        for key, of_panel in grouped(rows, panel).items()
    ]
    return draw_pages(path, panels, partial(_draw_depth, limits=limits), on_page=MOST, **texts)


def _draw_depth(figure: "Figure", panels: Sequence[Panel], *, limits: Limits) -> str:
    """Draw panels side by side; return the caption."""
    for axes, (quantity, _, lines) in _draw_panels(figure, panels):
        _set_axes(axes, quantity, lines, limits)
    quantity, _, lines = panels[0]
    texts = []
    for label, rows in list(lines.items())[:2]:
        first, last = (number(row.value, 1) for row in (rows[0], rows[-1]))
        values = first if first == last else f"from {first} to {last}"
        texts.append(f"{values} ({label})")
    all_rows = [row for _, _, lines in panels for row in _rows(lines)]
    ns = {row.n for row in all_rows}
    pairs = "1 pair" if ns == {1} else f"{span(ns)} pairs"
    text = (
        f"Along the depth of the networks, {_title(quantity)}: {listed(texts)}. Lines are means over {pairs} "
        "of networks at corresponding layers (of like relative depth), with 95 % intervals unless networks are too few."
    )
    return f"{text} {on_scale(all_rows)}".strip()


def _place(row: Shown) -> float:
    return row.place


def _rows(lines: Lines) -> list[Shown]:
    """Return the rows of all lines."""
    return [row for rows in lines.values() for row in rows]


def _title(quantity: str) -> str:
    """Return the title of an axis."""
    return quantity if quantity == SIMILARITY else scale_of(quantity).title


def _set_axes(axes: "Axes", quantity: str, lines: Lines, limits: Limits) -> None:
    """Set the axes of a panel: names of layers if all networks share few, the limit of similar
    pairs, accuracy drop linear to the tolerance and logarithmic beyond."""
    layers = {row.layers[0]: row.place for row in _rows(lines) if row.layers[0]}
    axes.set_xlabel("relative depth")
    if 0 < len(layers) <= NAMED:
        axes.set_xticks(list(layers.values()), list(layers))
        axes.tick_params(axis="x", labelrotation=90 if len(layers) > UPRIGHT else 0)
        axes.set_xlabel("layer")
    axes.set_ylabel(_title(quantity))
    low, high = ends_of(_rows(lines))
    if quantity == "accuracy_drop":
        tolerance = 100 * limits.tolerance
        scale_points(axes, "y", low, 1.1 * max(2 * tolerance, high), tolerance)
        axes.axhline(tolerance, **LIMIT)
    elif quantity == "skill":
        scale_skill(axes, "y", low)
        axes.axhline(limits.skill, **LIMIT)


def ends_of(rows: Sequence[Shown]) -> tuple[float, float]:
    """Return the lowest and the highest value with their intervals, or 0 and 1 if these lie
    beyond."""
    values = [value for row in rows for value in (row.value, row.low, row.high)]
    known = [value for value in values if math.isfinite(value)]
    return min([0.0, *known]), max([1.0, *known])


def draw_ranks(path: Path, rows: Sequence[Shown], *, y_title: str, **texts: Any) -> list[Path]:
    """Draw values over the ranks of a layer: a panel a pair of layers, a line a measure. Return the
    written paths.

    Args:
        rows: from `of_ranks`.
        y_title: of the vertical axis.
        texts: `source` and `remark`, see `draw_pages`.
    """
    rows = [row for row in rows if math.isfinite(row.value)]
    panels = [
        (y_title, layers, grouped(sorted(of_layers, key=_place), lambda row: row.method))
        for layers, of_layers in grouped(rows, lambda row: row.quantity).items()
    ]
    return draw_pages(path, panels, _draw_ranks, on_page=MOST, **texts)


def _draw_ranks(figure: "Figure", panels: Sequence[Panel]) -> str:
    """Draw panels of lines over ranks; return the caption."""
    for axes, (y_title, _, lines) in _draw_panels(figure, panels):
        ranks = sorted({row.place for row in _rows(lines)})
        axes.set_xscale("log", base=2)
        if len(ranks) <= NAMED:
            axes.set_xticks(ranks, [f"{rank:g}" for rank in ranks])
        axes.minorticks_off()
        axes.set(xlabel="retained rank (components)", ylabel=y_title)
    y_title, _, lines = panels[0]
    lowest = min(row.place for row in _rows(lines))
    ends = [f"{number(row.value)} ({row.method})" for row in _rows(lines) if row.place == lowest]
    what = f"{y_title[0].upper()}{y_title[1:]} where a layer keeps fewer principal components."
    return f"At rank {lowest:g}, {y_title} is {listed(ends, n=4)}. {what}"


def _draw_panels(figure: "Figure", panels: Sequence[Panel]) -> "list[tuple[Axes, Panel]]":
    """Draw the lines of panels, from 0 to 1 at least, with one legend; return panels with their
    axes."""
    import matplotlib

    labels = dict.fromkeys(label for _, _, lines in panels for label in lines)
    looks = dict(zip(labels, cycle(matplotlib.rcParams["axes.prop_cycle"]), strict=False))
    width = figure.get_figwidth() / CM
    drawn = panels_in(figure, len(panels), in_line=int(width / ROOM), height=HEIGHT)
    handles: dict[str, Any] = {}
    for axes, (_, title, lines) in zip(drawn, panels, strict=True):
        low, high = ends_of(_rows(lines))
        axes.set_ylim(low - 0.03, high + 0.03)
        axes.set_title(title, x=0, ha="left")
        axes.spines[["top", "right"]].set_visible(False)
        handles |= {label: _draw_line(axes, label, lines[label], looks[label]) for label in lines}
    n_columns = max(1, int(width / LABEL))
    legend: Look = {"loc": "outside lower center", "ncols": n_columns, "labelcolor": "linecolor"}
    figure.legend(handles=list(handles.values()), **legend)
    figure.set_figheight(figure.get_figheight() + LINE * len(handles) / n_columns * CM)
    return list(zip(drawn, panels, strict=True))


def _draw_line(axes: "Axes", label: str, rows: Sequence[Shown], look: Look) -> Any:
    """Draw and return a line of values over their places, with intervals."""
    places = [row.place for row in rows]
    (line,) = axes.plot(places, [row.value for row in rows], label=label, **look)
    lows = [row.low for row in rows]
    highs = [row.high for row in rows]
    axes.vlines(places, lows, highs, color=line.get_color(), linewidth=0.7)
    return line


def scale_points(axes: "Axes", side: str, low: float, high: float, tolerance: float) -> None:
    """Set an axis (x or y) of points of accuracy: linear to the tolerance, and logarithmic
    beyond."""
    _scale(axes, side, (low, high), max(tolerance, 1), TICKS)


def scale_skill(axes: "Axes", side: str, low: float) -> None:
    """Set an axis (x or y) of skill: linear from −1 to 1, and logarithmic below."""
    _scale(axes, side, (low - 0.05, 1.05), 1, SKILL_TICKS)


def on_scale(rows: Iterable[Shown]) -> str:
    """Return the sentence on an axis of skill that is not linear, for rows that reach so far; else ""."""
    if any(row.quantity == "skill" and min(row.value, row.low) < -1 for row in rows):
        return "Axis of skill: logarithmic below −1."
    return ""


def _scale(
    axes: "Axes", side: str, ends: tuple[float, float], linear: float, ticks: Sequence[float]
) -> None:
    """Set an axis, linear up to a value, and logarithmic beyond."""
    from matplotlib.ticker import NullLocator

    axes.set(**{f"{side}lim": ends})
    set_scale = {"x": axes.set_xscale, "y": axes.set_yscale}[side]
    set_scale("symlog", linthresh=linear, linscale=1)
    axis = {"x": axes.xaxis, "y": axes.yaxis}[side]
    shown = [tick for tick in ticks if ends[0] <= tick <= ends[1]]
    axis.set_ticks(shown, [f"{tick:g}".replace("-", "−") for tick in shown])
    axis.set_minor_locator(NullLocator())
