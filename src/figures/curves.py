"""Line plots over relative depth and over the rank of a layer, with labelled lines."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from src.core.choices.similarity import SIMILARITY, measure_of
from src.core.console import listed
from src.core.user_code import titles_in
from src.figures.maps import number
from src.figures.pages import CM, COLUMN, PAGE, Look, in_lines, shortened, span, write_figure
from src.figures.scales import LIMIT, POINTS, draw_interval, drawn_value, set_scale, title_of
from src.verdict import Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IN_COLUMN = 3  # panels at most, one below the other
HEIGHT = 3.7  # cm, of the axes of a panel at least
NAMED = 12  # layers or ranks at most, for all of them on the axis
APART = 1.3  # the least quotient of ranks that both have their number on the axis
UPRIGHT = 4  # more names of layers are turned
LONG = 10  # characters; longer names of layers are turned
TRUTH: Look = {"color": "black", "linewidth": 1.8, "linestyle": "-", "marker": "", "zorder": 4}
# Of the names of lines: place as a share of the axis, alignment, distance in points, and the end of the line
SIDES = {"left": (0, "right", -6, 0), "right": (1, "left", 4, -1)}

RankLines = Mapping[str, Mapping[int | None, float]]  # values by label and by rank; None: full rank


def draw_depth(path: Path, depths: pd.DataFrame, limits: Limits, **texts: Any) -> list[Path]:
    """Draw means over relative depth: a panel for each quantity and method with a line for each pair of groups,
    or, of a single pair of groups, a panel for each quantity with a line for each method. Return the written
    paths.

    Args:
        depths: from `src.results.reports.over_depth`, of the quantities to draw.
        texts: `source` and `remark`, see `write_figure`.
    """
    panels = _panels_of(depths)
    draw = partial(_draw_depth, limits=limits)
    return write_figure(path, panels, draw, width=_width_of(panels), **texts)


def _width_of(panels: Sequence[Any]) -> float:
    """Return the width of a figure in cm: a column for a few panels, which stand one below the other."""
    return COLUMN if len(panels) <= IN_COLUMN else PAGE


def _add_panels(figure: "Figure", n: int) -> "list[Axes]":
    """Add rows of panels to a figure, as many side by side as it has columns; return the axes."""
    in_line = int(figure.get_figwidth() / (COLUMN * CM))
    n_lines = math.ceil(n / in_line)
    figure.set_figheight(1.5 * n_lines * HEIGHT * CM)
    panels = list(figure.subplots(n_lines, in_line, squeeze=False).flat)
    for unused in panels[n:]:
        unused.remove()
    return panels[:n]


def _panels_of(depths: pd.DataFrame) -> list[Any]:
    """Return the panels of a figure over depth, those of skill first: the quantity (`SIMILARITY`: of all measures)
    with the title, and the rows with the labels of their lines."""
    rows = depths.dropna(subset="value")
    if rows.empty:
        return []
    is_measure = rows.method == SIMILARITY
    measures = rows.quantity[is_measure].map(lambda name: measure_of(name).similarity_title)
    methods = rows.method.map(titles_in).mask(is_measure, measures)
    shown = rows.assign(
        panel=rows.quantity.mask(is_measure, SIMILARITY),
        title="",
        label=methods,
        **{
            name: list(map(drawn_value, rows.quantity, rows[name]))
            for name in ("value", "low", "high")
        },
    )
    if rows.networks.nunique() > 1:
        names = rows.networks.map(titles_in)
        is_within = names.str.split(" → ").map(set).map(len) == 1
        without_direction = names.str.replace(" → ", ", ")
        labels = names.mask(is_measure & ~is_within, without_direction)
        shown = shown.assign(title=methods, label=labels)
    in_order = shown.sort_values("panel", key=lambda names: names != "skill", kind="stable")
    return list(in_order.groupby(["panel", "title"], sort=False))


def _lines_of(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the lines of a panel over depth by their labels."""
    lines = rows.groupby("label", sort=False)
    return {str(label): line.sort_values("relative_depth") for label, line in lines}


def _draw_depth(figure: "Figure", panels: Sequence[Any], *, limits: Limits) -> str:
    """Draw panels side by side; return the caption."""
    looks = looks_of(pd.concat([rows.label for _, rows in panels]))
    drawn = _add_panels(figure, len(panels))
    for axes, ((quantity, title), rows) in zip(drawn, panels, strict=True):
        axes.set_title(title, x=0, ha="left")
        _set_axes(axes, quantity, rows, limits)
        for label, line in _lines_of(rows).items():
            axes.plot(line.relative_depth, line.value, label=label, **looks[label])
            bar: Look = {"color": looks[label]["color"], "linewidth": 0.7}
            for row in line.dropna(subset="low").itertuples():
                draw_interval(axes, "y", row.relative_depth, (row.low, row.high), **bar)
    name_lines(drawn, side="right")
    return _caption_of_depth(panels)


