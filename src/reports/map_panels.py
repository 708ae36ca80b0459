"""Panels of heat maps: a matrix of numbers in colours, or shares of classes in strips."""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from src.ground.console import listed
from src.tables.matrices import Matrix
from src.tables.quantities import Quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

# Colour maps. Their brightness alone tells the values apart, in print and to colour-blind people.
SIMILARITY = "viridis"
DISTANCE = "viridis_r"
TWO_SIDED = "RdBu_r"  # bright in the middle, dark blue below and dark red above
DIFFERENCE = "cividis"  # dark below 0, bright above


class Sign(NamedTuple):
    """The look of cells: a colour, and a hatch for prints in grey."""

    colour: str
    hatch: str = ""
    lines: str = "black"  # the colour of the hatch

    def on(self, patch: "Patch") -> "Patch":
        """Give a patch this look; return it."""
        patch.set(facecolor=self.colour, hatch=self.hatch, edgecolor=self.lines)
        return patch


BLACK_ABOVE = 0.21  # luminance; about where black and white numbers are read alike
INSIDE = 0.92  # of the width and the height of a cell: strips, and frames around cells

BLANK = Sign("0.92", "\\\\\\", lines="0.65")  # of cells without a value
UNSURE = Sign("white", "\\\\\\\\", lines="0.6")  # dots would look like minus signs


class HeatMap(NamedTuple):
    """A panel: a matrix, and the meaning of its colours. Bright is similar, dark is different."""

    matrix: Matrix  # a cell of NaN stays blank
    # The values of the darkest and of the brightest colour. A distance has (1, 0)
    scale: tuple[float, float] = (0.0, 1.0)
    # What the values are judged by: marked, and the middle of the colours unless they are linear
    limit: float = math.nan
    is_linear: bool = False
    colours: str = ""  # matplotlib's colour map; "": bright at the second end of the scale
    marked: Collection[tuple[str, str]] = ()  # row and column of cells with a red corner
    n_digits: int = 2  # of the numbers in the cells, behind the point
    note: str = ""  # on the values, for the caption
    meaning: str = ""  # of the values, for the definitions below the caption

    @classmethod
    def of(cls, matrix: Matrix, quantity: Quantity, *, limit: float = math.nan) -> "HeatMap":
        """Return the panel of a matrix of a quantity.

        Raises:
            ValueError: the quantity has no scale.
        """
        if quantity.scale is None:
            raise ValueError(f"{quantity.title} has no scale for the colours of a heat map")
        colours = TWO_SIDED if quantity.is_two_sided else ""
        return cls(
            matrix,
            quantity.scale,
            limit,
            colours=colours,
            note=quantity.note,
            meaning=quantity.description,
        )

    @classmethod
    def difference(cls, matrix: Matrix) -> "HeatMap":
        """Return the panel of a matrix of differences, with 0 in the middle of the colours."""
        sizes = [abs(value) for line in matrix.values for value in line]
        largest = max((size for size in sizes if size > 0), default=1.0)  # NaN is not above 0
        return cls(matrix, (-largest, largest), colours=DIFFERENCE)

    @property
    def colour_map(self) -> str:
        """The name of matplotlib's colour map."""
        darkest, brightest = self.scale
        if self.colours:
            return self.colours
        return SIMILARITY if darkest < brightest else DISTANCE

    @property
    def look(self) -> str:
        """The colours and their values as a text: panels of one look share a bar of colours."""
        return f"{self.colour_map} {self.scale} {self.limit}"

    @property
    def is_uneven(self) -> bool:
        """Whether the colours on either side of the limit have scales of their own."""
        low, high = sorted(self.scale)
        is_middle = math.isclose(self.limit, (low + high) / 2)
        return low < self.limit < high and not (self.is_linear or is_middle)

    @property
    def numbers(self) -> list[float]:
        """The values of the cells."""
        return [value for line in self.matrix.values for value in line]

    @property
    def texts(self) -> list[str]:
        """The numbers in the cells."""
        return [text_of(number, self.n_digits) for number in self.numbers]

    @property
    def has_blanks(self) -> bool:
        """Whether cells have no value."""
        return any(map(math.isnan, self.numbers))

    @property
    def norm(self) -> "Normalize":
        """The place of values in the colours."""
        from matplotlib.colors import Normalize, TwoSlopeNorm

        low, high = sorted(self.scale)
        if self.is_uneven:
            return TwoSlopeNorm(self.limit, low, high)
        return Normalize(low, high)

    def paint(self, axes: "Axes", *, has_numbers: bool = True) -> None:
        """Draw the cells with their values, and the marks."""
        image = axes.imshow(self.matrix.values, norm=self.norm, cmap=self.colour_map, aspect="auto")
        if has_numbers:
            for y, line in enumerate(self.matrix.values):
                for x, value in enumerate(line):
                    _write_cell(axes, x, y, text_of(value, self.n_digits), image.to_rgba(value))
        for cell in self.marked:
            self._mark(axes, *cell)

    def _mark(self, axes: "Axes", row: str, column: str) -> None:
        """Draw a red triangle into the upper right corner of a cell."""
        x = self.matrix.columns.index(column)
        y = self.matrix.rows.index(row)
        xs = [x + 0.5, x + 0.26, x + 0.5]
        ys = [y - 0.5, y - 0.5, y - 0.26]
        axes.fill(xs, ys, facecolor="red", edgecolor="white", linewidth=0.5)


