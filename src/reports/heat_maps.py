"""Heat maps over two axes, such as front and end layers: which panels stand where, on how many pages,
and with or without the values written into the cells."""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np

from src.ground.console import listed
from src.ground.figure_files import page_of
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
    named,
    new_figure,
    styled,
    wrap,
)
from src.ground.grouping import grouped
from src.reports.map_panels import BLANK, ClassMap, HeatMap, Panel, frame, outline, text_of

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import LayoutEngine

# Lengths in sizes of the font
CELL = 2.4  # the width of a cell with a number of four characters
SMALL_CELL = 1.25  # width and height of a cell without a number, at least
LARGE_CELL = 3.7  # as high as wide, at most
NUMBER_CELL = 1.8  # with a number, at least
GAP = 0.65  # between panels
AXIS_LABEL = 3.2  # beside the names of rows
FEWEST_COLUMNS = 3  # of cells, that a panel has the width of at least: its title needs it
BESIDE_BAR = 3.3  # between a bar and its title: the widest numbers that a bar can have
IN_TABLE = 6.0  # bars of colours on the right of a table, and the titles of its lines
AROUND = 12.0  # titles, names of columns and the legend, above and below the panels

HEIGHT_OF_ROWS = 0.7  # the height of all rows in widths of the figure, if cells can be so low
MIN_IN_LINE = 3  # panels that stand side by side, even if their cells lose their numbers
PAD = 0.02  # between panels and a bar of colours, as a share of the panels
DIGITS = 6  # of numbers that are compared with the ends of scales

Item = TypeVar("Item")


class Labels(NamedTuple):
    """The meaning of the axes of heat maps."""

    rows: str
    columns: str
    blank: str = "no value"  # the meaning of cells without a value, for the legend
    # Row and column of cells of layers that correspond, by experiment
    framed: Mapping[str, Collection[tuple[str, str]]] = MappingProxyType({})

    def frames_of(self, place: "Place") -> list[tuple[str, str]]:
        """Return the row and the column of each cell of a panel that has a frame."""
        cells = set(itertools.product(place.panel.matrix.rows, place.panel.matrix.columns))
        return [cell for cell in self.framed.get(place.experiment, ()) if cell in cells]


Panels = Mapping[str, Mapping[str, Panel]]  # by quantity, by experiment; either title may be ""


class Place(NamedTuple):
    """The content of a place in a figure: a panel with its titles."""

    panel: Panel
    title: str  # above the panel, unless the panel above has it
    label: str  # on the right of a line of a table, or below a bar of colours
    experiment: str

    @property
    def quantity(self) -> str:
        """The title of the quantity."""
        return self.label or self.title


Page = dict[tuple[int, int], Place]  # by line and column


class Layout(NamedTuple):
    """The arrangement of the panels of a figure."""

    is_table: bool  # a line a quantity, a column an experiment
    # The panels of each line, or the experiments of each part of a table
    sizes: Sequence[int]
    is_wide: bool
    has_numbers: bool  # in the cells, unless they would touch
    cell: float  # the width of a cell in sizes of the font


def _is_table(experiments: Panels) -> bool:
    """Return whether there are several experiments with several quantities."""
    return len(experiments) > 1 and len(_quantities(experiments)) > 1


def _quantities(experiments: Panels) -> list[str]:
    """Return the titles of all quantities."""
    return list(dict.fromkeys(title for row in experiments.values() for title in row))


