"""Heat maps of a quantity over the layers of two networks, or over pairs of networks."""

import math
import textwrap
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from src.core.console import layer_in_words
from src.core.user_code import titles_in
from src.figures.pages import CELLS, CHARACTERS, CM, COLUMN, NUMBERS, PAGE, draw_pages, panels_in
from src.figures.scales import scale_of
from src.results.matrices import Matrix
from src.results.network_names import short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

MOST = 12  # maps on a page
MOST_OF_OWN_LAYERS = 4  # on a page, if maps have different layers
ROOM = 4.0  # cm of width, for a map at least
ROOM_WITH_NAMES = 6.0  # cm, for a map with other layers than those beside it
WIDE = 10  # columns; maps with more take the room of two
HIGHEST = 1.4  # cm, of a cell
HEAD = 2.0  # cm above and below a map, at least
TITLES = 1.2  # cm above and below a map and the names of its columns
LARGE = 10  # numbers from here on have fewer decimals
BLACK_ABOVE = 0.5  # the lightness of a cell, for a black number
TWO_SIDED = ("#f6c48c", "#08306b", "#a8d5a2")  # at 0, in the middle and at 1
STITCHED = ("front layer", "end layer")


class Map(NamedTuple):
    """A matrix of the values of a quantity over the layers of two networks, with labels."""

    quantity: str
    values: Matrix
    title: str = ""
    framed: Collection[tuple[str, str]] = ()  # the layers that correspond

    @property
    def labels(self) -> tuple[list[str], list[str]]:
        """The names of rows and columns."""
        return list(self.values.rows), list(self.values.columns)


def draw_layers(
    path: Path, maps: Sequence[Map], *, axes: tuple[str, str] = STITCHED, **texts: Any
) -> list[Path]:
    """Draw heat maps in which dark cells are similar. Return the written paths.

    Args:
        axes: the titles of rows and columns.
        texts: `source` and `remark`, see `draw_pages`.
    """
    is_single = len(maps) == 1 and len(maps[0].values.columns) <= WIDE
    width = COLUMN if is_single else PAGE
    draw = partial(_draw_layers, titles=axes)
    on_page = MOST if _share_layers(maps) else MOST_OF_OWN_LAYERS
    return draw_pages(path, maps, draw, on_page=on_page, width=width, **texts)


def _draw_layers(figure: "Figure", maps: Sequence[Map], *, titles: tuple[str, str]) -> str:
    """Draw heat maps side by side, with a shared colour bar or one each; return the caption."""
    width = figure.get_figwidth() / CM
    n_rows = max(len(item.values.rows) for item in maps)
    n_columns = max(len(item.values.columns) for item in maps)
    names = [name for item in maps for labels in item.labels for name in labels]
    length = max(len(layer_in_words(name)) for name in names) / CHARACTERS
    room = ROOM if _share_layers(maps) else ROOM_WITH_NAMES
    if n_columns > WIDE:
        room = 2 * ROOM
    in_line = min(len(maps), max(1, int(width / room)))
    of_panel = width / in_line
    height = min(0.8 * of_panel * _shape(n_rows, n_columns), HIGHEST * n_rows)
    head = max(HEAD, TITLES + length)
    panels = panels_in(figure, len(maps), in_line=in_line, height=height + head)
    quantities = {item.quantity for item in maps}
    for place, (item, panel) in enumerate(zip(maps, panels, strict=True)):
        image = _paint(panel, item)
        name_cells(panel, *(list(map(layer_in_words, names)) for names in item.labels))
        frame_cells(panel, item)
        scale = scale_of(item.quantity)
        if len(quantities) > 1:
            _add_bar(panel, image)
        elif place == len(maps) - 1 or place % in_line == in_line - 1:
            _add_bar(panel, image, scale.title)
        heading = titles_in(item.title).split(", ", 1) if len(maps) > 1 else []
        if len(quantities) > 1 and scale.title != item.title:
            heading.append(scale.title)
        lines = [textwrap.fill(text, int(CHARACTERS * of_panel)) for text in heading]
        panel.set_title("\n".join(lines), x=0, ha="left")
        if place % in_line and item.labels[0] == maps[place - 1].labels[0]:
            panel.set_yticks([])
        if place + in_line >= len(maps):
            panel.set_xlabel(titles[1])
    figure.supylabel(titles[0])
    frames = "; frames are corresponding layers" if any(item.framed for item in maps) else ""
    return f"{most_similar(maps[0])}Dark cells are similar{frames}."