class ClassMap(NamedTuple):
    """A panel of cells with a strip for each class, as wide as its share of the cell."""

    shares: Mapping[str, Matrix]  # by class, all over the same axes; a cell of NaN stays blank
    signs: Mapping[str, Sign]  # by class; the legend shows them
    note: str = ""  # on the classes, for the caption
    meaning: str = ""  # of the classes, for the definitions below the caption

    @property
    def matrix(self) -> Matrix:
        """The shares of the first class, which have the axes of all."""
        return next(iter(self.shares.values()))

    @property
    def look(self) -> str:
        """The classes as a text."""
        return listed(self.signs)

    @property
    def texts(self) -> list[str]:
        """No numbers: cells have strips only."""
        return []

    @property
    def occurring(self) -> set[str]:
        """The classes that a cell has a share of."""
        return {
            name
            for name, matrix in self.shares.items()
            if any(share > 0 for line in matrix.values for share in line)
        }

    @property
    def has_blanks(self) -> bool:
        """Whether cells have no shares."""
        return any(math.isnan(share) for line in self.matrix.values for share in line)

    def paint(self, axes: "Axes") -> None:
        """Draw the strips of each cell, from left to right in the order of the signs."""
        rows, columns, _ = self.matrix
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        for y in range(len(rows)):
            for x in range(len(columns)):
                shares = {name: self.shares[name].values[y][x] for name in self.signs}
                if not any(map(math.isnan, shares.values())):
                    self._paint_cell(axes, x, y, shares)

    def _paint_cell(self, axes: "Axes", x: int, y: int, shares: Mapping[str, float]) -> None:
        """Draw the strips of a cell."""
        from matplotlib.patches import Rectangle

        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="white"))
        start = x - INSIDE / 2
        for name, share in shares.items():
            if share > 0:
                width = share * INSIDE
                strip = Rectangle((start, y - INSIDE / 2), width, INSIDE, linewidth=0.4)
                axes.add_patch(self.signs[name].on(strip))
                start += width


Panel = HeatMap | ClassMap


def frame(axes: "Axes", x: int, y: int) -> None:
    """Draw a frame around a cell."""
    from matplotlib.patches import Rectangle

    frame = Rectangle((x - INSIDE / 2, y - INSIDE / 2), INSIDE, INSIDE, fill=False)
    outline(frame)
    axes.add_patch(frame)


def outline(line: "Patch | Line2D") -> None:
    """Make a line black between white, so that it is seen on every colour."""
    from matplotlib.patheffects import withStroke

    line.set(linewidth=0.8, path_effects=[withStroke(linewidth=2, foreground="white")])
    line.set_color("black")


def text_of(number: float, n_digits: int = 2) -> str:
    """Return a number with digits behind the point and a true minus; 0.00 has no sign, and NaN is an
    empty text."""
    if math.isnan(number):
        return ""
    return f"{round(number, n_digits) + 0.0:.{n_digits}f}".replace("-", "−")


def _linear(value: float) -> float:
    """Return the light of a value of a colour in sRGB."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _write_cell(axes: "Axes", x: int, y: int, text: str, background: Iterable[float]) -> None:
    """Write a text into a cell.

    Args:
        background: the colour of the cell, with red, green and blue in front.
    """
    if not text:
        return
    red, green, blue = (_linear(value) for value in list(background)[:3])
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    colour = "black" if luminance > BLACK_ABOVE else "white"
    written = axes.text(x, y, text, ha="center", va="center", color=colour)
    written.set_in_layout(False)  # it lies in its panel; the layout is much faster without it
