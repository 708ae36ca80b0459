"""Curves over ranks or layers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from src.reports.figures import can_draw, line_look, new_figure, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

SHARE = (0.0, 1.0)  # the possible values of accuracies and other shares

# Widths of panels in inches: one or two side by side, three side by side
WIDE = 2.9
NARROW = 1.8
RATIO = 0.75  # of height and width

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
    title: str = "",
    caption: str = "",
) -> None:
    """Draw panels of curves with one legend; intervals are bands.

    Args:
        layers: the layers in the order of the axis; empty: the curves are over numbers.
        x_range: the ends of the axis over numbers; None: the numbers are ranks of 1 and more, on a
            logarithmic axis to the base of 2.
        caption: the text below the figure.
    """
    if not can_draw(path):
        return
    labels = list(dict.fromkeys(label for panel in panels for label in panel.curves))
    n_columns = len(panels) if len(panels) <= 3 else 3
    if len(panels) == 4:
        n_columns = 2
    n_rows = math.ceil(len(panels) / n_columns)
    width = WIDE if n_columns < 3 else NARROW
    with new_figure(
        path, [width] * n_columns, [RATIO * width] * n_rows, title=title, caption=caption
    ) as (all_axes, legend):
        for unused_axes in list(all_axes.values())[len(panels) :]:
            unused_axes.remove()
        for axes, panel in zip(all_axes.values(), panels, strict=False):
            for label, curve in panel.curves.items():
                legend[label] = _draw(axes, curve, labels.index(label), layers)
            axes.set_title(wrap(panel.title, width))
            axes.set(xlabel=x_label, ylabel=wrap(panel.y_label, RATIO * width))
            axes.grid()
            if not math.isnan(panel.limit):
                axes.axhline(panel.limit, color="black", linewidth=0.8, linestyle=":")
            _set_range(axes, panel)
            if layers:
                axes.set_xticks(range(len(layers)), layers, rotation=90)
                axes.set_xlim(-MARGIN, len(layers) - 1 + MARGIN)
            elif x_range is not None:
                axes.set_xlim(x_range)
            elif _has_values(panel.curves):  # without values matplotlib has no logarithmic axis
                axes.set_xscale("log", base=2)
                axes.xaxis.set_major_formatter("{x:g}")


def _draw(axes: "Axes", curve: Curve, number: int, layers: Sequence[str]) -> "Line2D":
    """Draw a curve and the band of its intervals; return the handle for the legend.

    Args:
        number: of the curve in the figure, which decides on its look.
    """
    points = {}
    for place, value in curve.items():
        x = layers.index(place) if layers else place
        points[x] = _point(value)
    xs = sorted(points)
    values, low, high = zip(*(points[x] for x in xs), strict=True)

    # Markers at the end of the axis are drawn whole, above the frame
    look = line_look(number)
    (line,) = axes.plot(xs, values, clip_on=False, zorder=ABOVE_FRAME, **look)
    axes.fill_between(xs, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    return line


def _set_range(axes: "Axes", panel: CurvePanel) -> None:
    """Let the vertical axis reach over the range of a panel and its values; bands may be cut."""
    points = [_point(point) for curve in panel.curves.values() for point in curve.values()]
    values = [point.value for point in points if not math.isnan(point.value)]
    low, high = panel.y_range
    if math.isfinite(low):
        axes.set_ylim(bottom=min([low, *values]))
    if math.isfinite(high):
        axes.set_ylim(top=max([high, *values]))


def _has_values(lines: Mapping[str, Curve]) -> bool:
    """Return whether a value of the curves is not NaN."""
    points = [_point(value) for curve in lines.values() for value in curve.values()]
    return not all(math.isnan(point.value) for point in points)


def _point(value: Point | float) -> Point:
    return value if isinstance(value, Point) else Point(value)
