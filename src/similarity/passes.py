"""Passes of networks over the images, which collect the statistics that comparisons need."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from src.choices.similarity import PAPER, SAMPLES, measure_of, with_companions
from src.models import Network
from src.similarity.features import LayerFeatures, alignment_of
from src.similarity.user_measures import UserMeasure, load_measures
from src.statistics.moments import CrossMoments, Rows
from src.values import BY_POSITION, Rank

Features = Mapping[str, LayerFeatures]  # the layers of one network, by name
LayerPair = tuple[str, str]  # a layer of each network


class StoredActivations(NamedTuple):
    """The activations (N, ...) of N images by layer. They stand for a network: its images are the
    places 0 to N − 1."""

    values: Mapping[str, Tensor | NDArray]
    device: torch.device | str = "cpu"  # of the activations that it returns

    def activations(self, places: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the activations of the images at these places, in single precision unless they are
        double."""
        activations = {}
        for name in names:
            values = torch.as_tensor(self.values[name][places])
            if values.dtype != torch.float64:
                values = values.float()
            activations[name] = values.to(self.device)
        return activations


def store_activations(
    network: Network, layers: Sequence[str], batches: Iterable[tuple[Tensor, object]], n_images: int
) -> StoredActivations:
    """Return the activations of layers of a network, from one pass over the images, on the CPU.

    Args:
        batches: images and labels.
        n_images: the number of images in all batches.
    """
    values: dict[str, Tensor] = {}
    n_seen = 0
    for images, _ in batches:
        activations = network.activations(images, layers)
        for name, activation in activations.items():
            if name not in values:
                values[name] = torch.empty(n_images, *activation.shape[1:])
            values[name][n_seen : n_seen + len(images)] = activation.detach()
        n_seen += len(images)
    return StoredActivations(values)


class Side(NamedTuple):
    """A network, and the layers and ranks to compare."""

    network: Network | StoredActivations  # only its `activations` are used
    layers: Sequence[str]
    ranks: Sequence[Rank] = (None,)  # numbers of principal components that are kept
    title: str = ""  # in messages
    # All that its features depend on, beside layers, ranks and measures: weights, images, precision
    key: Hashable = None


class Statistics(NamedTuple):
    """The layers of two networks on the same images, ready to be compared."""

    layers1: Features
    layers2: Features
    ranks1: Sequence[Rank]
    ranks2: Sequence[Rank]
    products: dict[LayerPair, CrossMoments]  # of layers whose positions are samples
    metrics: list[str]  # columns of measures
    user_measures: dict[str, UserMeasure]  # by column
    alignment: str  # the option: auto, pool or positions; see `features.alignment_of`
    n_images: int


class KeptFeatures(dict[Hashable, Features]):
    """Features of networks that are compared again, by key, the least recently used ones first.

    Args:
        max_bytes: memory for all features together; beyond it, the least recently used features are
            dropped.
    """

    def __init__(self, max_bytes: int):
        super().__init__()
        self.max_bytes = max_bytes

    def keep(self, key: Hashable, features: Features) -> None:
        """Keep finished features, as far as memory allows."""
        self[key] = features
        while sum(map(_n_bytes, self.values())) > self.max_bytes:
            self.pop(next(iter(self)))


def _n_bytes(features: Features) -> int:
    return sum(layer.n_bytes for layer in features.values())


