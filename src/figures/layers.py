"""Figure 2, layers: maps of a measure over the layers of two networks."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.figures.captions import in_words, joined
from src.figures.cells import add_bar, frame_cells, name_cells, number, paint_cells
from src.figures.pages import CM, Look, draw_pages, head, panels_in
from src.figures.shown import DIFFERENCE, Scale, Shown, scale_of
from src.figures.style import WIDTHS
from src.ground.console import layer_in_words
from src.ground.grouping import grouped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 12  # maps on a page
ROOM = 4.0  # cm of width, for a map at least
WIDE = 10  # columns; maps with more take the room of two
HIGHEST = 1.6  # cm, of a cell
HEAD = 1.7  # cm above and below a map
TWO_SIDED = ("#f6c48c", "#08306b", "#ffffff")  # at 0, in the middle and at 1
SIMILAR = "Blues"  # the colours of similarity, dark at its end
OF_DIFFERENCES = "PuOr"

Map = Sequence[Shown]  # the rows of a method and a quantity
STITCHED = ("front layer", "end layer")


def draw_layers(
    path: Path,
    rows: Sequence[Shown],
    *,
    axes: tuple[str, str] = STITCHED,
    title: str = "",
    width: float | None = None,
    source: str = "",
) -> list[Path]:
    """Draw a map for each method and quantity of rows; dark is similar. Return the written paths.

    Args:
        rows: a cell each, in the order of layers.
        axes: the titles of rows and columns.
        width: in cm; None: as `--width` says.
        source: the sentence of the caption on networks and images.
    """
    maps = list(grouped(rows, lambda row: (row.method, row.quantity)).values())
    draw = partial(_draw, titles=axes, source=source)
    is_single = len(maps) == 1 and len(_labels(maps[0], 1)) <= WIDE
    usual = WIDTHS[0] if is_single else WIDTHS[-1]
    options: Look = {"title": title, "width": width, "usual_width": usual}
    return draw_pages(path, maps, draw, on_page=MOST, **options)


def _draw(figure: "Figure", maps: Sequence[Map], *, titles: tuple[str, str], source: str) -> str:
    """Draw maps side by side, with one bar of colours or one each; return the caption."""
    width = figure.get_figwidth() / CM
    n_rows = max(len(_labels(cells, 0)) for cells in maps)
    n_columns = max(len(_labels(cells, 1)) for cells in maps)
    room = 2 * ROOM if n_columns > WIDE else ROOM
    in_line = min(len(maps), max(1, int(width / room)))
    height = min(0.7 * width / in_line * min(max(n_rows / n_columns, 0.5), 2), HIGHEST * n_rows)
    panels = panels_in(figure, len(maps), in_line=in_line, height=height + HEAD)
    quantities = {cells[0].quantity for cells in maps}
    has_methods = len({cells[0].method for cells in maps}) > 1
    for place, (cells, panel) in enumerate(zip(maps, panels, strict=True)):
        image = _draw_map(panel, cells)
        scale = scale_of(cells[0].quantity)
        heading = [cells[0].method.replace(", ", "\n", 1)] if has_methods else []
        if len(quantities) > 1:
            heading.append(scale.title)
        if len(quantities) > 1 or place == len(maps) - 1 or place % in_line == in_line - 1:
            add_bar(panel, image, "" if len(quantities) > 1 else scale.title)
        if len(maps) > 1:
            head(panel, place, "\n".join(dict.fromkeys(heading)))
        if place % in_line == 0:
            panel.set_ylabel(titles[0])
        elif _labels(cells, 0) == _labels(maps[place - 1], 0):
            panel.set_yticks([])
        if place + in_line >= len(maps):
            panel.set_xlabel(titles[1])
    has_frames = any(row.is_framed for row in chain.from_iterable(maps))
    frames = ", frames are corresponding layers" if has_frames else ""
    return joined(_most_similar(maps[:2]), f"Dark is similar{frames}.", source)


def _draw_map(axes: "Axes", cells: Map) -> Any:
    """Draw the cells of a map with their numbers and frames; return the image."""
    rows = _labels(cells, 0)
    columns = _labels(cells, 1)
    name_cells(axes, rows, columns)
    values = [[math.nan] * len(columns) for _ in rows]
    for cell in cells:
        values[rows.index(cell.layers[0])][columns.index(cell.layers[1])] = cell.value
    image = paint_cells(axes, values, **colours_of(scale_of(cells[0].quantity), values))
    framed = [cell.layers for cell in cells if cell.is_framed]
    frame_cells(axes, [(rows.index(row), columns.index(column)) for row, column in framed])
    return image


def _labels(cells: Map, side: int) -> list[str]:
    """Return the names of the rows (0) or of the columns (1) of a map, in their order."""
    return list(dict.fromkeys(cell.layers[side] for cell in cells))


def colours_of(scale: Scale, values: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return the colours of a map, as arguments of `imshow`; values beyond the scale have those of
    its ends. Differences are coloured up to the largest."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    low, high = sorted((scale.different, scale.similar))
    if scale.is_two_sided:
        return {"cmap": LinearSegmentedColormap.from_list("", TWO_SIDED), "vmin": low, "vmax": high}
    known = [value for line in values for value in line if math.isfinite(value)]
    if scale.title == DIFFERENCE:
        high = max(map(abs, known), default=0) or 1
        return {"cmap": OF_DIFFERENCES, "vmin": -high, "vmax": high}
    if scale.is_open:
        low = min(low, *known)
        high = max(high, *known)
    colours = colormaps[SIMILAR]
    if scale.similar < scale.different:
        colours = colours.reversed()
    return {"cmap": colours, "vmin": low, "vmax": high}


def _most_similar(maps: Sequence[Map]) -> str:
    """Return the sentence on the most similar layers of each map; "" without values."""
    found = []
    for cells in maps:
        scale = scale_of(cells[0].quantity)
        known = [cell for cell in cells if math.isfinite(cell.value)]
        if known and scale.title != DIFFERENCE:
            best = min(known, key=lambda cell: _distance(cell.value, scale))
            pair = " and ".join(map(layer_in_words, best.layers))
            found.append(f"{pair} by {cells[0].method or scale.title} ({number(best.value)})")
    return f"Most similar are {in_words(found)}." if found else ""


def _distance(value: float, scale: Scale) -> float:
    """Return the distance of a value from that of the most similar layers."""
    best = (scale.different + scale.similar) / 2 if scale.is_two_sided else scale.similar
    return abs(value - best)
