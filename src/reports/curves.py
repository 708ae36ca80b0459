"""Curves over ranks or layers."""

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from src.ground.grouping import grouped
from src.reports.figures import (
    CHARACTER,
    add_legend,
    can_draw,
    fit_height,
    font_size,
    head_panel,
    letter_panel,
    letters_of,
    looks_of_lines,
    named,
    new_figure,
    wrap,
)

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

SHARE = (0.0, 1.0)  # the possible values of accuracies and other shares
RATIO = 0.7  # of height and width of a panel
MAX_COLUMNS = 4  # panels side by side
MAX_UNLIKE = 3  # panels of several quantities side by side, unless a heading has four of them

MARGIN = 0.3  # beside the first and the last layer, in steps of layers
ROOM = 0.04  # beside the ends of an axis of numbers, as a share of it: no marker lies on the frame
STRONG: dict[str, Any] = {"linewidth": 1.5}
PALE: dict[str, Any] = {"linewidth": 0.6, "markersize": 2.2, "alpha": 0.5}
MARKS = ("-", ":", "--")  # styles of the lines across a panel


class Point(NamedTuple):
    """A value of a curve; NaN stands for ends that are not known."""

    value: float
    low: float = math.nan  # of its interval
    high: float = math.nan
    lowest: float = math.nan  # of the single values that it is the mean of
    highest: float = math.nan


# By rank, by layer or by another number; NaN leaves a gap
Curve = Mapping[Any, Point | float]


class CurvePanel(NamedTuple):
    """Curves over the same axes."""

    curves: Mapping[str, Curve]  # by label
    y_label: str
    # The axis reaches from end to end, and to all values beyond; an infinite end fits the curves
    y_range: tuple[float, float] = SHARE
    title: str = ""
    heading: str = ""  # of this panel and of neighbours with an equal one, above their titles
    marks: Mapping[str, float] = MappingProxyType({})  # lines across the panel, by label
    pale: Collection[str] = ()  # labels of lines that step back


def curves(
    path: Path,
    panels: Sequence[CurvePanel],
    *,
    x_label: str,
    layers: Sequence[str] = (),
    x_range: tuple[float, float] | None = None,
    lines: Sequence[str] = (),
    strong: str = "",
    pale: str = "",
    title: str = "",
    caption: str = "",
) -> None:
    """Draw panels of curves with one legend.

    Intervals are bands. A mean without an interval has an open marker, and a bar from the lowest to
    the highest of its values. Panels of one quantity share their axes.

    Args:
        layers: the layers in the order of the axis; empty: the curves are over numbers.
        x_range: the ends of the axis over numbers; None: the numbers are ranks of 1 and more, on a
            logarithmic axis to the base of 2.
        lines: the labels of the lines on all pages of a figure, so that a line has one look on all
            of them; empty: this is the only page.
        strong, pale: the meaning of strong and of pale lines, for the legend.
        caption: the text for below the figure, to go on with by the letters of the panels.
    """
    if not can_draw(path):
        return
    letters = letters_of(range(len(panels)))
    are_alike = len({panel.y_label for panel in panels}) == 1
    n_columns = _columns(panels, are_alike=are_alike)
    n_lines = math.ceil(len(panels) / n_columns)
    spans = _spans(panels, n_columns, layers)
    widths = [last - first + 2 * MARGIN for first, last in spans]
    labels = lines or lines_of(panels)
    text = f"{caption} {_on_panels(panels, letters)}".strip()
    with new_figure(path, is_wide=n_columns > 1, title=title, caption=text) as figure:
        looks = dict(zip(labels, itertools.cycle(looks_of_lines()), strict=False))
        em = font_size()
        grid = figure.subplots(
            n_lines,
            n_columns,
            squeeze=False,
            sharex="col" if layers else True,
            sharey=are_alike,
            width_ratios=widths,
        )
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        room = 0.85 * figure.get_figwidth() / sum(widths)
        for number, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
            _draw_panel(axes, panel, looks, layers)
            _set_range(axes, panels if are_alike else [panel])
            is_last = number % n_columns == n_columns - 1 or number == len(panels) - 1
            _label_marks(axes, panel, is_beside=are_alike, is_last=is_last)
        _write_titles(grid, panels, letters, [room * width for width in widths])
        step = n_columns if are_alike else 1  # alike: the first panel of each line is labelled
        for axes, panel in zip(grid.flat[::step], panels[::step], strict=False):
            axes.set_ylabel(wrap(panel.y_label, RATIO * figure.get_figwidth() / n_columns))
        _set_x_axes(grid, panels, spans, layers, x_range, room=room / em)
        add_legend(figure, _handles(panels, looks, strong=strong, pale=pale))
        ratio = RATIO * sum(widths) / len(widths) / widths[0]
        fit_height(figure, list(grid[:, 0]), lambda width: [ratio * width] * n_lines)
        _write_x_label(grid, len(panels), x_label)


