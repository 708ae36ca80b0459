"""Curves over ranks or layers."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from src.ground.console import listed
from src.reports.figures import (
    CHARACTER,
    add_legend,
    can_draw,
    fit_height,
    font_size,
    looks_of_lines,
    new_figure,
    wrap,
)

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

SHARE = (0.0, 1.0)  # the possible values of accuracies and other shares
RATIO = 0.7  # of height and width of a panel
MAX_ALIKE = 4  # panels of one quantity that stand side by side
MAX_UNLIKE = 3  # panels of several quantities, which have labels of their own

MARGIN = 0.3  # beside the first and the last layer, in steps of layers
ABOVE_FRAME = 3  # the order of drawing: the frame of a panel has 2.5


class Point(NamedTuple):
    """A value of a curve with its interval; NaN: the value has no interval."""

    value: float
    low: float = math.nan
    high: float = math.nan


# By rank, by layer or by another number; NaN leaves a gap
Curve = Mapping[Any, Point | float]


class CurvePanel(NamedTuple):
    """Curves over the same axes."""

    curves: Mapping[str, Curve]  # by label
    y_label: str
    # The axis reaches from end to end, and to all values beyond; an infinite end fits the curves
    y_range: tuple[float, float] = SHARE
    title: str = ""
    limit: float = math.nan  # what the values are judged by: a line across the panel


def curves(
    path: Path,
    panels: Sequence[CurvePanel],
    *,
    x_label: str,
    layers: Sequence[str] = (),
    x_range: tuple[float, float] | None = None,
    lines: Sequence[str] = (),
    title: str = "",
    caption: str = "",
) -> None:
    """Draw panels of curves with one legend; intervals are bands.

    Panels of one quantity share their axes.

    Args:
        layers: the layers in the order of the axis; empty: the curves are over numbers.
        x_range: the ends of the axis over numbers; None: the numbers are ranks of 1 and more, on a
            logarithmic axis to the base of 2.
        lines: the labels of the lines on all pages of a figure, so that a line has one look on all
            of them; empty: this is the only page.
        caption: the text for below the figure, to go on with behind a sentence on the axes.
    """
    if not can_draw(path):
        return
    quantities = list(dict.fromkeys(panel.y_label for panel in panels))
    are_alike = len(quantities) == 1
    sentence = f"{listed(quantities)} over the {x_label}."
    caption = f"{sentence[0].upper()}{sentence[1:]} {caption}".strip()
    n_columns = _columns(len(panels), are_alike=are_alike)
    n_lines = math.ceil(len(panels) / n_columns)
    with new_figure(path, is_wide=n_columns > 1, title=title, caption=caption) as figure:
        grid = figure.subplots(n_lines, n_columns, squeeze=False, sharex=True, sharey=are_alike)
        handles: dict[str, Line2D] = {}
        looks = dict(
            zip(lines or lines_of(panels), itertools.cycle(looks_of_lines()), strict=False)
        )
        width = figure.get_figwidth() / n_columns
        for axes, panel in zip(grid.flat, panels, strict=False):
            for label, curve in panel.curves.items():
                handles[label] = _draw(axes, curve, looks[label], layers)
            axes.set_title(wrap(panel.title, width))
            if axes in grid[:, 0] or not are_alike:
                axes.set_ylabel(wrap(panel.y_label, RATIO * width))
            _set_range(axes, panels if are_alike else [panel])
            axes.grid()
            if not math.isnan(panel.limit):
                axes.axhline(panel.limit, color="black", linewidth=0.8)
        _set_x_axes(grid, panels, x_label, layers, x_range)
        add_legend(figure, handles)
        fit_height(figure, list(grid[:, 0]), lambda width: [RATIO * width] * n_lines)


def _set_x_axes(
    grid: "np.ndarray",
    panels: Sequence[CurvePanel],
    x_label: str,
    layers: Sequence[str],
    x_range: tuple[float, float] | None,
) -> None:
    """Label the horizontal axes of the panels that have none below them, and remove axes without a
    panel."""
    first = grid[0, 0]
    if layers:
        first.set_xticks(range(len(layers)), layers)
        first.set_xlim(-MARGIN, len(layers) - 1 + MARGIN)
    elif x_range is not None:
        first.set_xlim(x_range)
    elif any(not math.isnan(point.value) for point in points_of(panels)):
        # Without a value there is no logarithmic axis
        first.set_xscale("log", base=2)
        first.xaxis.set_major_formatter("{x:g}")
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    n_columns = grid.shape[1]
    room = 0.8 * first.figure.get_figwidth() / n_columns / max(1, len(layers))
    longest = (1 + max(map(len, layers), default=0)) * CHARACTER * font_size()
    rotation = 0 if longest < room else 90
    for axes in grid.flat[len(panels) - n_columns : len(panels)]:
        axes.tick_params(axis="x", labelbottom=True, labelrotation=rotation)
        axes.set_xlabel(x_label)


def _columns(n_panels: int, *, are_alike: bool) -> int:
    """Return how many panels stand side by side."""
    most = MAX_ALIKE if are_alike else MAX_UNLIKE
    n_lines = math.ceil(n_panels / most)
    return math.ceil(n_panels / n_lines)


def lines_of(panels: Iterable[CurvePanel]) -> list[str]:
    """Return the labels of the lines of panels in their order."""
    return list(dict.fromkeys(label for panel in panels for label in panel.curves))


def points_of(panels: Iterable[CurvePanel]) -> Iterator[Point]:
    """Yield the points of all curves of panels."""
    for panel in panels:
        for curve in panel.curves.values():
            yield from map(_point, curve.values())


def _draw(axes: "Axes", curve: Curve, look: Mapping[str, Any], layers: Sequence[str]) -> "Line2D":
    """Draw a curve and the band of its intervals; return the handle for the legend."""
    points = {}
    for place, value in curve.items():
        x = layers.index(place) if layers else place
        points[x] = _point(value)
    xs = sorted(points)
    values, low, high = zip(*(points[x] for x in xs), strict=True)

    # Markers at the end of the axis are drawn whole, above the frame
    (line,) = axes.plot(xs, values, clip_on=False, zorder=ABOVE_FRAME, **look)
    axes.fill_between(xs, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    return line


def _set_range(axes: "Axes", panels: Sequence[CurvePanel]) -> None:
    """Let the vertical axis reach over the range of panels and their values; bands may be cut."""
    values = [point.value for point in points_of(panels) if not math.isnan(point.value)]
    low, high = panels[0].y_range
    if math.isfinite(low):
        axes.set_ylim(bottom=min([low, *values]))
    if math.isfinite(high):
        axes.set_ylim(top=max([high, *values]))


def _point(value: Point | float) -> Point:
    return value if isinstance(value, Point) else Point(value)
