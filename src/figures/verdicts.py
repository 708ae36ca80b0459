"""Figures of verdicts: maps over pairs of layers, and scatter plots of accuracy drop against skill."""

import textwrap
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.core.console import layer_in_words
from src.core.grouping import grouped
from src.core.user_code import titles_in
from src.figures.maps import name_cells, number, write_in_cell
from src.figures.pages import CHARACTERS, CM, COLUMN, Look, draw_figure, draw_pages, shortened
from src.figures.scales import POINTS, draw_interval, set_scale
from src.figures.sections import Part, parts_of
from src.results.frame import LAYERS
from src.results.reports import corresponding, matrix
from src.verdict import ACCURATE_ONLY, INCONCLUSIVE, NOT_MATCHED, SIMILAR, Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

LOOKS: dict[str, Look] = {  # of verdicts, told apart in grey as well
    SIMILAR: {"facecolor": "#2b6cb0", "edgecolor": "#2b6cb0"},
    ACCURATE_ONLY: {"facecolor": "#fbd3a2", "edgecolor": "#c98a3c", "hatch": "...."},
    INCONCLUSIVE: {"facecolor": "white", "edgecolor": "0.6", "hatch": "//////"},
    NOT_MATCHED: {"facecolor": "0.8", "edgecolor": "0.8"},
}
TINTS = {SIMILAR: "#8fbfe8", ACCURATE_ONLY: "#fbd3a2", NOT_MATCHED: "#ededed"}  # behind points
CORNERS = {  # of the points, where a verdict stands, and its colour
    SIMILAR: (0, 1, "#0b3d6e"),
    ACCURATE_ONLY: (0, 0, "#7a4300"),
    NOT_MATCHED: (1, 1, "#555555"),
}
METHODS: tuple[Look, ...] = (  # in turn dark and light, for print in grey
    {"color": "#08407f", "markeredgecolor": "white", "marker": "o"},
    {"color": "#ff8fbf", "markeredgecolor": "#5c0a2e", "marker": "D"},
)
BORDER: Look = {"edgecolor": "0.5", "linewidth": 0.4}
MARK = "†"  # behind a skill at the end layer
ROOM = 1.8  # cm of width, for a map at least
CELL = 0.45  # cm of width, for a cell at least
IN_LINE = 4  # maps
ON_PAGE = 16  # maps
WIDE = 0.6  # of a cell, for a number at least


def draw_verdicts(path: Path, frame: "DataFrame", limits: Limits, **texts: Any) -> list[Path]:
    """Draw a map of layers for each method and pair of networks or of groups. Return the written paths.

    Args:
        frame: of verdicts.
        texts: `source` and `remark`, see `draw_pages`.
    """
    parts, repeated = distinct_parts(parts_of(frame))
    texts["remark"] = " ".join(filter(None, [repeated, texts.get("remark", "")]))
    draw = partial(_draw_maps, limits=limits)
    return draw_pages(path, parts, draw, on_page=ON_PAGE, width=COLUMN, **texts)


def figure_of_verdicts(frame: "DataFrame", limits: Limits, *, source: str = "") -> "Figure":
    """Return the figure of `draw_verdicts` without writing a file."""
    draw = partial(_draw_maps, limits=limits)
    return draw_figure(parts_of(frame), draw, width=COLUMN, source=source)


def distinct_parts(parts: Sequence[Part]) -> tuple[list[Part], str]:
    """Return the parts without methods whose verdicts equal those of an earlier method, and a sentence that
    names these methods."""
    first_of: dict[Any, str] = {}
    sentences = []
    kept = []
    for method, of_method in grouped(parts, lambda part: part.method).items():
        columns = ["networks", *LAYERS, "verdict"]
        rows = [part.rows[columns].itertuples(index=False, name=None) for part in of_method]
        first = first_of.setdefault(frozenset(row for part in rows for row in part), method)
        if first == method:
            kept += of_method
        else:
            sentences.append(f"All verdicts by {method} are those by {first}.")
    return kept, " ".join(sentences)


