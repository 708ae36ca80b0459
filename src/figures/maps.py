"""Heat maps of a quantity over the layers of two networks, or over pairs of networks."""

import math
import textwrap
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from src.core.choices.similarity import ACTIVATIONS, measure_of
from src.core.console import layer_in_words, note_once, table
from src.core.user_code import titles_in
from src.core.values import Pair
from src.figures.pages import CELLS, CHARACTERS, CM, COLUMN, NUMBERS, PAGE, write_figure
from src.figures.scales import quantity_of, title_of
from src.results.reports import corresponding
from src.results.tables import LAYERS, NETWORKS, QUANTITIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOM = 4.0  # cm of width, for a map at least
ROOM_WITH_NAMES = 6.0  # cm, for a map with other layers than those beside it
WIDE = 10  # columns; maps with more take the room of two
HIGHEST = 1.2  # cm, of a cell
LARGE = 10  # numbers from here on have fewer decimals
BLACK_ABOVE = 0.5  # the lightness of a cell, for a black number
TWO_SIDED = ("#f6c48c", "#08306b", "#a8d5a2")  # at 0, in the middle and at 1
FRAME = 0.92  # of a cell
STITCHED = ("front layer", "end layer")


class Map(NamedTuple):
    """A matrix of the values of a quantity over the layers of two networks, with labels."""

    quantity: str
    values: pd.DataFrame
    title: str = ""
    framed: Collection[tuple[str, str]] = ()  # the layers that correspond


def framed_in(frame: pd.DataFrame) -> list[Pair]:
    """Return the sorted pairs of corresponding layers of a frame."""
    layers = corresponding(frame)[LAYERS].drop_duplicates()
    return sorted(Pair(*pair) for pair in layers.itertuples(index=False))


def print_values(title: str, values: pd.DataFrame, *, axes: tuple[str, str] = STITCHED) -> None:
    """Print numbers or texts as a matrix, and once the titles of rows and columns."""
    rows, columns = (axis.replace("layer", "layers") for axis in axes)
    note_once(f"rows: {rows}, columns: {columns}")
    table(title, list(values.index), list(values.columns), values.to_numpy().tolist())


def draw_layers(
    path: Path,
    maps: Sequence[Map],
    *,
    axes: tuple[str, str] = STITCHED,
    framed: str = "corresponding layers",
    **texts: Any,
) -> list[Path]:
    """Draw heat maps whose dark cells are close. Return the written paths.

    Args:
        axes: the titles of rows and columns.
        framed: what frames show, for the caption.
        texts: `source` and `remark`, see `write_figure`.
    """
    is_small = len(maps) == 1 and len(maps[0].values.columns) <= WIDE
    draw = partial(_draw_layers, titles=axes, framed=framed)
    return write_figure(path, maps, draw, width=COLUMN if is_small else PAGE, **texts)


def _draw_layers(
    figure: "Figure", maps: Sequence[Map], *, titles: tuple[str, str], framed: str
) -> str:
    """Draw heat maps side by side, with a shared colour bar or one each; return the caption."""
    width = figure.get_figwidth() / CM
    in_line = min(len(maps), max(1, int(width / _room_of(maps))))
    firsts = maps[::in_line]
    panels = map_panels(figure, [item.values.shape for item in firsts], in_line)
    titles_of_scales = {title_of(item.quantity) for item in maps}
    shared = titles_of_scales.pop() if len(titles_of_scales) == 1 else ""
    for place, (item, panel) in enumerate(zip(maps, panels.flat, strict=False)):
        image = _paint(panel, item)
        is_last = place == len(maps) - 1 or place % in_line == in_line - 1
        if is_last or not shared:
            figure.colorbar(image, cax=panel.inset_axes((1.03, 0, 0.05, 1)), label=shared)
        if len(maps) > 1:
            heading = titles_in(item.title).split(", ", 1)
            if title_of(item.quantity) not in (shared, item.title):
                heading.append(title_of(item.quantity))
            lines = [textwrap.fill(text, int(CHARACTERS * width / in_line)) for text in heading]
            panel.set_title("\n".join(lines), x=0, ha="left")
        if place % in_line and item.values.index.equals(maps[place - 1].values.index):
            panel.set_yticks([])
        if place + in_line >= len(maps):
            panel.set_xlabel(titles[1])
    for unused in panels.flat[len(maps) :]:
        unused.remove()
    figure.supylabel(titles[0])
    frames = f"; frames are {framed}" if any(item.framed for item in maps) else ""
    return f"{closest(maps[0])}Darker cells are closer{frames}."


def map_panels(figure: "Figure", shapes: Sequence[tuple[int, int]], in_line: int) -> Any:
    """Add rows of maps to a figure that is high enough; return their axes (rows, in_line).

    Args:
        shapes: the numbers of rows and columns of the maps in each row.
    """
    width = figure.get_figwidth() / in_line
    heights = [shape_of(*shape, width / CM) for shape in shapes]
    figure.set_layout_engine("compressed")
    figure.set_figheight(2 * CM + 1.5 * sum(heights) * width)
    return figure.subplots(len(shapes), in_line, squeeze=False, height_ratios=heights)


def _room_of(maps: Sequence[Map]) -> float:
    """Return the width in cm that a map needs."""
    if max(len(item.values.columns) for item in maps) > WIDE:
        return 2 * ROOM
    layers = {tuple(map(tuple, item.values.axes)) for item in maps}
    return ROOM if len(layers) == 1 else ROOM_WITH_NAMES


