"""Curves over ranks or layers."""

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from src.ground.console import layer_in_words
from src.ground.figures import (
    CHARACTER,
    add_legend,
    can_draw,
    capitalised,
    fit_height,
    font_size,
    head_panel,
    joined,
    letter_panel,
    letters_of,
    looks_of_lines,
    named,
    new_figure,
    wrap,
)
from src.ground.grouping import grouped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

SHARE = (0.0, 1.0)  # the possible values of accuracies and other shares
OF_PANELS = 0.85  # of the width of a figure: the panels, where they share their axes
OF_UNLIKE = 0.62  # where each has labels beside it
RATIO = 0.7  # of height and width of a panel
HEIGHT = 1.25  # of the lowest panel, in inches
MAX_COLUMNS = 4  # panels side by side
MAX_UNLIKE = 3  # panels of several quantities side by side, unless a heading has four of them

BETWEEN = 0.06  # panels with labels between them, as a share of their width
MAX_TICKS = 5  # of an axis of numbers that has a tick for each value
FAR = 5  # how often `linear_up_to` a value is far beyond it
LINEAR_PART = 0.8  # of a partly logarithmic axis from 0, in factors of 10
MARGIN = 0.3  # beside the first and the last layer, in steps of layers
ROOM = 0.04  # beside the ends of an axis of numbers, as a share of it: no marker lies on the frame
WIDE_ROOM = 0.12  # beside the ends of a horizontal axis of depths
STRONG: dict[str, Any] = {"linewidth": 1.5}
PALE: dict[str, Any] = {"linewidth": 0.7, "markersize": 2.2, "alpha": 0.65}
MARK: dict[str, Any] = {"color": "0.35", "linewidth": 1.0}  # a line across a panel
OPEN_MARKERS = "open markers: means of too few networks for an interval"
STYLES_OF_MARKS = ("--", ":", "-.")


Place = tuple[int, int]  # line and column of a panel


class Point(NamedTuple):
    """A value of a curve; NaN stands for ends that are not known."""

    value: float
    low: float = math.nan  # of its interval
    high: float = math.nan
    is_of_few: bool = False  # a mean of too few networks for an interval


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
    content: str = ""  # for the caption; "": the heading or the title, with the quantity
    marks: Mapping[str, float] = MappingProxyType({})  # lines across the panel, by label
    pale: Collection[str] = ()  # labels of lines that step back
    has_own_scale: bool = False  # its numbers compare with those of no other panel
    # The axis is logarithmic beyond this number, if values are far beyond it, see `is_logarithmic`
    linear_up_to: float = math.inf


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
    on_lines: str = "",
    definitions: str = "",
) -> None:
    """Draw panels of curves with one legend.

    Intervals are bands. Means of too few networks for an interval have open markers. Panels of one
    quantity have one vertical axis. Lines across panels are labelled beside them, or in the legend for
    a single panel and for several quantities.

    Args:
        layers: the layers in the order of the axis; empty: the curves are over numbers.
        x_range: the ends of the axis over numbers; None: the numbers are ranks of 1 and more, on a
            logarithmic axis to the base of 2.
        lines: the labels of the lines on all pages of a figure, so that a line has one look on all
            of them; empty: this is the only page.
        strong, pale: the meaning of strong and of pale lines, for the legend.
        caption: the text for below the figure.
        on_lines: sentences behind it, to go on with by the letters of the panels.
        definitions: sentences below the caption.
    """
    if not can_draw(path):
        return
    letters = letters_of(range(len(panels)))
    are_alike = len({panel.y_label for panel in panels}) == 1
    are_labelled = are_alike and len(panels) > 1
    labels = lines or lines_of(panels)
    places = _places(panels, are_alike=are_alike)
    n_lines, n_columns = (1 + max(numbers) for numbers in zip(*places, strict=True))
    layers_of_place = _layers_of(panels, places, layers)
    widths = _widths(layers_of_place, n_columns)
    text = joined(caption, on_lines, _on_panels(panels, letters), definitions=definitions)
    with new_figure(path, is_wide=n_columns > 1, title=title, caption=text) as figure:
        looks = dict(zip(labels, looks_of_lines(len(labels)), strict=True))
        em = font_size()
        looks_of_marks = _looks_of_marks(panels)
        grid = _axes_at(figure, places, widths, shares_x=not layers, shares_y=are_alike)
        room = (OF_PANELS if are_alike else OF_UNLIKE) * figure.get_figwidth() / sum(widths)
        for (line, column), panel in zip(places, panels, strict=True):
            axes = grid[line, column]
            _draw_panel(axes, panel, looks, layers_of_place[line, column], has_pale=bool(pale))
            for label, value in panel.marks.items():
                axes.axhline(value, zorder=1, **looks_of_marks[label])
            _set_range(axes, _on_scale_of(panel, panels))
            if are_labelled and (line, column + 1) not in places:
                _label_marks(axes, panel, is_last=column == n_columns - 1)
        _write_titles(grid, panels, places, letters, [room * width for width in widths])
        for place, panel in zip(places, panels, strict=True):
            if place[1] == 0 or not are_alike:
                grid[place].set_ylabel(wrap(panel.y_label, HEIGHT))
        _set_x_axes(grid, panels, layers_of_place, x_range, room=room / em)
        if are_labelled:
            looks_of_marks = {}  # their labels stand beside the panels
        add_legend(figure, _handles(panels, {**looks, **looks_of_marks}, strong=strong, pale=pale))
        ratio = RATIO * sum(widths) / len(widths) / widths[0]
        fit_height(figure, list(grid[:, 0]), lambda width: [max(HEIGHT, ratio * width)] * n_lines)
        _write_x_label(grid, x_label)


