"""The figure of groups of networks: verdicts and skill of stitches within each group and between groups."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.core.user_code import titles_in
from src.figures.pages import CM, COLUMN, Look, draw_pages, shortened
from src.figures.scales import add_limit, draw_interval, set_scale
from src.figures.sections import of_method
from src.figures.verdicts import INKS, LOOKS, add_legend_of_verdicts
from src.results.matrices import by_depth
from src.statistics.permutation_tests import FRONT
from src.verdict import Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

COLOUR = "#08407f"
ROW = 0.62  # cm
AROUND = 2.2  # cm above and below the rows
GAP = 0.75  # rows, between end groups
LEGIBLE = 0.12  # of the width of bars, for a number at least
SIGNIFICANT = 0.05  # two-sided
LOWEST = -3.0  # skill; the axis goes no further

Groups = tuple[str, str]  # of front and end networks


def draw_groups(path: Path, comparison: Any, limits: Limits, **texts: Any) -> list[Path]:
    """Draw the verdicts and skill of groups of networks, one figure for each method: NAME.png, NAME_2.png and
    so on. Return the written paths.

    Args:
        comparison: from `src.results.reports.compare_groups`.
        texts: `source` and `remark`, see `draw_pages`.
    """
    methods = list(comparison.groups.method.unique())
    draw = partial(_draw_groups, comparison=comparison, limits=limits)
    return draw_pages(path, methods, draw, on_page=1, width=COLUMN, **texts)


def _draw_groups(
    figure: "Figure", methods: Sequence[str], *, comparison: Any, limits: Limits
) -> str:
    """Draw one row for each pair of groups, ordered by end group; return the caption."""
    (method,) = methods
    means, groups, tests = (of_method(table, method) for table in comparison[:3])
    row_of = _rows_of(groups)
    ends = dict.fromkeys(end for _, end in row_of)
    height = ROW * (len(row_of) + GAP * len(ends)) + AROUND
    figure.set_figheight(height * CM)
    bars, skills = figure.subplots(1, 2, sharey=True, width_ratios=[1.25, 1])
    _name_rows(bars, groups, row_of)
    _draw_shares(bars, groups, row_of)
    _draw_skill(skills, means, groups, row_of, limits)
    _write_p(skills, tests, row_of)
    bars.set_title(titles_in(method), x=0, ha="left", pad=8)
    add_legend_of_verdicts(figure)
    return _caption(groups, tests)


def _rows_of(groups: "DataFrame") -> dict[Groups, float]:
    """Return the position of the row of each pair of groups; within an end group, the pair of the group with
    itself comes first."""
    pairs = list(
        groups[["front_group", "end_group"]].drop_duplicates().itertuples(index=False, name=None)
    )
    names = by_depth(chain.from_iterable(pairs))
    row_of: dict[Groups, float] = {}
    place = 0.0
    for end in names:
        fronts = [front for front in (end, *names) if (front, end) in pairs]
        for front in dict.fromkeys(fronts):
            row_of[front, end] = place
            place += 1
        if fronts:
            place += GAP
    return row_of


def _name_rows(axes: "Axes", groups: "DataFrame", row_of: dict[Groups, float]) -> None:
    """Label the rows with the front group and the number of pairs of networks, below the name of the end
    group."""
    n_pairs = groups.groupby(["front_group", "end_group"]).n_pairs.max()
    labels = [
        f"from {shortened(titles_in(front))} ({n_pairs[front, end]})" for front, end in row_of
    ]
    axes.set_yticks(list(row_of.values()), labels)
    axes.set_ylim(max(row_of.values()) + 0.6, -1)
    for end in dict.fromkeys(end for _, end in row_of):
        top = min(place for (_, of_row), place in row_of.items() if of_row == end)
        look: Look = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
        axes.text(-0.02, top - 0.72, f"into {shortened(titles_in(end))}", weight="bold", **look)


def _draw_shares(axes: "Axes", groups: "DataFrame", row_of: dict[Groups, float]) -> None:
    """Draw the shares of verdicts as stacked bars with percentages."""
    left = dict.fromkeys(row_of, 0.0)
    for verdict, look in LOOKS.items():
        of_verdict = groups[groups.quantity == verdict]
        for row in of_verdict.itertuples():
            pair = (row.front_group, row.end_group)
            axes.barh(row_of[pair], row.value, left=left[pair], height=0.66, linewidth=0.4, **look)
            if row.value >= LEGIBLE:
                axes.text(
                    left[pair] + row.value / 2,
                    row_of[pair],
                    f"{100 * row.value:.0f}",
                    bbox={"facecolor": look["facecolor"], "linewidth": 0, "pad": 0.5},
                    color=INKS.get(verdict, "black"),
                    ha="center",
                    va="center",
                )
            left[pair] += row.value
    axes.set(xlim=(0, 1), xlabel="verdicts (%)")
    axes.set_xticks([0, 0.5, 1], ["0", "50", "100"])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_skill(
    axes: "Axes",
    means: "DataFrame",
    groups: "DataFrame",
    row_of: dict[Groups, float],
    limits: Limits,
) -> None:
    """Draw the skill of each pair of networks as a dot, the mean of each row with its interval, and the
    limit."""
    dots = means[means.quantity == "skill"]
    rows = groups[groups.quantity == "skill"]
    low = max(LOWEST, min([0.0, *dots.value, *rows.low.dropna()]))
    set_scale(axes, "x", "skill", (low - 0.08, 1), 0)
    add_limit(axes, "x", limits.skill)
    for row in dots.itertuples():
        y = row_of[row.front_group, row.end_group] + 0.22
        axes.plot(max(row.value, low), y, "o", color="0.6", markersize=1.8, clip_on=False)
    for row in rows.itertuples():
        y = row_of[row.front_group, row.end_group] - 0.1
        draw_interval(axes, "x", y, (row.low, row.high), color=COLOUR, linewidth=1)
        axes.plot(max(row.value, low), y, "D", color=COLOUR, markersize=3.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _write_p(axes: "Axes", tests: "DataFrame", row_of: dict[Groups, float]) -> None:
    """Write the p-value of skill above each row that is compared with stitches within the end group."""
    if tests.empty:
        return
    for test in tests[(tests.quantity == "skill") & (tests.side == FRONT)].itertuples():
        front, _, end = test.across.partition(" → ")
        text = f"p {test.p_value:.2g}"
        if test.p_value <= SIGNIFICANT:
            text += " *"
        place = (1, row_of[front, end] - 0.5)
        axes.text(
            *place, text, transform=axes.get_yaxis_transform(), ha="right", va="center", size=6
        )


def _caption(groups: "DataFrame", tests: "DataFrame") -> str:
    """Return the caption: the meaning of the markers, and the smallest possible p-value."""
    text = (
        f"Means over {groups.layers.iloc[0]}. Dots: pairs of networks; diamonds: means with 95 % intervals; "
        "dotted: the limit."
    )
    if len(tests) and (tests.quantity == "skill").any():
        shown = tests[tests.quantity == "skill"]
        text += f" p (at least {shown.lowest_p.min():.2g}; * below 0.05): the row against the group's own fronts."
    return text
