"""Figure 4, groups: how pairs of networks of several groups differ."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from src.figures.captions import in_words, joined
from src.figures.cells import number
from src.figures.pages import CM, Look, draw_pages, letter, panels_in
from src.figures.shown import SHARE, Shown, of_groups, scale_of
from src.ground.grouping import grouped
from src.ground.user_code import titles_in
from src.tables.matrices import by_depth
from src.tables.verdict_rows import GroupTestRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUANTITIES = (SHARE, "penalty", "skill")
LOWEST = -1.0  # skill, at the end of its axis
LINE = 0.55  # cm, a row of dots
HEAD = 1.7  # cm
NARROW = 12  # cm: panels stand below each other
DOT: Look = {"color": "0.6", "linestyle": "", "markersize": 2.5, "clip_on": False}
MEAN: Look = {"marker": "D", "color": "#08407f", "markersize": 4, "linestyle": "", "clip_on": False}

Groups = tuple[str, str]  # of front and end networks


def draw_groups(
    path: Path,
    rows: Sequence[Shown],
    tests: Sequence[GroupTestRow] = (),
    *,
    title: str = "",
    width: float | None = None,
    source: str = "",
) -> list[Path]:
    """Draw the groups of networks: a row a pair of groups, a dot a pair of networks, with the mean,
    its interval and the p-value. Return the written paths.

    A figure has two methods; further ones go into NAME_2.png and so on.

    Args:
        rows: a mean over layers for each pair of networks, method and quantity, from `of_networks`.
        tests: between the groups.
        width: in cm; None: as `--width` says.
        source: the sentence of the caption on networks and images.
    """
    methods = list(grouped(rows, lambda row: row.method).items())
    draw = partial(_draw, tests=tests, source=source)
    return draw_pages(path, methods, draw, on_page=2, title=title, width=width)


def ordered(groups: Sequence[Groups]) -> list[Groups]:
    """Return pairs of groups by the natural order of the names of the end group, then the front."""
    names = by_depth(name for pair in groups for name in pair)
    pairs = ((front, end) for end, front in product(names, names))
    return [pair for pair in pairs if pair in groups]


def _draw(
    figure: "Figure",
    methods: Sequence[tuple[str, Sequence[Shown]]],
    *,
    tests: Sequence[GroupTestRow],
    source: str,
) -> str:
    """Draw a panel for each method and quantity; return the caption."""
    groups = ordered(list(dict.fromkeys(row.groups for _, rows in methods for row in rows)))
    in_line = len(QUANTITIES) if figure.get_figwidth() > NARROW * CM else 1
    n_panels = len(methods) * len(QUANTITIES)
    height = LINE * len(groups) + HEAD
    panels = panels_in(figure, n_panels, in_line=in_line, height=height)
    for place, ((method, rows), quantity) in enumerate(product(methods, QUANTITIES)):
        axes = panels[place]
        shown = [row for row in rows if row.quantity == quantity and math.isfinite(row.value)]
        answers = [
            test for test in tests if (titles_in(test.method), test.quantity) == (method, quantity)
        ]
        _draw_panel(axes, shown, groups, answers)
        if place % in_line:
            axes.set_yticks([])
        axes.set_xlabel(scale_of(quantity).title)
        letter(axes, place)
        if quantity == SHARE:
            axes.set_title(method)
    return joined(_on_shares(methods[0], groups), _on_marks(tests), source)


def _draw_panel(
    axes: "Axes", rows: Sequence[Shown], groups: Sequence[Groups], tests: Sequence[GroupTestRow]
) -> None:
    """Draw the dots, the mean and the p-value of each pair of groups; values below the axis stand at
    its edge."""
    n_pairs = Counter(row.groups for row in rows)
    labels = [f"{front} → {end} ({n_pairs[front, end]})" for front, end in groups]
    axes.set_yticks(range(len(groups)), labels)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    values = [row.value for row in rows]
    low = max(min([0.0, *values]), LOWEST if rows and rows[0].quantity == "skill" else -math.inf)
    high = max([1.0, *values])
    room = 0.04 * (high - low)
    axes.set_xlim(low - room, high + room)
    for row in rows:
        marker = "<" if row.value < low else "o"
        axes.plot(max(row.value, low), groups.index(row.groups) + 0.18, marker=marker, **DOT)
    for mean in of_groups(rows):
        y = groups.index(mean.groups) - 0.12
        face = "white" if math.isnan(mean.low) else MEAN["color"]
        axes.hlines(y, max(mean.low, low), min(mean.high, high), color=MEAN["color"], linewidth=1)
        axes.plot(max(mean.value, low), y, markerfacecolor=face, **MEAN)
        p_value = _p_value(mean.groups, tests)
        axes.text(1.02, y, p_value, transform=axes.get_yaxis_transform(), va="center")


def _p_value(groups: Groups, tests: Sequence[GroupTestRow]) -> str:
    """Return the p-value of a pair of groups against pairs within the group of the end network; ""
    without a test."""
    front, end = groups
    for test in tests:
        is_within = titles_in(test.within) == f"{end} → {end}"
        if is_within and titles_in(test.across) == f"{front} → {end}":
            n_digits = 2 if test.p_value >= 0.01 else 3
            return f"p {test.p_value:.{n_digits}f}"
    return ""


def _on_shares(method: tuple[str, Sequence[Shown]], groups: Sequence[Groups]) -> str:
    """Return the sentence on the shares of similar pairs by a method."""
    title, rows = method
    shares = {mean.groups: mean for mean in of_groups(rows) if mean.quantity == SHARE}
    texts = [
        f"{number(shares[pair].value)} ({' → '.join(pair)})" for pair in groups if pair in shares
    ]
    return f"By {title}, shares of similar pairs are {in_words(texts[:4])}."


def _on_marks(tests: Sequence[GroupTestRow]) -> str:
    """Return the sentence on the marks, with the smallest possible p-value."""
    text = "Dots: pairs of networks; diamonds: means with 95 % intervals, open if too few"
    if tests:
        lowest = min(test.lowest_p for test in tests)
        text += f"; p: against pairs within the end group, at least {lowest:.2g}"
    return f"{text}."
