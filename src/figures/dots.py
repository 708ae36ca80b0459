"""Figure 4, groups: a dot a pair of networks."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.core.console import listed
from src.core.grouping import grouped
from src.core.user_code import titles_in
from src.figures.curves import ends_of, on_scale, scale_skill
from src.figures.maps import number
from src.figures.pages import CM, Look, draw_pages, panels_in
from src.figures.shown import SHARE, Shown, scale_of
from src.results.matrices import by_depth
from src.statistics.permutation_tests import FRONT
from src.verdict import INCONCLUSIVE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = (SHARE, "accuracy_drop", "skill")  # of groups
NARROW = 12  # cm: panels of groups stand below each other
HEAD = 1.7  # cm above and below a panel
COLOUR = "#08407f"
INCONCLUSIVE_BAR: Look = {"height": 0.3, "facecolor": "white", "edgecolor": "0.6", "linewidth": 0.6}
DOT: Look = {"color": "0.6", "linestyle": "", "markersize": 2.5, "clip_on": False}
MEAN: Look = {"color": COLOUR, "markersize": 4, "linestyle": "", "clip_on": False}

Groups = tuple[str, str]  # of front and end networks


def draw_groups(
    path: Path,
    rows: Sequence[Shown],
    means: Sequence[Shown],
    tests: Sequence[Any] = (),
    **texts: Any,
) -> list[Path]:
    """Draw the groups of networks: a row a pair of groups, a dot a pair of networks, with the mean,
    its interval and the p-value. Return the written paths.

    A figure has two methods; further ones go into NAME_2.png and so on.

    Args:
        rows: a mean over layers for each pair of networks, method and quantity, from `of_networks`.
        means: of the rows, for each pair of groups, method and quantity.
        tests: rows of tests between the groups.
        texts: `source` and `remark`, see `draw_pages`.
    """
    methods = list(dict.fromkeys(row.method for row in rows))
    draw = partial(_draw_groups, rows=rows, means=means, tests=tests)
    notes = [_on_p(tests), _on_inconclusive(means), texts.pop("remark", "")]
    return draw_pages(path, methods, draw, on_page=2, remark=" ".join(filter(None, notes)), **texts)


def _draw_groups(
    figure: "Figure",
    methods: Sequence[str],
    *,
    rows: Sequence[Shown],
    means: Sequence[Shown],
    tests: Sequence[Any],
) -> str:
    """Draw a panel for each method and quantity; return the caption."""
    found = {row.groups for row in rows}
    names = by_depth(name for groups in found for name in groups)
    groups = [pair for pair in product(names, names) if pair in found]
    in_line = len(COLUMNS) if figure.get_figwidth() > NARROW * CM else 1
    keys = list(product(methods, COLUMNS))
    panels = panels_in(figure, len(keys), in_line=in_line, height=0.55 * len(groups) + HEAD)
    for place, key in enumerate(keys):
        axes = panels[place]
        dots = [row for row in rows if (row.method, row.quantity) == key]
        n_pairs = Counter(row.groups for row in dots)
        labels = [f"{front} → {end} ({n_pairs[front, end]})" for front, end in groups]
        _name_rows(axes, labels if place % in_line == 0 else [""] * len(groups))
        _draw_pairs(axes, dots, groups)
        of_key = [mean for mean in means if (mean.method, mean.quantity) == key]
        _draw_means(axes, of_key, groups)
        if key[1] == SHARE:
            _draw_inconclusive(axes, of_key, means, groups)
        answers = [test for test in tests if (titles_in(test.method), test.quantity) == key]
        for y, pair in enumerate(groups):
            test = _test_of(pair, answers)
            if test:
                text = f"p {test.p_value:.2g}"
                axes.text(1.02, y - 0.12, text, transform=axes.get_yaxis_transform(), va="center")
        axes.set_xlabel(scale_of(key[1]).title)
        if key[1] == SHARE:
            axes.set_title(key[0], x=0, ha="left")
    text = (
        f"Shares of similar pairs by {methods[0]}: {_shares(means, methods[0], groups)}. Dots: pairs of "
        "networks (front → end); diamonds: means with 95 % intervals (open: too few networks)."
    )
    remarks = [_on_layers(means), on_scale(rows)]
    return " ".join(filter(None, [text, *remarks]))


def _shares(means: Sequence[Shown], method: str, groups: Sequence[Groups]) -> str:
    """Return the lowest and the highest share of similar pairs, with what is inconclusive, as a text."""
    value_of = {(mean.quantity, mean.groups): mean.value for mean in means if mean.method == method}
    in_order = sorted(
        (pair for pair in groups if (SHARE, pair) in value_of),
        key=lambda pair: value_of[SHARE, pair],
    )
    texts = []
    for pair in dict.fromkeys([*in_order[:1], *in_order[-1:]]):
        inconclusive = value_of.get((INCONCLUSIVE, pair), 0)
        note = f"; {number(inconclusive)} inconclusive" if inconclusive else ""
        texts.append(f"{number(value_of[SHARE, pair])} ({' → '.join(pair)}{note})")
    return " to ".join(texts)


def _on_inconclusive(means: Sequence[Shown]) -> str:
    """Return the sentence on bars of inconclusive stitches; "" without any."""
    has_any = any(mean.quantity == INCONCLUSIVE and mean.value for mean in means)
    return "Hollow bars: the share inconclusive, which counts as not similar." if has_any else ""


def _on_layers(means: Sequence[Shown]) -> str:
    """Return the sentence on means of skill over fewer layers than other means; "" if there is none."""
    parts = []
    for of_groups in grouped(means, lambda mean: (mean.method, mean.groups)).values():
        n_layers = max(mean.n_layers for mean in of_groups)
        for mean in of_groups:
            if mean.quantity == "skill" and mean.n_layers < n_layers:
                parts.append(f"{' → '.join(mean.groups)} {mean.n_layers:.2g} of {n_layers:.2g}")
    return f"Layers that have skill: {listed(parts, n=4)}." if parts else ""


def _on_p(tests: Sequence[Any]) -> str:
    """Return the sentence on the rows that p-values compare, and on their lower limit; "" without one."""
    shown = [test for test in tests if test.side == FRONT and test.quantity in COLUMNS]
    if not shown:
        return ""
    limits = sorted({test.lowest_p for test in shown})
    at_least = f"at least {limits[0]:.2g}"
    if len(limits) > 1:
        at_least += f" to {limits[-1]:.2g} by the sizes of groups"
    example = f"{titles_in(shown[0].across)} with {titles_in(shown[0].within)}"
    return f"p ({at_least}) compares a row with pairs within its end group, such as {example}."


def _draw_pairs(axes: "Axes", rows: Sequence[Shown], groups: Sequence[Groups]) -> None:
    """Draw a dot a pair of networks, and set the axis."""
    low, high = ends_of(rows)
    room = 0.04 * (high - low)
    axes.set_xlim(low - room, high + room)
    if rows and rows[0].quantity == "skill":
        scale_skill(axes, "x", low)
    for row in rows:
        axes.plot(row.value, groups.index(row.groups) + 0.18, marker="o", **DOT)


def _draw_means(axes: "Axes", means: Sequence[Shown], groups: Sequence[Groups]) -> None:
    """Draw the mean of each pair of groups with its interval, open without one."""
    for mean in means:
        y = groups.index(mean.groups) - 0.12
        face = "white" if math.isnan(mean.low) else COLOUR
        axes.hlines(y, mean.low, mean.high, color=COLOUR, linewidth=1)
        axes.plot(mean.value, y, marker="D", markerfacecolor=face, **MEAN)


def _draw_inconclusive(
    axes: "Axes", shares: Sequence[Shown], means: Sequence[Shown], groups: Sequence[Groups]
) -> None:
    """Draw a bar from each share of similar pairs on, as long as the share that is inconclusive."""
    shares_of = {mean.groups: mean.value for mean in shares}
    inconclusive = [mean for mean in means if mean.quantity == INCONCLUSIVE and mean.value]
    for mean in inconclusive:
        if mean.method == shares[0].method:
            y = groups.index(mean.groups) - 0.12
            axes.barh(y, mean.value, left=shares_of[mean.groups], zorder=0, **INCONCLUSIVE_BAR)


def _test_of(groups: Groups, tests: Sequence[Any]) -> Any:
    """Return the test of a pair of groups against pairs within the group of the end network."""
    front, end = groups
    for test in tests:
        is_within = titles_in(test.within) == f"{end} → {end}"
        if is_within and titles_in(test.across) == f"{front} → {end}":
            return test
    return None


def _name_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Make axes a list of rows with these names, from the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