def _share_layers(maps: Sequence[Map]) -> bool:
    """Return whether all maps have the same layers."""
    return all(item.labels == maps[0].labels for item in maps)


def most_similar(item: Map) -> str:
    """Return the caption's sentence on the most similar cell of a map; "" without values."""
    scale = scale_of(item.quantity)
    distances = np.abs(np.array(item.values.values, dtype=float) - scale.best)
    if np.isnan(distances).all():
        return ""
    y, x = map(int, np.unravel_index(np.nanargmin(distances), distances.shape))
    pair = f"{layer_in_words(item.labels[0][y])} and {layer_in_words(item.labels[1][x])}"
    value = number(item.values.values[y][x])
    title = scale.title
    if item.title and item.title != title:
        title += f", {titles_in(item.title)}"
    return f"Most similar by {title} are {pair} ({value}). "


def _paint(axes: "Axes", item: Map) -> Any:
    """Draw the cells of a map with their numbers, and return the image; cells without a value are hatched."""
    values = np.array(item.values.values, dtype=float)
    image = axes.imshow(values, aspect="auto", **_colours_of(item.quantity, values))
    for (y, x), value in np.ndenumerate(values):
        lightness = np.dot(image.to_rgba(value)[:3], (0.3, 0.6, 0.1))
        is_dark = math.isfinite(value) and lightness < BLACK_ABOVE
        write_in_cell(axes, x, y, number(value), color="white" if is_dark else "black")
    return image


def _colours_of(quantity: str, values: np.ndarray) -> dict[str, Any]:
    """Return the colour map and its normalisation as arguments of `imshow`; values beyond the scale are
    clipped."""
    from matplotlib.colors import LinearSegmentedColormap

    scale = scale_of(quantity)
    low, high = sorted((scale.different, scale.similar))
    known = values[np.isfinite(values)]
    if scale.is_open:
        low = min([low, *known])
        high = max([high, *known])
    colours: Any = "Blues"
    if scale.is_two_sided:
        colours = LinearSegmentedColormap.from_list("", TWO_SIDED)
    elif scale.similar < scale.different:
        colours = "Blues_r"
    return {"cmap": colours, "vmin": low, "vmax": high}


def name_cells(axes: "Axes", rows: Sequence[str], columns: Sequence[str]) -> None:
    """Label the rows, from the top, and the columns of a map."""
    axes.set_gid(CELLS)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.patch.set(facecolor="white", edgecolor="0.75", hatch="/////", linewidth=0)
    axes.set_box_aspect(_shape(len(rows), len(columns)))


def _shape(n_rows: int, n_columns: int) -> float:
    """Return the ratio of a map's height to its width."""
    return min(max(n_rows / n_columns, 0.5), 2)


def frame_cells(axes: "Axes", item: Map) -> None:
    """Draw a frame, visible on dark and light cells, into the cells of corresponding layers."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    rows, columns = item.labels
    for front, end in item.framed:
        x, y = columns.index(end), rows.index(front)
        frame = Rectangle((x - 0.45, y - 0.45), 0.9, 0.9, fill=False, linewidth=0.8, zorder=3)
        frame.set_path_effects([withStroke(linewidth=2.2, foreground="white")])
        axes.add_patch(frame)


def _add_bar(axes: "Axes", image: Any, title: str = "") -> None:
    """Draw a colour bar at the right side of a map."""
    axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.05, 1)), label=title)


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


def maps_of_networks(means: "DataFrame", *, are_paths: bool) -> list[Map]:
    """Return a map of mean skill over pairs of networks for each method; pairs within a group are framed.

    Args:
        means: of pairs of networks, from `src.results.reports.network_means`.
        are_paths: networks are called by their paths, which are shortened.
    """
    skills = means[means.quantity == "skill"]
    networks = list(dict.fromkeys([*skills.front_network, *skills.end_network]))
    names = short_names(networks) if are_paths else networks
    short = dict(zip(networks, names, strict=True))
    maps = []
    for method, rows in skills.groupby("method", sort=False):
        table = rows.pivot(index="front_network", columns="end_network", values="value")
        values = table.reindex(index=networks, columns=networks).to_numpy().tolist()
        within = rows[rows.front_group == rows.end_group]
        pairs = zip(within.front_network.map(short), within.end_network.map(short), strict=True)
        maps.append(Map("skill", Matrix(names, names, values), titles_in(method), set(pairs)))
    return maps
