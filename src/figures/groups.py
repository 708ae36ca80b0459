"""The figure of groups of networks: verdicts and skill of stitches within each group and between groups."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from src.core.grouping import by_depth
from src.core.user_code import titles_in
from src.figures.pages import CM, COLUMN, Look, shortened, write_figure
from src.figures.scales import LIMIT, draw_interval, set_scale
from src.figures.verdicts import INKS, LOOKS, add_legend_of_verdicts
from src.statistics.permutation_tests import FRONT
from src.verdict import Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOUR = "#08407f"
ROW = 0.62  # cm
AROUND = 2.2  # cm above and below the rows
GAP = 0.75  # rows, between end groups
LEGIBLE = 0.12  # of the width of bars, for a number at least
SIGNIFICANT = 0.05  # two-sided
ARROW = " → "
LOWEST = -3.0  # skill; the axis goes no further


def draw_groups(path: Path, comparison: Any, limits: Limits, **texts: Any) -> list[Path]:
    """Draw the verdicts and skill of groups of networks, one row of panels for each method. Return the written
    paths.

    Args:
        comparison: from `src.results.reports.compare_groups`.
        texts: `source` and `remark`, see `write_figure`.
    """
    methods = list(comparison.groups.method.unique())
    draw = partial(_draw_groups, comparison=comparison, limits=limits)
    return write_figure(path, methods, draw, width=COLUMN, **texts)


def _draw_groups(
    figure: "Figure", methods: Sequence[str], *, comparison: Any, limits: Limits
) -> str:
    """Draw one row for each pair of groups, ordered by end group; return the caption."""
    row_of = _rows_of(comparison.groups)
    means, groups, tests = (_with_rows(table, row_of) for table in comparison[:3])
    ends = groups.end_group.unique()
    height = ROW * (len(row_of) + GAP * len(ends)) + AROUND
    figure.set_figheight(height * len(methods) * CM)
    panels = figure.subplots(len(methods), 2, sharey=True, squeeze=False, width_ratios=[1.25, 1])
    skills = pd.concat([means, groups])[lambda rows: rows.quantity == "skill"]
    lowest = max(LOWEST, min([0.0, *skills.value, *skills.low.dropna()]))
    for method, (left, right) in zip(methods, panels, strict=True):
        _name_rows(left, groups, row_of)
        _draw_shares(left, groups[groups.method == method])
        left.set_title(titles_in(method), x=0, ha="left", pad=8)
        set_scale(right, "x", "skill", (lowest - 0.08, 1), 0)
        right.axvline(limits.skill, **LIMIT)
        of_panel = [table[table.method == method] for table in (means, groups, tests)]
        _draw_skill(right, *of_panel, lowest=lowest)
        for axes in (left, right):
            axes.tick_params(axis="y", length=0)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.xaxis.label.set_visible(method == methods[-1])
    add_legend_of_verdicts(figure)
    return _caption(groups, tests)


def _with_rows(table: pd.DataFrame, row_of: Mapping[str, float]) -> pd.DataFrame:
    """Return a table of pairs of groups with the position of their rows, `y`."""
    if table.empty:
        return table.reindex(columns=["method", "quantity", "side", "y"])
    pairs = table.across if "across" in table else table.front_group + ARROW + table.end_group
    return table.assign(y=pairs.map(row_of))


def _rows_of(groups: pd.DataFrame) -> dict[str, float]:
    """Return the position of the row of each pair of groups; within an end group, the pair of the group with
    itself comes first."""
    names = by_depth([*groups.front_group, *groups.end_group], {})
    pairs = sorted(
        set(zip(groups.front_group, groups.end_group, strict=True)),
        key=lambda pair: (names.index(pair[1]), pair[0] != pair[1], names.index(pair[0])),
    )
    ends = list(dict.fromkeys(end for _, end in pairs))
    return {
        f"{front}{ARROW}{end}": place + GAP * ends.index(end)
        for place, (front, end) in enumerate(pairs)
    }


def _name_rows(axes: "Axes", groups: pd.DataFrame, row_of: Mapping[str, float]) -> None:
    """Label the rows with the front group and the number of pairs of networks, below the name of the end
    group."""
    labels = []
    rows = groups.sort_values("n_pairs").drop_duplicates("y", keep="last").sort_values("y")
    for row in rows.itertuples():
        labels.append(f"from {shortened(titles_in(row.front_group))} ({row.n_pairs})")
    axes.set_yticks(rows.y, labels)
    axes.set_ylim(rows.y.max() + 0.6, -1)
    look: Look = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
    for row in rows.drop_duplicates("end_group").itertuples():
        title = f"into {shortened(titles_in(row.end_group))}"
        axes.text(-0.02, row.y - 0.72, title, weight="bold", **look)


def _draw_shares(axes: "Axes", groups: pd.DataFrame) -> None:
    """Draw the shares of verdicts as stacked bars with percentages."""
    shares = groups.pivot(index="y", columns="quantity", values="value")
    shares = shares.reindex(columns=list(LOOKS)).fillna(0)
    starts = shares.cumsum(axis=1) - shares
    for verdict, look in LOOKS.items():
        values = shares[verdict]
        bars = axes.barh(
            shares.index, values, left=starts[verdict], height=0.66, linewidth=0.4, **look
        )
        axes.bar_label(
            bars,
            values.map("{:.0%}".format).str.rstrip("%").where(values >= LEGIBLE, ""),
            label_type="center",
            color=INKS.get(verdict, "black"),
            bbox={"facecolor": look["facecolor"], "linewidth": 0, "pad": 0.5},
        )
    axes.set(xlim=(0, 1), xlabel="verdicts (%)")
    axes.set_xticks([0, 0.5, 1], ["0", "50", "100"])


def _draw_skill(
    axes: "Axes", means: pd.DataFrame, groups: pd.DataFrame, tests: pd.DataFrame, *, lowest: float
) -> None:
    """Draw the skill of each pair of networks as a dot, and the mean of each row with its interval; and above
    each row that is compared with stitches within the end group, its p-value.

    Args:
        lowest: the lowest skill of the axis.
    """
    dots = means[means.quantity == "skill"]
    if dots.empty:
        return  # an empty line that is not clipped has no extent, and no layout
    rows = groups[groups.quantity == "skill"]
    axes.plot(
        dots.value.clip(lowest), dots.y + 0.22, "o", color="0.6", markersize=1.8, clip_on=False
    )
    axes.plot(rows.value.clip(lowest), rows.y - 0.1, "D", color=COLOUR, markersize=3.5)
    for row in rows.itertuples():
        draw_interval(axes, "x", row.y - 0.1, (row.low, row.high), color=COLOUR, linewidth=1)
    look: Look = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
    for test in tests[(tests.quantity == "skill") & (tests.side == FRONT)].itertuples():
        star = " *" if test.p_value <= SIGNIFICANT else ""
        axes.text(1, test.y - 0.5, f"p = {test.p_value:.2g}{star}", size=6, **look)


def _caption(groups: pd.DataFrame, tests: pd.DataFrame) -> str:
    """Return the caption: the meaning of the markers, and the smallest possible p-value."""
    text = (
        f"Means over {groups.layers.iloc[0]}. Dots: pairs of networks; diamonds: means, 95 % intervals; dotted: the "
        "limit."
    )
    if (tests.quantity == "skill").any():
        shown = tests[tests.quantity == "skill"]
        text += (
            f" p (at least {shown.lowest_p.min():.2g}; * below 0.05): against fronts of the group."
        )
    return text
