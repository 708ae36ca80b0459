"""Heat maps over two axes, such as front and end layers, with the values written into the cells."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from src.reports.figures import PAGE, STYLE, can_draw, new_figure, wrap
from src.tables.matrices import Matrix
from src.tables.quantities import Quantity

# Colour maps. Their brightness alone tells the values apart, in print and to colour-blind people.
SIMILARITY = "viridis"
DISTANCE = "viridis_r"
TWO_SIDED = "RdBu_r"  # bright in the middle
DIFFERENCE = "cividis"

# Sizes in inches
CELL = 0.236  # a cell with a number of four characters
SMALL_CELL = 0.13  # a cell without a number
LEAST = 0.94  # a panel, which has room for a title and labels
LABELS = 0.9  # the room that labels take beside the panels
BAR = 0.07  # the height of a bar of colours

MIN_IN_LINE = 3  # panels that stand side by side, even if their cells lose their numbers


class Sign(NamedTuple):
    """The look of cells: the hatch tells in grey what the colour does not."""

    colour: str
    hatch: str = ""
    lines: str = "black"  # the colour of the hatch

    def patch(self) -> dict[str, Any]:
        """Return the look as properties of a patch."""
        return {"facecolor": self.colour, "hatch": self.hatch, "edgecolor": self.lines}


BLANK = Sign("0.92", "\\\\\\", lines="0.65")  # of cells without a value


class HeatMap(NamedTuple):
    """A panel: a matrix, and the meaning of its colours. Bright is similar, dark is different."""

    matrix: Matrix  # a cell of NaN stays blank
    # The values of the darkest and of the brightest colour. A distance has (1, 0).
    scale: tuple[float, float] = (0.0, 1.0)
    # Bright in the middle of `scale`, dark blue below and dark red above
    is_two_sided: bool = False
    is_difference: bool = False  # dark below 0, bright above
    marked: Collection[tuple[str, str]] = ()  # row and column of cells with a red corner

    @classmethod
    def of(cls, matrix: Matrix, quantity: Quantity) -> "HeatMap":
        """Return the panel of a matrix of a quantity.

        Raises:
            ValueError: the quantity has no scale.
        """
        if quantity.scale is None:
            raise ValueError(f"{quantity.title} has no scale for the colours of a heat map")
        return cls(matrix, quantity.scale, is_two_sided=quantity.is_two_sided)

    @classmethod
    def difference(cls, matrix: Matrix) -> "HeatMap":
        """Return the panel of a matrix of differences, with 0 in the middle of the colours."""
        sizes = [abs(value) for line in matrix.values for value in line]
        largest = max((size for size in sizes if size > 0), default=1.0)  # NaN is not above 0
        return cls(matrix, (-largest, largest), is_difference=True)

    @property
    def colour_map(self) -> str:
        """The name of matplotlib's colour map."""
        if self.is_two_sided:
            return TWO_SIDED
        if self.is_difference:
            return DIFFERENCE
        darkest, brightest = self.scale
        return SIMILARITY if darkest < brightest else DISTANCE

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

    def paint(self, axes: Any, *, has_numbers: bool = True) -> None:
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

    def _mark(self, axes: Any, row: str, column: str) -> None:
        """Draw a red triangle into the upper right corner of a cell."""
        x = self.matrix.columns.index(column)
        y = self.matrix.rows.index(row)
        xs = [x + 0.5, x + 0.26, x + 0.5]
        ys = [y - 0.5, y - 0.5, y - 0.26]
        axes.fill(xs, ys, facecolor="red", edgecolor="white", linewidth=0.5)

    def explain(self, axes: Any, width: float) -> None:
        """Draw a bar of the colours below the panel, of its width in inches; bright is right."""
        (image,) = axes.images
        bar = axes.figure.colorbar(image, ax=axes, location="bottom", aspect=width / BAR)
        start, end = self.scale
        if start > end:
            bar.ax.invert_xaxis()
        ticks = (start, (start + end) / 2, end)
        bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
        left, _, right = bar.ax.get_xticklabels()
        left.set_horizontalalignment("left")  # so that labels of neighbours stay apart
        right.set_horizontalalignment("right")


class ClassMap(NamedTuple):
    """A panel of cells with the sign of a class and a number."""

    matrix: Matrix  # of (class, number); the number may be NaN; a cell of None stays blank
    signs: Mapping[str, Sign]  # by class; the legend shows them
    number: str = ""  # the meaning of the numbers, for the caption
    symbol: str = ""  # of the numbers, for the title of the panel

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

    def paint(self, axes: Any, *, has_numbers: bool = True) -> None:
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
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **sign.patch()))
                if has_numbers and not math.isnan(number):
                    _write_cell(axes, x, y, number, to_rgba(sign.colour), is_boxed=True)


