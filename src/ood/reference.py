"""The reference for stitches into a network: all that their evaluation takes from that network alone.

It is made once for an end network, in one pass over its training images and one over the test images, and handed in to
the evaluation of each folder of stitches into it.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.choices.scores import SCORES
from src.console import progress
from src.datasets.base import BaseImageSet
from src.errors import UserError
from src.models import Network
from src.network_names import NetworkName
from src.ood.detectors import Detector, make_detector
from src.ood.store import DetectorStore
from src.ood.validity import N_IMAGES, LayerValidity, Validity

Batches = Iterable[tuple[Tensor, Tensor]]
Detectors = dict[str, dict[str, Detector]]  # by score and layer
Scores = dict[str, dict[str, np.ndarray]]  # (N,), by score and layer


class Images(NamedTuple):
    """The data sets of an evaluation."""

    test: BaseImageSet
    training: Callable[[], BaseImageSet]  # read if a detector is fitted or validity is measured
    id_data: BaseImageSet | None  # of the end network's own activations; None: the test images
    sanity: BaseImageSet | None  # that detectors should find OOD
    batch_size: int

    def batches(self, data: BaseImageSet, title: str, indices: Tensor | None = None) -> Batches:
        """Yield batches of a data set, or of some images of it, with a progress bar."""
        n_batches = -(-(len(data) if indices is None else len(indices)) // self.batch_size)
        return progress(data.batches(self.batch_size, indices=indices), title, n_batches)


class Wanted(NamedTuple):
    """What a reference is for, beside the images."""

    name: NetworkName
    layers: tuple[str, ...]  # that stitches end at
    scores: tuple[str, ...]  # of `SCORES`
    store: str  # the folder of the trained detectors
    with_validity: bool  # measure validity even if no detector is fitted; otherwise if one is


class Sample:
    """At most 2,000 images of a data set, chosen at random, always the same."""

    def __init__(self, data: BaseImageSet):
        self._indices = data.permutation(0)[:N_IMAGES].sort().values
        self._on_device = self._indices.to(data.device)

    def in_batch(self, start: int, n_images: int) -> Tensor:
        """Return the indices, within a batch that starts with image `start` of the data, of its chosen images."""
        first, last = np.searchsorted(self._indices.numpy(), [start, start + n_images])
        return self._on_device[first:last] - start


@dataclass
class Reference:
    """The reference for stitches into some layers of a network."""

    wanted: Wanted
    images: Images
    detectors: Detectors  # without scores that have none
    validity: dict[str, LayerValidity]  # by layer, if it is measured
    sample: Sample  # the test images that validity is measured on
    own: Scores  # of the network's own activations of the ID data
    sanity: Scores  # of those of the sanity-check data; empty without any
    missing: list[str]  # for each detector of a layer that is missing, and its validity, the reason

    def is_for(self, wanted: Wanted, images: Images) -> bool:
        """Return whether it is what would be made of these, so that another evaluation may use it."""
        return self.wanted == wanted and self.images._replace(training=images.training) == images

    @property
    def scored_layers(self) -> set[str]:
        """The layers that have a detector."""
        return {layer for by_layer in self.detectors.values() for layer in by_layer}


@torch.no_grad()
def make_reference(network: Network, wanted: Wanted, images: Images, *, id_data: str) -> Reference:
    """Make the reference for stitches into layers of a network.

    Args:
        id_data: the name of the training images.
    """
    scores, layers = wanted.scores, wanted.layers
    detectors, missing = _load(network, wanted, images)
    fitted = {score: {layer: make_detector(score) for layer in layers} for score in scores if score not in detectors}
    for detector in itertools.chain(*(by_layer.values() for by_layer in fitted.values())):
        detector.id_data, detector.n_classes = id_data, images.test.n_classes
    measured = layers if fitted or wanted.with_validity else []
    validity = {layer: Validity(is_sequence=network.is_sequence(layer)) for layer in measured}
    if validity:
        data = images.training()
        order = data.permutation(0)[: None if fitted else N_IMAGES]
        take_in(network, [*fitted.values(), validity], images.batches(data, "training activations", order))
    for score, by_layer in fitted.items():
        missing += fit_each(score, by_layer)
    missing += fit_each("validity", validity)
    detectors = {score: (detectors | fitted)[score] for score in scores}
    detectors = {score: by_layer for score, by_layer in detectors.items() if by_layer}

    of_layers, sample = {layer: LayerValidity(each) for layer, each in validity.items()}, Sample(images.test)
    if images.id_data is None:
        own = score_network(network, detectors, images.batches(images.test, "own activations"), of_layers, sample)
    else:
        own = score_network(network, detectors, images.batches(images.id_data, "own activations"))
        score_network(network, {}, images.batches(images.test, "own test activations"), of_layers, sample)
    missing += fit_each("validity", of_layers)
    sanity = {}
    if images.sanity is not None:
        sanity = score_network(network, detectors, images.batches(images.sanity, "sanity-check activations"))
    return Reference(wanted, images, detectors, of_layers, sample, own, sanity, missing)


def _load(network: Network, wanted: Wanted, images: Images) -> tuple[Detectors, list[str]]:
    """Load the trained detectors of layers, with sanity-check data also those of others; say why any is missing."""
    name, store = wanted.name, DetectorStore(wanted.store)
    detectors: Detectors = {score: {} for score in wanted.scores if SCORES[score].is_trained}
    missing: list[str] = []
    device = next(network.parameters()).device
    for by_layer in detectors.values():
        store.entries()  # a missing store is an error, a missing detector is not
        others = set(store.layers(name)).difference(wanted.layers) if images.sanity is not None else ()
        for layer in [*wanted.layers, *sorted(others, key=network.depth)]:
            try:
                by_layer[layer] = store.load(name, layer, images.test.spec, device=device)
            except UserError as error:
                missing.append(str(error))
    return detectors, missing


@torch.no_grad()
def take_in(network: Network, takers: Iterable[Mapping[str, Detector | Validity]], batches: Batches) -> None:
    """Show labelled training images to all that take in the activations of a layer, in one pass."""
    by_layer: dict[str, list[Detector | Validity]] = {}
    for of_layers in takers:
        for layer, taker in of_layers.items():
            by_layer.setdefault(layer, []).append(taker)
    for images, labels in batches:
        activations = network.activations(images, list(by_layer))
        for layer, each in by_layer.items():
            for taker in each:
                taker.add(activations[layer], labels)


def fit_each(title: str, by_layer: dict[str, Detector] | dict[str, Validity] | dict[str, LayerValidity]) -> list[str]:
    """Fit what has taken in all images; take out what cannot be fitted, and return why."""
    reasons = []
    for layer, each in list(by_layer.items()):
        try:
            each.fit()
        except ValueError as error:
            reasons.append(f"no {title} for {layer}: {error}")
            del by_layer[layer]
    return reasons


@torch.no_grad()
def score_network(
    network: Network,
    detectors: Detectors,
    batches: Batches,
    validity: Mapping[str, LayerValidity] | None = None,
    sample: Sample | None = None,
) -> Scores:
    """Score a network's own activations, and show those of sampled images to the validity of layers, in one pass."""
    validity = validity or {}
    layers = list(dict.fromkeys([*(layer for by_layer in detectors.values() for layer in by_layer), *validity]))
    scores: dict[tuple[str, str], list[Tensor]] = {}
    n_seen = 0
    for images, _ in batches if layers else ():
        activations = network.activations(images, layers)
        for name, by_layer in detectors.items():
            for layer, detector in by_layer.items():
                scores.setdefault((name, layer), []).append(detector.score(activations[layer]))
        if validity and len(chosen := sample.in_batch(n_seen, len(images))):
            for layer, each in validity.items():
                each.add(activations[layer].index_select(0, chosen))
        n_seen += len(images)
    return {
        name: {layer: torch.cat(scores[name, layer]).cpu().numpy() for layer in by_layer}
        for name, by_layer in detectors.items()
    }
