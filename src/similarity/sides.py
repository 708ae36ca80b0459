"""Forward passes over the images that collect features of layers for comparisons."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.core.activations import ActivationShape
from src.core.cache import Cache
from src.core.choices.similarity import ACTIVATIONS, SAMPLES, Measure
from src.core.values import BY_POSITION, STOCHASTIC, Rank
from src.models import Network
from src.models.stored import StoredActivations
from src.similarity.features import LayerFeatures, alignments_of, cross_moments
from src.statistics.moments import CrossMoments

Features = dict[str, LayerFeatures]  # the layers of one network, by name
LayerPair = tuple[str, str]  # a layer of each network


class Side(NamedTuple):
    """A network, and the layers and ranks to compare."""

    network: Network | StoredActivations
    layers: Sequence[str]
    ranks: Sequence[Rank] = (None,)  # numbers of principal components that are kept
    title: str = ""  # in messages
    # All that its features depend on, beside layers, ranks and measures: weights, images, precision
    key: Hashable = None

    @property
    def is_kept(self) -> bool:
        """Whether its features are kept; a network that draws random numbers has others in each pass."""
        is_random = getattr(self.network, "nondeterminism", "") == STOCHASTIC
        return self.key is not None and not is_random


class Statistics(NamedTuple):
    """The layers of two networks on the same images, ready to be compared."""

    layers1: Features
    layers2: Features
    ranks1: Sequence[Rank]
    ranks2: Sequence[Rank]
    alignments: dict[LayerPair, str]  # see `features.alignment_of`
    products: dict[LayerPair, CrossMoments]  # of layers whose positions are samples
    # (n, ...) by layer, for a user's measures; {}: there are none
    activations1: dict[str, Tensor]
    activations2: dict[str, Tensor]
    metrics: Mapping[str, Measure]  # by column
    n_images: int


def take_statistics(
    first: Side,
    second: Side,
    batches: Iterable[tuple[Tensor, object]],
    *,
    n_images: int,
    metrics: Mapping[str, Measure],
    alignment: str = "auto",
    device: torch.device | str = "cpu",
    cache: Cache | None = None,
) -> Statistics:
    """Return the statistics of two networks from one pass over the images.

    A network that stands on both sides runs once.

    Args:
        batches: images and labels; not read where all features are kept or stored.
        n_images: the number of images in all batches.
        metrics: measures by column, as `load_measures` returns them.
        alignment: `auto` or `pool`. Where positions are samples, activations are needed
            beside kept features.
        device: of the computation and the matrices.
        cache: keeps the features of sides that have a key, for further calls.
    """
    inputs = {measure.of for measure in metrics.values()}
    sides = _merged(first, second)
    keys = [(side.key, tuple(side.layers), tuple(side.ranks), tuple(metrics)) for side in sides]
    features: list[Features] = [{} for _ in sides]
    if cache is not None:
        features = [cache.get(key) or {} for key in keys]

    # Activations of networks without features; of all, if pairs need the activations of both
    needs_activations = ACTIVATIONS in inputs
    if SAMPLES in inputs and all(features):
        needs_activations |= bool(_by_position(features[0], features[-1], alignment))
    elif SAMPLES in inputs:  # shapes may be unknown
        needs_activations |= alignment != "pool"
    is_running = [needs_activations or not of_side for of_side in features]
    taken = _activations_of(sides, is_running, batches, n_images, keep=needs_activations)
    for place, side in enumerate(sides):
        if not features[place]:
            features[place] = _features_of(side, taken[place], metrics, device)
            if cache is not None and side.is_kept:
                n_bytes = sum(layer.n_bytes for layer in features[place].values())
                cache.keep(keys[place], features[place], n_bytes)
    layers1 = {name: features[0][name] for name in first.layers}
    layers2 = {name: features[-1][name] for name in second.layers}

    # What needs the activations of both
    activations1 = {name: values for name, values in taken[0].items() if name in layers1}
    activations2 = {name: values for name, values in taken[-1].items() if name in layers2}
    pairs: list[LayerPair] = []
    if SAMPLES in inputs:
        pairs = _by_position(layers1, layers2, alignment)
    products = cross_moments(activations1, activations2, pairs, device=device)
    if ACTIVATIONS not in inputs:
        activations1 = {}
        activations2 = {}
    return Statistics(
        layers1,
        layers2,
        ranks1=first.ranks,
        ranks2=second.ranks,
        alignments=alignments_of(layers1, layers2, alignment),
        products=products,
        activations1=activations1,
        activations2=activations2,
        metrics=metrics,
        n_images=n_images,
    )


def _merged(first: Side, second: Side) -> list[Side]:
    """Return both sides; if they are of one network, one side with the layers and ranks of both."""
    if first.network is not second.network:
        return [first, second]
    layers = dict.fromkeys([*first.layers, *second.layers])
    ranks = dict.fromkeys([*first.ranks, *second.ranks])
    return [second._replace(layers=list(layers), ranks=list(ranks))]


def _by_position(layers1: Features, layers2: Features, alignment: str) -> list[LayerPair]:
    """Return the pairs of layers with positions as samples."""
    alignments = alignments_of(layers1, layers2, alignment)
    return [pair for pair, name in alignments.items() if name in BY_POSITION]


def _features_of(
    side: Side,
    activations: Mapping[str, Tensor],
    metrics: Mapping[str, Measure],
    device: torch.device | str,
) -> Features:
    """Return the features of the activations of a network."""
    features = {}
    for name, values in activations.items():
        title = name
        if side.title:
            title = f"{name} of {side.title}"
        features[name] = LayerFeatures(
            title, values, metrics=metrics, ranks=side.ranks, device=device
        )
    return features


def _activations_of(
    sides: Sequence[Side],
    is_running: Sequence[bool],
    batches: Iterable[tuple[Tensor, object]],
    n_images: int,
    *,
    keep: bool = False,
) -> list[dict[str, Tensor]]:
    """Return the activations (n_images, ...) of the sides that run, by layer, from one pass over
    the images.

    Args:
        keep: the images pass again, so that networks may keep their activations.
    """
    taken: list[dict[str, Tensor]] = [{} for _ in sides]
    networks = []
    for side, runs, activations in zip(sides, is_running, taken, strict=True):
        if not runs:
            continue
        if isinstance(side.network, StoredActivations):
            activations |= side.network.first(n_images, side.layers)
        else:
            networks.append((side.network, side.layers, activations))
    if not networks:
        return taken

    n_seen = 0
    for images, _ in batches:
        places = slice(n_seen, n_seen + len(images))
        for network, layers, activations in networks:
            for name, values in network.activations(images, layers, keep=keep).items():
                if name not in activations:
                    ActivationShape.of(values.shape[1:], title=name)  # or an error
                    activations[name] = _room(n_images, values)
                activations[name][places].copy_(values.detach(), non_blocking=True)
        n_seen += len(images)
    if torch.cuda.is_available():  # copies to pinned memory may not have ended
        torch.cuda.synchronize()
    return taken


def _room(n_images: int, batch: Tensor) -> Tensor:
    """Return an empty tensor for the activations of all images, at least in single precision: on
    the device of a batch (B, ...), or in pinned memory of the CPU.

    Pinned memory is taken if the tensor would take half of the free memory of a GPU.
    """
    shape = (n_images, *batch.shape[1:])
    dtype = torch.promote_types(batch.dtype, torch.float32)
    if batch.device.type == "cuda":
        n_free, _ = torch.cuda.mem_get_info(batch.device)
        if math.prod(shape) * dtype.itemsize >= n_free / 2:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
    return torch.empty(shape, dtype=dtype, device=batch.device)


def record_activations(
    network: Network, layers: Sequence[str], batches: Iterable[tuple[Tensor, object]], n_images: int
) -> StoredActivations:
    """Return the activations of layers of a network, from one pass over the images, on the CPU.

    Args:
        batches: images and labels.
        n_images: the number of images in all batches.
    """
    (activations,) = _activations_of([Side(network, layers)], [True], batches, n_images)
    return StoredActivations({name: values.cpu() for name, values in activations.items()})