Panel = HeatMap | ClassMap
Rows = Mapping[str, Mapping[str, Panel]]  # panels by their title, by the title of their row


class Line(NamedTuple):
    """Panels that stand side by side."""

    row_title: str  # above the first panel; "": none, or the row began in the line above
    panels: dict[str, Panel]  # by title


class Grid(NamedTuple):
    """The panels of a figure. Neighbours share titles, labels and bars of colours."""

    lines: list[Line]
    widths: list[float]  # of the columns of panels, in inches
    heights: list[float]  # of the lines
    has_numbers: bool  # in the cells

    @classmethod
    def of(cls, rows: Rows) -> "Grid":
        """Lay out rows of panels on a page.

        A row that is too long for a page goes on in the next line. Cells have numbers if these are
        readable in a figure of the width of a page.
        """
        readable_width = fmean(map(_readable_width, _panels_of(rows)))
        n_readable = int((PAGE - LABELS) / readable_width)
        longest_row = max(map(len, rows.values()))
        n_lines = math.ceil(longest_row / max(n_readable, MIN_IN_LINE))
        n_columns = math.ceil(longest_row / n_lines)
        has_numbers = n_columns <= n_readable

        lines = _lines(rows, n_columns)
        widths = [LEAST] * n_columns
        heights = [LEAST] * len(lines)
        for i, line in enumerate(lines):
            for j, panel in enumerate(line.panels.values()):
                width = SMALL_CELL * len(panel.matrix.columns)
                height = SMALL_CELL * len(panel.matrix.rows)
                if has_numbers:
                    width = _readable_width(panel)
                    height = CELL * len(panel.matrix.rows)
                widths[j] = max(widths[j], width)
                heights[i] = max(heights[i], height)
        return cls(lines, widths, heights, has_numbers)

    def is_repeated_below(self, i: int) -> bool:
        """Return whether the next line has panels of the same columns and colours as a line."""
        if i + 1 == len(self.lines):
            return False
        line = [(panel.look, panel.matrix.columns) for panel in self.lines[i].panels.values()]
        below = [(panel.look, panel.matrix.columns) for panel in self.lines[i + 1].panels.values()]
        return line == below

    def has_rows_before(self, i: int, j: int) -> bool:
        """Return whether the panel on the left of a panel has the same rows."""
        panels = list(self.lines[i].panels.values())
        return j > 0 and panels[j].matrix.rows == panels[j - 1].matrix.rows

    def has_titles_above(self, i: int) -> bool:
        """Return whether the line above a line has the same titles of panels."""
        return i > 0 and list(self.lines[i].panels) == list(self.lines[i - 1].panels)


def maps(
    path: Path,
    rows: Rows,
    *,
    row_label: str,
    column_label: str,
    blank: str = "no value",
    title: str = "",
    caption: str = "",
) -> bool:
    """Draw rows of panels, and a legend of the classes; return whether the figure was drawn.

    Args:
        rows: panels by their title, by the title of the row, which may be "". Axes keep the order
            of the matrix.
        row_label, column_label: of the axes.
        blank: the meaning of cells without a value, for the legend.
        caption: the text below the figure.
    """
    if not can_draw(path):
        return False
    grid = Grid.of(rows)
    panels = _panels_of(rows)
    caption = f"{caption} {_on_numbers(rows, grid.has_numbers)}".strip()
    with new_figure(path, grid.widths, grid.heights, title=title, caption=caption) as (
        all_axes,
        legend,
    ):
        n_columns = len(grid.widths)
        for i in range(len(grid.lines)):
            axes_of_line = all_axes[i * n_columns : (i + 1) * n_columns]
            for j, axes in enumerate(axes_of_line):
                _draw_panel(axes, grid, i, j, row_label=row_label, column_label=column_label)
            _set_titles(axes_of_line, grid, i)
        legend |= _handles(panels, blank)
    return True


def _draw_panel(
    axes: Any, grid: Grid, i: int, j: int, *, row_label: str, column_label: str
) -> None:
    """Draw a panel with the labels that its neighbours do not show; remove axes without a panel."""
    panels = list(grid.lines[i].panels.values())
    if j >= len(panels):
        axes.remove()
        return
    panel = panels[j]
    axes.patch.set(**BLANK.patch())
    panel.paint(axes, has_numbers=grid.has_numbers)
    axes.set_xticks(range(len(panel.matrix.columns)), panel.matrix.columns, rotation=90)
    axes.set_yticks(range(len(panel.matrix.rows)), panel.matrix.rows)
    if grid.is_repeated_below(i):
        axes.tick_params(labelbottom=False)
    else:
        axes.set_xlabel(column_label)
        if isinstance(panel, HeatMap):
            panel.explain(axes, grid.widths[j])
    if grid.has_rows_before(i, j):
        axes.tick_params(labelleft=False)
    else:
        axes.set_ylabel(row_label)


