"""Figure 5, networks: which networks are alike."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.collected.groups import Names
from src.figures.captions import joined
from src.figures.cells import add_bar, name_cells, number, paint_cells
from src.figures.layers import colours_of
from src.figures.pages import CM, Look, draw_pages, letter, panels_in
from src.figures.shown import Shown, scale_of
from src.figures.style import WIDTHS
from src.ground.grouping import grouped
from src.tables.matrices import by_depth
from src.tables.network_names import short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAD = 1.8  # cm above and below a map
WIDEST = 9.0  # cm, of a map
LARGEST = 1.4  # cm, of a cell
FEW = 8  # networks; a map of so few has the width of a column


def draw_networks(
    path: Path,
    rows: Sequence[Shown],
    *,
    quantity: str = "skill",
    title: str = "",
    width: float | None = None,
    names: Names | None = None,
    source: str = "",
) -> list[Path]:
    """Draw networks × networks by a quantity, ordered and bordered by group; dark is alike. Return
    the written paths.

    A figure has two methods; further ones go into NAME_2.png and so on.

    Args:
        rows: a mean over layers for each pair of networks, method and quantity, from `of_networks`.
        quantity: the name of a column of `QUANTITIES`.
        width: in cm; None: as `--width` says.
        names: of the networks, from a list; None: they are called by their paths, in short.
        source: the sentence of the caption on networks and images.
    """
    of_quantity = [row for row in rows if row.quantity == quantity]
    methods = list(grouped(of_quantity, lambda row: row.method).values())
    draw = partial(_draw, are_paths=names is None, source=source)
    is_small = len(methods) == 1 and len(_groups_of(of_quantity)) <= FEW
    usual = WIDTHS[0] if is_small else WIDTHS[-1]
    options: Look = {"title": title, "width": width, "usual_width": usual}
    return draw_pages(path, methods, draw, on_page=2, **options)


def _draw(
    figure: "Figure", methods: Sequence[Sequence[Shown]], *, are_paths: bool, source: str
) -> str:
    """Draw a map a method, with one bar of colours; return the caption."""
    width = figure.get_figwidth() / CM
    n_networks = max(len(_groups_of(rows)) for rows in methods)
    size = min(0.75 * width / len(methods), WIDEST, LARGEST * n_networks)
    panels = panels_in(figure, len(methods), in_line=2, height=size + HEAD)
    scale = scale_of(methods[0][0].quantity)
    for place, (axes, rows) in enumerate(zip(panels, methods, strict=True)):
        image = _draw_map(axes, rows, are_paths=are_paths)
        axes.set_xlabel("end network")
        if place == 0:
            axes.set_ylabel("front network")
        if len(methods) > 1:
            letter(axes, place)
        axes.set_title(rows[0].method, pad=14)  # above the names of groups
    add_bar(axes, image, f"mean {scale.title}")
    return joined(
        _on_closest(methods[0], are_paths=are_paths),
        f"Mean {scale.title} over layers, dark is alike; lines part groups; hatched, not stitched.",
        source,
    )


def _draw_map(axes: "Axes", rows: Sequence[Shown], *, are_paths: bool) -> Any:
    """Draw the map of a method with the names and the borders of groups; return the image."""
    group_of = _groups_of(rows)
    networks = [
        network
        for group in by_depth(group_of.values())
        for network in by_depth(name for name, of_name in group_of.items() if of_name == group)
    ]
    values = [[math.nan] * len(networks) for _ in networks]
    for row in rows:
        front, end = map(networks.index, row.networks)
        values[front][end] = row.value
    names = short_names(networks) if are_paths else networks
    name_cells(axes, names, names)
    image = paint_cells(axes, values, **colours_of(scale_of(rows[0].quantity), values))
    start = 0
    for group, members in groupby(networks, key=group_of.get):
        end = start + len(list(members))
        if len(set(group_of.values())) > 1:
            place = ((start + end - 1) / 2, -0.5)
            options: Look = {"ha": "center", "weight": "bold", "annotation_clip": False}
            axes.annotate(str(group), place, (0, 3), textcoords="offset points", **options)
        if end < len(networks):
            axes.axhline(end - 0.5, color="black", linewidth=1)
            axes.axvline(end - 0.5, color="black", linewidth=1)
        start = end
    return image


def _groups_of(rows: Sequence[Shown]) -> dict[str, str]:
    """Return the group of each network."""
    groups: dict[str, str] = {}
    for row in rows:
        groups |= zip(row.networks, row.groups, strict=True)
    return groups


def _on_closest(rows: Sequence[Shown], *, are_paths: bool) -> str:
    """Return the sentence on the most alike networks by a method; "" without values."""
    known = [row for row in rows if math.isfinite(row.value)]
    if not known:
        return ""
    best = max(known, key=lambda row: row.value)
    front, end = best.networks
    if are_paths:
        front, end = short_names(best.networks)
    return f"Most alike by {best.method} are {front} and {end} ({number(best.value)})."