def summary_of_depth(depths: pd.DataFrame) -> str:
    """Return the caption of the figure of `draw_depth`; "" without values."""
    panels = _panels_of(depths)
    return _caption_of_depth(panels) if panels else ""


def _caption_of_depth(panels: Sequence[Any]) -> str:
    """Return the values of the first panel at both ends of its lines, and what lines are."""
    (quantity, _), first = panels[0]
    texts = []
    for label, line in _lines_of(first).items():
        ends = dict.fromkeys(map(number, line.value.iloc[[0, -1]]))
        texts.append(f"{' to '.join(ends)} ({label})")
    rows = pd.concat([rows for _, rows in panels])
    pairs = "1 pair" if set(rows.n_pairs) == {1} else f"{span(rows.n_pairs)} pairs"
    intervals = ", 95 % intervals" if rows.low.notna().any() else ""
    return (
        f"From first to last layer, {title_of(quantity)}: {listed(texts, n=2)}. Means over {pairs} of networks at "
        f"corresponding layers{intervals}."
    )


def _set_axes(axes: "Axes", quantity: str, rows: pd.DataFrame, limits: Limits) -> None:
    """Set the limits and ticks of a panel's axes, with names of layers if all networks share a few, and draw
    the limit of similar pairs."""
    layers = rows[rows.layers != ""].drop_duplicates("layers")
    axes.set_xlabel("relative depth")
    if 0 < len(layers) <= NAMED:
        axes.set_xlabel("layer")
        axes.set_xticks(layers.relative_depth, layers.layers.map(shortened))
        if len(layers) > UPRIGHT or layers.layers.str.len().max() > LONG:
            axes.tick_params(axis="x", labelrotation=90)
    known = rows[["value", "low", "high"]].stack()
    low = min(0.0, known.min())
    high = max(1.0, known.max())
    room = 0.04 * (high - low)
    tolerance = POINTS * limits.tolerance
    set_scale(axes, "y", quantity, (low - room, high + room), tolerance)
    axes.spines[["top", "right"]].set_visible(False)
    limit_of = {"accuracy_drop": tolerance, "skill": limits.skill}
    if quantity in limit_of:
        axes.axhline(limit_of[quantity], **LIMIT)


def draw_ranks(
    path: Path,
    panels: Mapping[str, RankLines],
    *,
    y_title: str,
    truth: str = "",
    rho: Mapping[str, Mapping[str, float]] | None = None,
    **texts: Any,
) -> list[Path]:
    """Draw values over the ranks of a layer: a panel for each pair of layers, a line for each measure. Return
    the written paths.

    With a truth, lines are relative to the largest rank, and the truth is the thick one.

    Args:
        panels: the lines by title of the panel.
        y_title: of the vertical axis.
        truth: the label of the line that the others should follow.
        rho: the rank correlation of lines with the truth, by panel and label.
        texts: `source` and `remark`, see `write_figure`.
    """
    items = [(title, _by_rank(lines)) for title, lines in panels.items()]
    known = [(title, lines) for title, lines in items if lines.size]
    draw = partial(_draw_ranks, y_title=y_title, truth=truth, rho=rho or {})
    return write_figure(path, known, draw, width=_width_of(known), **texts)


def _by_rank(lines: RankLines) -> pd.DataFrame:
    """Return the finite values by rank and label; full rank has no place on the axis."""
    finite = {
        label: {
            rank: value
            for rank, value in values.items()
            if rank is not None and math.isfinite(value)
        }
        for label, values in lines.items()
    }
    return pd.DataFrame({label: values for label, values in finite.items() if values}).sort_index()


def _draw_ranks(
    figure: "Figure",
    panels: Sequence[tuple[str, pd.DataFrame]],
    *,
    y_title: str,
    truth: str,
    rho: Mapping[str, Mapping[str, float]],
) -> str:
    """Draw panels of lines over ranks; return the caption."""
    labels = [label for _, lines in panels for label in lines]
    looks = looks_of([label for label in labels if label != truth]) | {truth: TRUTH}
    drawn = _add_panels(figure, len(panels))
    for axes, (title, lines) in zip(drawn, panels, strict=True):
        shown = lines
        axes.set_ylabel(y_title)
        if truth in labels:
            shown = lines / lines.ffill().iloc[-1].replace(0, 1)
            axes.set_ylabel(f"{y_title} / value at full rank")
        for label in shown:
            score = number(rho.get(title, {}).get(label, math.nan))
            name = f"{label} ρ\N{NO-BREAK SPACE}{score}" if score else label
            values = shown[label].dropna()
            axes.plot(values.index, values, label=name, clip_on=False, **looks[label])
        _set_rank_axes(axes, shown)
        axes.set_xlabel(f"principal components kept in {title}".removesuffix(" in "))
        if truth in labels:
            axes.axhline(1, **LIMIT)
    name_lines(drawn, side="left")
    title, lines = panels[0]
    return _caption_of_ranks(title, lines, rho.get(title, {}), truth)