def take_statistics(
    first: Side,
    second: Side,
    batches: Iterable[tuple[Tensor, object]],
    *,
    n_images: int,
    metrics: Sequence[str] = PAPER,
    alignment: str = "auto",
    device: torch.device | str = "cpu",
    kept: KeptFeatures | None = None,
) -> Statistics:
    """Return the statistics of two networks from one pass over the images.

    A network that stands on both sides runs once.

    Args:
        batches: images and labels; not read where all features are kept.
        n_images: the number of images in all batches.
        metrics: names in `MEASURES`, or FILE.py:FUNCTION of a user's code.
        alignment: `auto`, `pool` or `positions`. Where positions may be samples, networks of kept
            features run again.
        device: where Gram matrices are computed.
        kept: features of earlier calls, to which the features of this call are added.
    Raises:
        UserError: a measure is unknown, or a user's code fails.
    """
    user_measures = load_measures(metrics)
    columns = with_companions(metrics)
    if kept is None:
        kept = KeptFeatures(0)
    sides = [first, second]
    if first.network is second.network:
        sides = [_merged(first, second)]

    # Features of earlier calls, or empty ones, which a pass fills
    keys = [(side.key, tuple(side.layers), tuple(side.ranks), tuple(columns)) for side in sides]
    features = []
    for side, key in zip(sides, keys, strict=True):
        if key in kept:
            features.append(kept.pop(key))
        else:
            features.append(_empty_features(side, n_images, columns))
    if any(measure_of(name).of == SAMPLES for name in columns):
        products = _pass_over(sides, features, batches, alignment)
    else:
        products = _pass_over(sides, features, batches, "pool")
    for of_side, key in zip(features, keys, strict=True):
        for layer in of_side.values():
            layer.finish(device=device)
        kept.keep(key, of_side)

    return Statistics(
        layers1={name: features[0][name] for name in first.layers},
        layers2={name: features[-1][name] for name in second.layers},
        ranks1=first.ranks,
        ranks2=second.ranks,
        products=products,
        metrics=columns,
        user_measures=user_measures,
        alignment=alignment,
        n_images=n_images,
    )


def _merged(first: Side, second: Side) -> Side:
    """Return a side with the layers and ranks of two sides of one network."""
    layers = dict.fromkeys([*first.layers, *second.layers])
    ranks = dict.fromkeys([*first.ranks, *second.ranks])
    return second._replace(layers=list(layers), ranks=list(ranks))


def _empty_features(side: Side, n_images: int, metrics: Sequence[str]) -> Features:
    features = {}
    for name in side.layers:
        title = name
        if side.title:
            title = f"{name} of {side.title}"
        features[name] = LayerFeatures(title, n_images, metrics=metrics, ranks=side.ranks)
    return features


def _pass_over(
    sides: Sequence[Side],
    features: Sequence[Features],
    batches: Iterable[tuple[Tensor, object]],
    alignment: str,
) -> dict[LayerPair, CrossMoments]:
    """Run networks over the images, and add their activations to the features; return the products
    of pairs of layers.

    A network with finished features does not run, unless positions may be samples. Only pairs of
    layers with positions as samples have products.
    """
    products: dict[LayerPair, CrossMoments] = {}
    may_need_products = alignment != "pool"
    is_running = []
    for of_side in features:
        is_finished = all(layer.is_finished for layer in of_side.values())
        is_running.append(may_need_products or not is_finished)
    if not any(is_running):
        return products

    n_seen = 0
    for images, _ in batches:
        rows: list[dict[str, Rows | None]] = []  # by side and layer
        for side, of_side, runs in zip(sides, features, is_running, strict=True):
            activations = {}
            if runs:
                activations = _activations(side, images, n_seen)
            rows.append({name: of_side[name].add(value) for name, value in activations.items()})
        n_seen += len(images)
        if may_need_products:
            _add_products(products, features, rows, alignment)
    return products


def _activations(side: Side, images: Tensor, n_seen: int) -> dict[str, Tensor]:
    """Return the activations of a batch by layer.

    Args:
        n_seen: the number of images before this batch.
    """
    if isinstance(side.network, StoredActivations):
        places = torch.arange(n_seen, n_seen + len(images))
        return side.network.activations(places, side.layers)
    return side.network.activations(images, side.layers)


def _add_products(
    products: dict[LayerPair, CrossMoments],
    features: Sequence[Features],
    rows: Sequence[Mapping[str, Rows | None]],
    alignment: str,
) -> None:
    """Add the products of a batch, for pairs of layers with positions as samples.

    Args:
        rows: of the batch, by side and layer.
    """
    for (name1, first), (name2, second) in product(features[0].items(), features[-1].items()):
        if alignment_of(first.shape, second.shape, alignment) not in BY_POSITION:
            continue
        rows1 = rows[0][name1]
        rows2 = rows[-1][name2]
        if rows1 is None or rows2 is None:
            raise ValueError(f"{name1} and {name2} keep no sums, and positions are their samples")
        total = products.get((name1, name2), CrossMoments())
        products[name1, name2] = total.pooled(rows1.cross(rows2))
