"""Heat maps over two axes, such as front and end layers, with the values written into the cells."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from src.results.figures import COLUMN, POINTS, can_draw, new_figure
from src.results.matrices import Matrix
from src.results.quantities import Quantity

# Colour maps
SIMILARITY = "viridis"
DISTANCE = "viridis_r"
DIVERGING = "RdBu_r"

CELL = 0.34  # inches: the width in which a number is readable


class HeatMap(NamedTuple):
    """A panel: a matrix, and the meaning of its colours. Bright is similar, dark is different."""

    matrix: Matrix  # a cell of NaN stays blank
    # The values of the darkest and of the brightest colour. A distance has (1, 0).
    scale: tuple[float, float] = (0.0, 1.0)
    # Bright in the middle of `scale`, dark blue below and dark red above
    is_diverging: bool = False
    marked: Collection[tuple[str, str]] = ()  # row and column of cells with a red corner

    @classmethod
    def of(cls, matrix: Matrix, quantity: Quantity) -> "HeatMap":
        """Return the panel of a matrix of a quantity.

        Raises:
            ValueError: the quantity has no scale.
        """
        if quantity.scale is None:
            raise ValueError(f"{quantity.title} has no scale for the colours of a heat map")
        return cls(matrix, quantity.scale, is_diverging=quantity.is_two_sided)

    @classmethod
    def difference(cls, matrix: Matrix) -> "HeatMap":
        """Return the panel of a matrix of differences, with the brightest colour at 0."""
        sizes = [abs(value) for line in matrix.values for value in line]
        largest = max((size for size in sizes if size > 0), default=1.0)  # NaN is not above 0
        return cls(matrix, (-largest, largest), is_diverging=True)

    @property
    def colour_map(self) -> str:
        """The name of matplotlib's colour map."""
        if self.is_diverging:
            return DIVERGING
        darkest, brightest = self.scale
        return SIMILARITY if darkest < brightest else DISTANCE

    def paint(self, axes: Any) -> None:
        """Draw the cells with their values, the marks, and a bar that explains the colours."""
        low, high = sorted(self.scale)
        image = axes.imshow(self.matrix.values, vmin=low, vmax=high, cmap=self.colour_map)
        for y, line in enumerate(self.matrix.values):
            for x, value in enumerate(line):
                if not math.isnan(value):
                    _write_cell(axes, x, y, value, _readable_on(image.cmap(image.norm(value))))
        for row, column in self.marked:
            self._mark(axes, row, column)
        axes.figure.colorbar(image, ax=axes)

    def _mark(self, axes: Any, row: str, column: str) -> None:
        """Draw a red triangle into the upper right corner of a cell."""
        x = self.matrix.columns.index(column)
        y = self.matrix.rows.index(row)
        xs = [x + 0.5, x + 0.26, x + 0.5]
        ys = [y - 0.5, y - 0.5, y - 0.26]
        axes.fill(xs, ys, facecolor="red", edgecolor="white", linewidth=0.5)


class ClassMap(NamedTuple):
    """A panel of cells with the colour of a class and a number."""

    matrix: Matrix  # of (class, number); the number may be NaN; a cell of None stays blank
    colours: Mapping[str, str]  # by class; the legend shows the colours

    def paint(self, axes: Any) -> None:
        """Draw the cells with their numbers."""
        from matplotlib.patches import Rectangle

        axes.set(
            xlim=(-0.5, len(self.matrix.columns) - 0.5),
            ylim=(len(self.matrix.rows) - 0.5, -0.5),
            aspect="equal",
        )
        for y, line in enumerate(self.matrix.values):
            for x, cell in enumerate(line):
                if cell is None:
                    continue
                name, number = cell
                corner = (x - 0.5, y - 0.5)
                colour = self.colours[name]
                axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="grey"))
                if not math.isnan(number):
                    _write_cell(axes, x, y, number, "black")


def maps(
    path: Path,
    panels: Mapping[str, HeatMap | ClassMap],
    *,
    row_label: str,
    column_label: str,
    title: str = "",
    caption: str = "",
    n_columns: int | None = None,
) -> bool:
    """Draw panels of cells, and a legend of the classes; return whether the figure was drawn.

    Args:
        panels: by title. Their rows and columns keep the order of the matrix.
        caption: the text below the figure.
        n_columns: panels side by side; None: the default of `new_figure`.
    """
    if not can_draw(path):
        return False
    from matplotlib.patches import Patch

    matrices = [panel.matrix for panel in panels.values()]
    largest = max(max(len(matrix.rows), len(matrix.columns)) for matrix in matrices)
    side = max(COLUMN, 1.2 + CELL * largest)
    with new_figure(
        path, list(panels), (side, side), title=title, caption=caption, n_columns=n_columns
    ) as (all_axes, legend):
        for axes, panel in zip(all_axes, panels.values(), strict=True):
            rows, columns, _ = panel.matrix
            axes.set_facecolor("0.9")  # the colour of blank cells
            axes.set_xticks(range(len(columns)), columns, rotation=90)
            axes.set_yticks(range(len(rows)), rows)
            axes.set(xlabel=column_label, ylabel=row_label)
            panel.paint(axes)
            if isinstance(panel, ClassMap):
                for name, colour in panel.colours.items():
                    legend[name] = Patch(facecolor=colour, edgecolor="grey")
    return True


def _readable_on(colour: tuple[float, float, float, float]) -> str:
    """Return "black" for a bright background (red, green, blue, opacity), else "white"."""
    red, green, blue, _ = colour
    brightness = 0.3 * red + 0.59 * green + 0.11 * blue
    return "black" if brightness > 0.5 else "white"


def _write_cell(axes: Any, x: int, y: int, value: float, colour: str) -> None:
    """Write a number with two digits into a cell; 0.00 has no sign."""
    text = f"{round(value, 2) + 0.0:.2f}"
    axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=POINTS - 1)
