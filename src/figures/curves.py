"""Line plots over relative depth and over the rank of a layer, with labelled lines."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from src.choices.similarity import SIMILARITY, measure_of
from src.core.console import listed
from src.core.user_code import titles_in
from src.figures.maps import number
from src.figures.pages import CM, COLUMN, PAGE, Look, draw_pages, panels_in, shortened, span
from src.figures.scales import draw_interval, set_scale, title_of, unit_of
from src.results.quantities import QUANTITIES
from src.verdict import Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

HEIGHT = 5.2  # cm, of a panel with what is above and below it
MOST = 8  # panels on a page
NAMED = 12  # layers or ranks at most, for all of them on the axis
UPRIGHT = 4  # more names of layers are turned
LIMIT: Look = {"color": "0.4", "linewidth": 0.6, "linestyle": ":", "zorder": 1}
TRUTH: Look = {"color": "black", "linewidth": 1.8, "linestyle": "-", "marker": "", "zorder": 4}
LONG = 10  # characters; longer names of layers are turned

RankLines = Mapping[str, Mapping[int | None, float]]  # values by label and by rank; None: full rank


class Panel(NamedTuple):
    """The panel of a quantity over depth, with the lines of one method or of all."""

    quantity: str  # `SIMILARITY`: of all measures
    title: str
    lines: "dict[str, DataFrame]"  # by label


def draw_depth(path: Path, depths: "DataFrame", limits: Limits, **texts: Any) -> list[Path]:
    """Draw means over relative depth: a panel for each quantity and method with a line for each pair of groups,
    or, of a single pair of groups, a panel for each quantity with a line for each method. Return the written
    paths.

    Args:
        depths: from `src.results.reports.over_depth`, of the quantities to draw.
        texts: `source` and `remark`, see `draw_pages`.
    """
    panels = list(_panels_of(depths.dropna(subset="value")))
    width = COLUMN if len(panels) == 1 else PAGE
    draw = partial(_draw_depth, limits=limits)
    return draw_pages(path, panels, draw, on_page=MOST, width=width, **texts)


def _panels_of(depths: "DataFrame") -> Iterator[Panel]:
    """Yield the panels of a figure over depth, those of skill first."""
    has_groups = depths.networks.nunique() > 1
    is_measure = depths.method == SIMILARITY
    quantities = depths.quantity.mask(is_measure, SIMILARITY)
    titles = depths.method.map(titles_in)
    measures = depths.quantity[is_measure].map(lambda name: measure_of(name).similarity_title)
    titles = titles.mask(is_measure, measures)
    names = depths.networks.map(titles_in)
    is_itself = names.map(lambda name: len(set(name.split(" → "))) == 1).astype(bool)
    names = names.where(~is_measure | is_itself, names.str.replace(" → ", ", "))
    labels = names if has_groups else titles
    values = {
        name: [_shown(row, name) for row in depths.itertuples()]
        for name in ("value", "low", "high")
    }
    shown = depths.assign(
        panel=quantities, title=titles if has_groups else "", label=labels, **values
    )
    in_order = shown.sort_values("panel", key=lambda names: names != "skill", kind="stable")
    for (quantity, title), rows in in_order.groupby(["panel", "title"], sort=False):
        lines = {
            str(label): of_label.sort_values("relative_depth")
            for label, of_label in rows.groupby("label", sort=False)
        }
        yield Panel(quantity, title, lines)


def _shown(row: Any, name: str) -> float:
    """Convert a value to the scale of its axis: similarity for measures, percentage points for accuracy
    drops."""
    value = getattr(row, name)
    return (
        measure_of(row.quantity).similarity(value)
        if row.method == SIMILARITY
        else unit_of(row.quantity) * value
    )


def _draw_depth(figure: "Figure", panels: Sequence[Panel], *, limits: Limits) -> str:
    """Draw panels side by side; return the caption."""
    import pandas as pd

    in_line = 1 if figure.get_figwidth() < PAGE * CM else 2
    every = pd.concat([rows for panel in panels for rows in panel.lines.values()])
    looks = looks_of([label for panel in panels for label in panel.lines])
    drawn = panels_in(figure, len(panels), in_line=in_line, height=HEIGHT)
    for axes, panel in zip(drawn, panels, strict=True):
        rows = pd.concat(panel.lines.values())
        _set_axes(axes, panel.quantity, rows, limits)
        axes.set_title(panel.title, x=0, ha="left")
        for label, of_line in panel.lines.items():
            axes.plot(of_line.relative_depth, of_line.value, label=label, **looks[label])
            for row in of_line.dropna(subset="low").itertuples():
                look = {"color": looks[label]["color"], "linewidth": 0.7}
                draw_interval(axes, "y", row.relative_depth, (row.low, row.high), **look)
        ends = {label: of_line.iloc[-1] for label, of_line in panel.lines.items()}
        points = {label: (row.relative_depth, row.value) for label, row in ends.items()}
        name_lines(axes, points, looks, side="right")
    texts = []
    for label, of_line in panels[0].lines.items():
        first, last = (number(value, 2) for value in of_line.value.iloc[[0, -1]])
        texts.append(f"{first if first == last else f'from {first} to {last}'} ({label})")
    pairs = "1 pair" if set(every.n_pairs) == {1} else f"{span(set(every.n_pairs))} pairs"
    intervals = ", with 95 % intervals" if every.low.notna().any() else ""
    title = _title(panels[0].quantity)
    return (
        f"From the first layer to the last, {title}: {listed(texts, n=3)}. Lines: means over {pairs} of networks at "
        f"corresponding layers{intervals}."
    )


def _title(quantity: str) -> str:
    """Return the title of an axis."""
    return title_of(quantity) if quantity in QUANTITIES else quantity


def _set_axes(axes: "Axes", quantity: str, rows: "DataFrame", limits: Limits) -> None:
    """Set the limits and ticks of a panel's axes, with names of layers if all networks share a few, and draw
    the limit of similar pairs."""
    layers = dict(zip(rows.layers, rows.relative_depth, strict=True))
    layers.pop("", None)
    axes.set_xlabel("layer" if 0 < len(layers) <= NAMED else "relative depth")
    if 0 < len(layers) <= NAMED:
        axes.set_xticks(list(layers.values()), list(map(shortened, layers)))
        is_crowded = len(layers) > UPRIGHT or max(map(len, layers)) > LONG
        axes.tick_params(axis="x", labelrotation=90 if is_crowded else 0)
    known = [value for name in ("value", "low", "high") for value in rows[name].dropna()]
    low, high = min([0.0, *known]), max([1.0, *known])
    room = 0.04 * (high - low)
    tolerance = unit_of("accuracy_drop") * limits.tolerance
    if quantity in QUANTITIES:
        set_scale(axes, "y", quantity, (low - room, high + room), tolerance)
    else:
        axes.set(ylim=(low - room, high + room), ylabel=_title(quantity))
    axes.spines[["top", "right"]].set_visible(False)
    limit = {"accuracy_drop": tolerance, "skill": limits.skill}.get(quantity)
    if limit is not None:
        axes.axhline(limit, **LIMIT)


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
    known = {}
    for title, lines in panels.items():
        kept = {label: _known(values) for label, values in lines.items()}
        known[title] = {label: values for label, values in kept.items() if values}
    items = [(title, lines) for title, lines in known.items() if lines]
    draw = partial(_draw_ranks, y_title=y_title, truth=truth, rho=rho or {})
    width = COLUMN if len(items) == 1 else PAGE
    return draw_pages(path, items, draw, on_page=MOST, width=width, **texts)


def _known(values: Mapping[int | None, float]) -> dict[int, float]:
    """Return the finite values by rank, in increasing order, without full rank."""
    ranks = [rank for rank in values if rank is not None and math.isfinite(values[rank])]
    return {rank: values[rank] for rank in sorted(ranks)}


def _draw_ranks(
    figure: "Figure",
    panels: Sequence[tuple[str, Mapping[str, Mapping[int, float]]]],
    *,
    y_title: str,
    truth: str,
    rho: Mapping[str, Mapping[str, float]],
) -> str:
    """Draw panels of lines over ranks; return the caption."""
    in_line = 1 if len(panels) == 1 else 2
    looks = looks_of([label for _, lines in panels for label in lines if label != truth])
    looks[truth] = TRUTH
    is_relative = any(truth in lines for _, lines in panels)
    drawn = panels_in(figure, len(panels), in_line=in_line, height=HEIGHT)
    for axes, (title, lines) in zip(drawn, panels, strict=True):
        names = {}
        points = {}
        shown = []
        for label, values in lines.items():
            ranks = list(values)
            full = values[ranks[-1]] if is_relative and values[ranks[-1]] else 1
            heights = [value / full for value in values.values()]
            axes.plot(ranks, heights, label=label, clip_on=False, **looks[label])
            score = rho.get(title, {}).get(label, math.nan)
            names[label] = f"{label}  ρ {number(score)}" if math.isfinite(score) else label
            points[names[label]] = (ranks[0], heights[0])
            shown += heights
        ranks = sorted({rank for values in lines.values() for rank in values})
        axes.set_xscale("log", base=2)
        if len(ranks) <= NAMED:
            axes.set_xticks(ranks, [str(rank) for rank in ranks])
        axes.minorticks_off()
        axes.set_ylim(min([0.0, *shown]), 1.05 * max([1.0, *shown]))
        axes.yaxis.tick_right()
        axes.yaxis.set_label_position("right")
        axes.spines[["top", "left"]].set_visible(False)
        axes.set(xlabel=f"principal components kept in {title}".removesuffix(" in "))
        axes.set_ylabel(f"{y_title} / value at full rank" if is_relative else y_title)
        if is_relative:
            axes.axhline(1, **LIMIT)
        name_lines(axes, points, {names[label]: looks[label] for label in lines}, side="left")
    return _caption(panels, truth, rho)


def _caption(
    panels: Sequence[tuple[str, Any]], truth: str, rho: Mapping[str, Mapping[str, float]]
) -> str:
    """Return the caption: rank correlations with the probing accuracy, or without it the values at the lowest
    rank."""
    title, lines = panels[0]
    scores = rho.get(title, {})
    if truth in lines and scores:
        texts = [f"{number(score)} ({label})" for label, score in scores.items() if label in lines]
        return f"Rank correlation ρ with the {truth} at {title}: {listed(texts, n=4)}. Thick: the {truth}."
    lowest = min(rank for values in lines.values() for rank in values)
    texts = [
        f"{number(values[lowest])} ({label})" for label, values in lines.items() if lowest in values
    ]
    return f"With {lowest} principal components: {listed(texts, n=4)}."


def looks_of(labels: Sequence[str]) -> dict[str, Look]:
    """Return the colour, marker and style of each line."""
    import matplotlib

    return dict(
        zip(dict.fromkeys(labels), cycle(matplotlib.rcParams["axes.prop_cycle"]), strict=False)
    )


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
    step = 1.15 * matplotlib.rcParams["font.size"] / max(height, 1)
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = {label: float(to_axes.transform(point)[1]) for label, point in points.items()}
    place = -math.inf
    for label in sorted(wanted, key=lambda label: wanted[label]):
        place = max(wanted[label], place + step)
        x, alignment, shift = (0, "right", -6) if side == "left" else (1, "left", 4)
        axes.annotate(
            shortened(label),
            (x, place),
            (shift, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            ha=alignment,
            va="center",
            color=looks[label]["color"],
            weight="bold" if looks[label] is TRUTH else "normal",
        )