def closest(item: Map) -> str:
    """Return the caption's sentence on the closest layers of a map; "" without values."""
    similarities = item.values.map(quantity_of(item.quantity).similarity).stack().dropna()
    if similarities.empty:
        return ""
    first, second = similarities.idxmax()
    by = ", ".join(dict.fromkeys(filter(None, [title_of(item.quantity), titles_in(item.title)])))
    pair = f"{layer_in_words(first)} and {layer_in_words(second)}"
    return f"Closest by {by} are {pair} ({number(item.values.at[first, second])}). "


def _paint(axes: "Axes", item: Map) -> Any:
    """Draw the cells of a map with their numbers, and return the image; cells without a value are hatched."""
    values = item.values.to_numpy(dtype=float)
    image = axes.imshow(values, aspect="auto", **_colours_of(item.quantity, values))
    for (y, x), value in np.ndenumerate(values):
        lightness = np.dot(image.to_rgba(value)[:3], (0.3, 0.6, 0.1))
        is_dark = bool(math.isfinite(value) and lightness < BLACK_ABOVE)
        ink = "white" if is_dark else "black"
        write_in_cell(axes, x, y, number(value), color=ink)
    name_cells(axes, *(list(map(layer_in_words, names)) for names in item.values.axes))
    frame_cells(axes, item)
    return image


def _colours_of(quantity: str, values: np.ndarray) -> dict[str, Any]:
    """Return the colour map and its normalisation as arguments of `imshow`; values beyond the scale are
    clipped, but for those of a user's function."""
    from matplotlib.colors import LinearSegmentedColormap

    entry = quantity_of(quantity)
    different, similar = entry.scale or (0, 1)
    colours: Any = "Blues" if similar > different else "Blues_r"
    if entry.is_two_sided:
        colours = LinearSegmentedColormap.from_list("", TWO_SIDED)
    ends = [different, similar]
    if quantity not in QUANTITIES and measure_of(quantity).of == ACTIVATIONS:
        ends += values[np.isfinite(values)].tolist()
    return {"cmap": colours, "vmin": min(ends), "vmax": max(ends)}


def name_cells(axes: "Axes", rows: Sequence[str], columns: Sequence[str]) -> None:
    """Label the rows, from the top, and the columns of a map."""
    axes.set_gid(CELLS)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.patch.set(facecolor="white", edgecolor="0.75", hatch="/////", linewidth=0)
    place: Any = axes.get_subplotspec()
    figure: Any = axes.figure
    width = figure.get_figwidth() / CM / place.get_gridspec().ncols
    axes.set_box_aspect(shape_of(len(rows), len(columns), width))


def shape_of(n_rows: int, n_columns: int, width: float) -> float:
    """Return the ratio of a map's height to its width, which is at most `width` in cm."""
    return min(max(n_rows / n_columns, 0.5), HIGHEST * n_rows / width)


def frame_cells(axes: "Axes", item: Map) -> None:
    """Draw a frame, visible on dark and light cells, into the cells of corresponding layers."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    rows, columns = item.values.axes
    for front, end in item.framed:
        corner = (columns.get_loc(end) - FRAME / 2, rows.get_loc(front) - FRAME / 2)
        frame = Rectangle(corner, FRAME, FRAME, fill=False, linewidth=0.8, zorder=3)
        frame.set_path_effects([withStroke(linewidth=2.2, foreground="white")])
        axes.add_patch(frame)


def write_in_cell(
    axes: "Axes", x: float, y: float, text: str, *, behind: str = "", **options: Any
) -> None:
    """Write a text into a cell of a map; nothing if the text is empty.

    Args:
        behind: the colour around the letters, on a hatched cell.
    """
    from matplotlib.patheffects import withStroke

    if not text:
        return
    written = axes.text(
        x, y, text, ha="center", va="center", gid=NUMBERS, zorder=4, size=6, **options
    )
    written.set_in_layout(False)  # the layout is much faster without it
    if behind:
        written.set_path_effects([withStroke(linewidth=2, foreground=behind)])


def number(value: float, n_digits: int = 2) -> str:
    """Format a number with a minus sign (−), and fewer decimals if it is large; "" for NaN."""
    if math.isnan(value):
        return ""
    if abs(value) >= LARGE:
        n_digits = 0
    elif abs(value) > 1:
        n_digits = min(n_digits, 1)
    return f"{round(value, n_digits) + 0.0:.{n_digits}f}".replace("-", "−")


def maps_of_networks(means: pd.DataFrame) -> list[Map]:
    """Return a map of mean skill over pairs of networks for each method; pairs within a group are framed.

    Args:
        means: of pairs of networks, from `src.results.reports.network_means`.
    """
    skills = means[means.quantity == "skill"]
    names = list(dict.fromkeys([*skills.front_network, *skills.end_network]))
    maps = []
    for method, rows in skills.groupby("method", sort=False):
        values = rows.pivot(index=NETWORKS[0], columns=NETWORKS[1], values="value")
        within = rows[rows.front_group == rows.end_group]
        framed = list(within[NETWORKS].itertuples(index=False, name=None))
        maps.append(Map("skill", values.reindex(names, columns=names), titles_in(method), framed))
    return maps
