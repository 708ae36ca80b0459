"""Figures 2, layers, and 5, networks: maps of a quantity over the layers of two networks, and over
networks; and the cells of maps."""

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.core.console import layer_in_words
from src.core.grouping import grouped
from src.core.user_code import titles_in
from src.figures.pages import CELLS, CM, COLUMN, NUMBERS, PAGE, draw_pages, panels_in
from src.figures.shown import Scale, Shown, scale_of
from src.results.matrices import by_depth
from src.results.network_names import short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 12  # maps of layers on a page
MOST_OF_OWN_LAYERS = 4  # on a page, if maps have different layers
ROOM = 4.0  # cm of width, for a map at least
ROOM_WITH_NAMES = 6.0  # cm, for a map with other layers than those beside it
WIDE = 10  # columns; maps with more take the room of two
HIGHEST = 1.4  # cm, of a cell
HEAD = 2.0  # cm above and below a map, at least
TITLES = 1.2  # cm above and below a map and the names of its columns
CHARACTERS = 7  # of a title or a name, in a cm
WIDEST = 9.0  # cm, of a map of networks
LARGE = 10  # numbers from here on have fewer decimals
BLACK_ABOVE = 0.5  # the lightness of a cell, for a black number
TWO_SIDED = ("#f6c48c", "#08306b", "#ffffff")  # at 0, in the middle and at 1
STITCHED = ("front layer", "end layer")

Map = Sequence[Shown]  # the rows of a method and a quantity


def draw_layers(
    path: Path, rows: Sequence[Shown], *, axes: tuple[str, str] = STITCHED, **texts: Any
) -> list[Path]:
    """Draw a map for each method and quantity of rows; dark is similar. Return the written paths.

    Args:
        rows: a cell each, in the order of layers.
        axes: the titles of rows and columns.
        texts: `source` and `remark`, see `draw_pages`.
    """
    maps = list(grouped(rows, lambda row: (row.method, row.quantity)).values())
    is_single = len(maps) == 1 and len(_labels(maps[0], 1)) <= WIDE
    width = COLUMN if is_single else PAGE
    draw = partial(_draw_layers, titles=axes)
    on_page = MOST if _share_layers(maps) else MOST_OF_OWN_LAYERS
    return draw_pages(path, maps, draw, on_page=on_page, width=width, **texts)


def _draw_layers(figure: "Figure", maps: Sequence[Map], *, titles: tuple[str, str]) -> str:
    """Draw maps side by side, with one bar of colours or one each; return the caption."""
    width = figure.get_figwidth() / CM
    n_rows = max(len(_labels(cells, 0)) for cells in maps)
    n_columns = max(len(_labels(cells, 1)) for cells in maps)
    length = _longest_name(maps) / CHARACTERS
    room = ROOM if _share_layers(maps) else ROOM_WITH_NAMES
    if n_columns > WIDE:
        room = 2 * ROOM
    in_line = min(len(maps), max(1, int(width / room)))
    of_panel = width / in_line
    height = min(0.8 * of_panel * _shape(n_rows, n_columns), HIGHEST * n_rows)
    head = max(HEAD, TITLES + length)
    panels = panels_in(figure, len(maps), in_line=in_line, height=height + head)
    quantities = {cells[0].quantity for cells in maps}
    for place, (cells, panel) in enumerate(zip(maps, panels, strict=True)):
        labels = (_labels(cells, 0), _labels(cells, 1))
        image = _paint(panel, cells, labels, [cell.layers for cell in cells])
        name_cells(panel, *(list(map(layer_in_words, names)) for names in labels))
        frame_cells(panel, [_place(cell.layers, labels) for cell in cells if cell.is_framed])
        scale = scale_of(cells[0].quantity)
        if len(quantities) > 1:
            _add_bar(panel, image)
        elif place == len(maps) - 1 or place % in_line == in_line - 1:
            _add_bar(panel, image, scale.title)
        heading = titles_in(cells[0].method).split(", ", 1) if len(maps) > 1 else []
        if len(quantities) > 1 and scale.title != cells[0].method:
            heading.append(scale.title)
        lines = [textwrap.fill(text, int(CHARACTERS * of_panel)) for text in heading]
        panel.set_title("\n".join(lines), x=0, ha="left")
        if place % in_line and labels[0] == _labels(maps[place - 1], 0):
            panel.set_yticks([])
        if place + in_line >= len(maps):
            panel.set_xlabel(titles[1])
    figure.supylabel(titles[0])
    has_frames = any(row.is_framed for cells in maps for row in cells)
    frames = "; frames are corresponding layers" if has_frames else ""
    best = _most_similar(maps[0], lambda row: map(layer_in_words, row.layers))
    return f"{best}Dark cells are similar{frames}."