def _columns(panels: Sequence[CurvePanel], *, are_alike: bool) -> int:
    """Return how many panels stand side by side: a line has whole headings if they are of equally
    many panels."""
    sizes = {
        len(list(group)) for _, group in itertools.groupby(panels, lambda panel: panel.heading)
    }
    size = max(sizes)
    if len(sizes) == 1 < size <= MAX_COLUMNS < len(panels):
        return size * (MAX_COLUMNS // size)
    most = MAX_COLUMNS if are_alike or size == MAX_COLUMNS else MAX_UNLIKE
    n_lines = math.ceil(len(panels) / most)
    return most if size == MAX_COLUMNS else math.ceil(len(panels) / n_lines)


def _spans(
    panels: Sequence[CurvePanel], n_columns: int, layers: Sequence[str]
) -> list[tuple[int, int]]:
    """Return the first and the last layer of each column of panels; columns are alike over numbers."""
    if not layers:
        return [(0, 1)] * n_columns
    spans = []
    for column in range(n_columns):
        places = [
            layers.index(layer)
            for panel in panels[column::n_columns]
            for curve in panel.curves.values()
            for layer in curve
        ]
        spans.append((min(places), max(places)))
    return spans


def _draw_panel(
    axes: "Axes", panel: CurvePanel, looks: Mapping[str, Mapping[str, Any]], layers: Sequence[str]
) -> None:
    """Draw the curves of a panel, and the lines across it; pale lines lie below."""
    in_order = sorted(panel.curves, key=lambda label: label not in panel.pale)
    for label in in_order:
        look = dict(looks[label])
        if panel.pale:
            look |= PALE if label in panel.pale else STRONG
        _draw(axes, panel.curves[label], look, layers, has_band=label not in panel.pale)
    for style, value in zip(MARKS, panel.marks.values(), strict=False):
        axes.axhline(value, color="black", linewidth=0.8, linestyle=style, zorder=1)
    axes.grid()


def _draw(
    axes: "Axes", curve: Curve, look: Mapping[str, Any], layers: Sequence[str], *, has_band: bool
) -> None:
    """Draw a curve with the band of its intervals, or else with bars over its single values."""
    points = {layers.index(x) if layers else x: _point(value) for x, value in curve.items()}
    xs = sorted(points)
    values, low, high, lowest, highest = zip(*(points[x] for x in xs), strict=True)
    (line,) = axes.plot(xs, values, **look)
    colour = line.get_color()
    if has_band:
        axes.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
    if all(map(math.isnan, low)) and not all(map(math.isnan, lowest)):
        line.set_markerfacecolor("white")
        axes.vlines(xs, lowest, highest, color=colour, alpha=0.4, linewidth=1.5)


def _label_marks(axes: "Axes", panel: CurvePanel, *, is_beside: bool, is_last: bool) -> None:
    """Label the lines across a panel: beside the last panel of a line, or inside of each."""
    middle = sum(axes.get_ylim()) / 2
    for label, value in panel.marks.items():
        if is_beside and is_last:
            _write(axes, label, (1, value), offset=(2, 0), va="center")
        elif not is_beside and value < middle:
            _write(axes, label, (0, value), offset=(2, 1), va="bottom")
        elif not is_beside:
            _write(axes, label, (0, value), offset=(2, -2), va="top")


def _write(
    axes: "Axes", text: str, place: tuple[float, float], *, offset: tuple[int, int], va: str
) -> None:
    """Write a text at a share of the width of a panel and a value, moved by points."""
    axes.annotate(
        text,
        place,
        xycoords=("axes fraction", "data"),
        xytext=offset,
        textcoords="offset points",
        va=va,
    )


def _write_titles(
    grid: "np.ndarray",
    panels: Sequence[CurvePanel],
    letters: Mapping[int, str],
    widths: Sequence[float],
) -> None:
    """Write the titles of panels, their letters, and a heading above the first panel that has it.

    Args:
        widths: of the columns, in inches.
    """
    n_columns = grid.shape[1]
    for start in range(0, len(panels), n_columns):
        line = panels[start : start + n_columns]
        titles = [wrap(panel.title, width) for panel, width in zip(line, widths, strict=False)]
        n_lines = max(len(text.splitlines()) for text in titles)
        column = 0
        for heading, group in itertools.groupby(line, lambda panel: panel.heading):
            n_panels = len(list(group))
            if heading:
                span = sum(widths[column : column + n_panels])
                head_panel(grid[start // n_columns, column], wrap(heading, span), n_lines=n_lines)
            column += n_panels
        for number, text in enumerate(titles, start=start):
            grid.flat[number].set_title(text)
            if letters:
                letter_panel(grid.flat[number], letters[number])


def _set_x_axes(
    grid: "np.ndarray",
    panels: Sequence[CurvePanel],
    spans: Sequence[tuple[int, int]],
    layers: Sequence[str],
    x_range: tuple[float, float] | None,
    *,
    room: float,
) -> None:
    """Set the ends and the ticks of the horizontal axes, with labels where no panel is below.

    Args:
        room: of a step of layers, in sizes of the font.
    """
    n_columns = grid.shape[1]
    longest = (1 + max(map(len, layers), default=0)) * CHARACTER
    rotation = 0 if not layers or longest < room else 90
    has_values = any(not math.isnan(point.value) for point in points_of(panels))
    for column, (first, last) in enumerate(spans):
        axes = grid[0, column]
        if layers:
            axes.set_xticks(range(first, last + 1), layers[first : last + 1])
            axes.set_xlim(first - MARGIN, last + MARGIN)
        elif x_range is not None:
            axes.set_xlim(*_with_room(*x_range))
        elif has_values:  # without a value there is no logarithmic axis
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
    for axes in grid.flat[max(0, len(panels) - n_columns) : len(panels)]:
        axes.tick_params(axis="x", labelbottom=True, labelrotation=rotation)
    for axes in grid.flat[(len(panels) - 1) // n_columns * n_columns : len(panels)]:
        axes.set_xlabel(" ")  # leaves room for the label of all axes


def _write_x_label(grid: "np.ndarray", n_panels: int, x_label: str) -> None:
    """Write the label of the horizontal axes once, centred below the last line of panels."""
    start = (n_panels - 1) // grid.shape[1] * grid.shape[1]
    axes = grid.flat[start]
    if start == n_panels - 1:
        axes.set_xlabel(x_label)
        return
    figure = axes.figure
    x = (axes.get_position().x0 + grid.flat[n_panels - 1].get_position().x1) / 2
    _, y = figure.transFigure.inverted().transform(axes.xaxis.label.get_window_extent().p0)
    figure.text(
        x, y, x_label, ha="center", va="bottom", size=axes.xaxis.label.get_size()
    ).set_in_layout(False)


def _handles(
    panels: Sequence[CurvePanel], looks: Mapping[str, Mapping[str, Any]], *, strong: str, pale: str
) -> "dict[str, Line2D]":
    """Return the handles of the legend: the lines, and what strong and pale lines mean."""
    from matplotlib.lines import Line2D

    handles = {label: Line2D([], [], **looks[label]) for label in lines_of(panels)}
    if any(panel.pale for panel in panels):
        handles[strong] = Line2D([], [], color="black", **STRONG)
        handles[pale] = Line2D(
            [], [], color="black", linewidth=PALE["linewidth"], alpha=PALE["alpha"]
        )
    return handles


def _on_panels(panels: Sequence[CurvePanel], letters: Mapping[int, str]) -> str:
    """Return the sentence of the caption on what stands in which panel; "" for one panel."""
    if not letters:
        return ""

    def content(number: int) -> str:
        panel = panels[number]
        return panel.heading or panel.title or panel.y_label

    parts = []
    for text, numbers in grouped(range(len(panels)), content).items():
        parts.append(f"{named([letters[number] for number in numbers])}{' '.join(text.split())}")
    return f"{'; '.join(parts)}."


def lines_of(panels: Iterable[CurvePanel]) -> list[str]:
    """Return the labels of the lines of panels in their order."""
    return list(dict.fromkeys(label for panel in panels for label in panel.curves))


def points_of(panels: Iterable[CurvePanel]) -> Iterator[Point]:
    """Yield the points of all curves of panels."""
    for panel in panels:
        for curve in panel.curves.values():
            yield from map(_point, curve.values())


def _set_range(axes: "Axes", panels: Sequence[CurvePanel]) -> None:
    """Let the vertical axis reach over the range of panels, and over all that is drawn in them."""
    numbers = [*panels[0].y_range, *itertools.chain(*points_of(panels))]
    numbers += itertools.chain(*(panel.marks.values() for panel in panels))
    drawn = list(filter(math.isfinite, numbers))
    if drawn:
        axes.set_ylim(*_with_room(min(drawn), max(drawn)))


def _with_room(low: float, high: float) -> tuple[float, float]:
    """Return the ends of an axis beyond the ends of its values."""
    room = ROOM * ((high - low) or 1)
    return low - room, high + room


def _point(value: Point | float) -> Point:
    return value if isinstance(value, Point) else Point(value)
