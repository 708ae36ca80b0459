"""Curves over ranks or layers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.results.figures import COLUMN, can_draw, new_figure

N_COLOURS = 10  # of matplotlib's cycle
MARKERS = "osv^D*"  # the marker changes where the colours begin again


class Point(NamedTuple):
    """A value of a curve with its interval; NaN: the value has no interval."""

    value: float
    low: float = math.nan
    high: float = math.nan


Curve = Mapping[Any, Point | float]  # by rank or by layer; NaN leaves a gap


def curves(
    path: Path,
    panels: Mapping[str, Mapping[str, Curve]],
    *,
    x_label: str,
    y_label: str = "",
    layers: Sequence[str] = (),
    y_range: tuple[float, float] | None = None,
    is_shared: bool = True,
    title: str = "",
    caption: str = "",
) -> None:
    """Draw panels of curves with one legend; intervals are bands.

    Args:
        panels: curves by label, by title of the panel. Ranks are at least 1.
        layers: the layers in the order of the axis; empty: the curves are over ranks, on a
            logarithmic axis to the base of 2.
        y_range: the ends of shared vertical axes; None: the axes fit the curves.
        is_shared: all panels have the same vertical axis.
    """
    if not can_draw(path):
        return
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    size = (COLUMN, 0.8 * COLUMN)
    with new_figure(path, list(panels), size, title=title, caption=caption) as (all_axes, legend):
        for axes, lines in zip(all_axes, panels.values(), strict=True):
            for label, curve in lines.items():
                legend[label] = _draw(axes, curve, labels.index(label), layers)
            if layers:
                axes.set_xticks(range(len(layers)), layers, rotation=90)
            else:
                axes.set_xscale("log", base=2)
                axes.xaxis.set_major_formatter("{x:g}")
            axes.set(xlabel=x_label, ylabel=y_label)
            axes.grid(alpha=0.3)

        if is_shared:
            ends = [end for axes in all_axes for end in axes.get_ylim()]
            for axes in all_axes:
                axes.set_ylim(y_range or (min(ends), max(ends)))


def _draw(axes: Any, curve: Curve, number: int, layers: Sequence[str]) -> Any:
    """Draw a curve and the band of its intervals; return the handle for the legend.

    Args:
        number: of the curve in the figure; gives its colour and marker.
    """
    if layers:
        places = sorted(curve, key=layers.index)
        x = [layers.index(layer) for layer in places]
    else:
        places = sorted(curve)
        x = places
    points = [_point(curve[place]) for place in places]
    values, low, high = zip(*points, strict=True)

    colour = f"C{number % N_COLOURS}"
    marker = MARKERS[number // N_COLOURS % len(MARKERS)]
    (line,) = axes.plot(x, values, linewidth=1, color=colour, marker=marker, markersize=3)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    return line


def _point(value: Point | float) -> Point:
    return value if isinstance(value, Point) else Point(value)