def _share_layers(maps: Sequence[Map]) -> bool:
    """Return whether all maps have the same layers."""
    layers = [[cell.layers for cell in cells] for cells in maps]
    return all(of_map == layers[0] for of_map in layers)


def _longest_name(maps: Sequence[Map]) -> int:
    """Return the number of characters of the longest name of a layer."""
    names = {name for cells in maps for cell in cells for name in cell.layers}
    return max(len(layer_in_words(name)) for name in names)


def _labels(cells: Map, side: int) -> list[str]:
    """Return the names of the rows (0) or of the columns (1) of a map, in their order."""
    return list(dict.fromkeys(cell.layers[side] for cell in cells))


def _most_similar(rows: Map, names: Callable[[Shown], Iterable[str]]) -> str:
    """Return the sentence on the most similar cell of a map; "" without values.

    Args:
        names: returns the names of a row's two layers or networks.
    """
    scale = scale_of(rows[0].quantity)
    known = [row for row in rows if math.isfinite(row.value)]
    if not known:
        return ""
    best = min(known, key=lambda row: abs(row.value - scale.best))
    pair = " and ".join(names(best))
    title = titles_in(best.method) or scale.title
    return f"Most similar by {title} are {pair} ({number(best.value)}). "


def draw_networks(
    path: Path, rows: Sequence[Shown], *, are_paths: bool, **texts: Any
) -> list[Path]:
    """Draw networks × networks by skill, ordered and bordered by group; dark is similar.
    Return the written paths.

    A figure has two methods; further ones go into NAME_2.png and so on.

    Args:
        rows: a mean over layers for each pair of networks, method and quantity, from `of_networks`.
        are_paths: networks are called by their paths, which are shortened.
        texts: `source` and `remark`, see `draw_pages`.
    """
    skills = [row for row in rows if row.quantity == "skill"]
    methods = list(grouped(skills, lambda row: row.method).values())
    width = COLUMN if len(methods) == 1 else PAGE
    draw = partial(_draw_networks, are_paths=are_paths)
    return draw_pages(path, methods, draw, on_page=2, width=width, **texts)


def _draw_networks(figure: "Figure", methods: Sequence[Map], *, are_paths: bool) -> str:
    """Draw a map a method, with one bar of colours; return the caption."""
    group_of: dict[str, str] = {}
    for row in chain.from_iterable(methods):
        group_of |= zip(row.networks, row.groups, strict=True)
    networks = [
        network
        for group in by_depth(group_of.values())
        for network in by_depth(name for name, of_name in group_of.items() if of_name == group)
    ]
    names = short_names(networks) if are_paths else networks
    size = min(0.75 * figure.get_figwidth() / CM / len(methods), WIDEST)
    panels = panels_in(figure, len(methods), in_line=2, height=size + HEAD)
    for axes, rows in zip(panels, methods, strict=True):
        image = _paint(axes, rows, (networks, networks), [row.networks for row in rows])
        name_cells(axes, names, names)
        _part_groups(axes, [group_of[network] for network in networks])
        axes.set_title(rows[0].method, pad=14)  # above the names of groups
        axes.set_xlabel("end network")
    figure.supylabel("front network")
    title = f"mean {scale_of(methods[0][0].quantity).title}"
    _add_bar(panels[-1], image, title)
    short = dict(zip(networks, names, strict=True))
    best = _most_similar(methods[0], lambda row: [short[name] for name in row.networks])
    text = (
        "over layers: dark cells are similar, lines part groups, hatched pairs were not stitched."
    )
    return f"{best}{title.capitalize()} {text}"


