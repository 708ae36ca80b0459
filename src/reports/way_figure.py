"""The figure of the way: the share of identified images from the end layer to the output."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean

import numpy as np

from src.ground.figure_files import page_of
from src.ground.grouping import grouped
from src.reports.curves import Curve, CurvePanel, Point, curves, lines_of, points_of
from src.tables.matrices import known
from src.tables.verdict_rows import VerdictRow
from src.verdict import Limits

MAX_LINES = 6  # pairs of layers that a panel shows together
MAX_PANELS = 16  # on a page
RANGE = (0.5, 1.0)  # of the axis: from chance to certainty


def draw_way(
    path: Path,
    rows_of_title: Mapping[str, Sequence[VerdictRow]],
    *,
    limits: Limits,
    title: str = "",
    caption: str = "",
) -> None:
    """Draw the shares of identified images over the layers of the end network, a line a stitch.

    A title has one panel if it has few pairs of layers; otherwise a panel for each end layer. Lines
    of stitches that lose more accuracy than the tolerance are pale. Several pages have numbers.
    Nothing is drawn where identification was not measured.

    Args:
        rows_of_title: the verdicts of each method and kind of networks; a title may be "". Rows with
            equal layers are averaged.
    """
    panels_of_title = []
    for row_title, rows in rows_of_title.items():
        evaluated = [row for row in rows if row.way]
        if evaluated:
            panels_of_title.append(_panels(", ".join(row_title.splitlines()), evaluated, limits))
    in_order = _layers_of([row for rows in rows_of_title.values() for row in rows])
    pages = _pages(panels_of_title)
    points = f"{100 * limits.tolerance:g} points"
    for number, page in enumerate(pages, start=1):
        layers_of_page = _layers_in(page)
        text = (
            f"{caption} Share of the images that are identified, from the layer that is stitched into to the output: "
            "the stitched activation is nearer to the end network's own activation of the image than to that of a "
            f"similar image of its class (chance: 0.5). Where a line falls below {limits.identification:g}, the image "
            "counts as lost."
        )
        if any(panel.pale for panel in page):
            text += f" Pale: stitches that lose more than {points} of accuracy."
        if not all(math.isnan(point.low) for point in points_of(page)):
            text += " Bands: intervals of 95 % over images."
        if len(pages) > 1:
            text += f" Page {number} of {len(pages)}."
        curves(
            page_of(path.with_suffix(".png"), number),
            page,
            x_label="layer of the end network",
            layers=[layer for layer in in_order if layer in layers_of_page],
            lines=lines_of(chain.from_iterable(panels_of_title)),
            strong="keeps the accuracy",
            pale=f"loses more than {points}",
            title=title,
            caption=text.strip(),
        )


def _pages(panels_of_title: Sequence[list[CurvePanel]]) -> list[list[CurvePanel]]:
    """Return pages of panels.

    Titles share a page if they have equally many panels, of the same layers: the ways of unlike end
    networks have no axis in common.
    """
    pages: list[list[CurvePanel]] = []
    alike = grouped(panels_of_title, lambda panels: (len(panels), frozenset(_layers_in(panels))))
    for (n_panels, _), of_layers in alike.items():
        panels = list(chain.from_iterable(of_layers))
        most = max(1, MAX_PANELS // n_panels) * n_panels if n_panels <= MAX_PANELS else MAX_PANELS
        pages += [panels[first : first + most] for first in range(0, len(panels), most)]
    return pages


def _layers_in(panels: Sequence[CurvePanel]) -> set[str]:
    """Return the layers of the curves in panels."""
    layers: set[str] = set()
    for panel in panels:
        for curve in panel.curves.values():
            layers.update(map(str, curve))
    return layers


def _panels(heading: str, rows: Sequence[VerdictRow], limits: Limits) -> list[CurvePanel]:
    """Return the panels of a title: one for few pairs of layers, else one for each end layer."""
    pairs = grouped(rows, lambda row: row.pair)
    is_one = len(pairs) <= MAX_LINES
    marks = {f"{limits.identification:g}": limits.identification, "chance": 0.5}
    curves_of_panel: dict[str, dict[str, Curve]] = {}
    pale: dict[str, list[str]] = {}
    for pair, of_pair in pairs.items():
        title = "" if is_one else f"into {pair.end_layer}"
        label = " → ".join(pair) if is_one else f"from {pair.front_layer}"
        curves_of_panel.setdefault(title, {})[label] = _mean(of_pair)
        if fmean(known(row, name="penalty") for row in of_pair) > limits.tolerance:
            pale.setdefault(title, []).append(label)
    return [
        CurvePanel(
            lines,
            "identified images",
            RANGE,
            title=title,
            heading=heading,
            marks=marks,
            pale=pale.get(title, ()),
        )
        for title, lines in curves_of_panel.items()
    ]


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
