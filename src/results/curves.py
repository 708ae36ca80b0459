"""Curves over ranks or layers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from src.results.figures import COLUMN, can_draw, new_figure


class Point(NamedTuple):
    """A value of a curve, and its interval; NaN: it has none."""

    value: float
    low: float = math.nan
    high: float = math.nan


def curves(
    path: Path,
    panels: Mapping[str, Mapping[str, Mapping[int | str, Point | float]]],
    *,
    x_label: str,
    y_label: str = "",
    layers: Sequence[str] = (),
    y_range: tuple[float, float] | None = None,
    is_shared: bool = True,
    title: str = "",
    caption: str = "",
) -> None:
    """Draw curves with their intervals as bands, in panels with one legend.

    Args:
        panels: by title, the curves by label; each maps ranks (at least 1) or layers to points. NaN leaves a gap.
        layers: in the order of the axis; empty: curves are over ranks, on a logarithmic axis to the base of 2.
        y_range: the ends of the vertical axes; None fits them to the curves.
        is_shared: all panels have the same vertical axis.
    """
    if not can_draw(path):
        return
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    with new_figure(path, list(panels), (COLUMN, 0.8 * COLUMN), title=title, caption=caption) as (
        all_axes,
        legend,
    ):
        for axes, lines in zip(all_axes, panels.values(), strict=True):
            for label, points in lines.items():
                number = labels.index(label)
                look = {
                    "color": f"C{number % 10}",
                    "marker": "osv^D*"[number // 10 % 6],
                    "markersize": 3,
                }
                places = sorted(points, key=layers.index if layers else int)
                x = [layers.index(place) for place in places] if layers else places
                values, low, high = zip(*(_point(points[place]) for place in places), strict=True)
                (legend[label],) = axes.plot(x, values, linewidth=1, **look)
                axes.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)
            if layers:
                axes.set_xticks(range(len(layers)), layers, rotation=90)
            else:
                axes.set_xscale("log", base=2)
                axes.xaxis.set_major_formatter("{x:g}")
            axes.set(xlabel=x_label, ylabel=y_label)
            axes.grid(alpha=0.3)
        ends = [end for axes in all_axes for end in axes.get_ylim()]
        for axes in all_axes if is_shared else ():
            axes.set_ylim(y_range or (min(ends), max(ends)))


def _point(value: Point | float) -> Point:
    return value if isinstance(value, Point) else Point(value)