def _part_groups(axes: "Axes", groups: Sequence[str]) -> None:
    """Draw lines between groups of networks, and write their names above, if there are several.

    Args:
        groups: of the networks in their order.
    """
    start = 0
    for group, members in groupby(groups):
        end = start + len(list(members))
        if len(set(groups)) > 1:
            place = ((start + end - 1) / 2, -0.5)
            axes.annotate(
                group,
                place,
                (0, 3),
                textcoords="offset points",
                ha="center",
                weight="bold",
                annotation_clip=False,
            )
        if end < len(groups):
            axes.axhline(end - 0.5, color="black", linewidth=1)
            axes.axvline(end - 0.5, color="black", linewidth=1)
        start = end


def _place(cell: tuple[str, str], labels: tuple[list[str], list[str]]) -> tuple[int, int]:
    """Return the row and the column of a cell."""
    return labels[0].index(cell[0]), labels[1].index(cell[1])


def _paint(
    axes: "Axes",
    rows: Map,
    labels: tuple[list[str], list[str]],
    cells: Sequence[tuple[str, str]],
) -> Any:
    """Paint cells by value, write their numbers, and return the image; cells without a value stay
    hatched.

    Args:
        labels: of rows and columns.
        cells: the labels of each row's cell.
    """
    values = np.full((len(labels[0]), len(labels[1])), math.nan)
    for row, cell in zip(rows, cells, strict=True):
        values[_place(cell, labels)] = row.value
    image = axes.imshow(values, aspect="auto", **_colours_of(scale_of(rows[0].quantity), values))
    for (y, x), value in np.ndenumerate(values):
        lightness = np.dot(image.to_rgba(value)[:3], (0.3, 0.6, 0.1))
        is_dark = math.isfinite(value) and lightness < BLACK_ABOVE
        write_in_cell(axes, x, y, number(value), color="white" if is_dark else "black")
    return image


def _colours_of(scale: Scale, values: np.ndarray) -> dict[str, Any]:
    """Return the colours of a map, as arguments of `imshow`; values beyond the scale have the
    colours of its ends."""
    from matplotlib.colors import LinearSegmentedColormap

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
    """Make axes a map with these names of rows, from the top, and columns."""
    axes.set_gid(CELLS)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.patch.set(facecolor="white", edgecolor="0.75", hatch="/////", linewidth=0)
    axes.set_box_aspect(_shape(len(rows), len(columns)))


def _shape(n_rows: int, n_columns: int) -> float:
    """Return the height of a map as a share of its width."""
    return min(max(n_rows / n_columns, 0.5), 2)


def frame_cells(axes: "Axes", cells: Sequence[tuple[int, int]], thickness: float = 1) -> None:
    """Draw a frame into cells, given by row and column; it is seen on dark and on light cells."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    for y, x in cells:
        frame = Rectangle((x - 0.45, y - 0.45), 0.9, 0.9, fill=False, linewidth=0.8 * thickness)
        frame.set_path_effects([withStroke(linewidth=2.2 * thickness, foreground="white")])
        axes.add_patch(frame)


def _add_bar(axes: "Axes", image: Any, title: str = "") -> None:
    """Draw a bar of colours at the right side of a map."""
    axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.05, 1)), label=title)


def write_in_cell(axes: "Axes", x: float, y: float, text: str, **options: Any) -> None:
    """Write a text into a cell of a map, if there is one."""
    if text:
        written = axes.text(x, y, text, ha="center", va="center", gid=NUMBERS, **options)
        written.set_in_layout(False)  # the layout is much faster without it


def number(value: float, n_digits: int = 2) -> str:
    """Return a number with a true minus, and fewer decimals if it is large; "" for NaN."""
    if math.isnan(value):
        return ""
    if abs(value) >= LARGE:
        n_digits = 0
    elif abs(value) > 1:
        n_digits = min(n_digits, 1)
    return f"{round(value, n_digits) + 0.0:.{n_digits}f}".replace("-", "−")


def mean_number(values: Sequence[float], n_digits: int = 2) -> str:
    """Return the mean of the known values as a text; "" without one."""
    known = [value for value in values if math.isfinite(value)]
    return number(sum(known) / len(known), n_digits) if known else ""