def _draw_maps(figure: "Figure", parts: Sequence[Part], *, limits: Limits) -> str:
    """Draw maps side by side, one row for each method, or for each pair of networks with different layers.
    Return the caption."""
    from matplotlib.patches import Patch

    shapes = {matrix(part.rows, "skill").shape for part in parts}
    is_by_pair = len({part.pair for part in parts}) == 1 or len(shapes) > 1
    line, column = ("pair", "method") if is_by_pair else ("method", "pair")
    width = figure.get_figwidth() / CM
    layers = chain.from_iterable(part.rows[LAYERS].to_numpy().ravel() for part in parts)
    words = chain.from_iterable(part.pair.split(" ") for part in parts)
    beside, longest = (max(len(shortened(name)) for name in names) for names in (layers, words))
    n_columns = max(n for _, n in shapes)
    room = max(ROOM, CELL * n_columns, (longest + 4) / CHARACTERS + 0.4)
    left = width - beside / CHARACTERS
    of_lines = grouped(parts, lambda part: getattr(part, line)).values()
    in_line = min(max(map(len, of_lines)), IN_LINE, max(1, int(left / room)))
    lines = [
        of_line[start : start + in_line]
        for of_line in of_lines
        for start in range(0, len(of_line), in_line)
    ]
    figure.set_layout_engine("compressed")
    figure.set_figheight((2 + 1.5 * len(lines) * width / in_line) * CM)
    panels = figure.subplots(len(lines), in_line, squeeze=False)
    above: list[str] = []
    for of_line, axes_of_line in zip(lines, panels, strict=True):
        titles = [_short(getattr(part, column)) for part in of_line]
        label, below = _labels(of_line[0]) if is_by_pair else (of_line[0].method, "end layer")
        for part, axes, title in zip(of_line, axes_of_line, titles, strict=False):
            _draw_map(axes, part.rows, limits)
            if titles != above:
                number_of_pairs = f"\n({part.n_pairs})" if part.n_pairs > 1 else ""
                axes.set_title(_wrapped(title, left / in_line - 0.2) + number_of_pairs)
            if axes is not axes_of_line[0]:
                axes.set_yticks([])
            if is_by_pair or of_line is lines[-1]:
                axes.set_xlabel(_wrapped(_short(below), width / in_line - 0.5))
            elif len(of_line) == len(lines[-1]):
                axes.set_xticks([])
        axes_of_line[0].set_ylabel(_wrapped(_short(label), width / in_line - 0.5))
        for unused in axes_of_line[len(of_line) :]:
            unused.remove()
        above = titles
    handles = [Patch(label=verdict, **look) for verdict, look in LOOKS.items()]
    look: Look = {"handlelength": 1, "columnspacing": 0.8, "handletextpad": 0.3}
    figure.legend(handles=handles, loc="outside upper center", ncols=len(LOOKS), **look)
    return _caption(parts, figure)


def _labels(part: Part) -> tuple[str, str]:
    """Return the titles of the rows and of the columns of a map."""
    front, arrow, end = part.pair.partition(" → ")
    if part.n_pairs > 1 or not arrow:
        return part.pair, "end layer"
    return f"from layer of {front}", f"into layer of {end}"


def _short(text: str) -> str:
    """Abbreviate the long words of a text by ellipses."""
    return " ".join(map(shortened, text.split(" ")))


def _wrapped(text: str, width: float) -> str:
    """Wrap a text to a width in cm."""
    return textwrap.fill(text, max(8, int(CHARACTERS * width)))


def _draw_map(axes: "Axes", rows: "DataFrame", limits: Limits) -> None:
    """Draw the cells of a map: shares of verdicts with the percentage of similar pairs, or the accuracy drop
    and skill of a single stitch."""
    from matplotlib.patches import Rectangle

    order = matrix(rows, "skill")
    fronts, ends = list(order.index), list(order.columns)
    framed = set(corresponding(rows)[LAYERS].itertuples(index=False, name=None))
    name_cells(
        axes, *([shortened(layer_in_words(name)) for name in names] for names in (fronts, ends))
    )
    for (front, end), of_cell in rows.groupby(LAYERS, sort=False):
        x, y = ends.index(end), fronts.index(front)
        shares = of_cell.verdict.value_counts(normalize=True)
        left = x - 0.5
        for verdict, look in LOOKS.items():
            share = shares.get(verdict, 0.0)
            axes.add_patch(Rectangle((left, y - 0.5), share, 1, linewidth=0, **look))
            left += share
        is_framed = (front, end) in framed
        border: Look = {"edgecolor": "black", "linewidth": 1} if is_framed else BORDER
        axes.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, zorder=2 + is_framed, **border)
        )
        similar = shares.get(SIMILAR, 0.0)
        colour = "white" if similar > WIDE else "black"
        if rows.networks.nunique() == 1:
            row = of_cell.iloc[0]
            behind = LOOKS[row.verdict]["facecolor"]
            write_in_cell(axes, x, y, text_of(row, limits), behind=behind, color=colour)
        elif similar:
            place = x - 0.5 + similar / 2 if similar > WIDE else x
            behind = LOOKS[SIMILAR]["facecolor"] if similar > WIDE else "white"
            write_in_cell(axes, place, y, f"{100 * similar:.0f}", behind=behind, color=colour)


def text_of(row: Any, limits: Limits) -> str:
    """Return the text of a cell: the accuracy drop of a stitch, and its skill unless the stitch is not matched;
    of a stitch that is accurate only, the skill that is too low."""
    lost = number(POINTS * row.accuracy_drop, 1)
    if row.verdict == NOT_MATCHED:
        return lost
    if row.verdict == ACCURATE_ONLY and row.skill > limits.skill:
        return f"{lost}\n{number(row.skill_at_end)}{MARK}"
    return f"{lost}\n{number(row.skill)}".strip()


