"""The networks of stitches: names, groups and training runs. Two epochs of a training run are one network."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from src.core.console import warn
from src.results.network_list import ListedNetwork, as_listed, read_networks, tell_groups
from src.results.network_names import NetworkKey, NetworkName, titles_of
from src.results.pair_kinds import PAIRS, SAME_RUN, UNTRAINED_END, UNTRAINED_FRONT
from src.results.public import training_of

NEVER_TRAINED = "untrained"  # marks the group of such a network
UNLISTED = "not listed"  # the group of a network that the list lacks; it is not compared


class NamedNetwork(NamedTuple):
    """A network with its name and group in reports."""

    name: str  # in the list of networks, else the path
    group: str  # in the list, else the type; `UNLISTED` if there is a list without the network
    training: str  # in the list, else as recorded; equal for one network at two epochs
    is_untrained: bool = False
    type: str = ""  # as on the command line; networks of one type have one architecture
    depths: tuple[tuple[str, float], ...] = ()  # relative depths by layer, if the list gives them

    @property
    def group_title(self) -> str:
        """The group in tables, which says that a network was never trained."""
        if self.is_untrained and self.group != NEVER_TRAINED:
            return f"{self.group} ({NEVER_TRAINED})"
        return self.group


def kind_of_pair(front: NamedNetwork, end: NamedNetwork) -> str:
    """Return the kind of a pair of networks, a member of `pair_kinds.KINDS`."""
    if end.is_untrained:
        return UNTRAINED_END
    if front.is_untrained:
        return UNTRAINED_FRONT
    return SAME_RUN if front.training == end.training else PAIRS


def named_by_list(
    networks: Iterable[NetworkName], table: str | Path | None
) -> dict[NetworkKey, NamedNetwork]:
    """Return each network as reports name it, by its key, in the order of the list; warn of networks that
    the list lacks.

    Args:
        table: the list of networks; None: networks are named by their paths.
    """
    networks = list(networks)
    if not table:
        return named_networks(networks, {})
    in_table = read_networks(table)
    tell_groups(table, in_table)
    listed = as_listed(in_table)
    missing = [network.title for network in networks if network.listed_as not in listed]
    for title in dict.fromkeys(missing):
        warn(
            f"{table} does not list {title}, or lists it with other weights; it has no name and no "
            "group, and does not count in the comparison of groups"
        )
    place = {key: number for number, key in enumerate(listed)}
    in_list = sorted(networks, key=lambda network: place.get(network.listed_as, len(place)))
    return named_networks(in_list, listed)


def order_in(names: Iterable[NetworkKey]) -> Callable[[Any], list[int]]:
    """Return a key that sorts rows of two networks as their networks stand in `names`."""
    places = {key: place for place, key in enumerate(names)}
    return lambda row: [places[key] for key in row.network_keys]


def named_networks(
    networks: Iterable[NetworkName], listed: Mapping[NetworkKey, ListedNetwork]
) -> dict[NetworkKey, NamedNetwork]:
    """Return each network as reports name it, by its key.

    Args:
        listed: the networks of a list by `listed_as`; empty: there is no list.
    """
    networks = list(networks)
    titles = titles_of(networks)
    named: dict[NetworkKey, NamedNetwork] = {}
    for network in networks:
        if network.key in named:
            continue
        name = titles[network.key]
        group = UNLISTED if listed else network.type
        training = training_of(network)
        depths: tuple[tuple[str, float], ...] = ()
        line = listed.get(network.listed_as)
        if line:
            group = line.group or network.type
            training = line.training or training
            depths = tuple(line.relative_depths.items())
            names = [earlier.name for earlier in named.values()]
            # One line of the list stands for randomly initialised weights of every seed.
            name = line.name
            if name in names:
                name += f" (seed {network.seed})"
        named[network.key] = NamedNetwork(
            name, group, training, network.is_untrained, network.type, depths
        )
    return named