def layout_of(experiments: Panels) -> Layout:
    """Return the narrowest layout in which all panels of a line have readable numbers; without it,
    a line has fewer panels, or their cells no numbers.

    What does not fit one line, or one page of a table, has one for each heading if it fits.
    """
    from matplotlib import rcParams

    panels = [panel for row in experiments.values() for panel in row.values()]
    is_table = _is_table(experiments)
    in_line = panels
    titles = [experiment for experiment, row in experiments.items() for _ in row]
    if is_table:
        in_line = [max(row.values(), key=_n_columns) for row in experiments.values()]
        titles = list(experiments)
    texts = [text_of(1), *itertools.chain.from_iterable(panel.texts for panel in panels)]
    readable = CELL * max(map(len, texts)) / 4
    width, _ = rcParams["figure.figsize"]
    room = width / font_size()
    if is_table:
        room -= IN_TABLE
    is_wide = _width_of_cell([in_line], room) < readable
    if is_wide:
        room += width / font_size()

    def cell(sizes: Sequence[int]) -> float:
        return _width_of_cell(_split(in_line, sizes), room)

    of_headings = _sizes_of_headings(titles)
    divisions = _divisions(of_headings)
    enough = min(max(of_headings), MIN_IN_LINE)
    sizes = next((sizes for sizes in [[len(in_line)], *divisions] if cell(sizes) >= readable), [1])
    if max(sizes) < enough:
        sizes = next((sizes for sizes in divisions if cell(sizes) >= SMALL_CELL), divisions[-1])
    return Layout(is_table, sizes, is_wide, cell(sizes) >= readable, cell(sizes))


def _n_columns(panel: Panel) -> int:
    return len(panel.matrix.columns)


def _sizes_of_headings(titles: Sequence[str]) -> list[int]:
    """Return how many panels stand under each heading; all of them, if titles share no heading."""
    headed = _headings(dict(enumerate(titles)))
    if len(headed) < len(titles):
        return [len(titles)]
    return [len(list(group)) for _, group in itertools.groupby(headed.values())]


def _divisions(of_headings: Sequence[int]) -> list[list[int]]:
    """Return the sizes of equal parts of the panels under each heading, from one part to single
    panels."""
    divisions = []
    for n_parts in range(1, 1 + max(of_headings)):
        sizes: list[int] = []
        for number in of_headings:
            size = math.ceil(number / n_parts)
            sizes += [min(size, number - first) for first in range(0, number, size)]
        divisions.append(sizes)
    return divisions


def _split(items: Sequence[Item], sizes: Iterable[int]) -> list[Sequence[Item]]:
    """Return parts of a sequence of these sizes."""
    ends = list(itertools.accumulate(sizes))
    return [items[first:end] for first, end in zip([0, *ends], ends, strict=False)]


def _width_of_cell(lines: Iterable[Sequence[Panel]], room: float) -> float:
    """Return the width of the cells of panels that stand in lines of a width, in sizes of the font."""
    n_cells: dict[int, int] = {}  # of each column of panels
    names: dict[int, float] = {}
    for line in lines:
        rows_on_left: Sequence[str] = ()
        for column, panel in enumerate(line):
            width = 0.0
            if panel.matrix.rows != rows_on_left:
                width = CHARACTER * max(map(len, panel.matrix.row_titles)) + AXIS_LABEL
            rows_on_left = panel.matrix.rows
            names[column] = max(names.get(column, 0), width)
            n_cells[column] = max(n_cells.get(column, FEWEST_COLUMNS), _n_columns(panel))
    beside = sum(names.values()) + GAP * len(names)
    return (room - beside) / sum(n_cells.values())


def pages_of(experiments: Panels, layout: Layout, max_lines: int | None = None) -> list[Page]:
    """Give each panel its page and its place.

    Args:
        max_lines: of panels on a page; None: as many as the greatest height of a figure has room for.
    """
    if layout.is_table:
        parts = _table(experiments, layout.sizes)
    else:
        parts = [_in_lines(experiments, layout.sizes)]
    pages = []
    for part in parts:
        n_lines = 1 + max(line for line, _ in part)
        step = max_lines or _lines_that_fit(part, is_wide=layout.is_wide)
        for first in range(0, n_lines, step):
            page = {}
            for (line, column), place in part.items():
                if first <= line < first + step:
                    page[line - first, column] = place
            pages.append(page)
    return pages