def _panels_of(rows: Rows) -> list[Panel]:
    """Return all panels."""
    return [panel for row in rows.values() for panel in row.values()]


def _lines(rows: Rows, n_columns: int) -> list[Line]:
    """Return the rows in lines of so many panels."""
    lines = []
    for row_title, row in rows.items():
        panels = list(row.items())
        for start in range(0, len(panels), n_columns):
            line_title = row_title if start == 0 else ""
            lines.append(Line(line_title, dict(panels[start : start + n_columns])))
    return lines


def _set_titles(all_axes: Sequence[Any], grid: Grid, i: int) -> None:
    """Set the titles of the panels of a line, and the title of the row above the first panel.

    Where the line above has the same titles of panels, only the row has one.
    """
    line = grid.lines[i]
    widths = grid.widths
    n_text_lines = 0
    if not grid.has_titles_above(i):
        titles = [_title_of(*item, grid.has_numbers) for item in line.panels.items()]
        for axes, title, width in zip(all_axes, titles, widths, strict=False):
            text = wrap(title, width)
            axes.set_title(text)
            n_text_lines = max(n_text_lines, len(text.splitlines()))
    if line.row_title:
        _set_row_title(all_axes[0], wrap(line.row_title, sum(widths)), n_text_lines)


def _set_row_title(axes: Any, row_title: str, n_text_lines: int) -> None:
    """Set the title of a row above its first panel, and above the lines of the titles of panels.

    The text may be wider than the panel, so the layout sees blank lines in its place.
    """
    n_lines = len(row_title.splitlines()) + n_text_lines
    axes.set_title("\n".join([" "] * n_lines), loc="left")
    text = axes.annotate(
        row_title + "\n" * n_text_lines,
        xy=(0, 1),
        xycoords="axes fraction",
        xytext=(0, STYLE["axes.titlepad"]),
        textcoords="offset points",
    )
    text.set_in_layout(False)


def _title_of(title: str, panel: Panel, has_numbers: bool) -> str:
    """Return the title of a panel, with the symbol of the numbers in its cells."""
    if has_numbers and isinstance(panel, ClassMap) and panel.symbol:
        return f"{title} ({panel.symbol})"
    return title


def _handles(panels: Sequence[Panel], blank: str) -> dict[str, Any]:
    """Return the handles of the legend: classes, and cells without a value if there are any."""
    from matplotlib.patches import Patch

    handles = {}
    for panel in panels:
        if isinstance(panel, ClassMap):
            for name, sign in panel.signs.items():
                handles[name] = Patch(**sign.patch())
    if any(panel.has_blanks for panel in panels):
        handles[blank] = Patch(**BLANK.patch())
    return handles


def _on_numbers(rows: Rows, has_numbers: bool) -> str:
    """Return the sentences of the caption on the numbers of cells."""
    if not has_numbers:
        return "The table beside the figure has the numbers."
    sentences: dict[str, None] = {}
    for row in rows.values():
        for title, panel in row.items():
            if isinstance(panel, ClassMap) and panel.number:
                sentences[f"Numbers in the {title}: {panel.number}."] = None
    return " ".join(sentences)


def _readable_width(panel: Panel) -> float:
    """Return the width in inches at which the numbers in the cells of a panel are readable."""
    n_characters = max([4, *(len(_text_of(number)) for number in panel.numbers)])
    return max(LEAST, CELL * n_characters / 4 * len(panel.matrix.columns))


def _text_of(number: float) -> str:
    """Return a number with two digits; 0.00 has no sign, and NaN is an empty text."""
    return "" if math.isnan(number) else f"{round(number, 2) + 0.0:.2f}"


def _write_cell(
    axes: Any, x: int, y: int, number: float, background: Any, *, is_boxed: bool = False
) -> None:
    """Write a number into a cell.

    Args:
        background: the colour of the cell, with red, green and blue in front.
        is_boxed: the number has a box of this colour, which covers the hatch.
    """
    red, green, blue = background[:3]
    brightness = 0.3 * red + 0.59 * green + 0.11 * blue
    colour = "black" if brightness > 0.5 else "white"
    box = None
    if is_boxed:
        box = {"facecolor": background, "edgecolor": "none", "pad": 0.5}
    text = axes.text(x, y, _text_of(number), ha="center", va="center", color=colour, bbox=box)
    text.set_in_layout(False)  # it lies in its panel; the layout is much faster without it
