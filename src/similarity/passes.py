"""Passes of networks over the images, which collect the statistics that comparisons need."""

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from src.choices.similarity import PAPER, SAMPLES, Measure, measures_of
from src.models import Network
from src.similarity.features import LayerFeatures, alignments_of
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
    batch_size: int | None = None  # of the pass that they are from; None: not known

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


class Recording:
    """Records the activations of a pass over the images, on the CPU.

    Args:
        n_images: the number of images in all batches.
        max_bytes: larger activations are not recorded.
        before: the recording of the other network, to which each batch is added first; both
            together keep to `max_bytes`.

    Attributes:
        values: (n_images, ...) by layer; empty if they are too large.
    """

    def __init__(
        self, n_images: int, *, max_bytes: float = math.inf, before: "Recording | None" = None
    ):
        self.n_images = n_images
        self.max_bytes = max_bytes
        self.before = before
        self.n_seen = 0
        self.batch_size = 0
        self.values: dict[str, Tensor] = {}

    def add(self, activations: Mapping[str, Tensor]) -> None:
        """Add the activations (B, ...) of a batch, by layer."""
        n_in_batch = len(next(iter(activations.values())))
        if self.n_seen == 0:
            self.batch_size = n_in_batch
            self._make_room(activations)
        for name, values in self.values.items():
            values[self.n_seen : self.n_seen + n_in_batch] = activations[name].detach()
        self.n_seen += n_in_batch

    def _make_room(self, activations: Mapping[str, Tensor]) -> None:
        """Make room for all images, in single precision unless activations are double."""
        shapes = {name: (self.n_images, *values.shape[1:]) for name, values in activations.items()}
        dtypes = {
            name: torch.promote_types(values.dtype, torch.float32)
            for name, values in activations.items()
        }
        n_bytes = sum(math.prod(shapes[name]) * dtypes[name].itemsize for name in shapes)
        if self.before:
            n_bytes += _n_bytes_of_activations(self.before.values)
        if n_bytes <= self.max_bytes:
            self.values = {
                name: torch.empty(shape, dtype=dtypes[name]) for name, shape in shapes.items()
            }

    def stored(self, device: torch.device | str) -> StoredActivations:
        """Return the recorded values as activations that a device reads."""
        return StoredActivations(self.values, device, self.batch_size)


def record_activations(
    network: Network, layers: Sequence[str], batches: Iterable[tuple[Tensor, object]], n_images: int
) -> StoredActivations:
    """Return the activations of layers of a network, from one pass over the images, on the CPU.

    Args:
        batches: images and labels.
        n_images: the number of images in all batches.
    """
    recording = Recording(n_images)
    for images, _ in batches:
        recording.add(network.activations(images, layers))
    return recording.stored("cpu")


class Side(NamedTuple):
    """A network, and the layers and ranks to compare."""

    network: Network | StoredActivations  # only its `activations` are used
    layers: Sequence[str]
    ranks: Sequence[Rank] = (None,)  # numbers of principal components that are kept
    title: str = ""  # in messages
    # All that its features depend on, beside layers, ranks and measures: weights, images, precision.
    # None: nothing of it is kept
    key: Hashable = None


class Statistics(NamedTuple):
    """The layers of two networks on the same images, ready to be compared."""

    layers1: Features
    layers2: Features
    ranks1: Sequence[Rank]
    ranks2: Sequence[Rank]
    products: dict[LayerPair, CrossMoments]  # of layers whose positions are samples
    metrics: dict[str, Measure]  # by column
    user_measures: dict[str, UserMeasure]  # by column
    alignments: dict[LayerPair, str]  # see `features.alignment_of`
    n_images: int


