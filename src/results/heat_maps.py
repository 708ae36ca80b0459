"""Heat maps over two axes, such as front and end layers, with every value written into its cell."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from src.results.figures import COLUMN, POINTS, can_draw, new_figure
from src.results.matrices import Matrix
from src.results.quantities import Quantity

SIMILARITY, DISTANCE, DIVERGING = "viridis", "viridis_r", "RdBu_r"  # colour maps
CELL = 0.34  # inches, in which a number is readable


class HeatMap(NamedTuple):
    """A panel: a matrix, and the meaning of its colours. Bright stands for similar, dark for
    different."""

    matrix: Matrix  # a cell of NaN stays blank
    scale: tuple[float, float] = (
        0.0,
        1.0,
    )  # values of the darkest and the brightest colour; a distance has (1, 0)
    is_diverging: bool = (
        False  # bright in the middle of `scale`, dark blue below and dark red above
    )
    marked: Collection[tuple[str, str]] = ()  # row and column of cells with a red corner

    @classmethod
    def of(cls, matrix: Matrix, quantity: Quantity) -> "HeatMap":
        """Make the panel of a matrix of a quantity that has a scale."""
        return cls(matrix, quantity.scale, is_diverging=quantity.is_two_sided)

    @classmethod
    def difference(cls, matrix: Matrix) -> "HeatMap":
        """Make the panel of a matrix of differences, with the colours centred at 0."""
        largest = max(
            (abs(value) for line in matrix.values for value in line if not math.isnan(value)),
            default=0,
        )
        return cls(matrix, (-(largest or 1.0), largest or 1.0), is_diverging=True)

    def paint(self, axes: Any) -> None:
        """Draw the cells with their values, and a bar that explains the colours."""
        low, high = sorted(self.scale)
        colours = (
            DIVERGING
            if self.is_diverging
            else SIMILARITY
            if self.scale[0] < self.scale[1]
            else DISTANCE
        )
        image = axes.imshow(self.matrix.values, vmin=low, vmax=high, cmap=colours)
        for y, line in enumerate(self.matrix.values):
            for x, value in enumerate(line):
                if not math.isnan(value):
                    red, green, blue, _ = image.cmap(image.norm(value))
                    is_bright = 0.3 * red + 0.59 * green + 0.11 * blue > 0.5
                    _write_cell(axes, x, y, value, "black" if is_bright else "white")
        for row, column in self.marked:
            y, x = self.matrix.rows.index(row), self.matrix.columns.index(column)
            corner = [(x + 0.5, y - 0.5), (x + 0.26, y - 0.5), (x + 0.5, y - 0.26)]
            axes.fill(*zip(*corner, strict=True), facecolor="red", edgecolor="white", linewidth=0.5)
        axes.figure.colorbar(image, ax=axes)


class ClassMap(NamedTuple):
    """A panel whose cells have the colour of a class, and a number."""

    matrix: Matrix  # of classes and numbers, NaN for none; a cell of None stays blank
    colours: Mapping[str, str]  # by class; they are in the legend

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
                if cell is not None:
                    look = {"facecolor": self.colours[cell[0]], "edgecolor": "grey"}
                    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **look))
                    if not math.isnan(cell[1]):
                        _write_cell(axes, x, y, cell[1], "black")


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
    """Draw matrices, with every value written into its cell, and one legend of classes.

    Args:
        panels: by title; each has axes of its own. Rows and columns keep their order.
        caption: the text below the figure.
        n_columns: panels in a row; None: see `new_figure`.
    Returns:
        Whether the figure was drawn.
    """
    if not can_draw(path):
        return False
    from matplotlib.patches import Patch

    largest = max(len(names) for panel in panels.values() for names in panel.matrix[:2])
    side = max(COLUMN, 1.2 + CELL * largest)
    texts = {"title": title, "caption": caption}
    with new_figure(path, list(panels), (side, side), n_columns=n_columns, **texts) as (
        all_axes,
        legend,
    ):
        for axes, panel in zip(all_axes, panels.values(), strict=True):
            axes.set_facecolor("0.9")  # of cells without a value
            axes.set_xticks(range(len(panel.matrix.columns)), panel.matrix.columns, rotation=90)
            axes.set_yticks(range(len(panel.matrix.rows)), panel.matrix.rows)
            axes.set(xlabel=column_label, ylabel=row_label)
            panel.paint(axes)
            for name, colour in getattr(panel, "colours", {}).items():
                legend[name] = Patch(facecolor=colour, edgecolor="grey")
    return True


def _write_cell(axes: Any, x: int, y: int, value: float, colour: str) -> None:
    """Write a number, 0.00 without a sign."""
    axes.text(
        x,
        y,
        f"{round(value, 2) + 0.0:.2f}",
        ha="center",
        va="center",
        color=colour,
        fontsize=POINTS - 1,
    )
