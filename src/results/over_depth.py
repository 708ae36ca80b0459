"""Means over pairs of networks at corresponding layers, over depth."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from statistics import fmean
from typing import NamedTuple

from src.choices.similarity import measure_of
from src.ground.grouping import grouped
from src.ground.user_code import title_of
from src.results.corresponding import TIE, Correspondence, Depths, mean_depth
from src.results.depth_rows import DepthRow
from src.results.experiments import method_names
from src.results.folders import StitchingRun
from src.results.groups import Names
from src.results.identity import NETWORKS
from src.results.measured import (
    SIMILARITY,
    MeasuredValue,
    NetworkPair,
    Trainings,
    named_pair,
    quantities_of,
    reversed_similarities_of,
    similarities_of,
    trainings_of,
)
from src.results.named_networks import NamedNetwork
from src.results.network_means import mean_over_pairs
from src.results.quantities import IN_CURVES, QUANTITIES, shown_in
from src.results.similarity_rows import SimilarityRow
from src.values import Pair

OF_MEASURES = {1: "similarity", -1: "distance"}  # quantities, by the sign of a measure
ONE_NETWORK = "one network at two epochs"  # the line of pairs of checkpoints of one training
UNTRAINED = "untrained"  # marks the group of a network that was never trained
MIN_STEPS = 3  # of relative depth
MAX_STEPS = 12


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

    A place is a layer if all networks have the same layers, else one of the line's `steps_of_depth`,
    or the relative depth of its values if they have one.

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
    rows = []
    for line, items in values_of_lines.items():
        values_of_line = [value for _, value in items]
        steps: list[float] = []
        if not correspondence.is_by_name:
            steps = steps_of_depth(values_of_line, correspondence.depths)
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
    rows = []
    for place, of_place in in_order:
        if steps:
            place = _at_true_depth(place, of_place, depths)
        rows.append(_row(line, place, of_place))
    return rows


def _at_true_depth(
    place: DepthPlace, values: Iterable[MeasuredValue], depths: Depths
) -> DepthPlace:
    """Return the depth that all values of a place have, or else the place."""
    mean_depths = [mean_depth(value, depths) for value in values]
    if max(mean_depths) - min(mean_depths) < TIE:
        return DepthPlace(mean_depths[0])
    return place


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
    """Return the place of a value: the layer, or the step nearest to the mean of both relative depths.

    Args:
        steps: empty: all networks have the same layers.
    """
    if not steps:
        front_depth = depths[value.front.network][value.front.layer]
        return DepthPlace(front_depth, value.front.layer)
    depth = mean_depth(value, depths)
    return DepthPlace(min(steps, key=lambda step: abs(step - depth)))


def groups_without_curves(
    runs: Sequence[StitchingRun],
    similarities: Sequence[SimilarityRow],
    names: Names,
    correspondence: Correspondence,
) -> list[str]:
    """Return the pairs of groups that were compared only at layers that do not correspond.

    Args:
        names: of all networks.
    """
    compared: list[tuple[NetworkPair, str, Pair]] = []  # networks, their groups, layers
    for run in runs:
        networks = named_pair(run.row, names)
        compared.append((networks, _groups(*networks), run.row.pair))
    for row in similarities:
        networks = named_pair(row, names)
        groups = _groups(*_in_order(networks))
        compared.append((networks, groups, row.pair))
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
    apart_from = (*NETWORKS, "seed")
    methods = method_names([run.row for run in runs], apart_from=apart_from)
    method_of = dict(zip(map(id, runs), methods, strict=True))
    for run in corresponding_runs(runs, names, correspondence):
        networks = named_pair(run.row, names)
        yield from quantities_of(run, method_of[id(run)], networks, shown_in(IN_CURVES))


def corresponding_runs(
    runs: Iterable[StitchingRun], names: Names, correspondence: Correspondence
) -> list[StitchingRun]:
    """Return the runs of corresponding layers of two networks."""
    kept = []
    for run in runs:
        front, end = named_pair(run.row, names)
        if front != end and correspondence.holds(run.row.pair, (front, end)):
            kept.append(run)
    return kept


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
    return DepthLine(QUANTITIES[value.quantity].title, value.method, groups)


def _in_order(networks: NetworkPair) -> NetworkPair:
    """Return two networks in the order of their groups: similarity has no direction."""
    first, second = networks
    if first.group <= second.group:
        return networks
    return second, first


def _groups(front: NamedNetwork, end: NamedNetwork) -> str:
    """Return the groups of two networks as a text."""
    if front.training == end.training:
        return ONE_NETWORK
    groups = []
    for network in (front, end):
        group = title_of(network.group)
        if network.is_untrained and group != UNTRAINED:
            group += f" ({UNTRAINED})"
        groups.append(group)
    return " → ".join(groups)


def _trainings_of(value: MeasuredValue) -> Trainings:
    """Return the trainings of both networks; similarity has no direction."""
    first, second = trainings_of(value.networks)
    if value.method == SIMILARITY and second < first:
        return second, first
    return first, second


def _row(line: DepthLine, place: DepthPlace, values: Sequence[MeasuredValue]) -> DepthRow:
    """Return the mean over pairs of networks of the values of a line at a place.

    A pair of networks with several values there counts by their mean; a network at several epochs
    is one network.
    """
    means = {
        trainings: fmean(value.value for value in of_pair)
        for trainings, of_pair in grouped(values, _trainings_of).items()
    }
    possible = (-math.inf, math.inf)
    if values[0].quantity in QUANTITIES:
        possible = QUANTITIES[values[0].quantity].possible
    return DepthRow(
        line.quantity,
        line.name,
        place.layer,
        *mean_over_pairs(means).within(*possible),
        networks=line.groups,
        relative_depth=place.relative_depth,
        lowest=min(means.values()),
        highest=max(means.values()),
    )
