"""Heat maps over two axes, such as front and end layers, with the values written into the cells."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple, cast

from src.ground.grouping import grouped
from src.reports.figures import PAGE, can_draw, new_figure, wrap
from src.tables.matrices import Matrix
from src.tables.quantities import Quantity

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

# Colour maps. Their brightness alone tells the values apart, in print and to colour-blind people.
SIMILARITY = "viridis"
DISTANCE = "viridis_r"
TWO_SIDED = "RdBu_r"  # bright in the middle, dark blue below and dark red above
DIFFERENCE = "cividis"  # dark below 0, bright above

# Sizes in inches
CELL = 0.236  # a cell with a number of four characters
SMALL_CELL = 0.13  # a cell without a number
LEAST = 0.94  # a panel, which has room for a title and labels
LABELS = 0.9  # the room that labels take beside the panels

MIN_IN_LINE = 3  # panels that stand side by side, even if their cells lose their numbers

# The title of a row in widths of a panel: a wider one would widen the panel
WIDTHS_OF_TITLE = 1.8
# Width of the title of a row, in widths of a panel: the layout takes it for half as wide
WIDTHS_OF_TITLE = 1.8


class Sign(NamedTuple):
    """The look of cells: the hatch tells in grey what the colour does not."""

    colour: str
    hatch: str = ""
    lines: str = "black"  # the colour of the hatch

    def on(self, patch: "Patch") -> "Patch":
        """Give a patch this look; return it."""
        patch.set(facecolor=self.colour, hatch=self.hatch, edgecolor=self.lines)
        return patch


BLANK = Sign("0.92", "\\\\\\", lines="0.65")  # of cells without a value


class HeatMap(NamedTuple):
    """A panel: a matrix, and the meaning of its colours. Bright is similar, dark is different."""

    matrix: Matrix  # a cell of NaN stays blank
    # The values of the darkest and of the brightest colour. A distance has (1, 0).
    scale: tuple[float, float] = (0.0, 1.0)
    colours: str = ""  # matplotlib's colour map; "": bright at the second end of the scale
    marked: Collection[tuple[str, str]] = ()  # row and column of cells with a red corner

    @classmethod
    def of(cls, matrix: Matrix, quantity: Quantity) -> "HeatMap":
        """Return the panel of a matrix of a quantity.

        Raises:
            ValueError: the quantity has no scale.
        """
        if quantity.scale is None:
            raise ValueError(f"{quantity.title} has no scale for the colours of a heat map")
        return cls(matrix, quantity.scale, TWO_SIDED if quantity.is_two_sided else "")

    @classmethod
    def difference(cls, matrix: Matrix) -> "HeatMap":
        """Return the panel of a matrix of differences, with 0 in the middle of the colours."""
        sizes = [abs(value) for line in matrix.values for value in line]
        largest = max((size for size in sizes if size > 0), default=1.0)  # NaN is not above 0
        return cls(matrix, (-largest, largest), DIFFERENCE)

    @property
    def colour_map(self) -> str:
        """The name of matplotlib's colour map."""
        darkest, brightest = self.scale
        return self.colours or (SIMILARITY if darkest < brightest else DISTANCE)

    @property
    def look(self) -> object:
        """The colours and their values, which a bar explains."""
        return self.colour_map, self.scale

    @property
    def numbers(self) -> list[float]:
        """The values of the cells."""
        return [value for line in self.matrix.values for value in line]

    @property
    def has_blanks(self) -> bool:
        """Whether cells have no value."""
        return any(map(math.isnan, self.numbers))

    def paint(self, axes: "Axes", *, has_numbers: bool = True) -> None:
        """Draw the cells with their values, and the marks."""
        low, high = sorted(self.scale)
        image = axes.imshow(
            self.matrix.values, vmin=low, vmax=high, cmap=self.colour_map, aspect="auto"
        )
        if has_numbers:
            for y, line in enumerate(self.matrix.values):
                for x, value in enumerate(line):
                    if not math.isnan(value):
                        _write_cell(axes, x, y, value, image.cmap(image.norm(value)))
        for row, column in self.marked:
            self._mark(axes, row, column)

    def _mark(self, axes: "Axes", row: str, column: str) -> None:
        """Draw a red triangle into the upper right corner of a cell."""
        x = self.matrix.columns.index(column)
        y = self.matrix.rows.index(row)
        xs = [x + 0.5, x + 0.26, x + 0.5]
        ys = [y - 0.5, y - 0.5, y - 0.26]
        axes.fill(xs, ys, facecolor="red", edgecolor="white", linewidth=0.5)


