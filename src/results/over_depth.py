"""Means over pairs of networks at corresponding layers, over depth."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from src.core.grouping import grouped
from src.core.user_code import title_of
from src.results.corresponding import TIE, Correspondence, Depths, mean_depth
from src.results.measurements import (
    SIMILARITY,
    Measurement,
    TrainingRuns,
    at_full_rank,
)
from src.results.network_means import MeanRow, mean_over_networks
from src.results.quantities import IN_CURVES, shown_in

ONE_NETWORK = "one network at two epochs"  # the line of pairs of checkpoints of one training
UNTRAINED = "untrained"  # marks the group of a network that was never trained
MIN_STEPS = 3  # of relative depth
MAX_STEPS = 12


class DepthPlace(NamedTuple):
    """A place on the axis of depth."""

    relative_depth: float
    layer: str = ""  # of both networks; empty where networks have different layers


def depth_rows(rows: Iterable[Measurement], correspondence: Correspondence) -> list[MeanRow]:
    """Return the means over pairs of two networks at each place, with intervals of 95 % over
    networks.

    A place is a layer if all networks have the same layers, else one of the line's `steps_of_depth`,
    or the relative depth of its values if they have one.

    Stitches of layers that do not correspond, of a network with itself, and similarities at reduced
    ranks are left out. Two epochs of one network are no pair of networks and have a line for
    themselves. So have pairs with an untrained network, as a front or as an end network. Each pair of
    groups has a line.
    """
    shown = [
        row
        for row in drawn(rows)
        if correspondence.holds(row.pair, row.networks) and not math.isnan(row.value)
    ]
    means = []
    lines = grouped(shown, lambda row: (row.method, row.quantity, groups_of(row)))
    for (*_, groups), of_line in lines.items():
        for place, of_place in _by_place(of_line, correspondence).items():
            mean = mean_over_networks(
                of_place,
                training_runs_of=_trainings_of,
                networks=groups,
                layers=place.layer,
                relative_depth=place.relative_depth,
            )
            means.append(mean)
    if len({mean.networks for mean in means}) == 1:
        means = [replace(mean, networks="") for mean in means]
    return means


def drawn(rows: Iterable[Measurement]) -> list[Measurement]:
    """Return the rows of two networks that curves are of."""
    pairs = [row for row in rows if row.networks[0] != row.networks[1] and not row.part]
    similarities = [row for row in pairs if row.method == SIMILARITY]
    in_curves = shown_in(IN_CURVES)
    stitches = [row for row in pairs if row.quantity in in_curves]
    return [*stitches, *at_full_rank(similarities)]


def groups_without_curves(rows: Iterable[Measurement], correspondence: Correspondence) -> list[str]:
    """Return the pairs of groups that were compared only at layers that do not correspond."""
    by_groups = grouped(drawn(rows), groups_of)
    return [
        groups
        for groups, of_groups in by_groups.items()
        if not any(correspondence.holds(row.pair, row.networks) for row in of_groups)
    ]


def on_architectures(rows: Iterable[Measurement]) -> str:
    """Return the sentence on groups of unlike types of networks; "" if all have the same types."""
    networks = set(chain.from_iterable(row.networks for row in drawn(rows)))
    groups = grouped(networks, lambda network: network.group).values()
    types = {frozenset(network.type for network in group) for group in groups}
    return "Groups differ in architecture." if len(types) > 1 else ""


def groups_of(row: Measurement) -> str:
    """Return the groups of both networks as a text; similarity has no direction."""
    if row.training_runs[0] == row.training_runs[1]:
        return ONE_NETWORK
    networks: Sequence = row.networks
    if row.method == SIMILARITY:
        networks = sorted(networks, key=lambda network: network.group)
    groups = []
    for network in networks:
        group = title_of(network.group)
        if network.is_untrained and group != UNTRAINED:
            group += f" ({UNTRAINED})"
        groups.append(group)
    return " → ".join(groups)


def _by_place(
    rows: Sequence[Measurement], correspondence: Correspondence
) -> dict[DepthPlace, list[Measurement]]:
    """Return the rows of a line by place, in the order of depth.

    A place is the layer, or the step nearest to the mean of both relative depths.
    """
    depths = correspondence.depths
    if correspondence.is_by_name:
        by_place = grouped(
            rows,
            lambda row: DepthPlace(depths[row.front.network][row.front.layer], row.front.layer),
        )
    else:
        steps = steps_of_depth(rows, depths)
        by_step = grouped(
            rows, lambda row: min(steps, key=lambda step: abs(step - mean_depth(row, depths)))
        )
        by_place = {
            DepthPlace(_true_depth(step, of_step, depths)): of_step
            for step, of_step in by_step.items()
        }
    return {place: by_place[place] for place in sorted(by_place)}


def _true_depth(step: float, rows: Iterable[Measurement], depths: Depths) -> float:
    """Return the depth that all rows of a step have, or else the step."""
    mean_depths = [mean_depth(row, depths) for row in rows]
    if max(mean_depths) - min(mean_depths) < TIE:
        return mean_depths[0]
    return step


def steps_of_depth(rows: Iterable[Measurement], depths: Depths) -> list[float]:
    """Return the relative depths that layers of different networks are brought to.

    They lie at equal distances up to 1. They are as many as the network with the fewest layers has,
    so that every network has a layer at each of them, but at least `MIN_STEPS` and at most
    `MAX_STEPS`.

    Args:
        rows: of these networks.
    """
    networks = set(chain.from_iterable(row.networks for row in rows))
    fewest = min(len(depths[network]) for network in networks)
    n_steps = min(max(fewest, MIN_STEPS), MAX_STEPS)
    return [step / n_steps for step in range(1, n_steps + 1)]


def _trainings_of(row: Measurement) -> TrainingRuns:
    """Return the training runs of both networks; similarity has no direction."""
    if row.method == SIMILARITY:
        first, second = sorted(row.training_runs)
        return first, second
    return row.training_runs
