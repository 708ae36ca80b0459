"""Figure 6, check: which measure can be believed, by ranks of a layer and by networks that differ by
construction."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from src.figures.captions import between, in_words, joined
from src.figures.cells import number
from src.figures.lines import draw_lines, label_ends, looks_of
from src.figures.pages import CM, Look, draw_pages, letter, panels_in
from src.figures.shown import ABOVE_BASELINES, BASELINE, Shown
from src.ground.grouping import grouped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOM = 3.5  # cm of width, for a panel of scores
OF_RANKS = 7.0  # cm of width, for a panel of lines with its labels
NAMED = 12  # ranks at most, for all of them on the axis
NAMES = 3.0  # cm of width, for the names of measures
MOST = 12  # panels on a page
LINE = 0.36  # cm, a row of scores, or a label of a line
HEAD = 1.6  # cm above and below a panel
HEIGHT = 4.2  # cm, of a panel of lines at least
DOT: Look = {"marker": "o", "color": "#08407f", "markersize": 4, "linestyle": ""}


def draw_ranks(
    path: Path,
    rows: Sequence[Shown],
    *,
    y_title: str,
    title: str = "",
    width: float | None = None,
    source: str = "",
) -> list[Path]:
    """Draw values over the ranks of a layer: a panel a pair of layers, a line a measure. Return the
    written paths.

    Args:
        rows: from `of_ranks`.
        y_title: of the vertical axis.
        width: in cm; None: as `--width` says.
        source: the sentence of the caption on networks and images.
    """
    panels = list(grouped(rows, lambda row: row.quantity).values())
    draw = partial(_draw_ranks, y_title=y_title, source=source)
    return draw_pages(path, panels, draw, on_page=MOST, title=title, width=width)


def _draw_ranks(
    figure: "Figure", panels: Sequence[Sequence[Shown]], *, y_title: str, source: str
) -> str:
    """Draw panels of lines over ranks; return the caption."""
    lines_of_panel = [grouped(rows, lambda row: row.method) for rows in panels]
    labels = dict.fromkeys(label for lines in lines_of_panel for label in lines)
    height = max(HEIGHT, LINE * len(labels))
    in_line = int(figure.get_figwidth() / CM / OF_RANKS)
    grid = panels_in(figure, len(panels), in_line=in_line, height=height + HEAD)
    looks = looks_of(labels)
    for place, lines in enumerate(lines_of_panel):
        axes = grid[place]
        draw_lines(axes, lines, looks)
        values = [row.value for rows in lines.values() for row in rows if math.isfinite(row.value)]
        axes.set_ylim(min([0.0, *values]) - 0.03, max([1.0, *values]) + 0.03)
        ranks = sorted({row.place for rows in lines.values() for row in rows})
        axes.set_xscale("log", base=2)
        if len(ranks) <= NAMED:
            axes.set_xticks(ranks, [f"{rank:g}" for rank in ranks])
        axes.minorticks_off()
        axes.set(
            xlabel="retained rank (components)", ylabel=y_title, title=panels[place][0].quantity
        )
        label_ends(axes, lines, looks)
        if len(panels) > 1:
            letter(axes, place)
    lowest = min(panels[0], key=lambda row: row.place).place
    ends = [f"{number(row.value)} ({row.method})" for row in panels[0] if row.place == lowest]
    return joined(
        f"At rank {lowest:g}, {y_title} is {in_words(ends[:4])}.",
        f"{y_title[0].upper()}{y_title[1:]} where a layer keeps fewer principal components.",
        source,
    )


def draw_check(
    path: Path,
    rows: Sequence[Shown],
    *,
    title: str = "",
    width: float | None = None,
    source: str = "",
) -> list[Path]:
    """Draw scores of measures in tests on networks that differ by construction: a panel a test, a dot
    a measure. Return the written paths.

    Args:
        rows: from `of_scores`, the best measures first.
        width: in cm; None: as `--width` says.
        source: the sentence of the caption on networks and images.
    """
    tests = list(grouped(rows, lambda row: row.quantity).values())
    draw = partial(_draw_scores, source=source)
    return draw_pages(path, tests, draw, on_page=MOST, title=title, width=width)


def _draw_scores(figure: "Figure", tests: Sequence[Sequence[Shown]], *, source: str) -> str:
    """Draw a panel of scores for each test; return the caption."""
    rows = list(chain.from_iterable(tests))
    measures = list(dict.fromkeys(row.method for row in rows if row.word != BASELINE))
    in_line = max(1, int((figure.get_figwidth() / CM - NAMES) / ROOM))
    height = LINE * len(measures) + HEAD
    panels = panels_in(figure, len(tests), in_line=in_line, height=height)
    values = [value for row in rows for value in (row.value, row.low, row.high)]
    known = [value for value in values if math.isfinite(value)]
    for place, (axes, of_test) in enumerate(zip(panels, tests, strict=True)):
        _draw_test(axes, of_test, measures)
        axes.set_xlim(min([0.0, *known]) - 0.05, max([1.0, *known]) + 0.05)
        axes.set_title(of_test[0].quantity.replace("_", " "))
        axes.set_xlabel("score")
        if len(tests) > 1:
            letter(axes, place)
        if place % in_line:
            axes.tick_params(labelleft=False)
    best = [row.value for row in rows if row.method == measures[0]] if measures else []
    ns = [row.n for row in rows]
    return joined(
        f"The best measure is {measures[0]}, with a mean score of {number(fmean(best))}."
        if best
        else "",
        "Scores from chance (0) to the truth (1) with 95 % intervals; line: the best baseline; filled: above "
        f"chance and all baselines. Of {between(ns)} networks.",
        source,
    )


def _draw_test(axes: "Axes", rows: Sequence[Shown], measures: Sequence[str]) -> None:
    """Draw the scores of measures in a test, and the line of the best baseline."""
    axes.set_yticks(range(len(measures)), measures)
    axes.set_ylim(len(measures) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.axvline(0, color="0.8", linewidth=0.6, zorder=0)
    baselines = [row.value for row in rows if row.word == BASELINE and math.isfinite(row.value)]
    if baselines:
        axes.axvline(max(baselines), color="#c2185b", linewidth=1, linestyle="--", zorder=1)
    for row in rows:
        if row.word != BASELINE:
            y = measures.index(row.method)
            face = DOT["color"] if row.word == ABOVE_BASELINES else "white"
            axes.hlines(y, row.low, row.high, color=DOT["color"], linewidth=0.8)
            axes.plot(row.value, y, markerfacecolor=face, **DOT)