class ClassMap(NamedTuple):
    """A panel of cells with the sign of a class and a number."""

    matrix: Matrix  # of (class, number); the number may be NaN; a cell of None stays blank
    signs: Mapping[str, Sign]  # by class; the legend shows them
    number: str  # the meaning of the numbers, for the caption

    @property
    def look(self) -> object:
        """The colours of the classes, which the legend explains."""
        return self.signs

    @property
    def numbers(self) -> list[float]:
        """The numbers in the cells; NaN of cells without a number."""
        cells = [cell for line in self.matrix.values for cell in line]
        return [math.nan if cell is None else cell[1] for cell in cells]

    @property
    def has_blanks(self) -> bool:
        """Whether cells have no class."""
        return any(cell is None for line in self.matrix.values for cell in line)

    def paint(self, axes: "Axes", *, has_numbers: bool = True) -> None:
        """Draw the cells with their numbers."""
        from matplotlib.colors import to_rgba
        from matplotlib.patches import Rectangle

        axes.set(
            xlim=(-0.5, len(self.matrix.columns) - 0.5),
            ylim=(len(self.matrix.rows) - 0.5, -0.5),
        )
        for y, line in enumerate(self.matrix.values):
            for x, cell in enumerate(line):
                if cell is None:
                    continue
                name, number = cell
                sign = self.signs[name]
                axes.add_patch(sign.on(Rectangle((x - 0.5, y - 0.5), 1, 1)))
                if has_numbers and not math.isnan(number):
                    _write_cell(axes, x, y, number, to_rgba(sign.colour), is_boxed=True)


Panel = HeatMap | ClassMap
PanelRows = Mapping[str, Mapping[str, Panel]]  # panels by their title, by the title of their row


class Place(NamedTuple):
    """What stands at a place of a figure."""

    panel: Panel
    title: str
    row_title: str  # "" where no row begins


Page = Mapping[tuple[int, int], Place]  # by line and column
AllAxes = Mapping[tuple[int, int], "Axes"]


def maps(
    path: Path,
    rows: PanelRows,
    *,
    row_label: str,
    column_label: str,
    blank: str = "no value",
    title: str = "",
    caption: str = "",
) -> bool:
    """Write a figure of `maps_figure` to a path, unless figures are left out; return whether it was
    drawn."""
    if not can_draw(path):
        return False
    maps_figure(
        rows,
        path=path,
        row_label=row_label,
        column_label=column_label,
        blank=blank,
        title=title,
        caption=caption,
    )
    return True


