"""Curves over depth: accuracy, validity and similarity of corresponding layers of two networks."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from src.choices.similarity import measure_of
from src.collected.corresponding import Correspondence, Depths
from src.collected.groups import Names
from src.collected.measured import (
    SIMILARITY,
    MeasuredValue,
    NetworkPair,
    named_pair,
    quantities_of,
    reversed_similarities_of,
    similarities_of,
)
from src.collected.named_networks import NamedNetwork
from src.collected.network_means import mean_over_pairs
from src.ground.console import listed, note
from src.ground.grouping import grouped
from src.reports.chosen import chosen_rows
from src.reports.curves import SHARE, CurvePanel, Point, curves
from src.runs.folders import StitchingRun
from src.tables.experiments import NETWORKS, method_names
from src.tables.network_names import short
from src.tables.quantities import IN_CURVES, QUANTITIES, shown_in
from src.tables.similarity_rows import SimilarityRow
from src.tables.tables import write_table
from src.tables.truth_rows import DepthRow
from src.values import Pair

OF_MEASURES = {1: "similarity", -1: "distance"}  # by the sign of a measure
ONE_NETWORK = "one network at two epochs"  # the line of pairs of checkpoints of one training
CLASS_CONTROLS = "class control"  # begins the line of stitches from controls
UNTRAINED = "untrained"  # marks the group of a network that was never trained
MIN_STEPS = 3  # of relative depth
MAX_STEPS = 12
MAX_PANELS = 6  # on a page
ON_DEPTH = (
    " Relative depth is the share of a network's blocks up to a layer; layers of different networks "
    "correspond if each is the nearest to the other in depth."
)
MAX_IN_CAPTION = 2  # pairs of groups without curves that a caption names

RANGES = {quantity.title: quantity.possible for quantity in shown_in(IN_CURVES).values()} | {
    "similarity": SHARE,
    "distance": (0.0, math.inf),
}


class DepthLine(NamedTuple):
    """A line of the curves."""

    quantity: str
    name: str  # a method of stitching, or a measure
    groups: str = ""  # front group → end group, if there are several groups


class DepthPlace(NamedTuple):
    """A place on the axis of depth."""

    relative_depth: float
    layer: str = ""  # of both networks; empty where networks have different layers


def depth_rows(
    runs: Sequence[StitchingRun],
    similarities: Sequence[SimilarityRow],
    names: Names,
    correspondence: Correspondence,
) -> list[DepthRow]:
    """Return the means over pairs of two networks at each place, with intervals of 95 % over
    networks.

    A place is a layer if all networks have the same layers, else one of the line's `steps_of_depth`.

    Stitches of layers that do not correspond, of a network with itself, and similarities at reduced
    ranks are left out. Two epochs of one network are no pair of networks and have a line for
    themselves. So have pairs with an untrained network, as a front or as an end network, and class
    controls.

    Args:
        names: of all networks; each pair of groups has a line.
    """
    measured = chain(
        _of_stitches(runs, names, correspondence),
        _of_similarities(similarities, names, correspondence),
    )
    values = [value for value in measured if not math.isnan(value.value)]
    if not values:
        return []
    lines = [_line_of(value) for value in values]
    if len({line.groups for line in lines}) == 1:
        lines = [line._replace(groups="") for line in lines]

    values_of_lines = grouped(zip(lines, values, strict=True), lambda item: item[0])
    is_by_name = correspondence.is_by_name
    rows = []
    for line, items in values_of_lines.items():
        values_of_line = [value for _, value in items]
        steps = [] if is_by_name else steps_of_depth(values_of_line, correspondence.depths)
        rows += _rows_of(line, values_of_line, correspondence.depths, steps)
    return rows


def _rows_of(
    line: DepthLine, values: Sequence[MeasuredValue], depths: Depths, steps: Sequence[float]
) -> list[DepthRow]:
    """Return the rows of a line in the order of depth.

    Args:
        steps: see `_place_of`.
    """
    by_place = grouped(values, lambda value: _place_of(value, depths, steps))
    in_order = sorted(by_place.items(), key=lambda item: item[0].relative_depth)
    return [_row(line, place, of_place) for place, of_place in in_order]


def steps_of_depth(values: Iterable[MeasuredValue], depths: Depths) -> list[float]:
    """Return the relative depths that layers of different networks are brought to.

    They lie at equal distances up to 1. They are as many as the network with the fewest layers has,
    so that every network has a layer at each of them, but at least `MIN_STEPS` and at most
    `MAX_STEPS`.

    Args:
        values: of these networks.
    """
    networks = set(chain.from_iterable(value.networks for value in values))
    fewest = min(len(depths[network]) for network in networks)
    n_steps = min(max(fewest, MIN_STEPS), MAX_STEPS)
    return [step / n_steps for step in range(1, n_steps + 1)]


def _place_of(value: MeasuredValue, depths: Depths, steps: Sequence[float]) -> DepthPlace:
    """Return the place of a value: the layer, or the step that is nearest to the mean of both
    relative depths.

    Args:
        steps: empty: all networks have the same layers.
    """
    front_depth = depths[value.front.network][value.front.layer]
    if not steps:
        return DepthPlace(front_depth, value.front.layer)
    depth = (front_depth + depths[value.end.network][value.end.layer]) / 2
    return DepthPlace(min(steps, key=lambda step: abs(step - depth)))


def groups_without_curves(
    runs: Sequence[StitchingRun],
    similarities: Sequence[SimilarityRow],
    names: Names,
    correspondence: Correspondence,
) -> list[str]:
    """Return the pairs of groups that were compared at layers only that do not correspond.

    Args:
        names: of all networks.
    """
    compared: list[tuple[NetworkPair, str, Pair]] = []  # networks, their groups, layers
    for run in runs:
        networks = named_pair(run.row, names)
        compared.append((networks, _groups(*networks), run.row.pair))
    for row in similarities:
        networks = named_pair(row, names)
        compared.append((networks, _groups(*_in_order(networks)), row.pair))
    has_curve: dict[str, bool] = {}
    for networks, groups, pair in compared:
        if networks[0] != networks[1]:
            corresponds = correspondence.holds(pair, networks)
            has_curve[groups] = has_curve.get(groups, False) or corresponds
    return [groups for groups, has_any in has_curve.items() if not has_any]


def _of_stitches(
    runs: Sequence[StitchingRun], names: Names, correspondence: Correspondence
) -> Iterator[MeasuredValue]:
    """Yield the quantities of stitches of corresponding layers of two networks."""
    apart_from = (*NETWORKS, "seed", "class_control")
    methods = method_names([run.row for run in runs], apart_from=apart_from)
    for run, method in zip(runs, methods, strict=True):
        networks = named_pair(run.row, names)
        if networks[0] != networks[1] and correspondence.holds(run.row.pair, networks):
            yield from quantities_of(run, method, networks, shown_in(IN_CURVES))


def _of_similarities(
    rows: Sequence[SimilarityRow], names: Names, correspondence: Correspondence
) -> Iterator[MeasuredValue]:
    """Yield the measures of corresponding layers of two networks at full rank, means of both
    ways."""
    for row in rows:
        networks = named_pair(row, names)
        is_at_full_rank = row.rank1 is None and row.rank2 is None
        if not is_at_full_rank or networks[0] == networks[1]:
            continue
        if not correspondence.holds(row.pair, networks):
            continue
        forth = similarities_of(row, networks)
        back = reversed_similarities_of(row, networks)
        for value, reversed_value in zip(forth, back, strict=True):
            yield value._replace(value=(value.value + reversed_value.value) / 2)


def _line_of(value: MeasuredValue) -> DepthLine:
    """Return the line that a value belongs to."""
    if value.method == SIMILARITY:
        groups = _groups(*_in_order(value.networks))
        return DepthLine(OF_MEASURES[measure_of(value.quantity).sign], value.quantity, groups)
    groups = _groups(*value.networks)
    if value.class_control:
        groups = f"{CLASS_CONTROLS}, {groups}"
    return DepthLine(QUANTITIES[value.quantity].title, value.method, groups)


def _in_order(networks: NetworkPair) -> NetworkPair:
    """Return two networks in the order of their groups: similarity has no direction."""
    first, second = networks
    return networks if first.group <= second.group else (second, first)


def _groups(front: NamedNetwork, end: NamedNetwork) -> str:
    """Return the groups of two networks as a text."""
    if front.training == end.training:
        return ONE_NETWORK
    groups = []
    for network in (front, end):
        group = short(network.group)
        if network.is_untrained and group != UNTRAINED:
            group += f" ({UNTRAINED})"
        groups.append(group)
    return " → ".join(groups)


def _row(line: DepthLine, place: DepthPlace, values: Sequence[MeasuredValue]) -> DepthRow:
    """Return the mean over pairs of networks of the values of a line at a place.

    A pair of networks with several values there counts by their mean.
    """
    values_of_pairs = grouped(values, lambda value: value.networks)
    means = {
        networks: fmean(value.value for value in of_pair)
        for networks, of_pair in values_of_pairs.items()
    }
    return DepthRow(
        line.quantity,
        line.name,
        place.layer,
        *mean_over_pairs(means),
        networks=line.groups,
        relative_depth=place.relative_depth,
    )


def write_depth(
    path: Path,
    rows: Sequence[DepthRow],
    *,
    title: str = "",
    quantities: Sequence[str] = (),
    without_curves: Sequence[str] = (),
) -> None:
    """Write the CSV, and beside it the figure, on pages of at most six panels.

    With several pairs of groups, a panel has a quantity of a method or a measure, and a line a pair
    of groups. Otherwise a panel has a quantity, and a line a method or measure. Panels with no value
    but zero are left out, and a note says so.

    Args:
        quantities: names of quantities, methods or measures to draw; empty: all of them.
        without_curves: the pairs of groups that have no curves, see `groups_without_curves`.
    """
    write_table(path, DepthRow, rows)
    drawn_rows = chosen_rows(rows, quantities, lambda row: (row.quantity, row.line))
    panels = _panels(drawn_rows)
    zero = [panel for panel in panels if _is_zero(panel)]
    if zero:
        names = [" ".join(filter(None, (panel.y_label, panel.title))) for panel in zero]
        note(f"not drawn, as all values are 0: {'; '.join(names)}")
    shown = [panel for panel in panels if panel not in zero]
    in_order = sorted(rows, key=lambda row: row.relative_depth)
    layers = list(filter(None, dict.fromkeys(row.layer for row in in_order)))
    pages = [shown[start : start + MAX_PANELS] for start in range(0, len(shown), MAX_PANELS)]
    for number, page in enumerate(pages, start=1):
        page_path = path.with_suffix(".png")
        if number > 1:
            page_path = path.with_name(f"{path.stem}_{number}.png")
        panels_of_page = page
        if _method_of(page):  # the caption says it
            panels_of_page = [panel._replace(title="") for panel in page]
        curves(
            page_path,
            panels_of_page,
            x_label="layer of both networks" if layers else "relative depth of both layers",
            layers=layers,
            x_range=(0, 1),
            title=title,
            caption=_caption(drawn_rows, page, number, len(pages), without_curves),
        )
    if len(pages) > 1:
        note(
            f"the figure has {len(pages)} pages: {path.stem}.png to {page_path.name}; "
            "--quantities draws some of the panels"
        )


def _panels(rows: Sequence[DepthRow]) -> list[CurvePanel]:
    """Return the panels of curves: a quantity, or with groups a quantity of a method or measure."""
    has_groups = any(row.networks for row in rows)
    points: dict[tuple[str, str], dict[str, dict[str | float, Point]]] = {}
    for row in rows:
        title = ""
        label = _title_of_line(row)
        if has_groups:
            title = label
            label = row.networks
        curve = points.setdefault((row.quantity, title), {}).setdefault(label, {})
        curve[row.layer or row.relative_depth] = Point(row.value, row.low, row.high)
    return [
        CurvePanel(lines, quantity, RANGES[quantity], title=title)
        for (quantity, title), lines in points.items()
    ]


def _title_of_line(row: DepthRow) -> str:
    """Return the method of a row, or the title of its measure."""
    return measure_of(row.line).title if row.quantity in OF_MEASURES.values() else row.line


def _is_zero(panel: CurvePanel) -> bool:
    """Return whether all values of a panel are 0."""
    values = [
        getattr(point, "value", point)
        for curve in panel.curves.values()
        for point in curve.values()
    ]
    return not any(values)


def _method_of(page: Sequence[CurvePanel]) -> str:
    """Return the method that is the title of all panels of a page; "" if their titles differ."""
    titles = {panel.title for panel in page}
    return titles.pop() if len(page) > 1 and len(titles) == 1 else ""


def _caption(
    rows: Sequence[DepthRow],
    page: Sequence[CurvePanel],
    number: int,
    n_pages: int,
    without_curves: Sequence[str],
) -> str:
    """Return the text below a page of the figure."""
    n_networks = max(row.n_networks for row in rows)
    text = f"Means over pairs of {n_networks} networks{_on_bands(page)}."
    method = _method_of(page)
    if method:
        text = f"Method: {method}. {text}"
    if not all(row.layer for row in rows):
        text += ON_DEPTH
    if without_curves:
        text += f" No layers correspond: {listed(without_curves, n=MAX_IN_CAPTION)}."
    return f"{text} Page {number} of {n_pages}." if n_pages > 1 else text


def _on_bands(page: Sequence[CurvePanel]) -> str:
    """Return the words of the caption on the bands of a page; "" if it has none."""
    curves_of_page = chain.from_iterable(panel.curves.values() for panel in page)
    points = chain.from_iterable(curve.values() for curve in curves_of_page)
    has_band = {not math.isnan(getattr(point, "low", math.nan)) for point in points}
    if True not in has_band:
        return ""
    if False in has_band:
        return "; bands: 95 % over networks, from four networks on"
    return "; bands: 95 % over networks"
