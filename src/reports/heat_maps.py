"""Heat maps over two axes, such as front and end layers, with the values written into the cells."""

import itertools
import math
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from src.ground.console import listed
from src.ground.figure_files import page_of, remove_figure
from src.reports.figures import (
    CHARACTER,
    add_legend,
    can_draw,
    fit_height,
    font_size,
    new_figure,
    styled,
    wrap,
)
from src.reports.map_layout import SMALL_CELL, Layout, Page, Panels, layout_of, pages_of
from src.reports.map_panels import BLANK, ClassMap, HeatMap, frame, outline
from src.tables.matrices import Matrix

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

# Heights of cells, in sizes of the font
LARGE_CELL = 3.7  # as high as wide, at most
NUMBER_CELL = 1.8  # with a number, at least
HEIGHT_OF_ROWS = 0.7  # the height of all rows in widths of the figure, if cells can be so low

DIGITS = 6  # of numbers that are compared with the ends of scales


class Labels(NamedTuple):
    """The meaning of the axes of heat maps."""

    rows: str
    columns: str
    blank: str = "no value"  # the meaning of cells without a value, for the legend
    framed: Collection[tuple[str, str]] = ()  # rows and columns of cells, of layers that correspond


def maps(
    path: Path, experiments: Panels, *, labels: Labels, title: str = "", caption: str = ""
) -> bool:
    """Write heat maps to a path, unless figures are left out; return whether they were drawn.

    What does not fit a page goes on in `NAME_2.png` and so on.

    Args:
        experiments, labels, caption: as in `maps_figure`.
    """
    if not can_draw(path):
        return False
    with styled():
        layout = layout_of(experiments)
        pages = pages_of(experiments, layout)
    remove_figure(path, start=len(pages) + 1)
    for number, page in enumerate(pages, start=1):
        text = caption
        if len(pages) > 1:
            text = f"{caption} Page {number} of {len(pages)}.".strip()
        _draw(page_of(path, number), page, layout, labels=labels, title=title, caption=text)
    return True


def maps_figure(experiments: Panels, *, labels: Labels, caption: str = "") -> "Figure":
    """Return a figure of heat maps, and a legend of the classes.

    Several quantities of several experiments have a line of panels each, with a column for each
    experiment. Otherwise the panels go on in the next line where a line is full.

    Args:
        experiments: panels by quantity, by experiment. Axes keep the order of the matrix.
        caption: the text for below the figure, to go on with behind a sentence on the axes.
    """
    with styled():
        layout = layout_of(experiments)
        n_experiments = len(experiments) if layout.is_table else layout.n_columns
        layout = layout._replace(n_columns=n_experiments)
        (page,) = pages_of(experiments, layout, max_lines=sum(map(len, experiments.values())))
    return _draw(None, page, layout, labels=labels, title="", caption=caption)


def _draw(
    path: Path | None, page: Page, layout: Layout, *, labels: Labels, title: str, caption: str
) -> "Figure":
    """Draw a page of a figure."""
    caption = _caption(page, layout, labels, caption)
    n_rows, n_columns = _sizes(page)
    width_of_cell = layout.room * len(n_columns) / sum(n_columns)
    with new_figure(path, is_wide=layout.is_wide, title=title, caption=caption) as figure:
        grid = figure.subplots(
            len(n_rows), len(n_columns), squeeze=False, height_ratios=n_rows, width_ratios=n_columns
        )
        for place, axes in np.ndenumerate(grid):
            if place in page:
                own_room = width_of_cell * n_columns[place[1]]
                _draw_panel(axes, page, place, layout._replace(room=own_room), labels)
            else:
                axes.remove()
        if layout.is_table:
            figure.supylabel(labels.rows)
        _explain_colours(figure, grid, page, layout)
        add_legend(figure, _handles(page, labels.blank), handlelength=1.4, columnspacing=1)

        def heights(width: float) -> list[float]:
            height = min(width / n_columns[0], HEIGHT_OF_ROWS * figure.get_figwidth() / sum(n_rows))
            lowest = (NUMBER_CELL if layout.has_numbers else SMALL_CELL) * font_size()
            height = np.clip(height, lowest, LARGE_CELL * font_size())
            return [height * n for n in n_rows]

        fit_height(figure, list(grid[:, 0]), heights)
    return figure


def _sizes(page: Page) -> tuple[list[int], list[int]]:
    """Return the most rows of cells in each line of panels, and the most columns of cells in each
    column of panels."""
    n_rows: dict[int, int] = {}
    n_columns: dict[int, int] = {}
    for (line, column), place in sorted(page.items()):
        n_rows[line] = max(n_rows.get(line, 0), len(place.panel.matrix.rows))
        n_columns[column] = max(n_columns.get(column, 0), len(place.panel.matrix.columns))
    return list(n_rows.values()), [n_columns[column] for column in sorted(n_columns)]


def _draw_panel(
    axes: "Axes", page: Page, place: tuple[int, int], layout: Layout, labels: Labels
) -> None:
    """Draw a panel, with titles and names where no neighbour has them."""
    line, column = place
    panel, title, label = page[place]
    matrix = panel.matrix
    BLANK.on(axes.patch)
    norm = None
    if isinstance(panel, HeatMap):
        norm = panel.norm(layout.numbers[panel.look])
    panel.paint(axes, norm, has_numbers=layout.has_numbers)
    for row, end in _framed(matrix, labels):
        frame(axes, matrix.columns.index(end), matrix.rows.index(row))

    longest = CHARACTER * max(map(len, matrix.columns))
    has_room = longest < layout.room / len(matrix.columns) - 1
    rotation = 0 if has_room else 90
    axes.set_xticks(range(len(matrix.columns)), matrix.columns, rotation=rotation)
    axes.set_yticks(range(len(matrix.rows)), matrix.rows)
    axes.tick_params(length=0)  # a tick beside a number looks like its sign
    left = page.get((line, column - 1))
    if left and left.panel.matrix.rows == matrix.rows:
        axes.tick_params(labelleft=False)
    else:
        height = NUMBER_CELL * len(matrix.rows) * font_size()
        axes.set_ylabel(wrap(label, height) if layout.is_table else labels.rows)
    below = page.get((line + 1, column))
    if below and below.panel.matrix.columns == matrix.columns:
        axes.tick_params(labelbottom=False)
    else:
        axes.set_xlabel(labels.columns)
    above = page.get((line - 1, column))
    if above is None or above.title != title:
        axes.set_title(wrap(title, layout.room * font_size()))