def _table(experiments: Panels, sizes: Sequence[int]) -> list[Page]:
    """Return parts of a table of panels: a line a quantity, a column an experiment.

    Args:
        sizes: the number of experiments in each part.
    """
    parts = []
    for titles in _split(list(experiments), sizes):
        part = {}
        for column, title in enumerate(titles):
            for line, quantity in enumerate(_quantities(experiments)):
                if quantity in experiments[title]:
                    part[line, column] = Place(experiments[title][quantity], title, quantity, title)
        parts.append(part)
    return parts


def _in_lines(experiments: Panels, sizes: Sequence[int]) -> Page:
    """Return panels side by side, in lines of these sizes."""
    titled = []
    for experiment, row in experiments.items():
        for quantity, panel in row.items():
            title = quantity
            if len(row) == 1 and experiment:
                title = experiment
            label = "" if title == quantity else quantity
            titled.append(Place(panel, title, label, experiment))
    page = {}
    for line, places in enumerate(_split(titled, sizes)):
        for column, place in enumerate(places):
            page[line, column] = place
    return page


def _lines_that_fit(part: Page, *, is_wide: bool) -> int:
    """Return how many lines of panels have room in a figure of the greatest height."""
    from matplotlib import rcParams

    _, height = rcParams["figure.figsize"]
    if is_wide:
        height *= 2
    room = height / font_size() - AROUND
    n_rows = max(len(place.panel.matrix.rows) for place in part.values())
    return max(1, int(room / (SMALL_CELL * n_rows + GAP)))


def maps(
    path: Path,
    experiments: Panels,
    *,
    labels: Labels,
    title: str = "",
    caption: str | Callable[[Collection[str]], str] = "",
) -> bool:
    """Write heat maps to a path, unless figures are left out; return whether they were drawn.

    What does not fit a page goes on in `NAME_2.png` and so on.

    Args:
        experiments, labels: as in `maps_figure`.
        caption: as in `maps_figure`, or a function that takes the experiments of a page.
    """
    if not can_draw(path):
        return False
    with styled():
        layout = layout_of(experiments)
        pages = pages_of(experiments, layout)
    for number, page in enumerate(pages, start=1):
        experiments_of_page = dict.fromkeys(place.experiment for place in page.values())
        text = caption(experiments_of_page) if callable(caption) else caption
        text = _caption(page, layout, labels, text)
        _draw(page_of(path, number), page, layout, labels=labels, title=title, caption=text)
    return True


def maps_figure(experiments: Panels, *, labels: Labels, caption: str = "") -> "Figure":
    """Return a figure of heat maps, and a legend of the classes.

    Several quantities of several experiments have a line of panels each, with a column for each
    experiment. Otherwise the panels go on in the next line where a line is full.

    Args:
        experiments: panels by quantity, by experiment. Axes keep the order of the matrix.
        caption: the text for below the figure, in front of the meaning of its panels.
    """
    with styled():
        layout = layout_of(experiments)
        if layout.is_table:
            layout = layout._replace(sizes=[len(experiments)])
        (page,) = pages_of(experiments, layout, max_lines=sum(map(len, experiments.values())))
    text = _caption(page, layout, labels, caption)
    return _draw(None, page, layout, labels=labels, title="", caption=text)


def _draw(
    path: Path | None, page: Page, layout: Layout, *, labels: Labels, title: str, caption: str
) -> "Figure":
    """Draw a page of a figure."""
    n_rows, n_columns = _sizes(page)
    letters = letters_of(page)
    with new_figure(path, is_wide=layout.is_wide, title=title, caption=caption) as figure:
        em = font_size()

        def heights(width: float) -> list[float]:
            """Return the heights of the lines of panels of a width, all in inches."""
            height = min(width / n_columns[0], HEIGHT_OF_ROWS * figure.get_figwidth() / sum(n_rows))
            lowest = NUMBER_CELL if layout.has_numbers else SMALL_CELL
            return [float(np.clip(height, lowest * em, LARGE_CELL * em)) * n for n in n_rows]

        expected = heights(layout.cell * n_columns[0] * em)
        grid = figure.subplots(
            len(n_rows), len(n_columns), squeeze=False, height_ratios=n_rows, width_ratios=n_columns
        )
        for place, axes in np.ndenumerate(grid):
            if place not in page:
                axes.remove()
                continue
            line, column = place
            _draw_panel(axes, page[place], layout, labels)
            width = layout.cell * len(page[place].panel.matrix.columns) * em
            _draw_names(axes, page, place, layout, labels, size=(width, expected[line]))
            if letters:
                letter_panel(axes, letters[place])
        _explain_colours(figure, grid, page, layout, expected)
        add_legend(figure, _handles(page, labels), handlelength=1.3, columnspacing=0.8)
        cast("LayoutEngine", figure.get_layout_engine()).execute(figure)  # titles need the widths
        _write_titles(grid, page, figure.get_figwidth() / em)
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