def _caption(parts: Sequence[Part], figure: "Figure") -> str:
    """Return the caption: the shares of similar pairs, and the meaning of the cells."""
    counts = []
    for method, of_method in grouped(parts, lambda part: part.method).items():
        n_similar = sum((part.rows.verdict == SIMILAR).sum() for part in of_method)
        counts.append(f"{n_similar} of {sum(len(part.rows) for part in of_method)} by {method}")
    cells = "accuracy drop (percentage points) above skill"
    if any(part.n_pairs > 1 for part in parts):
        cells = "shares of verdicts over pairs of networks, and the percentage similar"
    elif any(MARK in text.get_text() for axes in figure.axes for text in axes.texts):
        cells += f" ({MARK} at the end layer)"
    return f"Similar: {'; '.join(counts)}. Cells: {cells}. Rows: front layers; frames: corresponding layers."


def draw_points(path: Path, frame: "DataFrame", limits: Limits, **texts: Any) -> list[Path]:
    """Draw a scatter plot of accuracy drop against skill of stitches. Return the written paths.

    Args:
        frame: of verdicts on two networks.
        texts: `source` and `remark`, see `draw_pages`.
    """
    draw = partial(_draw_points, limits=limits)
    return draw_pages(path, [frame], draw, on_page=1, width=COLUMN, **texts)


def _draw_points(figure: "Figure", frames: "Sequence[DataFrame]", *, limits: Limits) -> str:
    """Draw stitches as points with error bars, hollow if inconclusive; return the caption."""
    (frame,) = frames
    figure.set_figheight(0.8 * figure.get_figwidth())
    axes = figure.subplots()
    _draw_plane(axes, frame, limits)
    looks = dict(zip(frame.method.unique(), METHODS * len(frame), strict=False))
    for method, rows in frame.groupby("method", sort=False):
        look = looks[method] | {"linestyle": "", "markersize": 4, "markeredgewidth": 0.6}
        axes.plot([], [], label=titles_in(method), **look)
        for row in rows.itertuples():
            lost = POINTS * row.accuracy_drop
            ends = [POINTS * row.accuracy_drop_low, POINTS * row.accuracy_drop_high]
            bars: Look = {"color": "0.45", "linewidth": 0.6, "zorder": 2}
            draw_interval(axes, "x", row.skill, ends, **bars)
            draw_interval(axes, "y", lost, [row.skill_low, row.skill_high], **bars)
            face = "white" if row.verdict == INCONCLUSIVE else look["color"]
            edge = "black" if row.verdict == INCONCLUSIVE else look["markeredgecolor"]
            axes.plot(
                lost,
                row.skill,
                **look | {"markerfacecolor": face, "markeredgecolor": edge, "zorder": 3},
            )
            if row.verdict == ACCURATE_ONLY and row.skill > limits.skill:
                axes.annotate(MARK, (lost, row.skill), (3, 1), textcoords="offset points")
    figure.legend(loc="outside lower center", ncols=2)
    return f"Stitches with 95 % intervals; hollow: inconclusive; {MARK}: skill too low at the end layer."


def _draw_plane(axes: "Axes", frame: "DataFrame", limits: Limits) -> None:
    """Shade the regions of the verdicts, and set the axes: accuracy drop, and skill at the output."""
    tolerance = POINTS * limits.tolerance
    lost = POINTS * frame.accuracy_drop.dropna()
    left, right = 1.2 * min([-1.0, *lost]), 1.2 * max([2 * tolerance, 10, *lost])
    bottom, top = min([0.0, *frame.skill.dropna()]) - 0.1, 1.05
    set_scale(axes, "x", "accuracy_drop", (left, right), tolerance)
    set_scale(axes, "y", "skill", (bottom, top), tolerance)
    axes.spines[["top", "right"]].set_visible(False)
    axes.axhline(0, color="0.4", linewidth=0.6, linestyle=":", zorder=1)
    if frame.skill.isna().all():
        axes.text(tolerance, 0.6, "skill was not measured", ha="right")
    regions = {
        SIMILAR: (left, tolerance, limits.skill, top),
        ACCURATE_ONLY: (left, tolerance, bottom, limits.skill),
        NOT_MATCHED: (tolerance, right, bottom, top),
    }
    for verdict, (x0, x1, y0, y1) in regions.items():
        axes.fill_between((x0, x1), y0, y1, color=TINTS[verdict], linewidth=0, zorder=0)
        x, y, colour = CORNERS[verdict]
        look: Look = {"ha": ("left", "right")[x], "va": ("bottom", "top")[y], "weight": "bold"}
        place = (0.02 + 0.96 * x, 0.02 + 0.96 * y)
        axes.text(*place, verdict, transform=axes.transAxes, color=colour, zorder=5, **look)
