"""Line plots over relative depth and over the rank of a layer, with labelled lines."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from src.choices.similarity import SIMILARITY, measure_of
from src.core.console import listed
from src.core.user_code import titles_in
from src.figures.maps import number
from src.figures.pages import (
    CM,
    COLUMN,
    Look,
    draw_pages,
    in_lines,
    panels_in,
    shortened,
    span,
    width_of,
)
from src.figures.scales import UNITS, add_limit, draw_interval, drawn_value, set_scale, title_of
from src.verdict import Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 5.2  # cm, of a panel with what is above and below it
MOST = 8  # panels on a page
NAMED = 12  # layers or ranks at most, for all of them on the axis
APART = 1.3  # the least quotient of ranks that both have their number on the axis
UPRIGHT = 4  # more names of layers are turned
LONG = 10  # characters; longer names of layers are turned
TRUTH: Look = {"color": "black", "linewidth": 1.8, "linestyle": "-", "marker": "", "zorder": 4}
# Of the names of lines: place as a share of the axis, alignment and distance in points
SIDES = {"left": (0, "right", -6), "right": (1, "left", 4)}

RankLines = Mapping[str, Mapping[int | None, float]]  # values by label and by rank; None: full rank


class Panel(NamedTuple):
    """The panel of a quantity over depth, with the lines of one method or of all."""

    quantity: str  # `SIMILARITY`: of all measures
    title: str
    lines: dict[str, pd.DataFrame]  # by label


class RankPanel(NamedTuple):
    """The lines of a pair of layers over ranks."""

    title: str
    lines: dict[str, pd.Series]  # by label; values by rank, in the order of ranks
    rho: Mapping[str, float]  # the rank correlation with the truth, by label


def draw_depth(path: Path, depths: pd.DataFrame, limits: Limits, **texts: Any) -> list[Path]:
    """Draw means over relative depth: a panel for each quantity and method with a line for each pair of groups,
    or, of a single pair of groups, a panel for each quantity with a line for each method. Return the written
    paths.

    Args:
        depths: from `src.results.reports.over_depth`, of the quantities to draw.
        texts: `source` and `remark`, see `draw_pages`.
    """
    panels = list(_panels_of(depths.dropna(subset="value")))
    draw = partial(_draw_depth, limits=limits)
    return draw_pages(path, panels, draw, on_page=MOST, width=width_of(panels), **texts)


def _panels_of(depths: pd.DataFrame) -> Iterator[Panel]:
    """Yield the panels of a figure over depth, those of skill first."""
    if depths.empty:
        return
    is_measure = depths.method == SIMILARITY
    measures = depths.quantity[is_measure].map(lambda name: measure_of(name).similarity_title)
    methods = depths.method.map(titles_in).mask(is_measure, measures)
    shown = depths.assign(panel=depths.quantity.mask(is_measure, SIMILARITY))
    shown = shown.assign(title="", label=methods)
    if depths.networks.nunique() > 1:
        names = depths.networks.map(titles_in)
        is_within = names.str.split(" → ").map(set).map(len) == 1
        without_direction = names.str.replace(" → ", ", ")
        labels = names.mask(is_measure & ~is_within, without_direction)
        shown = shown.assign(title=methods, label=labels)
    for name in ("value", "low", "high"):
        shown[name] = list(map(drawn_value, depths.quantity, depths[name]))
    in_order = shown.sort_values("panel", key=lambda names: names != "skill", kind="stable")
    for (quantity, title), rows in in_order.groupby(["panel", "title"], sort=False):
        lines = {
            str(label): of_label.sort_values("relative_depth")
            for label, of_label in rows.groupby("label", sort=False)
        }
        yield Panel(quantity, title, lines)


def _draw_depth(figure: "Figure", panels: Sequence[Panel], *, limits: Limits) -> str:
    """Draw panels side by side; return the caption."""
    looks = looks_of([label for panel in panels for label in panel.lines])
    in_line = int(figure.get_figwidth() / (COLUMN * CM))
    drawn = panels_in(figure, len(panels), in_line=in_line, height=HEIGHT)
    for axes, panel in zip(drawn, panels, strict=True):
        _set_axes(axes, panel, limits)
        points = {}
        for label, of_line in panel.lines.items():
            look = looks[label]
            axes.plot(of_line.relative_depth, of_line.value, label=label, **look)
            for row in of_line.dropna(subset="low").itertuples():
                ends = (row.low, row.high)
                draw_interval(
                    axes, "y", row.relative_depth, ends, color=look["color"], linewidth=0.7
                )
            points[label] = (of_line.relative_depth.iloc[-1], of_line.value.iloc[-1])
        name_lines(axes, points, looks, side="right")
    return _caption_of_depth(panels)


def _caption_of_depth(panels: Sequence[Panel]) -> str:
    """Return the values of the first panel at both ends of its lines, and what lines are."""
    texts = []
    for label, of_line in panels[0].lines.items():
        ends = dict.fromkeys(number(value) for value in of_line.value.iloc[[0, -1]])
        texts.append(f"{' to '.join(ends)} ({label})")
    rows = pd.concat([rows for panel in panels for rows in panel.lines.values()])
    pairs = f"{span(rows.n_pairs)} pairs"
    if set(rows.n_pairs) == {1}:
        pairs = "1 pair"
    about = f"means over {pairs} of networks at corresponding layers"
    if rows.low.notna().any():
        about += ", with 95 % intervals"
    title = title_of(panels[0].quantity)
    return f"From the first layer to the last, {title}: {listed(texts, n=3)}. Lines: {about}."


def _set_axes(axes: "Axes", panel: Panel, limits: Limits) -> None:
    """Set the limits and ticks of a panel's axes, with names of layers if all networks share a few, and draw
    the limit of similar pairs."""
    rows = pd.concat(panel.lines.values())
    layers = rows[rows.layers != ""].drop_duplicates("layers")
    axes.set_title(panel.title, x=0, ha="left")
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
    tolerance = UNITS["accuracy_drop"] * limits.tolerance
    set_scale(axes, "y", panel.quantity, (low - room, high + room), tolerance)
    axes.spines[["top", "right"]].set_visible(False)
    limit_of = {"accuracy_drop": tolerance, "skill": limits.skill}
    if panel.quantity in limit_of:
        add_limit(axes, "y", limit_of[panel.quantity])


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
        texts: `source` and `remark`, see `draw_pages`.
    """
    items = []
    for title, lines in panels.items():
        series = {label: _by_rank(values) for label, values in lines.items()}
        known = {label: values for label, values in series.items() if len(values)}
        if known:
            items.append(RankPanel(title, known, (rho or {}).get(title, {})))
    draw = partial(_draw_ranks, y_title=y_title, truth=truth)
    return draw_pages(path, items, draw, on_page=MOST, width=width_of(items), **texts)