def _draw_panel(axes: "Axes", place: Place, layout: Layout, labels: Labels) -> None:
    """Draw the cells of a panel, with frames."""
    panel = place.panel
    BLANK.on(axes.patch)
    if isinstance(panel, HeatMap):
        panel.paint(axes, has_numbers=layout.has_numbers)
    else:
        panel.paint(axes)
    for row, column in labels.frames_of(place):
        frame(axes, panel.matrix.columns.index(column), panel.matrix.rows.index(row))


def _draw_names(
    axes: "Axes",
    page: Page,
    place: tuple[int, int],
    layout: Layout,
    labels: Labels,
    *,
    size: tuple[float, float],
) -> None:
    """Write the names on the axes of a panel, unless a neighbour has the same names.

    Args:
        size: width and height of the panel, in inches.
    """
    line, column = place
    width, height = size
    matrix = page[place].panel.matrix
    longest = CHARACTER * max(map(len, matrix.column_titles))
    has_room = longest < layout.cell - 0.5
    rotation = 0 if has_room else 90
    axes.set_xticks(range(len(matrix.columns)), matrix.column_titles, rotation=rotation)
    axes.set_yticks(range(len(matrix.rows)), matrix.row_titles)
    axes.tick_params(length=0)  # a tick beside a number looks like its sign
    neighbour = page.get((line, column - 1))
    if neighbour and neighbour.panel.matrix.rows == matrix.rows:
        axes.tick_params(labelleft=False)
    else:
        axes.set_ylabel(wrap(labels.rows, height))
    below = page.get((line + 1, column))
    if below and below.panel.matrix.columns == matrix.columns:
        axes.tick_params(labelbottom=False)
    else:
        axes.set_xlabel(wrap(labels.columns, width))


def _write_titles(grid: "np.ndarray", page: Page, width: float) -> None:
    """Write the titles of panels where the panel above has another one, and their headings.

    Args:
        width: of the figure, in sizes of the font.
    """
    em = font_size()
    widths = {column: width * grid[line, column].get_position().width for line, column in page}
    for line in range(grid.shape[0]):
        titled = {}
        for column in range(grid.shape[1]):
            place = page.get((line, column))
            above = page.get((line - 1, column))
            if place and (above is None or above.title != place.title):
                titled[column] = place.title
        headed = _headings(titled)
        titles = {}
        for column, title in titled.items():
            text = title.removeprefix(f"{headed.get(column)}\n")
            titles[column] = wrap(text, widths[column] * em)
        n_lines = max((len(text.splitlines()) for text in titles.values()), default=0)
        for heading, columns in grouped(headed, headed.__getitem__).items():
            span = sum(widths[column] for column in columns)
            head_panel(grid[line, columns[0]], wrap(heading, span * em), n_lines=n_lines)
        for column, text in titles.items():
            grid[line, column].set_title(text)


def _headings(titles: Mapping[int, str]) -> dict[int, str]:
    """Return the first lines of titles by column; {} unless several panels of the line share one."""
    first_lines = {
        column: title.partition("\n")[0] for column, title in titles.items() if "\n" in title
    }
    is_shared = len(set(first_lines.values())) < len(first_lines)
    return first_lines if is_shared else {}


