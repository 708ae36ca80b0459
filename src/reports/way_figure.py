"""The figure of the way: the share of identified images from the end layer to the output."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from src.collected.network_means import mean_over_pairs
from src.ground.console import layer_in_words
from src.ground.curves import (
    OPEN_MARKERS,
    Curve,
    CurvePanel,
    Point,
    curves,
    lines_of,
    points_of,
)
from src.ground.figure_files import page_of
from src.ground.figures import capitalised
from src.ground.grouping import grouped
from src.tables.matrices import known
from src.tables.verdict_rows import VerdictRow
from src.verdict import Limits

MAX_PANELS = 16  # on a page
INTERVALS = {"images": "Wilson", "networks": "jackknife and Student's t"}  # over either
RANGE = (0.5, 1.0)  # of the axis: from chance to certainty


class TitledPanels(NamedTuple):
    """The panels under one title."""

    rows: Sequence[VerdictRow]
    panels: list[CurvePanel]


def draw_way(
    path: Path,
    rows_of_title: Mapping[str, Sequence[VerdictRow]],
    *,
    limits: Limits,
    title: str = "",
    caption_of: Callable[[Sequence[VerdictRow]], str] = lambda rows: "",
) -> None:
    """Draw the shares of identified images over the layers of the end network, a line a stitch.

    A title has a panel for each end layer. Lines of stitches that lose more accuracy than the
    tolerance are pale. Several pages have numbers. Nothing is drawn where identification was not
    measured.

    Args:
        rows_of_title: the verdicts of each method and kind of networks; a title may be "". Rows with
            equal layers are averaged over pairs of networks.
        caption_of: returns the text on the stitches of a page, in front of its caption.
    """
    titled_panels: list[TitledPanels] = []
    for row_title, rows in rows_of_title.items():
        evaluated = [row for row in rows if row.way]
        if evaluated:
            panels = _panels(", ".join(row_title.splitlines()), evaluated, limits)
            titled_panels.append(TitledPanels(evaluated, panels))
    in_order = _layers_of([row for rows in rows_of_title.values() for row in rows])
    pages = _pages(titled_panels)
    points = _points(limits)
    definitions = _definitions(limits)
    lines = lines_of(chain.from_iterable(titled.panels for titled in titled_panels))
    for number, page in enumerate(pages, start=1):
        panels = [panel for titled in page for panel in titled.panels]
        rows_of_page = [row for titled in page for row in titled.rows]
        penalty = _penalty(page)
        layers_of_page = _layers_in(panels)
        curves(
            page_of(path.with_suffix(".png"), number),
            panels,
            x_label="layer of the end network",
            layers=[layer for layer in in_order if layer in layers_of_page],
            lines=lines,
            strong=f"{penalty} at most {points}",
            pale=f"{penalty} more than {points}",
            title=title,
            caption=caption_of(rows_of_page),
            definitions=definitions,
            on_lines=_on_lines(page, limits),
        )


def _points(limits: Limits) -> str:
    """Return the tolerance as a text."""
    return f"{100 * limits.tolerance:g} points"


def _has_means(page: Iterable[TitledPanels]) -> bool:
    """Return whether lines are means over pairs of networks."""
    return any(len({row.networks for row in titled.rows}) > 1 for titled in page)


def _penalty(page: Iterable[TitledPanels]) -> str:
    """Return the penalty of a line as a text."""
    return "mean penalty" if _has_means(page) else "penalty"


def _on_lines(page: Sequence[TitledPanels], limits: Limits) -> str:
    """Return the sentences of the caption on the lines of a page."""
    panels = [panel for titled in page for panel in titled.panels]
    text = "Share of the test images that are identified (chance: ½), from the end layer to the output."
    if _has_means(page):
        text += " Means over the pairs of networks."
    if any(panel.pale for panel in panels):
        text += f" Pale: {_penalty(page)} above {_points(limits)}."
    return text + _on_intervals(page)


def _definitions(limits: Limits) -> str:
    """Return the meaning of the lines, and of the limits."""
    return (
        "An image is identified where its stitched activation, moved to the mean and scaled to the total variance of "
        "the end network's own ones, is nearer to the own activation of the image than to that of a similar image (of "
        "ten of its predicted class, the one with the nearest logits). Similar pairs stay above "
        f"{limits.identification:g} and lose less than {_points(limits)} of accuracy, each tested at 95 percent; "
        "strong and pale lines tell the measured penalties apart."
    )


def _on_intervals(page: Sequence[TitledPanels]) -> str:
    """Return the sentence of the caption on bands and markers; "" where lines have none."""
    panels = [panel for titled in page for panel in titled.panels]
    kinds = []
    if any(not math.isnan(point.low) for point in points_of(panels)):
        of_strong = " of strong lines" if any(panel.pale for panel in panels) else ""
        of_lines = chain(*(grouped(titled.rows, lambda row: row.pair).values() for titled in page))
        over = {"networks" if len(of_line) > 1 else "images" for of_line in of_lines}
        intervals = " or ".join(f"over {units} ({INTERVALS[units]})" for units in sorted(over))
        kinds.append(f"bands{of_strong}: intervals of 95 percent {intervals}")
    if any(point.is_of_few for point in points_of(panels)):
        kinds.append(OPEN_MARKERS)
    return f" {capitalised('; '.join(kinds))}." if kinds else ""


def _pages(titled_panels: Sequence[TitledPanels]) -> list[list[TitledPanels]]:
    """Return pages of panels: one page if it has room, otherwise pages of each method."""
    parts = [list(titled_panels)] if titled_panels else []
    if _n_panels(titled_panels) > MAX_PANELS:
        parts = list(grouped(titled_panels, lambda titled: titled.rows[0].method).values())
    pages: list[list[TitledPanels]] = []
    for part in parts:
        page: list[TitledPanels] = []
        for titled in chain.from_iterable(map(_split, part)):
            if page and _n_panels([*page, titled]) > MAX_PANELS:
                pages.append(page)
                page = []
            page = [*page, titled]
        pages.append(page)
    return pages


def _n_panels(titled_panels: Iterable[TitledPanels]) -> int:
    return sum(len(titled.panels) for titled in titled_panels)


def _split(titled: TitledPanels) -> list[TitledPanels]:
    """Return the panels under a title in parts that fit a page."""
    parts = []
    for start in range(0, len(titled.panels), MAX_PANELS):
        panels = titled.panels[start : start + MAX_PANELS]
        titles = {panel.title for panel in panels}
        rows = [row for row in titled.rows if _title(row) in titles]
        parts.append(TitledPanels(rows, panels))
    return parts


def _title(row: VerdictRow) -> str:
    """Return the title of the panel that a verdict is in."""
    return f"into {layer_in_words(row.end_layer)}"


def _layers_in(panels: Sequence[CurvePanel]) -> set[str]:
    """Return the layers of the curves in panels."""
    layers: set[str] = set()
    for panel in panels:
        for curve in panel.curves.values():
            layers.update(map(str, curve))
    return layers


def _panels(heading: str, rows: Sequence[VerdictRow], limits: Limits) -> list[CurvePanel]:
    """Return the panels of a title: one for each end layer, with a line for each front layer."""
    marks = {f"limit {limits.identification:g}": limits.identification, "chance": 0.5}
    curves_of_panel: dict[str, dict[str, Curve]] = {}
    pale: dict[str, list[str]] = {}
    for pair, of_pair in grouped(rows, lambda row: row.pair).items():
        title = _title(of_pair[0])
        label = f"from {layer_in_words(pair.front_layer)}"
        penalty = fmean(known(row, name="penalty") for row in of_pair)
        points = _mean(of_pair)
        curve: Curve = points
        if penalty > limits.tolerance:
            pale.setdefault(title, []).append(label)
            curve = {
                layer: Point(point.value, is_of_few=point.is_of_few)
                for layer, point in points.items()
            }
        curves_of_panel.setdefault(title, {})[label] = curve
    return [
        CurvePanel(
            lines,
            "share of identified images",
            RANGE,
            title=title,
            heading=heading,
            marks=marks,
            pale=pale.get(title, ()),
        )
        for title, lines in curves_of_panel.items()
    ]


def _mean(rows: Sequence[VerdictRow]) -> dict[str, Point]:
    """Return the mean share of rows at each layer of the way, with its interval over networks; of a
    single row, with the interval over images."""
    if len(rows) == 1:
        return {layer: Point(*share) for layer, share in rows[0].way.items()}
    shares: dict[str, dict[tuple[str, str], float]] = {}
    for row in rows:
        networks = (str(row.front_network), str(row.end_network))
        for layer, share in row.way.items():
            shares.setdefault(layer, {})[networks] = share.value
    return {layer: _mean_point(values) for layer, values in shares.items()}


def _mean_point(values: Mapping[tuple[str, str], float]) -> Point:
    """Return the mean of values by pair of networks."""
    mean = mean_over_pairs(values)
    return Point(mean.value, mean.low, mean.high, is_of_few=math.isnan(mean.low))


def _layers_of(rows: Sequence[VerdictRow]) -> list[str]:
    """Return the layers of all ways in order: the longest ways come first."""
    ways = sorted((list(row.way) for row in rows), key=len, reverse=True)
    layers = list(dict.fromkeys(layer for way in ways for layer in way))
    ends = {way[-1] for way in ways if way}
    return [*(layer for layer in layers if layer not in ends), *sorted(ends)]
