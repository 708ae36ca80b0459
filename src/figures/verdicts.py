"""Figures of verdicts: maps over pairs of layers, and scatter plots of accuracy drop against skill."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from src.core.console import layer_in_words
from src.core.grouping import grouped
from src.core.user_code import titles_in
from src.figures.maps import framed_in, map_panels, name_cells, number, shape_of, write_in_cell
from src.figures.pages import (
    CHARACTERS,
    CM,
    COLUMN,
    NUMBERS,
    Look,
    draw_figure,
    fit,
    in_lines,
    shortened,
    write_figure,
)
from src.figures.scales import LIMIT, POINTS, draw_interval, set_scale
from src.figures.sections import Part, parts_of
from src.results.reports import matrix
from src.results.tables import LAYERS
from src.verdict import ACCURATE_ONLY, INCONCLUSIVE, NOT_MATCHED, SIMILAR, Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS: dict[str, Look] = {  # of verdicts, told apart in grey as well
    SIMILAR: {"facecolor": "#2b6cb0", "edgecolor": "#2b6cb0"},
    ACCURATE_ONLY: {"facecolor": "#fbd3a2", "edgecolor": "#c98a3c", "hatch": "...."},
    INCONCLUSIVE: {"facecolor": "white", "edgecolor": "0.6", "hatch": "//////"},
    NOT_MATCHED: {"facecolor": "0.8", "edgecolor": "0.8"},
}
TINTS = {SIMILAR: "#8fbfe8", ACCURATE_ONLY: "#fbd3a2", NOT_MATCHED: "#ededed"}  # behind points
CORNERS: dict[str, tuple[tuple[float, float], Look]] = {  # of the points, where a verdict stands
    SIMILAR: ((0.02, 0.98), {"ha": "left", "va": "top", "color": "#0b3d6e"}),
    ACCURATE_ONLY: ((0.02, 0.02), {"ha": "left", "va": "bottom", "color": "#7a4300"}),
    NOT_MATCHED: ((0.98, 0.98), {"ha": "right", "va": "top", "color": "#555555"}),
}
METHODS: tuple[Look, ...] = (  # in turn dark and light, for print in grey
    {"color": "#08407f", "markeredgecolor": "white", "marker": "o"},
    {"color": "#ff8fbf", "markeredgecolor": "#5c0a2e", "marker": "D"},
    {"color": "#1b6e3c", "markeredgecolor": "white", "marker": "^"},
    {"color": "#ffd84d", "markeredgecolor": "#5c4300", "marker": "s"},
)
INKS = {SIMILAR: "white"}  # of numbers on the colours of verdicts; others are black
HOLLOW: dict[str, Look] = {INCONCLUSIVE: {"markerfacecolor": "white", "markeredgecolor": "black"}}
BARS: Look = {"color": "0.45", "linewidth": 0.6, "zorder": 2}
BORDER: Look = {"edgecolor": "0.5", "linewidth": 0.4, "zorder": 2}
FRAME: Look = {"edgecolor": "black", "linewidth": 1, "zorder": 3}
MARK = "†"  # behind a skill at the end layer
ROOM = 1.8  # cm of width, for a map at least
CELL = 0.45  # cm of width, for a cell at least
IN_LINE = 4  # maps
WIDE = 0.5  # of a cell, for a number at least
ARROW = " → "
X_TITLE = "end layer"


class Item(NamedTuple):
    """A map of verdicts with the texts around it; the maps of a row have equal titles of their axes."""

    rows: pd.DataFrame
    y_title: str
    title: str
    x_title: str = X_TITLE


def draw_verdicts(path: Path, frame: pd.DataFrame, limits: Limits, **texts: Any) -> list[Path]:
    """Draw a map of layers for each method and pair of networks or of groups. Return the written paths.

    Args:
        frame: of verdicts.
        texts: `source` and `remark`, see `write_figure`.
    """
    parts, repeated = distinct_parts(parts_of(frame))
    texts["remark"] = " ".join(filter(None, [repeated, texts.get("remark", "")]))
    draw = partial(_draw_maps, limits=limits)
    return write_figure(path, parts, draw, width=COLUMN, **texts)


def figure_of_verdicts(frame: pd.DataFrame, limits: Limits, *, source: str = "") -> "Figure":
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
        verdicts = pd.concat(part.rows for part in of_method)[["networks", *LAYERS, "verdict"]]
        key = frozenset(verdicts.itertuples(index=False, name=None))
        first = first_of.setdefault(key, method)
        if first == method:
            kept += of_method
        else:
            sentences.append(f"All verdicts by {method} are those by {first}.")
    return kept, " ".join(sentences)


def _draw_maps(figure: "Figure", parts: Sequence[Part], *, limits: Limits) -> str:
    """Draw maps in rows, under the colours of the verdicts. Return the caption."""
    room = figure.get_figwidth() / CM - _width_of_names(parts)
    lines = _lines_of(parts, room)
    in_line = max(map(len, lines))
    width = room / in_line - 0.2  # of a map, nearly
    shapes: list[tuple[int, int]] = [matrix(line[0].rows, "skill").shape for line in lines]
    above: list[str] = []
    panels = map_panels(figure, shapes, in_line)
    for line, shape, axes_of_line in zip(lines, shapes, panels, strict=True):
        titles = [in_lines(item.title, width) for item in line]
        for place, (item, axes) in enumerate(zip(line, axes_of_line, strict=False)):
            _draw_map(axes, item.rows, limits)
            if item.x_title != X_TITLE or line is lines[-1]:
                axes.set_xlabel(in_lines(item.x_title, width))
            elif len(line) == len(lines[-1]):
                axes.set_xticks([])
            if titles != above:
                axes.set_title(titles[place])
            if place:
                axes.set_yticks([])
        height = width * shape_of(*shape, width)
        axes_of_line[0].set_ylabel(in_lines(line[0].y_title, height))
        for axes in axes_of_line[len(line) :]:
            axes.remove()
        above = titles
    add_legend_of_verdicts(figure)
    fit(figure)  # which removes numbers without room
    return _caption(parts, figure)


def add_legend_of_verdicts(figure: "Figure") -> None:
    """Add the colours of the verdicts above all panels."""
    from matplotlib.patches import Patch

    figure.legend(
        handles=[Patch(label=verdict, **look) for verdict, look in LOOKS.items()],
        loc="outside upper center",
        ncols=len(LOOKS),
        handlelength=1,
        columnspacing=0.8,
        handletextpad=0.3,
    )


def _lines_of(parts: Sequence[Part], room: float) -> list[list[Item]]:
    """Return the maps in rows: a row for each method, or for each pair of networks with different layers; of
    several groups a row for each front group. Rows without room for all their maps are divided.

    Args:
        room: the width of a row in cm.
    """
    pairs = {part.pair for part in parts}
    ends = list(dict.fromkeys(part.pair.split(ARROW)[-1] for part in parts))
    shapes = {matrix(part.rows, "skill").shape for part in parts}
    n = len(ends)
    if n > 2 and len(pairs) == n**2 and len(shapes) == 1 and room > ROOM * n:
        in_order = sorted(parts, key=lambda part: ends.index(part.pair.split(ARROW)[-1]))
        items = [_with_front(part, has_method=len(parts) > len(pairs)) for part in in_order]
    else:
        is_by_pair = len(pairs) == 1 or len(shapes) > 1
        items = [_with_titles(part, is_by_pair=is_by_pair) for part in parts]
        n = max(1, min(IN_LINE, int(room / _width_of_map(items))))
    by_line = grouped(items, lambda item: (item.y_title, item.x_title)).values()
    return [line[start : start + n] for line in by_line for start in range(0, len(line), n)]


def _width_of_names(parts: Sequence[Part]) -> float:
    """Return the width in cm of the longest name of a layer."""
    layers = chain.from_iterable(part.rows[LAYERS].to_numpy().ravel() for part in parts)
    return max(len(shortened(name)) for name in layers) / CHARACTERS


def _width_of_map(items: Sequence[Item]) -> float:
    """Return the width in cm that a map needs for its cells and for the words of its title."""
    words = chain.from_iterable(item.title.split() for item in items)
    longest = max(len(shortened(word)) for word in words)
    n_columns = max(item.rows.end_layer.nunique() for item in items)
    return max(ROOM, CELL * n_columns, (longest + 4) / CHARACTERS + 0.4)


def _with_front(part: Part, *, has_method: bool) -> Item:
    """Return the map of a part in the row of its front group, and of its method if there are several."""
    front, _, end = part.pair.partition(ARROW)
    row = f"{part.method} from {front}" if has_method else f"from {front}"
    return Item(part.rows, row, f"into {end}")


def _with_titles(part: Part, *, is_by_pair: bool) -> Item:
    """Return the map of a part in the row of its pair of networks or of its method."""
    front, arrow, end = part.pair.partition(ARROW)
    number = f" ({part.n_pairs})" if part.n_pairs > 1 else ""
    if not is_by_pair:
        return Item(part.rows, part.method, f"{part.pair}{number}")
    if number or not arrow:
        return Item(part.rows, part.pair, f"{part.method}{number}")
    return Item(part.rows, f"from layer of {front}", part.method, f"into layer of {end}")


def _draw_map(axes: "Axes", rows: pd.DataFrame, limits: Limits) -> None:
    """Draw the cells of a map: shares of verdicts with the percentage of similar pairs, or the accuracy drop
    and skill of a single stitch."""
    order = matrix(rows, "skill")
    framed = framed_in(rows)
    name_cells(axes, *(list(map(shortened, map(layer_in_words, names))) for names in order.axes))
    for (front, end), of_cell in rows.groupby(LAYERS, sort=False):
        x = order.columns.get_loc(end)
        y = order.index.get_loc(front)
        shares = of_cell.verdict.value_counts(normalize=True)
        _draw_shares(axes, x, y, shares, (front, end) in framed)
        if rows.networks.nunique() == 1:
            row = of_cell.iloc[0]
            behind = LOOKS[row.verdict]["facecolor"]
            ink = INKS.get(row.verdict, "black")
            write_in_cell(axes, x, y, text_of(row, limits), behind=behind, color=ink)
        elif SIMILAR in shares:
            _write_share(axes, x, y, shares[SIMILAR])


def _draw_shares(axes: "Axes", x: int, y: int, shares: pd.Series, is_framed: bool) -> None:
    """Draw the shares of verdicts as strips of a cell, in a black frame or in a border."""
    from matplotlib.patches import Rectangle

    left = x - 0.5
    for verdict, look in LOOKS.items():
        share = shares.get(verdict, 0.0)
        axes.add_patch(Rectangle((left, y - 0.5), share, 1, linewidth=0, **look))
        left += share
    border = FRAME if is_framed else BORDER
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, **border))


def _write_share(axes: "Axes", x: int, y: int, share: float) -> None:
    """Write the percentage of similar pairs into their strip if that is wide enough, else behind the strip."""
    text = f"{100 * share:.0f}"
    if share >= WIDE:
        blue = LOOKS[SIMILAR]["facecolor"]
        write_in_cell(axes, x - 0.5 + share / 2, y, text, behind=blue, color="white")
    else:
        write_in_cell(axes, x + share / 2, y, text, behind="white", color="black")


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
    numbers = [
        text.get_text() for axes in figure.axes for text in axes.texts if text.get_gid() == NUMBERS
    ]
    cells = ""
    if any(part.n_pairs > 1 for part in parts):
        cells = " Cells: shares of verdicts over pairs of networks, and the percentage similar."
    elif numbers:
        at_end = f" ({MARK} at the end layer)" if MARK in "".join(numbers) else ""
        cells = f" Cells: accuracy drop (percentage points) above skill{at_end}."
    return f"Similar: {'; '.join(counts)}.{cells} Rows: front layers; frames: corresponding layers."


def draw_points(path: Path, frame: pd.DataFrame, limits: Limits, **texts: Any) -> list[Path]:
    """Draw a scatter plot of accuracy drop against skill of stitches. Return the written paths.

    Args:
        frame: of verdicts on two networks.
        texts: `source` and `remark`, see `write_figure`.
    """
    draw = partial(_draw_points, limits=limits)
    return write_figure(path, [frame], draw, width=COLUMN, **texts)


def _draw_points(figure: "Figure", frames: Sequence[pd.DataFrame], *, limits: Limits) -> str:
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
            draw_interval(axes, "x", row.skill, ends, **BARS)
            draw_interval(axes, "y", lost, [row.skill_low, row.skill_high], **BARS)
            axes.plot(lost, row.skill, zorder=3, **look | HOLLOW.get(row.verdict, {}))
            if row.verdict == ACCURATE_ONLY and row.skill > limits.skill:
                axes.annotate(MARK, (lost, row.skill), (3, 1), textcoords="offset points")
    figure.legend(loc="outside lower center", ncols=2)
    return (
        f"Stitches with 95 % intervals; hollow: inconclusive; {MARK}: skill too low at the end layer. Axes are "
        f"logarithmic below a skill of −1 and beyond accuracy drops of ±{max(POINTS * limits.tolerance, 1):g}."
    )


def _draw_plane(axes: "Axes", frame: pd.DataFrame, limits: Limits) -> None:
    """Shade the regions of the verdicts, and set the axes: accuracy drop, and skill at the output."""
    tolerance = POINTS * limits.tolerance
    lost = POINTS * frame.accuracy_drop.dropna()
    left = 1.2 * min([-1.0, *lost])
    right = 1.2 * max([2 * tolerance, 10, *lost])
    bottom = 1.2 * min([0.0, *frame.skill.dropna()]) - 0.1
    top = 1.05
    set_scale(axes, "x", "accuracy_drop", (left, right), tolerance)
    set_scale(axes, "y", "skill", (bottom, top), tolerance)
    axes.spines[["top", "right"]].set_visible(False)
    axes.axhline(0, **LIMIT)
    if frame.skill.isna().all():
        axes.text(tolerance, 0.6, "skill was not measured", ha="right")
    regions = {
        SIMILAR: (left, tolerance, limits.skill, top),
        ACCURATE_ONLY: (left, tolerance, bottom, limits.skill),
        NOT_MATCHED: (tolerance, right, bottom, top),
    }
    for verdict, (x0, x1, y0, y1) in regions.items():
        axes.fill_between((x0, x1), y0, y1, color=TINTS[verdict], linewidth=0, zorder=0)
        place, look = CORNERS[verdict]
        axes.text(*place, verdict, transform=axes.transAxes, weight="bold", zorder=5, **look)