def _explain_colours(
    figure: "Figure", grid: "np.ndarray", page: Page, layout: Layout, heights: Sequence[float]
) -> None:
    """Draw bars of colours: in a table on the right of each line, with its title, otherwise below;
    neighbours of one look share a bar. Bright is above or right.

    Args:
        heights: of the lines of panels, in inches.
    """
    if layout.is_table:
        for line, height in enumerate(heights):
            _explain_line(figure, grid, page, line, height)
        return
    heat_maps = _heat_maps_of(page)
    are_alike = len({content.panel.look for content in page.values()}) == 1
    _, widths = _sizes(page)
    length = 0.9 * layout.cell * sum(widths) / len(widths)  # of a bar below the panels, about

    def neighbours(place: tuple[int, int]) -> tuple[int, str]:
        line = 0 if are_alike else place[0]
        return line, heat_maps[place].look

    for _, group in itertools.groupby(sorted(heat_maps), neighbours):
        places = list(group)
        n_columns = 1 + max(column for _, column in places) - min(column for _, column in places)
        shape = {"location": "bottom", "aspect": length, "shrink": 0.9 / n_columns}
        bar = _bar(figure, grid, heat_maps, places, shape)
        bar.set_label(page[places[0]].label)


def _explain_line(
    figure: "Figure", grid: "np.ndarray", page: Page, line: int, height: float
) -> None:
    """Draw the bars of a line of a table, and its title beside them; classes have the title alone."""
    shape: dict[str, Any] = {"location": "right", "aspect": 14}
    of_line = [place for place in sorted(page) if place[0] == line]
    heat_maps = {place: panel for place, panel in _heat_maps_of(page).items() if place in of_line}
    bars = [
        _bar(figure, grid, heat_maps, places, shape)
        for places in grouped(sorted(heat_maps), lambda place: heat_maps[place].look).values()
    ]
    title = wrap(page[of_line[0]].label, height)
    if not bars:
        from matplotlib.cm import ScalarMappable

        invisible = figure.colorbar(
            ScalarMappable(), ax=[grid[place] for place in of_line], pad=PAD, **shape
        )
        invisible.set_ticks([])
        for part in (invisible.outline, *invisible.ax.collections):
            part.set_visible(False)
        _title_bar(invisible, title, beside=0)
    else:
        _title_bar(bars[-1], title, beside=BESIDE_BAR)


def _bar(
    figure: "Figure",
    grid: "np.ndarray",
    heat_maps: Mapping[tuple[int, int], HeatMap],
    places: Sequence[tuple[int, int]],
    shape: Mapping[str, Any],
) -> "Colorbar":
    """Draw the bar of heat maps of one look, one line of text thick."""
    numbers = [number for place in places for number in heat_maps[place].numbers]
    image = grid[places[0]].images[0]
    bar = figure.colorbar(
        image,
        ax=[grid[place] for place in places],
        extend=_beyond(numbers, *image.get_clim()),
        extendfrac=0.06,
        pad=PAD,
        **shape,
    )
    _label_bar(bar, heat_maps[places[0]])
    return bar


def _title_bar(bar: "Colorbar", title: str, *, beside: float) -> None:
    """Write a title on the right of an upright bar, at a distance in sizes of the font."""
    from matplotlib.transforms import ScaledTranslation

    bar.set_label(title)
    aside = ScaledTranslation(beside * font_size(), 0, bar.ax.figure.dpi_scale_trans)
    bar.ax.yaxis.set_label_coords(1, 0.5, transform=bar.ax.transAxes + aside)


def _beyond(numbers: Iterable[float], low: float, high: float) -> str:
    """Return the ends of a scale that numbers exceed, by matplotlib's names. The bar has a point there."""
    ends = {"min" for number in numbers if round(number, DIGITS) < low}
    ends |= {"max" for number in numbers if round(number, DIGITS) > high}
    if len(ends) == 2:
        return "both"
    return ends.pop() if ends else "neither"


