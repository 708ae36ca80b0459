"""Groups of stitching runs that are judged together, and the quantities of a run."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from src.ground.console import note
from src.ground.grouping import grouped
from src.results.experiments import method_names
from src.results.folders import StitchingRun, newest_runs
from src.results.identity import CHECKPOINTS, NETWORKS, WEIGHTS
from src.results.named_networks import NamedNetwork, kind_of_pair
from src.results.network_names import NetworkKey
from src.results.quantities import QUANTITIES, SKILL
from src.results.stitch_rows import StitchRow
from src.values import Pair

# Controls
SELF = "self"  # a layer stitched to itself
FRESH_FRONT = "fresh"  # the front network was never trained
FRESH_END = "fresh_end"  # the end network was never trained

Names = Mapping[NetworkKey, NamedNetwork]


class Group(NamedTuple):
    """The runs that stitch the same layers by one method."""

    method: str
    networks: str  # the names of both networks, or the number of pairs that are taken together
    by_networks: list[list[StitchingRun]]  # the runs on each pair of networks
    runs: list[StitchingRun]  # all of them
    pair: Pair  # the layers
    control: str | None  # see `control_of`
    is_same_run: bool  # front and end are one network, at one or two epochs of its training
    kind: str  # of the pair of networks, a member of `KINDS`


def control_of(row: StitchRow, names: Names) -> str | None:
    """Return the kind of control of a stitch: `SELF`, `FRESH_FRONT` or `FRESH_END`.

    None for a stitch of two trained networks, or of different layers of one network.
    """
    front, end = row.network_keys
    side = untrained_side(row, names)
    if side is None and front == end and row.front_layer == row.end_layer:
        return SELF
    return side


def untrained_side(row: StitchRow, names: Names) -> str | None:
    """Return `FRESH_END` or `FRESH_FRONT` if a network was never trained, else None.

    If both networks were never trained, it is `FRESH_END`: nothing can be said of such a stitch.
    """
    front, end = row.network_keys
    if names[end].is_untrained:
        return FRESH_END
    if names[front].is_untrained:
        return FRESH_FRONT
    return None


def value_of(run: StitchingRun, name: str) -> float | None:
    """Return a quantity of a single run by its column; None where it was not measured.

    Quantities of a detector are in the evaluation by that detector.
    """
    if QUANTITIES[name].measured_by == SKILL:
        return None if run.skill is None else getattr(run.skill, name)
    return getattr(run.row, name)


def families_of(
    runs: Iterable[StitchingRun], names: Names, *, pool: bool = False
) -> list[list[Group]]:
    """Return the groups of runs to judge, in families; penalties of a family are tested together.

    A group has one pair of layers, of one pair of networks (with `pool`, of several). A family has
    all groups of one method with one type of networks on either side, whatever the networks: the
    adjusted p-values depend on the folders that are judged together.
    Stitches of a network to itself, at whatever epochs, are a family of their own. So are stitches
    from untrained networks, and stitches into untrained networks. Of repeated runs the newest counts, with a warning.

    Args:
        names: the networks of the runs.
        pool: take pairs of networks of the same types together that share no network, as
            repetitions of one experiment. Otherwise a note says where that is possible.
    """
    families: list[list[Group]] = []
    for method, repetitions in _repetitions(newest_runs(runs), names, pool=pool):
        family: list[Group] = []
        for title, titled_runs in _titled(repetitions, method, names, pool=pool).items():
            for pair, runs_of_layers in grouped(titled_runs, lambda run: run.row.pair).items():
                by_networks = grouped(runs_of_layers, lambda run: run.row.network_keys).values()
                family.append(_group(method, title, pair, list(by_networks), names))
        families.append(family)
    return families


def _group(
    method: str, title: str, pair: Pair, by_networks: list[list[StitchingRun]], names: Names
) -> Group:
    """Return the group of the runs of a title on a pair of layers."""
    row = by_networks[0][0].row
    front, end = row.network_keys
    return Group(
        method=method,
        networks=title,
        by_networks=by_networks,
        runs=list(chain.from_iterable(by_networks)),
        pair=pair,
        control=control_of(row, names),
        is_same_run=_is_same_run(row, names),
        kind=kind_of_pair(names[front], names[end]),
    )


def _repetitions(
    runs: Sequence[StitchingRun], names: Names, *, pool: bool
) -> Iterator[tuple[str, list[StitchingRun]]]:
    """Yield each method with runs that may repeat one experiment on further networks.

    One network at two epochs repeats no stitch of two networks, and neither do networks of other
    types. The types stand in the name of the method only if pairs of networks are pooled: rows then
    name no networks.
    """
    apart_from = [*NETWORKS, "seed"]
    if pool:
        apart_from = [*CHECKPOINTS, *WEIGHTS, "seed"]
    methods = method_names([run.row for run in runs], apart_from=apart_from)
    repetitions: dict[tuple[Hashable, ...], list[StitchingRun]] = {}
    for run, method in zip(runs, methods, strict=True):
        row = run.row
        types = (row.front_model_type, row.end_model_type)
        side = untrained_side(row, names)
        kind = (method, types, _is_same_run(row, names), side)
        repetitions.setdefault(kind, []).append(run)
    for (name, *_), runs_of_kind in repetitions.items():
        yield str(name), runs_of_kind


def _is_same_run(row: StitchRow, names: Names) -> bool:
    """Return whether front and end are one network, at one or two epochs of its training."""
    front, end = row.network_keys
    return names[front].training == names[end].training


def _titled(
    runs: Sequence[StitchingRun], method: str, names: Names, *, pool: bool
) -> dict[str, list[StitchingRun]]:
    """Return runs by title: a title for each pair of networks, or one title for all runs."""
    by_networks = grouped(runs, lambda run: run.row.network_keys)
    if len(by_networks) > 1 and _share_no_network(by_networks, names):
        if pool:
            return {f"{len(by_networks)} pairs of networks": list(runs)}
        note(
            f"{method}: {len(by_networks)} pairs of networks share no network; --pool takes them "
            "together"
        )
    return {
        f"{names[front].name} → {names[end].name}": runs_of_pair
        for (front, end), runs_of_pair in by_networks.items()
    }


def _share_no_network(pairs: Iterable[tuple[NetworkKey, NetworkKey]], names: Names) -> bool:
    """Return whether no network is in two of the pairs, at whatever epoch."""
    trainings = list(chain.from_iterable(_trainings(pair, names) for pair in pairs))
    return len(trainings) == len(set(trainings))


def _trainings(pair: tuple[NetworkKey, NetworkKey], names: Names) -> set[str]:
    """Return the trainings of a pair: one for a network stitched to itself, else two."""
    return {names[key].training for key in pair}