class KeptFeatures(dict[Hashable, Features]):
    """Features of networks that are compared again, by key, the least recently used ones first.

    Where positions may be samples, features are not enough. Then the activations are kept, too.

    Args:
        max_bytes: memory for all features together; beyond it, the least recently used features are
            dropped.
        max_bytes_of_activations: memory for the activations of all networks together; those that do
            not fit are not kept.
    """

    def __init__(self, max_bytes: int, *, max_bytes_of_activations: int = 0):
        super().__init__()
        self.max_bytes = max_bytes
        self.max_bytes_of_activations = max_bytes_of_activations
        self._activations: dict[Hashable, StoredActivations] = {}

    def stand_in(self, side: Side) -> Side:
        """Return a side with the kept activations in the place of its network, if there are any."""
        key = (side.key, tuple(side.layers))
        if key in self._activations:
            return side._replace(network=self._activations[key])
        return side

    def recordings(self, sides: Sequence[Side], n_images: int) -> list[Recording]:
        """Return recordings of the activations of one or two sides, for as much memory as is
        left."""
        n_left = self.max_bytes_of_activations
        for stored in self._activations.values():
            n_left -= _n_bytes_of_activations(stored.values)
        recordings: list[Recording] = []
        for side in sides:
            is_kept = side.key is not None and not isinstance(side.network, StoredActivations)
            max_bytes = 0
            if is_kept:
                max_bytes = n_left
            before = recordings[0] if recordings else None
            recordings.append(Recording(n_images, max_bytes=max_bytes, before=before))
        return recordings

    def keep_activations(
        self, side: Side, recording: Recording, *, device: torch.device | str
    ) -> None:
        """Keep the recorded activations of a side."""
        if recording.values:
            self._activations[side.key, tuple(side.layers)] = recording.stored(device)

    def keep(self, side: Side, key: Hashable, features: Features) -> None:
        """Keep the finished features of a side, as far as memory allows."""
        if side.key is None:
            return
        self[key] = features
        while sum(map(_n_bytes, self.values())) > self.max_bytes:
            self.pop(next(iter(self)))


def _n_bytes(features: Features) -> int:
    return sum(layer.n_bytes for layer in features.values())