def _by_rank(values: Mapping[int | None, float]) -> pd.Series:
    """Return the finite values by rank, in the order of ranks; full rank has no place on the axis."""
    series = pd.Series(list(values.values()), list(values), dtype=float)
    known = series[np.isfinite(series) & series.index.notna()]
    return known.set_axis(known.index.astype(int)).sort_index()


def _draw_ranks(figure: "Figure", panels: Sequence[RankPanel], *, y_title: str, truth: str) -> str:
    """Draw panels of lines over ranks; return the caption."""
    labels = [label for panel in panels for label in panel.lines]
    looks = looks_of([label for label in labels if label != truth]) | {truth: TRUTH}
    is_relative = truth in labels
    if is_relative:
        y_title += " / value at full rank"
    in_line = int(figure.get_figwidth() / (COLUMN * CM))
    drawn = panels_in(figure, len(panels), in_line=in_line, height=HEIGHT)
    for axes, panel in zip(drawn, panels, strict=True):
        points = {}
        looks_by_name = {}
        for label, values in panel.lines.items():
            if is_relative and values.iloc[-1]:
                values = values / values.iloc[-1]
            axes.plot(values.index, values, label=label, clip_on=False, **looks[label])
            name = label
            if math.isfinite(panel.rho.get(label, math.nan)):
                name += f"  ρ {number(panel.rho[label])}"
            points[name] = (values.index[0], values.iloc[0])
            looks_by_name[name] = looks[label]
        _set_rank_axes(axes, panel, y_title)
        if is_relative:
            add_limit(axes, "y", 1)
        name_lines(axes, points, looks_by_name, side="left")
    return _caption_of_ranks(panels[0], truth)


def _set_rank_axes(axes: "Axes", panel: RankPanel, y_title: str) -> None:
    """Set the axes of a panel over ranks: values at the right side, as lines begin with their names."""
    axes.set_xscale("log", base=2)
    ranks = sorted({rank for values in panel.lines.values() for rank in values.index})
    apart = [rank for rank, after in pairwise([*ranks, math.inf]) if after > APART * rank]
    if len(apart) <= NAMED:
        axes.set_xticks(apart, list(map(str, apart)))
    axes.minorticks_off()
    heights = np.concatenate([line.get_ydata() for line in axes.lines])
    axes.set_ylim(min(0.0, heights.min()), 1.05 * max(1.0, heights.max()))
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.spines[["top", "left"]].set_visible(False)
    x_title = f"principal components kept in {panel.title}".removesuffix(" in ")
    axes.set(xlabel=x_title, ylabel=y_title)


def _caption_of_ranks(panel: RankPanel, truth: str) -> str:
    """Return what follows the truth and what does not; without a truth, the values at the lowest rank."""
    if truth in panel.lines and panel.rho:
        scores = [
            f"{number(score)} ({label})"
            for label, score in panel.rho.items()
            if label in panel.lines
        ]
        return f"Rank correlation ρ with the {truth} at {panel.title}: {listed(scores, n=4)}. Thick: the {truth}."
    table = pd.DataFrame(panel.lines)
    lowest = table.iloc[0].dropna()
    values = [f"{number(value)} ({label})" for label, value in lowest.items()]
    return f"At rank {table.index[0]}: {listed(values, n=4)}."


def looks_of(labels: Sequence[str]) -> dict[str, Look]:
    """Return the colour, marker and style of each line."""
    import matplotlib

    looks = cycle(matplotlib.rcParams["axes.prop_cycle"])
    return dict(zip(dict.fromkeys(labels), looks, strict=False))


def name_lines(
    axes: "Axes", points: Mapping[str, tuple[float, float]], looks: Mapping[str, Look], *, side: str
) -> None:
    """Label each line beside its first (left) or last (right) point, without overlap.

    Args:
        points: the first or last point of each line.
    """
    import matplotlib

    figure: Any = axes.figure
    figure.draw_without_rendering()  # axes get their height
    height = axes.get_position().height * figure.get_figheight() * 72  # points
    line = 1.15 * matplotlib.rcParams["font.size"] / max(height, 1)
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = {label: float(to_axes.transform(point)[1]) for label, point in points.items()}
    x, alignment, distance = SIDES[side]
    top = -math.inf  # of the name below
    for label in sorted(wanted, key=lambda label: wanted[label]):
        text = in_lines(label)
        half = line * (1 + text.count("\n")) / 2
        place = max(wanted[label], top + half)
        top = place + half
        look = looks[label]
        axes.annotate(
            text,
            (x, place),
            (distance, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            ha=alignment,
            va="center",
            color=look["color"],
            weight=("normal", "bold")[look is TRUTH],
            linespacing=1,
        )
