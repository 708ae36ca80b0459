"""The layout of heat maps: which panels stand where, on how many pages, with or without numbers."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from src.reports.figures import CHARACTER, font_size
from src.reports.map_panels import Panel, text_of

# Lengths in sizes of the font
CELL = 2.4  # the width of a cell with a number of four characters
SMALL_CELL = 1.25  # width and height of a cell without a number, at least
GAP = 0.65  # between panels
AXIS_LABEL = 2.3  # beside the names of rows
IN_TABLE = 6.0  # further labels on the left of a table, and bars of colours on its right
AROUND = 12.0  # titles, names of columns and the legend, above and below the panels

MIN_IN_LINE = 3  # panels that stand side by side, even if their cells lose their numbers


Panels = Mapping[str, Mapping[str, Panel]]  # by quantity, by experiment; either title may be ""


class Place(NamedTuple):
    """What stands at a place of a figure."""

    panel: Panel
    title: str  # above the panel; "" where the panel above has it
    label: str  # on the left of a line of panels


Page = dict[tuple[int, int], Place]  # by line and column


class Layout(NamedTuple):
    """How the panels of a figure stand."""

    is_table: bool  # a line a quantity, a column an experiment
    n_columns: int
    is_wide: bool
    has_numbers: bool  # in the cells, unless they would touch
    room: float  # of a panel, in sizes of the font
    numbers: Mapping[str, Sequence[float]]  # of the panels on all pages, by look


def _is_table(experiments: Panels) -> bool:
    """Return whether there are several experiments with several quantities."""
    return len(experiments) > 1 and len(_quantities(experiments)) > 1


def _quantities(experiments: Panels) -> list[str]:
    """Return the titles of all quantities."""
    return list(dict.fromkeys(title for row in experiments.values() for title in row))


def layout_of(experiments: Panels) -> Layout:
    """Return the narrowest layout in which all panels of a line have readable numbers; without it,
    a line has fewer panels, or their cells no numbers."""
    from matplotlib import rcParams

    panels = [panel for row in experiments.values() for panel in row.values()]
    is_table = _is_table(experiments)
    n_panels = len(experiments) if is_table else len(panels)
    longest = max(len(text_of(number)) for panel in panels for number in [*panel.numbers, 1])
    cell = CELL * longest / 4
    width, _ = rcParams["figure.figsize"]
    room = width / font_size() - (IN_TABLE if is_table else 0)
    is_wide = _n_that_fit(panels, room, cell) < n_panels
    if is_wide:
        room += width / font_size()
    n_columns = _n_that_fit(panels, room, cell)
    if n_columns < min(n_panels, MIN_IN_LINE):
        n_columns = max(1, _n_that_fit(panels, room, SMALL_CELL))
    n_lines = math.ceil(n_panels / n_columns)
    n_columns = math.ceil(n_panels / n_lines)
    has_numbers = n_columns <= _n_that_fit(panels, room, cell)
    room_of_panel = _room_of_panel(panels, room, n_columns)
    numbers: dict[str, list[float]] = {}
    for panel in panels:
        numbers.setdefault(panel.look, []).extend(panel.numbers)
    return Layout(is_table, n_columns, is_wide, has_numbers, room_of_panel, numbers)


def _n_that_fit(panels: Sequence[Panel], room: float, cell: float) -> int:
    """Return how many panels stand side by side in a room, with cells of a width, both in sizes of
    the font."""
    width = GAP + cell * max(len(panel.matrix.columns) for panel in panels)
    numbers = range(1, 1 + len(panels))
    return sum(_room_of_panel(panels, room, number) >= width for number in numbers)


def _room_of_panel(panels: Sequence[Panel], room: float, n_columns: int) -> float:
    """Return the width that each of some panels side by side has beside the names of rows."""
    names = [list(panel.matrix.rows) for panel in panels]
    width_of_names = AXIS_LABEL + CHARACTER * max(map(len, itertools.chain(*names)))
    n_with_names = 1 if all(rows == names[0] for rows in names) else n_columns
    return (room - n_with_names * width_of_names) / n_columns


def pages_of(experiments: Panels, layout: Layout, max_lines: int | None = None) -> list[Page]:
    """Give each panel its page and its place.

    Args:
        max_lines: of panels on a page; None: as many as the greatest height of a figure has room for.
    """
    if layout.is_table:
        parts = _table(experiments, layout.n_columns)
    else:
        parts = [_in_lines(experiments, layout.n_columns)]
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


def _table(experiments: Panels, n_columns: int) -> list[Page]:
    """Return parts of a table of panels: a line a quantity, at most so many columns an
    experiment."""
    titles = list(experiments)
    n_parts = math.ceil(len(titles) / n_columns)
    size = math.ceil(len(titles) / n_parts)
    parts = []
    for first in range(0, len(titles), size):
        part = {}
        for column, title in enumerate(titles[first : first + size]):
            for line, quantity in enumerate(_quantities(experiments)):
                if quantity in experiments[title]:
                    part[line, column] = Place(experiments[title][quantity], title, quantity)
        parts.append(part)
    return parts


def _in_lines(experiments: Panels, n_columns: int) -> Page:
    """Return panels one beside the other, and one line below the other."""
    titled = []
    for experiment, row in experiments.items():
        for quantity, panel in row.items():
            title = quantity if len(row) > 1 else experiment or quantity
            titled.append(Place(panel, title, "" if title == quantity else quantity))
    return {divmod(number, n_columns): place for number, place in enumerate(titled)}


def _lines_that_fit(part: Page, *, is_wide: bool) -> int:
    """Return how many lines of panels have room in a figure of the greatest height."""
    from matplotlib import rcParams

    _, height = rcParams["figure.figsize"]
    room = (2 if is_wide else 1) * height / font_size() - AROUND
    n_rows = max(len(place.panel.matrix.rows) for place in part.values())
    return max(1, int(room / (SMALL_CELL * n_rows + GAP)))