def _places(panels: Sequence[CurvePanel], *, are_alike: bool) -> list[Place]:
    """Return the place of each panel: side by side, and a heading that fits a line stays in one."""
    sizes = [
        len(list(group)) for _, group in itertools.groupby(panels, lambda panel: panel.heading)
    ]
    largest = max(sizes)
    most = MAX_COLUMNS if are_alike or largest == MAX_COLUMNS else MAX_UNLIKE
    if largest == MAX_COLUMNS and len(panels) == MAX_COLUMNS + 1:
        most += 1  # no line for a single panel
    n_columns = most
    if not 1 < largest <= most:  # lines are about equally long
        size = len(panels) if largest == 1 else largest
        n_columns = math.ceil(size / math.ceil(size / most))
    places: list[Place] = []
    line = column = 0
    for size in sizes:
        if column and column + size > n_columns:
            line += 1
            column = 0
        for _ in range(size):
            if column == n_columns:
                line += 1
                column = 0
            places.append((line, column))
            column += 1
    return places


def _layers_of(
    panels: Sequence[CurvePanel], places: Sequence[Place], layers: Sequence[str]
) -> dict[Place, list[str]]:
    """Return the layers of the axis of each panel: from the first to the last layer of its curves.

    Layers that only panels under different headings have are left out: they are of another network.

    Args:
        layers: of all panels, in their order; empty: the curves are over numbers.
    """
    of_heading: dict[str, set[str]] = {}
    for panel in panels:
        of_heading.setdefault(panel.heading, set()).update(*panel.curves.values())
    drawn = set().union(*of_heading.values())
    layers_of_place: dict[Place, list[str]] = {}
    for place, panel in zip(places, panels, strict=True):
        elsewhere = drawn - of_heading[panel.heading]
        axis = [layer for layer in layers if layer not in elsewhere]
        numbers = [axis.index(layer) for curve in panel.curves.values() for layer in curve if axis]
        layers_of_place[place] = []
        if numbers:
            layers_of_place[place] = axis[min(numbers) : max(numbers) + 1]
    return layers_of_place


def _widths(layers_of_place: Mapping[Place, Sequence[str]], n_columns: int) -> list[float]:
    """Return the width of each column in steps of layers; columns are alike over numbers."""
    widths = [0.0] * n_columns
    for (_, column), layers in layers_of_place.items():
        width = len(layers) - 1 + 2 * MARGIN if layers else 1.0
        widths[column] = max(widths[column], width)
    return widths


def _axes_at(
    figure: "Figure",
    places: Sequence[Place],
    widths: Sequence[float],
    *,
    shares_x: bool,
    shares_y: bool,
) -> np.ndarray:
    """Add axes at the places of panels; return them as a grid, with no axes elsewhere."""
    n_lines = 1 + max(line for line, _ in places)
    grid = figure.subplots(
        n_lines,
        len(widths),
        squeeze=False,
        sharex=shares_x,
        sharey=shares_y,
        width_ratios=widths,
        gridspec_kw=None if shares_y else {"wspace": BETWEEN},  # labels stand between panels
    )
    for place, axes in np.ndenumerate(grid):
        if place not in places:
            axes.remove()
    return grid


def _draw_panel(
    axes: "Axes",
    panel: CurvePanel,
    looks: Mapping[str, Mapping[str, Any]],
    layers: Sequence[str],
    *,
    has_pale: bool,
) -> None:
    """Draw the curves of a panel; pale lines lie below.

    Args:
        has_pale: a panel of the figure may have pale lines, so that all others are strong.
    """
    in_order = sorted(panel.curves, key=lambda label: label not in panel.pale)
    for label in in_order:
        look = dict(looks[label])
        if has_pale:
            look |= PALE if label in panel.pale else STRONG
        _draw(axes, panel.curves[label], look, layers)
    axes.grid()


