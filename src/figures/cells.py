"""Maps of cells, such as layers × layers: names, numbers, frames and colours."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from src.figures.pages import CELLS, NUMBERS
from src.ground.console import layer_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLACK_ABOVE = 0.5  # the lightness of a cell, for a black number
INSIDE = 0.9  # of a cell, within its frame
LARGE = 10  # numbers from here on have fewer decimals


def name_cells(axes: "Axes", rows: Sequence[str], columns: Sequence[str]) -> None:
    """Make axes a map with these names of rows, from the top, and columns."""
    axes.set_gid(CELLS)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(columns)), list(map(layer_in_words, columns)))
    axes.set_yticks(range(len(rows)), list(map(layer_in_words, rows)))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.patch.set(facecolor="white", edgecolor="0.75", hatch="/////", linewidth=0)
    axes.set_box_aspect(min(max(len(rows) / len(columns), 0.5), 2))


def frame_cells(axes: "Axes", cells: Iterable[tuple[int, int]], thickness: float = 1) -> None:
    """Draw a frame into cells, given by row and column; it is seen on dark and on light cells."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    for y, x in cells:
        corner = (x - INSIDE / 2, y - INSIDE / 2)
        frame = Rectangle(corner, INSIDE, INSIDE, fill=False, linewidth=0.8 * thickness)
        frame.set_path_effects([withStroke(linewidth=2.2 * thickness, foreground="white")])
        axes.add_patch(frame)


def paint_cells(axes: "Axes", values: Sequence[Sequence[float]], **colours: Any) -> Any:
    """Paint cells by value, write their numbers, and return the image; NaN has a hatch.

    Args:
        colours: arguments of `imshow`, such as `cmap` and `norm`.
    """
    image: Any = axes.imshow(values, aspect="auto", **colours)
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            red, green, blue, _ = image.to_rgba(value)
            lightness = 0.3 * red + 0.6 * green + 0.1 * blue
            colour = "black" if lightness > BLACK_ABOVE or math.isnan(value) else "white"
            write_in_cell(axes, x, y, number(value), color=colour)
    return image


def add_bar(axes: "Axes", image: Any, title: str = "") -> None:
    """Draw a bar of colours at the right side of a map."""
    beside = axes.inset_axes((1.03, 0, 0.05, 1))
    axes.figure.colorbar(image, cax=beside, label=title)


def write_in_cell(axes: "Axes", x: float, y: float, text: str, **options: Any) -> None:
    """Write a text at a place of a map, if there is one."""
    if not text:
        return
    written = axes.text(x, y, text, ha="center", va="center", gid=NUMBERS, **options)
    written.set_in_layout(False)  # it lies in its panel; the layout is much faster without it


def number(value: float, n_digits: int = 2) -> str:
    """Return a number with a true minus, and fewer decimals if it is large; "" for NaN."""
    if math.isnan(value):
        return ""
    if abs(value) >= LARGE:
        n_digits = 0
    elif abs(value) > 1:
        n_digits = min(n_digits, 1)
    return f"{round(value, n_digits) + 0.0:.{n_digits}f}".replace("-", "−")
