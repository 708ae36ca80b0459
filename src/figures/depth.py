"""Figure 3, depth: how points lost, skill and a measure change with depth."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from src.figures.captions import between, in_words, joined
from src.figures.cells import number
from src.figures.lines import draw_lines, label_ends, looks_of, scale_points
from src.figures.pages import CM, Look, draw_pages, letter, panels_in
from src.figures.shown import Shown, scale_of
from src.tables.quantities import QUANTITIES
from src.verdict import Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOM = 5.6  # cm of width, for a panel with its labels at least
MOST = 9  # panels on a page
LIMIT: Look = {"color": "0.4", "linewidth": 0.6, "linestyle": ":", "zorder": 1}
SIMILARITY = "similarity"  # the quantity of all measures
LOWEST = -1.0  # skill, at the end of its axis
NAMED = 12  # layers at most, for their names on the axis
UPRIGHT = 4  # more names of layers are turned
LABEL = 0.32  # cm, a line of text
HEIGHT = 3.6  # cm, of a panel at least
HEAD = 1.5  # cm above and below a panel

Lines = Mapping[str, Sequence[Shown]]  # the rows of a panel by label


def draw_depth(
    path: Path,
    rows: Sequence[Shown],
    limits: Limits,
    *,
    title: str = "",
    width: float | None = None,
    source: str = "",
) -> list[Path]:
    """Draw means over relative depth: a panel a quantity, a line a method, or with groups a panel a
    quantity and method, a line a pair of groups. Return the written paths.

    Args:
        rows: from `of_depths`. Of the measures of similarity, the figure has those in the rows.
        width: in cm; None: as `--width` says.
        source: the sentence of the caption on networks and images.
    """
    has_groups = any(row.groups != ("", "") for row in rows)
    panels: dict[tuple[str, str], dict[str, list[Shown]]] = {}
    for row in rows:
        quantity = row.quantity if row.quantity in QUANTITIES else SIMILARITY
        key = (quantity, row.method if has_groups else "")
        label = row.method
        if has_groups:
            is_directed = quantity in QUANTITIES or len(set(row.groups)) == 1
            label = (" → " if is_directed else ", ").join(row.groups)
        panels.setdefault(key, {}).setdefault(label, []).append(row)
    lines = sorted({label for panel in panels.values() for label in panel})
    in_order = list(panels.items())
    draw = partial(_draw, limits=limits, labels=lines, source=source)
    return draw_pages(path, in_order, draw, on_page=MOST, title=title, width=width)


def _draw(
    figure: "Figure",
    panels: Sequence[tuple[tuple[str, str], Lines]],
    *,
    limits: Limits,
    labels: Sequence[str],
    source: str,
) -> str:
    """Draw panels side by side; return the caption."""
    width = figure.get_figwidth() / CM
    height = max(HEIGHT, LABEL * max(len(lines) for _, lines in panels))
    in_line = int(width / ROOM)
    if len(panels) > in_line:  # a line a method
        of_methods = Counter(method for (_, method), _ in panels)
        in_line = min(in_line, max(of_methods.values()))
    grid = panels_in(figure, len(panels), in_line=in_line, height=height + HEAD)
    looks = looks_of(labels)
    is_clipped = False
    for place, ((quantity, method), all_lines) in enumerate(panels):
        axes = grid[place]
        lines = all_lines
        if quantity == "skill":
            lines = {label: list(map(_at_edge, rows)) for label, rows in all_lines.items()}
            is_clipped = is_clipped or lines != all_lines
        draw_lines(axes, lines, looks, are_means=True)
        _set_axes(axes, quantity, lines, limits)
        label_ends(axes, lines, looks)
        axes.set_title(method)
        letter(axes, place)
    edge = f"; at the edge: skill below {number(LOWEST, 0)}" if is_clipped else ""
    ns = [row.n for _, lines in panels for rows in lines.values() for row in rows]
    return joined(
        _on_first_and_last(panels[0]),
        f"Means over {between(ns)} pairs of networks at corresponding layers, with 95 % intervals (open: too few "
        f"networks{edge}).",
        source,
    )


def _at_edge(row: Shown) -> Shown:
    """Return a row of skill whose value is at least the lowest that the axis has."""
    return replace(row, value=max(row.value, LOWEST), low=max(row.low, LOWEST))


def _set_axes(axes: "Axes", quantity: str, lines: Lines, limits: Limits) -> None:
    """Set the axes of a panel: names of layers if all networks share few, the limit of similar pairs,
    points lost linear to the tolerance and logarithmic beyond."""
    rows = [row for line in lines.values() for row in line]
    layers = {row.layers[0]: row.place for row in rows if row.layers[0]}
    axes.set_xlabel("relative depth")
    if 0 < len(layers) <= NAMED:
        axes.set_xticks(list(layers.values()), list(layers))
        axes.tick_params(axis="x", labelrotation=90 if len(layers) > UPRIGHT else 0)
        axes.set_xlabel("layer")
    title = SIMILARITY
    if quantity != SIMILARITY:
        title = scale_of(quantity).title
    axes.set_ylabel(title)
    values = [value for row in rows for value in (row.value, row.low, row.high)]
    known = [value for value in values if math.isfinite(value)]
    low = min([0.0, *known])
    high = max([1.0, *known])
    if quantity == "penalty":
        tolerance = 100 * limits.tolerance
        scale_points(axes, "y", low, max(2 * tolerance, high), tolerance)
        axes.axhline(tolerance, **LIMIT)
    else:
        axes.set_ylim(max(low, LOWEST) - 0.03, min(high, 1) + 0.03)
    if quantity == "skill":
        axes.axhline(limits.skill, **LIMIT)


def _on_first_and_last(panel: tuple[tuple[str, str], Lines]) -> str:
    """Return the sentence on the first and the last value of the first lines of a panel."""
    (quantity, _), lines = panel
    title = SIMILARITY
    if quantity != SIMILARITY:
        title = scale_of(quantity).title
    texts = []
    for label, rows in list(lines.items())[:2]:
        in_order = sorted(rows, key=lambda row: row.place)
        first = number(in_order[0].value, 1)
        last = number(in_order[-1].value, 1)
        texts.append(f"from {first} to {last} ({label})")
    return f"From the first to the last layers, {title} go {in_words(texts)}."