def maps_figure(
    rows: PanelRows,
    *,
    path: Path | None = None,
    row_label: str,
    column_label: str,
    blank: str = "no value",
    title: str = "",
    caption: str = "",
) -> "Figure":
    """Return a figure of rows of panels, and a legend of the classes.

    A row that is too long for a page goes on in the next line. Cells have numbers if these are
    readable in a figure of the width of a page.

    Args:
        rows: panels by their title, by the title of the row, which may be "". Axes keep the order
            of the matrix.
        path: of the image to write; None: no file.
        row_label, column_label: of the axes.
        blank: the meaning of cells without a value, for the legend.
        caption: the text below the figure.
    """
    panels = [panel for row in rows.values() for panel in row.values()]
    n_columns, has_numbers = _columns_of_page(panels, longest_row=max(map(len, rows.values())))
    page = _lay_out(rows, n_columns)
    widths, heights = _sizes(page, has_numbers=has_numbers)
    caption = f"{caption} {_on_numbers(page, has_numbers=has_numbers)}".strip()
    with new_figure(path, widths, heights, title=title, caption=caption) as (all_axes, legend):
        for place, axes in all_axes.items():
            if place in page:
                _draw_panel(axes, page[place].panel, has_numbers=has_numbers)
                _label_axes(axes, page, place, row_label=row_label, column_label=column_label)
            else:
                axes.remove()
        _set_titles(all_axes, page, widths)
        _explain_colours(all_axes, page)
        legend |= _handles(panels, blank)
    return cast("Figure", all_axes[0, 0].figure)


def _columns_of_page(panels: Sequence[Panel], *, longest_row: int) -> tuple[int, bool]:
    """Return how many panels stand side by side, and whether their cells have numbers."""
    n_readable = int((PAGE - LABELS) / fmean(map(_readable_width, panels)))
    n_lines_of_row = math.ceil(longest_row / max(n_readable, MIN_IN_LINE))
    n_columns = math.ceil(longest_row / n_lines_of_row)
    return n_columns, n_columns <= n_readable


def _lay_out(rows: PanelRows, n_columns: int) -> Page:
    """Give each panel its place; a row begins at the left of a line."""
    page = {}
    first_line = 0
    for row_title, row in rows.items():
        for number, (title, panel) in enumerate(row.items()):
            line, column = divmod(number, n_columns)
            page[first_line + line, column] = Place(panel, title, "" if number else row_title)
        first_line += math.ceil(len(row) / n_columns)
    return page


def _sizes(page: Page, *, has_numbers: bool) -> tuple[list[float], list[float]]:
    """Return the widths of the columns and the heights of the lines of a page, in inches."""
    widths: dict[int, float] = {}
    heights: dict[int, float] = {}
    for (line, column), place in page.items():
        width = SMALL_CELL * len(place.panel.matrix.columns)
        height = SMALL_CELL * len(place.panel.matrix.rows)
        if has_numbers:
            width = _readable_width(place.panel)
            height = CELL * len(place.panel.matrix.rows)
        widths[column] = max(widths.get(column, LEAST), width)
        heights[line] = max(heights.get(line, LEAST), height)
    return list(widths.values()), list(heights.values())


def _draw_panel(axes: "Axes", panel: Panel, *, has_numbers: bool) -> None:
    """Draw a panel, with the names of its rows and columns beside it."""
    BLANK.on(axes.patch)
    panel.paint(axes, has_numbers=has_numbers)
    axes.set_xticks(range(len(panel.matrix.columns)), panel.matrix.columns, rotation=90)
    axes.set_yticks(range(len(panel.matrix.rows)), panel.matrix.rows)
    axes.tick_params(length=0)  # a tick beside a number looks like its sign


def _label_axes(
    axes: "Axes", page: Page, place: tuple[int, int], *, row_label: str, column_label: str
) -> None:
    """Label the axes of a panel, or hide the names that the panel on the left or below shows."""
    line, column = place
    panel = page[place].panel
    left = page.get((line, column - 1))
    if left and left.panel.matrix.rows == panel.matrix.rows:
        axes.tick_params(labelleft=False)
    else:
        axes.set_ylabel(row_label)
    below = page.get((line + 1, column))
    columns_and_colours = (panel.matrix.columns, panel.look)
    if below and (below.panel.matrix.columns, below.panel.look) == columns_and_colours:
        axes.tick_params(labelbottom=False)
    else:
        axes.set_xlabel(column_label)


