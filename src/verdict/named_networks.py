"""The networks of stitches: names, groups, and the training that makes two epochs one network."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from src.network_names import NetworkKey, NetworkName, titles_of
from src.results.network_list import ListedNetwork
from src.stitching.network_pairs import is_untrained
from src.trained_with import training_of


class NamedNetwork(NamedTuple):
    """A network as reports name it."""

    name: str  # in the list of networks, else the path
    group: str  # in the list, else the type
    training: str  # equal for one network at two epochs
    is_untrained: bool = False


def named_networks(
    networks: Iterable[NetworkName], listed: Mapping[NetworkKey, ListedNetwork]
) -> dict[NetworkKey, NamedNetwork]:
    """Return each network as reports name it, by its key.

    Args:
        listed: the networks of a list by `listed_as`; may be empty.
    """
    networks = list(networks)
    titles = titles_of(networks)
    named: dict[NetworkKey, NamedNetwork] = {}
    for network in networks:
        if network.key in named:
            continue
        name = titles[network.key]
        group = network.type
        line = listed.get(network.listed_as)
        if line:
            group = line.group or network.type
            names = [known.name for known in named.values()]
            # One line of the list stands for fresh weights of every seed.
            name = line.name if line.name not in names else f"{line.name} (seed {network.seed})"
        named[network.key] = NamedNetwork(name, group, training_of(network), is_untrained(network))
    return named
