"""Layers of two networks that correspond: by name in networks of one type, else by relative
depth."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from src.core.console import listed, note_once
from src.core.errors import UserError
from src.core.grouping import grouped
from src.results.architectures import TIE, nearest_layers, nearest_pairs
from src.results.matrices import by_depth
from src.results.measurements import SIMILARITY, Measurement, NetworkLayer, NetworkPair
from src.results.named_networks import NamedNetwork
from src.results.network_names import architecture
from src.values import Pair

Depths = Mapping[NamedNetwork, Mapping[str, float]]  # relative depths by layer, by network


def relative_depths(layers: Iterable[NetworkLayer]) -> dict[NamedNetwork, dict[str, float]]:
    """Return the relative depths of measured layers, by network.

    They are those of the list of networks, or else those that the tables record. If a layer has no
    record, all measured layers of the networks of its type lie at equal distances; a note says so
    where there are several types.

    Raises:
        UserError: the list lacks a measured layer of a network, or gives networks of one type
            different depths.
    """
    depths: dict[NamedNetwork, dict[str, float]] = {}
    assumed = []
    by_type = grouped(layers, lambda layer: architecture_of(layer.network))
    for of_type in by_type.values():
        depths_of_type = _listed(of_type) or _recorded(of_type)
        if not depths_of_type:
            depths_of_type = _assumed(of_type)
            assumed.append(of_type[0].network.name)
        for layer in of_type:
            depths.setdefault(layer.network, {})[layer.layer] = depths_of_type[layer.layer]
    if assumed and len(by_type) > 1:
        note_once(
            f"relative depths are not recorded of networks such as {listed(assumed)}: their measured "
            "layers count as lying at equal distances"
        )
    return depths


def architecture_of(network: NamedNetwork) -> str:
    """Return the architecture of a network, see `architecture`."""
    return architecture(network.name, network.type)


def _listed(layers: Sequence[NetworkLayer]) -> dict[str, float]:
    """Return the relative depths by layer that the list gives networks of one type; {} if none."""
    depths: dict[str, float] = {}
    for network in dict.fromkeys(layer.network for layer in layers):
        for layer, depth in network.depths:
            if depths.setdefault(layer, depth) != depth:
                raise UserError(
                    f"the list has another depth of layer {layer} for {network.name} than for a network of "
                    "the same type; give both the same depths"
                )
    missing = dict.fromkeys(layer.layer for layer in layers if layer.layer not in depths)
    if depths and missing:
        raise UserError(
            f"the depths that the list gives {layers[0].network.name} lack {listed(missing)}; give "
            "LAYER=DEPTH for each layer that was measured"
        )
    return depths


def _recorded(layers: Sequence[NetworkLayer]) -> dict[str, float]:
    """Return the recorded relative depths by layer; {} if a layer has none."""
    depths = {}
    for layer in layers:
        if layer.relative_depth is not None:
            depths[layer.layer] = layer.relative_depth
    if all(layer.layer in depths for layer in layers):
        return depths
    return {}


def _assumed(layers: Sequence[NetworkLayer]) -> dict[str, float]:
    """Return relative depths of layers that lie at equal distances.

    Their order is that of their places in the network, else that of the first table.
    """
    places = {layer.layer: layer.depth for layer in layers if layer.depth is not None}
    in_tables = {
        layer: place for place, layer in enumerate(dict.fromkeys(layer.layer for layer in layers))
    }
    order = by_depth(in_tables, places, in_tables)
    return {layer: place / len(order) for place, layer in enumerate(order, start=1)}


def mean_depth(row: Measurement, depths: Depths) -> float:
    """Return the mean of the relative depths of both layers."""
    front_depth = depths[row.front.network][row.front.layer]
    return (front_depth + depths[row.end.network][row.end.layer]) / 2


class Correspondence:
    """The correspondence of the layers of two networks.

    In networks of one type they are the layers of the same name. In other networks they are the
    layers that are nearest in relative depth. Files of features are of one type, whatever their
    networks, and count as networks of different types.

    Args:
        depths: of all networks.
    """

    def __init__(self, depths: Depths):
        self.depths = depths
        self._pairs: dict[NetworkPair, set[Pair]] = {}

    def at_depths(self, row: Measurement) -> Measurement:
        """Return a row with the relative depths by which its layers correspond."""
        front, end = (
            layer._replace(relative_depth=self.depths[layer.network][layer.layer])
            for layer in (row.front, row.end)
        )
        return row._replace(front=front, end=end)

    def of(self, layer: str, networks: NetworkPair) -> list[str]:
        """Return the layers of the second network that correspond to a layer of the first.

        It is one layer, two that are equally near, or none.
        """
        network, second = networks
        depths_of_second = self.depths[second]
        if architecture_of(network) == architecture_of(second):
            return [layer] if layer in depths_of_second else []
        return nearest_layers(self.depths[network][layer], depths_of_second)

    def holds(self, pair: Pair, networks: NetworkPair) -> bool:
        """Return whether two layers correspond, seen from either network."""
        if networks not in self._pairs:
            self._pairs[networks] = self._pairs_of(networks)
        return pair in self._pairs[networks]

    def _pairs_of(self, networks: NetworkPair) -> set[Pair]:
        front, end = networks
        if architecture_of(front) == architecture_of(end):
            names = self.depths[front].keys() & self.depths[end].keys()
            return {Pair(name, name) for name in names}
        return nearest_pairs(self.depths[front], self.depths[end])

    @property
    def is_by_name(self) -> bool:
        """Whether all networks have the same layers at the same depths.

        Networks of one type have, even if different layers of them were measured.
        """
        architectures: dict[str, dict[str, float]] = {}
        for network, of_network in self.depths.items():
            architectures.setdefault(architecture_of(network), {}).update(of_network)
        first, *further = architectures.values()
        return all(_are_equal(first, depths) for depths in further)


def _are_equal(first: Mapping[str, float], second: Mapping[str, float]) -> bool:
    """Return whether two networks have the same layers at the same depths."""
    if first.keys() != second.keys():
        return False
    return all(abs(first[layer] - second[layer]) < TIE for layer in first)


def correspondence_of(rows: Iterable[Measurement]) -> Correspondence:
    """Return the correspondence of the measured layers.

    Similarities come first, as their tables list layers in order.
    """
    similarities_first = sorted(rows, key=lambda row: row.method != SIMILARITY)
    layers = chain.from_iterable((row.front, row.end) for row in similarities_first)
    return Correspondence(relative_depths(dict.fromkeys(layers)))