def _label_bar(bar: "Colorbar", panel: HeatMap) -> None:
    """Label the ends of a bar and its middle, mark the limit, and put bright above or right."""
    low, high = bar.mappable.get_clim()
    middle = (low + high) / 2
    is_upright = bar.orientation == "vertical"
    if low < panel.limit < high:
        mark = bar.ax.axhline if is_upright else bar.ax.axvline
        outline(mark(panel.limit))
    if panel.is_uneven:
        middle = panel.limit
    ticks = [low, middle, high]
    bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
    dark, bright = panel.scale
    if dark > bright:
        axis = bar.ax.yaxis if is_upright else bar.ax.xaxis
        axis.set_inverted(True)


def _handles(page: Page, labels: Labels) -> "dict[str, Artist]":
    """Return the handles of the legend: classes, and cells without a value."""
    from matplotlib.patches import Patch

    handles: dict[str, Artist] = {}
    panels = [place.panel for place in page.values()]
    class_maps = [panel for panel in panels if isinstance(panel, ClassMap)]
    occurring = {name for panel in class_maps for name in panel.occurring}
    for panel in class_maps:
        for name, sign in panel.signs.items():
            if name in occurring:
                handles[name] = sign.on(Patch())
    if any(panel.has_blanks for panel in panels):
        handles[labels.blank] = BLANK.on(Patch())
    return handles


def _caption(page: Page, layout: Layout, labels: Labels, caption: str) -> str:
    """Return the text for below a page: the caption, the panels, frames and marks; and definitions."""
    panels = _heat_maps_of(page).values()
    sentences = [_on_panels(page)]
    if any(panel.scale[0] > panel.scale[1] for panel in panels):
        sentences.append("Bright is similar.")
    framed = list(itertools.chain.from_iterable(map(labels.frames_of, page.values())))
    if framed:
        words = "layers of the same name"
        if any(front != end for front, end in framed):
            words += ", or nearest to each other in relative depth"
        sentences.append(f"Frames: {words}.")
    if any(not math.isnan(panel.limit) for panel in panels):
        sentences.append("Lines on the colour bars: limits of similar pairs.")
    uneven = dict.fromkeys(place.quantity for place in page.values() if _is_uneven(place.panel))
    if uneven:
        sentences.append(f"The colours of {listed(uneven)} are linear on either side of the limit.")
    if not layout.has_numbers:
        sentences.append("The table of the results has the numbers.")
    text = " ".join(filter(None, sentences))
    return joined(caption, text, definitions=" ".join(_definitions(page)))


def _on_panels(page: Page) -> str:
    """Return the sentence of the caption on the quantity of each panel; "" if it has no title."""
    letters = letters_of(page)
    contents = []
    for quantity, places in _places_of(page).items():
        note = page[places[0]].panel.note
        text = f"{quantity} ({note})" if note else quantity
        contents.append(named([letters[place] for place in places if letters]) + text)
    return f"{capitalised('; '.join(contents))}." if contents else ""


def _definitions(page: Page) -> Iterator[str]:
    """Yield a sentence on the meaning of each quantity."""
    for quantity, places in _places_of(page).items():
        meaning = page[places[0]].panel.meaning
        if meaning:
            yield f"{capitalised(quantity)}: {meaning}."


def _is_uneven(panel: Panel) -> bool:
    return isinstance(panel, HeatMap) and panel.is_uneven


def _places_of(page: Page) -> dict[str, list[tuple[int, int]]]:
    """Return the places of the panels of each quantity with a title."""
    places = grouped(page, lambda place: " ".join(page[place].quantity.split()))
    return {quantity: of_quantity for quantity, of_quantity in places.items() if quantity}


def _heat_maps_of(page: Page) -> dict[tuple[int, int], HeatMap]:
    """Return the heat maps of a page by place."""
    return {
        place: content.panel
        for place, content in page.items()
        if isinstance(content.panel, HeatMap)
    }
