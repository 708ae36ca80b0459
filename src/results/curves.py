"""Curves over ranks and over layers, and points of networks in a plane."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.results.figures import CHARACTER, COLUMN, add_legend, can_draw, new_figure
from src.results.matrices import natural_order


def curves(
    path: Path,
    panels: Mapping[str, Mapping[str, Mapping[int, float]]],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    title: str = "",
    caption: str = "",
) -> None:
    """Draw curves over ranks on a logarithmic axis (to the base of 2), in panels of equal scales with one legend.

    Args:
        panels: by title, the curves by label; each maps ranks (at least 1) to values. NaN leaves a gap.
        y_range: the ends of the vertical axes; None fits them to the curves of all panels.
    """
    if not can_draw(path):
        return
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    texts = {"title": title, "caption": caption, "legend": labels}
    with new_figure(path, list(panels), (COLUMN, 2.4), **texts) as figure:
        handles = {}
        for axes, lines in zip(figure.axes, panels.values(), strict=True):
            for label, values in lines.items():
                ranks = sorted(values)
                points = ranks, [values[rank] for rank in ranks]
                (handles[label],) = axes.plot(*points, **_look(labels.index(label)))
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set_xlabel(x_label)
            axes.set_ylabel(y_label)
            axes.grid(alpha=0.3)
        ends = [end for axes in figure.axes for end in axes.get_ylim()]
        for axes in figure.axes:
            axes.set_ylim(y_range or (min(ends), max(ends)))
        add_legend(figure, handles)


class Point(NamedTuple):
    """A value of a curve, and its interval; NaN: it has none."""

    value: float
    low: float = math.nan
    high: float = math.nan


def curves_over_layers(
    path: Path, panels: Mapping[str, Mapping[str, Mapping[str, Point]]], *, title: str = "", caption: str = ""
) -> None:
    """Draw curves over layers, intervals as bands, in panels of scales of their own, with one legend.

    Args:
        panels: by the name of their quantity, the curves by label; each maps layers to points.
    """
    if not can_draw(path):
        return
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    layers = natural_order(layer for lines in panels.values() for points in lines.values() for layer in points)
    texts = {"title": title, "caption": caption, "legend": labels}
    size = (COLUMN, 2.0 + CHARACTER * max(map(len, layers)))
    with new_figure(path, list(panels), size, **texts) as figure:
        handles = {}
        for axes, lines in zip(figure.axes, panels.values(), strict=True):
            for label, points in lines.items():
                look = _look(labels.index(label))
                places = [layers.index(layer) for layer in points]
                values, low, high = zip(*points.values(), strict=True)
                (handles[label],) = axes.plot(places, values, **look)
                axes.fill_between(places, low, high, color=look["color"], alpha=0.15, linewidth=0)
            axes.set_xticks(range(len(layers)), layers, rotation=90)
            axes.set_xlabel("layer of both networks")
            axes.grid(alpha=0.3)
        add_legend(figure, handles)


def scatter(
    path: Path,
    points: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    caption: str = "",
) -> None:
    """Draw points in one panel, in a colour for each group.

    Args:
        points: by the label of their group, (x, y) each.
    """
    if not can_draw(path):
        return
    with new_figure(path, [""], (COLUMN, 2.6), title=title, caption=caption, legend=points) as figure:
        (axes,) = figure.axes
        handles = {label: axes.scatter(*zip(*group, strict=True), s=10, alpha=0.7) for label, group in points.items()}
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(alpha=0.3)
        add_legend(figure, handles)


def _look(number: int) -> dict[str, Any]:
    """Return the look of the curve of a number; markers change after ten."""
    return {"color": f"C{number % 10}", "marker": "osv^D*"[number // 10 % 6], "markersize": 3, "linewidth": 1}
