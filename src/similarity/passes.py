"""Passes of networks over the images, each of which gives what its layers are compared by."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.models import Network
from src.results.tables import Rank
from src.similarity.features import CrossProducts, NetworkFeatures


class Side(NamedTuple):
    """A network whose layers are compared."""

    network: Network  # frozen
    layers: Sequence[str]
    ranks: Sequence[Rank] = (None,)  # numbers of principal components that are kept
    title: str = "the network"  # in messages
    key: Hashable = None  # what its features depend on beside layers, ranks and measures: weights, images, precision

    def joined(self, other: "Side") -> "Side":
        """Return one side of the layers and ranks of both, which are the same network."""
        layers = [*dict.fromkeys([*self.layers, *other.layers])]
        return self._replace(layers=layers, ranks=[*dict.fromkeys([*self.ranks, *other.ranks])])


class KeptFeatures:
    """Features of networks that are compared again, by key; the least recently used ones go when memory is short.

    Args:
        max_bytes: how much memory they may take together.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._features: OrderedDict[Hashable, NetworkFeatures] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._features

    def __getitem__(self, key: Hashable) -> NetworkFeatures:
        self._features.move_to_end(key)
        return self._features[key]

    def __setitem__(self, key: Hashable, features: NetworkFeatures) -> None:
        self._features[key] = features
        self._features.move_to_end(key)
        while self._features and sum(each.n_bytes for each in self._features.values()) > self.max_bytes:
            self._features.popitem(last=False)


def take_features(
    sides: Sequence[Side],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    n_images: int,
    metrics: Sequence[str],
    device: torch.device | str,
    alignment: str = "pool",
    kept: KeptFeatures | None = None,
) -> tuple[list[NetworkFeatures], CrossProducts]:
    """Take the features of one network, or of two, in one pass over the images.

    Args:
        sides: one or two; a single one is compared with itself, or with others later.
        batches: of the images, as `BaseImageSet.batches` yields them; left alone where all features are kept.
        n_images: how many images they have.
        metrics: names in `MEASURES`.
        device: where Gram matrices are computed.
        alignment: of the comparison; where positions may be samples, networks of kept features run again.
        kept: takes over what is made here, and gives what it has.
    Returns:
        The features of each side, and products of the first with the last.
    Raises:
        UserError: a measure is unknown.
    """
    features = []
    keys = [(side.key, *map(tuple, (side.layers, side.ranks, metrics))) for side in sides]
    for side, key in zip(sides, keys, strict=True):
        if kept is not None and key in kept:
            features.append(kept[key])
        else:
            titles = {name: f"{name} of {side.title}" for name in side.layers}
            features.append(NetworkFeatures(titles, n_images=n_images, metrics=metrics, ranks=side.ranks))
    cross = CrossProducts(alignment, metrics)
    _pass_over(sides, features, cross, batches)
    for each, key in zip(features, keys, strict=True):
        if not each.is_finished:
            each.finish(device=device)
        if kept is not None:
            kept[key] = each
    return features, cross


def _pass_over(
    sides: Sequence[Side], features: Sequence[NetworkFeatures], cross: CrossProducts, batches: Iterable
) -> None:
    """Run the networks whose features are not there yet, and both where products may be needed."""
    needs_all = cross.are_needed(features[0], features[-1])
    running = [i for i, each in enumerate(features) if needs_all or not each.is_finished]
    if not running:
        return
    for images, _ in batches:
        rows = {i: features[i].add(sides[i].network.activations(images, sides[i].layers)) for i in running}
        if needs_all:
            cross.add(features[0], features[-1], rows[0], rows[len(features) - 1])