def _set_rank_axes(axes: "Axes", lines: pd.DataFrame) -> None:
    """Set the axes of a panel over ranks: values at the right side, as lines begin with their names."""
    axes.set_xscale("log", base=2)
    apart = [rank for rank, after in pairwise([*lines.index, math.inf]) if after > APART * rank]
    if len(apart) <= NAMED:
        axes.set_xticks(apart, list(map(str, apart)))
    axes.minorticks_off()
    axes.set_ylim(min(0.0, np.nanmin(lines)), 1.05 * max(1.0, np.nanmax(lines)))
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.spines[["top", "left"]].set_visible(False)


def _caption_of_ranks(title: str, lines: pd.DataFrame, rho: Mapping[str, float], truth: str) -> str:
    """Return the caption: rank correlations with the probing accuracy, or without it the values at the lowest
    rank."""
    if truth in lines and rho:
        scores = [f"{number(rho[label])} ({label})" for label in rho if label in lines]
        return f"Rank correlation ρ with the {truth} at {title}: {listed(scores, n=4)}. Thick: the {truth}."
    lowest = lines.iloc[0].dropna()
    values = [f"{number(value)} ({label})" for label, value in lowest.items()]
    return f"At rank {lines.index[0]}: {listed(values, n=4)}."


def looks_of(labels: Iterable[str]) -> dict[str, Look]:
    """Return the colour, marker and style of each line."""
    import matplotlib

    looks = cycle(matplotlib.rcParams["axes.prop_cycle"])
    return dict(zip(dict.fromkeys(labels), looks, strict=False))


def name_lines(panels: Sequence["Axes"], *, side: str) -> None:
    """Write the label of each line beside its first (left) or last (right) point, without overlap, in panels that
    are high enough for it."""
    import matplotlib

    line = 1.15 * matplotlib.rcParams["font.size"] / 72 / CM
    named = [
        [curve for curve in axes.lines if not str(curve.get_label()).startswith("_")]
        for axes in panels
    ]
    texts = [[in_lines(str(curve.get_label())) for curve in curves] for curves in named]
    sizes = [line * np.array([1 + text.count("\n") for text in of_panel]) for of_panel in texts]
    _set_heights(panels, max(HEIGHT, *(size.sum() for size in sizes)))
    x, alignment, distance, end = SIDES[side]
    for axes, curves, of_panel, size in zip(panels, named, texts, sizes, strict=True):
        points = np.array([np.asarray(curve.get_xydata())[end] for curve in curves])
        for curve, text, height in zip(curves, of_panel, _spread(axes, points, size), strict=True):
            axes.annotate(
                text,
                (x, 0),
                (distance, 72 * CM * height),
                xycoords="axes fraction",
                textcoords="offset points",
                ha=alignment,
                va="center",
                color=curve.get_color(),
                weight="bold" if curve.get_zorder() == TRUTH["zorder"] else "normal",
                linespacing=1,
            )


def _set_heights(panels: Sequence["Axes"], height: float) -> None:
    """Make a figure so high that the axes of its panels have a height in cm."""
    figure: Any = panels[0].figure
    figure.draw_without_rendering()
    lowest = min(axes.get_position().height for axes in panels) * figure.get_figheight()
    n_lines = len({axes.get_position().y0 for axes in panels})
    figure.set_figheight(figure.get_figheight() + n_lines * (height * CM - lowest))
    figure.draw_without_rendering()


def _spread(axes: "Axes", points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return heights in cm over the lower end of an axis, near points (N, 2) and apart by the sizes (N,) of their
    texts in cm."""
    figure: Any = axes.figure
    highest = axes.get_position().height * figure.get_figheight() / CM
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = highest * to_axes.transform(points)[:, 1]
    order = heights.argsort(kind="stable")
    middles = sizes[order].cumsum() - sizes[order] / 2  # of texts without room between them
    spread = np.maximum.accumulate(heights[order] - middles)
    spread = np.minimum(spread, highest - sizes.sum())
    heights[order] = spread + middles
    return heights