def _n_bytes_of_activations(activations: Mapping[str, Tensor | NDArray]) -> int:
    return sum(values.nbytes for values in activations.values())


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
        alignment: `auto`, `pool` or `positions`. Where positions are samples, networks of kept
            features run again, unless their activations are kept.
        device: where Gram matrices are computed.
        kept: features of earlier calls, to which the features of this call are added.
    Raises:
        UserError: a measure is unknown, or a user's code fails.
    """
    user_measures = load_measures(metrics)
    measures = measures_of(metrics)
    for name, user_measure in user_measures.items():
        measures[name] = measures[name]._replace(is_symmetric=user_measure.is_symmetric)
    if kept is None:
        kept = KeptFeatures(0)
    sides = [first, second]
    if first.network is second.network:
        sides = [_merged(first, second)]
    sides = [kept.stand_in(side) for side in sides]

    # Features of earlier calls, or empty ones, which a pass fills
    keys = [(side.key, tuple(side.layers), tuple(side.ranks), tuple(measures)) for side in sides]
    features = _kept_or_empty(kept, sides, keys, n_images, measures)
    alignment_of_samples = "pool"
    if any(measure.of == SAMPLES for measure in measures.values()):
        alignment_of_samples = alignment
    recordings = kept.recordings(sides, n_images)
    products = _pass_over(sides, features, batches, alignment_of_samples, recordings)
    for side, recording in zip(sides, recordings, strict=True):
        kept.keep_activations(side, recording, device=device)
    for side, of_side, key in zip(sides, features, keys, strict=True):
        for layer in of_side.values():
            layer.finish(device=device)
        kept.keep(side, key, of_side)

    layers1 = {name: features[0][name] for name in first.layers}
    layers2 = {name: features[-1][name] for name in second.layers}
    return Statistics(
        layers1,
        layers2,
        ranks1=first.ranks,
        ranks2=second.ranks,
        products=products,
        metrics=measures,
        user_measures=user_measures,
        alignments=alignments_of(layers1, layers2, alignment),
        n_images=n_images,
    )


def _merged(first: Side, second: Side) -> Side:
    """Return a side with the layers and ranks of two sides of one network."""
    layers = dict.fromkeys([*first.layers, *second.layers])
    ranks = dict.fromkeys([*first.ranks, *second.ranks])
    return second._replace(layers=list(layers), ranks=list(ranks))


def _kept_or_empty(
    kept: KeptFeatures,
    sides: Sequence[Side],
    keys: Sequence[Hashable],
    n_images: int,
    metrics: Mapping[str, Measure],
) -> list[Features]:
    """Take the kept features of each side; where none are kept, return empty features."""
    features = []
    for side, key in zip(sides, keys, strict=True):
        if key in kept:
            features.append(kept.pop(key))
        else:
            features.append(_empty_features(side, n_images, metrics))
    return features


def _empty_features(side: Side, n_images: int, metrics: Mapping[str, Measure]) -> Features:
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
    recordings: Sequence[Recording],
) -> dict[LayerPair, CrossMoments]:
    """Run networks over the images, and add their activations to the features; return the products
    of pairs of layers.

    A network with finished features does not run, unless positions may be samples. Only pairs of
    layers with positions as samples have products. Where they may be, activations are recorded.
    """
    products: dict[LayerPair, CrossMoments] = {}
    may_need_products = _may_need_products(features, alignment)
    is_running = []
    for of_side in features:
        is_finished = all(layer.is_finished for layer in of_side.values())
        is_running.append(may_need_products or not is_finished)
    if not any(is_running):
        return products

    n_seen = 0
    pairs: list[LayerPair] = []
    for images in _images_for(sides, batches, recordings[0].n_images):
        rows: list[dict[str, Rows | None]] = []  # by side and layer
        for side, of_side, runs, recording in zip(
            sides, features, is_running, recordings, strict=True
        ):
            activations = {}
            if runs:
                activations = _activations(side, images, n_seen)
            if runs and may_need_products:
                recording.add(activations)
            rows.append({name: of_side[name].add(value) for name, value in activations.items()})
        if may_need_products:
            if n_seen == 0:  # from the first batch on, the shapes are known
                pairs = _by_position(features, alignment)
            _add_products(products, pairs, rows)
        n_seen += len(images)
    return products


def _may_need_products(features: Sequence[Features], alignment: str) -> bool:
    """Return whether positions may be the samples of a pair of layers; before a pass, the shapes of
    its layers are not known."""
    if alignment == "pool":
        return False
    layers = chain.from_iterable(of_side.values() for of_side in features)
    if not all(layer.is_finished for layer in layers):
        return True
    return bool(_by_position(features, alignment))


def _by_position(features: Sequence[Features], alignment: str) -> list[LayerPair]:
    """Return the pairs of layers with positions as samples."""
    alignments = alignments_of(features[0], features[-1], alignment)
    return [pair for pair, name in alignments.items() if name in BY_POSITION]


def _images_for(
    sides: Sequence[Side], batches: Iterable[tuple[Tensor, object]], n_images: int
) -> Iterator[Tensor]:
    """Yield the images of each batch; where both sides have kept activations, their places, in
    batches of the same size."""
    sizes = []
    for side in sides:
        if isinstance(side.network, StoredActivations):
            sizes.append(side.network.batch_size)
    batch_sizes = [size for size in sizes if size is not None]
    if len(sizes) == len(sides) and batch_sizes:
        yield from torch.arange(n_images).split(batch_sizes[0])
    else:
        for images, _ in batches:
            yield images


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
    pairs: Sequence[LayerPair],
    rows: Sequence[Mapping[str, Rows | None]],
) -> None:
    """Add the products of a batch, for pairs of layers with positions as samples.

    Args:
        rows: of the batch, by side and layer.
    """
    for name1, name2 in pairs:
        rows1 = rows[0][name1]
        rows2 = rows[-1][name2]
        if rows1 is None or rows2 is None:
            raise ValueError(f"{name1} and {name2} keep no sums, and positions are their samples")
        total = products.get((name1, name2), CrossMoments())
        products[name1, name2] = total.pooled(rows1.cross(rows2))
