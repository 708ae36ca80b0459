"""Groups of stitches that are judged together, and the quantities of a stitch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from src.core.console import note
from src.core.grouping import grouped
from src.results.experiments import method_names
from src.results.named_networks import NamedNetwork, kind_of_pair
from src.results.network_names import NetworkKey
from src.results.pair_kinds import SAME_RUN, UNTRAINED_END, UNTRAINED_FRONT
from src.results.spec import CHECKPOINTS, NETWORKS, WEIGHTS
from src.results.stitches import Stitch, newest_stitches
from src.values import Pair

# Controls
SELF = "self"  # a layer stitched to itself
UNTRAINED_END_CONTROL = (
    "untrained_end"  # the end network was never trained, so nothing can be said of the stitch
)
CONTROLS = {
    UNTRAINED_FRONT: "untrained",
    UNTRAINED_END: UNTRAINED_END_CONTROL,
}  # by the kind of the pair of networks

Names = Mapping[NetworkKey, NamedNetwork]


class Group(NamedTuple):
    """The stitches of the same layers by one method."""

    method: str
    networks: str  # the names of both networks, or the number of pairs that are taken together
    by_networks: list[list[Stitch]]  # the stitches on each pair of networks
    stitches: list[Stitch]  # all of them
    pair: Pair  # the layers
    # SELF, or of `CONTROLS`; None: of two trained networks, or of different layers of one network
    control: str | None
    is_same_run: bool  # front and end are one network, at one or two epochs of its training
    kind: str  # of the pair of networks, a member of `KINDS`


def families_of(
    stitches: Iterable[Stitch], names: Names, *, pool: bool = False
) -> list[list[Group]]:
    """Return the groups of stitches to judge, in families; accuracy drops of a family are tested together.

    A group has one pair of layers, of one pair of networks (with `pool`, of several). A family has
    all groups of one method with one type of networks on either side, whatever the networks: the
    adjusted p-values depend on the folders that are judged together.
    Stitches of a network to itself, at whatever epochs, are a family of their own. So are stitches
    from untrained networks, and stitches into untrained networks. Of repeated stitches the
    newest counts, with a warning.

    Args:
        names: the networks of the stitches.
        pool: take pairs of networks of the same types together that share no network, as
            repetitions of one experiment. Otherwise a note says where that is possible.
    """
    families: list[list[Group]] = []
    for method, repetitions in _repetitions(newest_stitches(stitches), names, pool=pool):
        family: list[Group] = []
        for title, titled in _titled(repetitions, method, names, pool=pool).items():
            for pair, of_layers in grouped(titled, lambda stitch: stitch.row.pair).items():
                by_networks = grouped(of_layers, lambda stitch: stitch.row.network_keys).values()
                family.append(_group(method, title, pair, list(by_networks), names))
        families.append(family)
    return families


def _group(
    method: str, title: str, pair: Pair, by_networks: list[list[Stitch]], names: Names
) -> Group:
    """Return the group of the stitches of a title on a pair of layers."""
    front, end = by_networks[0][0].row.network_keys
    kind = kind_of_pair(names[front], names[end])
    control = CONTROLS.get(kind)
    if kind == SAME_RUN and front == end and pair.front_layer == pair.end_layer:
        control = SELF
    return Group(
        method=method,
        networks=title,
        by_networks=by_networks,
        stitches=list(chain.from_iterable(by_networks)),
        pair=pair,
        control=control,
        is_same_run=names[front].training == names[end].training,
        kind=kind,
    )


def _repetitions(
    stitches: Sequence[Stitch], names: Names, *, pool: bool
) -> Iterator[tuple[str, list[Stitch]]]:
    """Yield each method with stitches that may repeat one experiment on further networks.

    One network at two epochs repeats no stitch of two networks, and neither do networks of other
    types. The types stand in the name of the method only if pairs of networks are pooled: rows then
    name no networks.
    """
    apart_from = [*NETWORKS, "seed"]
    if pool:
        apart_from = [*CHECKPOINTS, *WEIGHTS, "seed"]
    methods = method_names([stitch.row for stitch in stitches], apart_from=apart_from)
    repetitions: dict[tuple[str, ...], list[Stitch]] = {}
    for stitch, method in zip(stitches, methods, strict=True):
        front, end = stitch.row.network_keys
        kind = kind_of_pair(names[front], names[end])
        types = (str(stitch.row.front_model_type), str(stitch.row.end_model_type))
        repetitions.setdefault((method, kind, *types), []).append(stitch)
    for (method, *_), of_kind in repetitions.items():
        yield method, of_kind


def _titled(
    stitches: Sequence[Stitch], method: str, names: Names, *, pool: bool
) -> dict[str, list[Stitch]]:
    """Return stitches by title: a title for each pair of networks, or one title for all stitches."""
    by_networks = grouped(stitches, lambda stitch: stitch.row.network_keys)
    if len(by_networks) > 1 and _share_no_network(by_networks, names):
        if pool:
            return {f"{len(by_networks)} pairs of networks": list(stitches)}
        note(
            f"{method}: {len(by_networks)} pairs of networks share no network; --pool takes them "
            "together"
        )
    return {
        f"{names[front].name} → {names[end].name}": of_pair
        for (front, end), of_pair in by_networks.items()
    }


def _share_no_network(pairs: Iterable[tuple[NetworkKey, NetworkKey]], names: Names) -> bool:
    """Return whether no network is in two of the pairs, at whatever epoch."""
    training_runs = list(chain.from_iterable(_training_runs(pair, names) for pair in pairs))
    return len(training_runs) == len(set(training_runs))


def _training_runs(pair: tuple[NetworkKey, NetworkKey], names: Names) -> set[str]:
    """Return the training runs of a pair: one for a network stitched to itself, else two."""
    return {names[key].training for key in pair}
