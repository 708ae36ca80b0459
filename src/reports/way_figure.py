"""The figure of the way: the share of identified images from the end layer to the output."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from src.ground.console import listed
from src.ground.figure_files import page_of
from src.ground.grouping import grouped
from src.reports.curves import MAX_ALIKE, Curve, CurvePanel, Point, curves, lines_of, points_of
from src.tables.verdict_rows import VerdictRow

MAX_LINES = 6  # pairs of layers that a panel shows together
MAX_PANELS = 16  # on a page
RANGE = (0.5, 1.0)  # of the axis: from chance to certainty


def draw_way(
    path: Path,
    rows_of_title: Mapping[str, Sequence[VerdictRow]],
    *,
    limit: float,
    title: str = "",
    caption: str = "",
) -> None:
    """Draw the shares of identified images over the layers of the end network, a line a stitch.

    A title has one panel if it has few pairs of layers; otherwise a panel for each end layer. Several
    pages have numbers. Nothing is drawn where identification was not measured.

    Args:
        rows_of_title: the verdicts of each method and kind of networks; a title may be "". Rows with
            equal layers are averaged.
        limit: the share that a similar pair needs, for a line across the panels.
    """
    panels_of_title = []
    for row_title, rows in rows_of_title.items():
        evaluated = [row for row in rows if row.way]
        if evaluated:
            panels_of_title.append(
                [
                    CurvePanel(of_panel, "identified images", RANGE, title=panel_title, limit=limit)
                    for panel_title, of_panel in _panels(row_title, evaluated).items()
                ]
            )
    in_order = _layers_of([row for rows in rows_of_title.values() for row in rows])
    pages = _pages(panels_of_title)
    for number, page in enumerate(pages, start=1):
        rule = (
            f"A pair that keeps the accuracy loses the image where its line falls below {limit:g}"
        )
        text = f"{caption} {rule}; chance is 0.5."
        if not all(math.isnan(point.low) for point in points_of(page)):
            text += " Bands: intervals of 95 % over images."
        if len(pages) > 1:
            titles = dict.fromkeys(panel.title for panel in page)
            text += f" Page {number} of {len(pages)}: {listed(titles)}."
        curves(
            page_of(path.with_suffix(".png"), number),
            page,
            x_label="layer of the end network",
            layers=[layer for layer in in_order if layer in _layers_in(page)],
            lines=lines_of(chain.from_iterable(panels_of_title)),
            title=title,
            caption=text.strip(),
        )


def _pages(panels_of_title: Sequence[list[CurvePanel]]) -> list[list[CurvePanel]]:
    """Return pages of panels.

    Titles share a page if their panels fill its lines, and if they are of the same layers: the
    ways of unlike end networks have no axis in common.
    """
    pages: list[list[CurvePanel]] = []
    for panels in panels_of_title:
        fills_lines = MAX_ALIKE % len(panels) == 0
        has_room = bool(pages) and len(pages[-1]) + len(panels) <= MAX_PANELS
        earlier = _layers_in(pages[-1]) if pages else set()
        layers = _layers_in(panels)
        if fills_lines and has_room and (earlier <= layers or layers <= earlier):
            pages[-1] += panels
        else:
            for first in range(0, len(panels), MAX_PANELS):
                pages.append(panels[first : first + MAX_PANELS])
    return pages


def _layers_in(panels: Sequence[CurvePanel]) -> set[str]:
    """Return the layers of the curves in panels."""
    layers: set[str] = set()
    for panel in panels:
        for curve in panel.curves.values():
            layers.update(map(str, curve))
    return layers


def _panels(title: str, rows: Sequence[VerdictRow]) -> dict[str, dict[str, Curve]]:
    """Return the curves of a title, by the title of their panel and by label."""
    pairs = grouped(rows, lambda row: row.pair)
    if len(pairs) <= MAX_LINES:
        return {title: {" → ".join(pair): _mean(of_pair) for pair, of_pair in pairs.items()}}
    panels: dict[str, dict[str, Curve]] = {}
    for pair, of_pair in pairs.items():
        panel_title = ", ".join(filter(None, (title, f"into {pair.end_layer}")))
        panel = panels.setdefault(panel_title, {})
        panel[f"from {pair.front_layer}"] = _mean(of_pair)
    return panels


def _mean(rows: Sequence[VerdictRow]) -> Curve:
    """Return the mean share of rows at each layer of the way, with the interval of a single row."""
    if len(rows) == 1:
        return {layer: Point(*share) for layer, share in rows[0].way.items()}
    shares: dict[str, list[float]] = {}
    for row in rows:
        for layer, share in row.way.items():
            shares.setdefault(layer, []).append(share.value)
    return {layer: float(np.mean(values)) for layer, values in shares.items()}


def _layers_of(rows: Sequence[VerdictRow]) -> list[str]:
    """Return the layers of all ways in order: the longest ways come first."""
    ways = sorted((list(row.way) for row in rows), key=len, reverse=True)
    layers = list(dict.fromkeys(layer for way in ways for layer in way))
    ends = {way[-1] for way in ways if way}
    return [*(layer for layer in layers if layer not in ends), *sorted(ends)]