def _set_titles(all_axes: AllAxes, page: Page, widths: Sequence[float]) -> None:
    """Set the titles of panels, unless the panel above has the same, and above them those of rows."""
    n_text_lines: dict[int, int] = {}  # by line of panels
    for (line, column), place in page.items():
        above = page.get((line - 1, column))
        if above is None or above.title != place.title:
            title = wrap(place.title, widths[column])
            all_axes[line, column].set_title(title)
            n_text_lines[line] = max(n_text_lines.get(line, 0), len(title.splitlines()))
    for (line, column), place in page.items():
        if place.row_title:
            title = wrap(place.row_title, WIDTHS_OF_TITLE * widths[column])
            title += "\n" * n_text_lines.get(line, 0)
            all_axes[line, column].set_title(title, loc="left")


def _explain_colours(all_axes: AllAxes, page: Page) -> None:
    """Draw bars of colours below heat maps: one bar if all have the same colours, otherwise one for
    each column and its colours. Bright is right."""
    heat_maps = {
        place: content.panel
        for place, content in page.items()
        if isinstance(content.panel, HeatMap)
    }
    of_one_bar = grouped(heat_maps, lambda place: heat_maps[place].look)
    if len(of_one_bar) > 1:
        of_one_bar = grouped(heat_maps, lambda place: (heat_maps[place].look, place[1]))
    for places in of_one_bar.values():
        first = all_axes[places[0]]
        bar = first.figure.colorbar(
            first.images[0],
            ax=[all_axes[place] for place in places],
            location="bottom",
            pad=0.02,
            shrink=0.8 / len({column for _, column in places}),  # apart from its neighbours
        )
        start, end = heat_maps[places[0]].scale
        if start > end:
            bar.ax.invert_xaxis()


def _handles(panels: Sequence[Panel], blank: str) -> "dict[str, Artist]":
    """Return the handles of the legend: classes, and cells without a value if there are any."""
    from matplotlib.patches import Patch

    handles: dict[str, Artist] = {}
    for panel in panels:
        if isinstance(panel, ClassMap):
            handles |= {name: sign.on(Patch()) for name, sign in panel.signs.items()}
    if any(panel.has_blanks for panel in panels):
        handles[blank] = BLANK.on(Patch())
    return handles


def _on_numbers(page: Page, *, has_numbers: bool) -> str:
    """Return the sentences of the caption on the numbers of cells."""
    if not has_numbers:
        return "The table beside the figure has the numbers."
    meanings = {
        place.title: place.panel.number
        for place in page.values()
        if isinstance(place.panel, ClassMap)
    }
    return " ".join(f"Numbers in the {title}: {number}." for title, number in meanings.items())


def _readable_width(panel: Panel) -> float:
    """Return the width in inches at which the numbers in the cells of a panel are readable."""
    n_characters = max([4, *(len(_text_of(number)) for number in panel.numbers)])
    return max(LEAST, CELL * n_characters / 4 * len(panel.matrix.columns))


def _text_of(number: float) -> str:
    """Return a number with two digits; 0.00 has no sign, and NaN is an empty text."""
    return "" if math.isnan(number) else f"{round(number, 2) + 0.0:.2f}"


def _write_cell(
    axes: "Axes",
    x: int,
    y: int,
    number: float,
    background: Iterable[float],
    *,
    is_boxed: bool = False,
) -> None:
    """Write a number into a cell.

    Args:
        background: the colour of the cell, with red, green and blue in front.
        is_boxed: the number has a box of this colour, which covers the hatch.
    """
    red, green, blue, *_ = background
    brightness = 0.3 * red + 0.59 * green + 0.11 * blue
    colour = "black" if brightness > 0.5 else "white"
    box = None
    if is_boxed:
        box = {"facecolor": background, "edgecolor": "none", "pad": 0.5}
    text = axes.text(x, y, _text_of(number), ha="center", va="center", color=colour, bbox=box)
    text.set_in_layout(False)  # it lies in its panel; the layout is much faster without it