def _framed(matrix: Matrix, labels: Labels) -> list[tuple[str, str]]:
    """Return the row and the column of each cell of a matrix that has a frame."""
    cells = set(itertools.product(matrix.rows, matrix.columns))
    return [cell for cell in labels.framed if cell in cells]


def _explain_colours(figure: "Figure", grid: "np.ndarray", page: Page, layout: Layout) -> None:
    """Draw bars of colours: in a table on the right of each line, otherwise below; neighbours of one
    look share a bar. Bright is above or right."""
    heat_maps = {
        place: content.panel
        for place, content in page.items()
        if isinstance(content.panel, HeatMap)
    }
    are_alike = len({content.panel.look for content in page.values()}) == 1
    is_right = layout.is_table

    def neighbours(place: tuple[int, int]) -> tuple[int, str]:
        line, _ = place
        look = heat_maps[place].look
        return (0, look) if are_alike else (line, look)

    for _, group in itertools.groupby(sorted(heat_maps), neighbours):
        places = list(group)
        n_columns = 1 + max(column for _, column in places) - min(column for _, column in places)
        numbers = [number for place in places for number in heat_maps[place].numbers]
        image = grid[places[0]].images[0]
        bar = figure.colorbar(
            image,
            ax=[grid[place] for place in places],
            location="right" if is_right else "bottom",
            extend=_beyond(numbers, *image.get_clim()),
            extendfrac=0.06,
            aspect=14 if is_right else 0.9 * layout.room,  # one line of text thick
            shrink=1 if is_right else 0.9 / n_columns,
            pad=0.02,
        )
        _label_bar(bar, heat_maps[places[0]])
        if not is_right:
            bar.set_label(page[places[0]].label)


def _beyond(numbers: Iterable[float], low: float, high: float) -> str:
    """Return the ends of a scale that numbers lie beyond, as matplotlib names them; the bar has a
    point there."""
    ends = {"min" for number in numbers if round(number, DIGITS) < low}
    ends |= {"max" for number in numbers if round(number, DIGITS) > high}
    if len(ends) == 2:
        return "both"
    return ends.pop() if ends else "neither"


def _label_bar(bar: "Colorbar", panel: HeatMap) -> None:
    """Label the ends of a bar and its middle, or a mark at the limit instead, and put bright above or
    right."""
    low, high = bar.mappable.get_clim()
    middle = (low + high) / 2
    is_upright = bar.orientation == "vertical"
    if low < panel.limit < high:
        middle = panel.limit
        mark = bar.ax.axhline if is_upright else bar.ax.axvline
        outline(mark(middle))
    ticks = [low, middle, high]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    dark, bright = panel.scale
    if dark > bright:
        (bar.ax.yaxis if is_upright else bar.ax.xaxis).set_inverted(True)


def _handles(page: Page, blank: str) -> "dict[str, Artist]":
    """Return the handles of the legend: classes, and cells without a value if there are any."""
    from matplotlib.patches import Patch

    handles: dict[str, Artist] = {}
    panels = [place.panel for place in page.values()]
    for panel in panels:
        if isinstance(panel, ClassMap):
            handles |= {name: sign.on(Patch()) for name, sign in panel.signs.items()}
    if any(panel.has_blanks for panel in panels):
        handles[blank] = BLANK.on(Patch())
    return handles


def _on_scales(page: Page) -> Iterator[str]:
    """Yield the sentences of the caption on turned scales, and on marks."""
    panels = {
        place.label or place.title or "the values": place.panel
        for place in page.values()
        if isinstance(place.panel, HeatMap)
    }
    turned = [name for name, panel in panels.items() if panel.scale[0] > panel.scale[1]]
    if turned:
        yield f"Bright is similar; scales that are turned: {'; '.join(turned)}."
    limits = {name: panel.limit for name, panel in panels.items() if not math.isnan(panel.limit)}
    if limits:
        marks = listed(f"{limit:g} ({name})" for name, limit in limits.items())
        yield f"Marked on the scales: {marks}."


def _caption(page: Page, layout: Layout, labels: Labels, caption: str) -> str:
    """Return the text for below a page: a sentence on the axes, the caption, and the meaning of
    frames, colours, marks and numbers."""
    quantities = "; ".join(dict.fromkeys(place.label or place.title for place in page.values()))
    quantities = " ".join(quantities.split()) or "values"
    sentences = [
        f"By {labels.rows} (rows) and {labels.columns} (columns): {quantities}.",
        caption,
    ]
    if any(_framed(place.panel.matrix, labels) for place in page.values()):
        sentences.append("Frames: layers of the same name.")
    sentences += _on_scales(page)
    if not layout.has_numbers:
        sentences.append("The table beside the figure has the numbers.")
    meanings = {
        place.label or place.title: place.panel.number
        for place in page.values()
        if isinstance(place.panel, ClassMap)
    }
    if layout.has_numbers:
        sentences += [f"Numbers in the {title}: {number}." for title, number in meanings.items()]
    return " ".join(filter(None, sentences))