def _draw(axes: "Axes", curve: Curve, look: Mapping[str, Any], layers: Sequence[str]) -> None:
    """Draw a curve with the band of its intervals, or with open markers."""
    points = {x: _point(value) for x, value in curve.items()}
    if layers:
        points = {layers.index(x): point for x, point in points.items()}
    xs = sorted(points)
    values, low, high, _ = zip(*(points[x] for x in xs), strict=True)
    (line,) = axes.plot(xs, values, **look)
    axes.fill_between(xs, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    if _is_open(curve):
        line.set_markerfacecolor("white")
        return
    of_few = {x: point.value for x, point in points.items() if point.is_of_few}
    if of_few:
        hollow: dict[str, Any] = {**look, "linestyle": "none", "markerfacecolor": "white"}
        axes.plot(list(of_few), list(of_few.values()), **hollow)


def _is_open(curve: Curve) -> bool:
    """Return whether all points of a curve are means of too few networks for an interval."""
    return all(_point(value).is_of_few for value in curve.values())


def _looks_of_marks(panels: Sequence[CurvePanel]) -> dict[str, dict[str, Any]]:
    """Return the looks of the lines across panels: grey, with a style for each label."""
    labels = dict.fromkeys(label for panel in panels for label in panel.marks)
    styles = itertools.cycle(STYLES_OF_MARKS)
    return {
        label: {**MARK, "linestyle": style} for label, style in zip(labels, styles, strict=False)
    }


def _label_marks(axes: "Axes", panel: CurvePanel, *, is_last: bool) -> None:
    """Label the lines across a panel, beside it.

    Args:
        is_last: it is in the last column. Elsewhere the place of the next panel has room for labels.
    """
    for label, value in panel.marks.items():
        axes.annotate(
            label,
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(2, 0),
            textcoords="offset points",
            va="center",
        ).set_in_layout(is_last)


def _write_titles(
    grid: np.ndarray,
    panels: Sequence[CurvePanel],
    places: Sequence[Place],
    letters: Mapping[int, str],
    widths: Sequence[float],
) -> None:
    """Write the titles of panels, their letters, and a heading above the first panel of a line that
    has it.

    Args:
        widths: of the columns, in inches.
    """
    heading_at = {place: panel.heading for place, panel in zip(places, panels, strict=True)}
    headed = grouped(places, lambda place: (place[0], heading_at[place]))
    n_lines = [0] * len(grid)  # of the titles in each line of panels
    for number, (line, column) in enumerate(places):
        title = wrap(panels[number].title, widths[column])
        n_lines[line] = max(n_lines[line], len(title.splitlines()))
        grid[line, column].set_title(title)
        if letters:
            letter_panel(grid[line, column], letters[number])
            n_lines[line] = max(n_lines[line], 1)  # a heading stands above the letters
    for (line, heading), of_heading in headed.items():
        if heading:
            text = wrap(heading, sum(widths[column] for _, column in of_heading))
            head_panel(grid[of_heading[0]], text, n_lines=n_lines[line])


def _set_x_axes(
    grid: np.ndarray,
    panels: Sequence[CurvePanel],
    layers_of_place: Mapping[Place, Sequence[str]],
    x_range: tuple[float, float] | None,
    *,
    room: float,
) -> None:
    """Set the ends and the ticks of the horizontal axes, with labels where no panel with the same
    axis is below.

    Args:
        room: of a step of layers, in sizes of the font.
    """
    has_values = any(not math.isnan(point.value) for point in points_of(panels))
    for (line, column), layers in layers_of_place.items():
        axes = grid[line, column]
        rotation = 0
        if layers:
            names = layers
            in_words = list(map(layer_in_words, layers))
            if _fit(in_words, room):
                names = in_words
            rotation = 0 if _fit(names, room) else 90
            axes.set_xticks(range(len(layers)), names)
            axes.set_xlim(-MARGIN, len(layers) - 1 + MARGIN)
        elif x_range is not None:
            axes.set_xlim(*_with_room(*x_range, share=WIDE_ROOM))
            numbers = {x for panel in panels for curve in panel.curves.values() for x in curve}
            if len(numbers) <= MAX_TICKS:
                axes.set_xticks(sorted(numbers))
                axes.xaxis.set_major_formatter("{x:.2g}")
        elif has_values:  # without a value there is no logarithmic axis
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
        is_labelled = layers_of_place.get((line + 1, column)) != layers
        axes.tick_params(axis="x", labelbottom=is_labelled, labelrotation=rotation)
        if line == len(grid) - 1:
            axes.set_xlabel(" ")  # leaves room for the label of all axes


def _fit(names: Sequence[str], room: float) -> bool:
    """Return whether upright names fit side by side, each in a room in sizes of the font."""
    return (1 + max(map(len, names))) * CHARACTER < room


def _write_x_label(grid: np.ndarray, x_label: str) -> None:
    """Write the label of the horizontal axes once, centred below the last line of panels."""
    first = grid[-1, 0]
    if grid.shape[1] == 1:
        first.set_xlabel(x_label)
        return
    figure = first.figure
    x = (grid[0, 0].get_position().x0 + grid[0, -1].get_position().x1) / 2
    _, y = figure.transFigure.inverted().transform(first.xaxis.label.get_window_extent().p0)
    figure.text(
        x, y, x_label, ha="center", va="bottom", size=first.xaxis.label.get_fontsize()
    ).set_in_layout(False)


def _handles(
    panels: Sequence[CurvePanel], looks: Mapping[str, Mapping[str, Any]], *, strong: str, pale: str
) -> "dict[str, Line2D]":
    """Return the handles of the legend: the lines, and the meanings of strong and pale lines."""
    from matplotlib.lines import Line2D

    labels = set(lines_of(panels)).union(*(panel.marks for panel in panels))
    handles = {label: Line2D([], [], **look) for label, look in looks.items() if label in labels}
    for label in lines_of(panels):
        if all(_is_open(panel.curves[label]) for panel in panels if label in panel.curves):
            handles[label].set_markerfacecolor("white")
    if any(panel.pale for panel in panels):
        handles[strong] = Line2D([], [], color="black", **STRONG)
        handles[pale] = Line2D(
            [], [], color="black", linewidth=PALE["linewidth"], alpha=PALE["alpha"]
        )
    return handles


def _on_panels(panels: Sequence[CurvePanel], letters: Mapping[int, str]) -> str:
    """Return the sentence of the caption on the content of each panel; "" for one panel.

    Panels under one heading have their quantities behind it, if these differ.
    """
    if not letters:
        return ""
    parts = []
    for heading, numbers in grouped(range(len(panels)), lambda n: panels[n].heading).items():
        contents = grouped(
            numbers, lambda n: panels[n].content or panels[n].title or panels[n].y_label
        )
        if heading and len({panels[number].y_label for number in numbers}) == 1:
            contents = {heading: numbers}
        elif heading:
            parts.append(f"{heading}:")
        for text, of_text in contents.items():
            parts.append(f"{named([letters[number] for number in of_text])}{text};")
    return capitalised(f"{' '.join(' '.join(parts).split()).removesuffix(';')}.")


def lines_of(panels: Iterable[CurvePanel]) -> list[str]:
    """Return the labels of the lines of panels in their order."""
    return list(dict.fromkeys(label for panel in panels for label in panel.curves))


def points_of(panels: Iterable[CurvePanel]) -> Iterator[Point]:
    """Yield the points of all curves of panels."""
    for panel in panels:
        for curve in panel.curves.values():
            yield from map(_point, curve.values())


def _on_scale_of(panel: CurvePanel, panels: Sequence[CurvePanel]) -> list[CurvePanel]:
    """Return the panels that have one vertical axis with a panel: those of its quantity."""
    if panel.has_own_scale:
        return [panel]
    return [other for other in panels if other.y_label == panel.y_label]


def _set_range(axes: "Axes", panels: Sequence[CurvePanel]) -> None:
    """Set the vertical axis to the range of panels, extended to all drawn points and marks."""
    numbers = list(panels[0].y_range)
    for point in points_of(panels):
        numbers += (point.value, point.low, point.high)
    numbers += itertools.chain(*(panel.marks.values() for panel in panels))
    drawn = list(filter(math.isfinite, numbers))
    if not drawn:
        return
    low, high = _with_room(min(drawn), max(drawn))
    if is_logarithmic(panels):
        linear_up_to = panels[0].linear_up_to
        high *= 1 + WIDE_ROOM
        axes.set_yscale("symlog", linthresh=linear_up_to, linscale=LINEAR_PART)
        ticks = {
            sign * factor * linear_up_to for sign in (-1, 1) for factor in (0, 1, 2, 4, 10, 20)
        }
        axes.set_yticks(sorted(tick for tick in ticks if low <= tick <= high))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    axes.set_ylim(low, high)


def is_logarithmic(panels: Sequence[CurvePanel]) -> bool:
    """Return whether panels of one quantity have an axis that is logarithmic beyond a number: values
    are far beyond it."""
    values = (point.value for point in points_of(panels))
    most = max((value for value in values if not math.isnan(value)), default=0.0)
    return most > FAR * panels[0].linear_up_to


def _with_room(low: float, high: float, *, share: float = ROOM) -> tuple[float, float]:
    """Return the ends of an axis beyond the ends of its values, by a share of their distance."""
    room = share * ((high - low) or 1)
    return low - room, high + room


def _point(value: Point | float) -> Point:
    return value if isinstance(value, Point) else Point(value)
