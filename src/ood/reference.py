"""The reference for stitches into a network: all that their evaluation takes from that network alone.

It is made once for an end network, in one pass over its training images and one over the test images, and handed in to
the evaluation of each folder of stitches into it. Detectors, and what is measured by them, are kept by score and layer.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import repeat
from typing import Any, NamedTuple

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
from src.ood.metrics import OODMetrics, ood_metrics
from src.ood.store import DetectorStore
from src.ood.validity import N_IMAGES, Validity

Batches = Iterable[tuple[Tensor, Tensor]]
Key = tuple[str, str]  # score and layer


class Setting(NamedTuple):
    """What stitches are evaluated with; folders of stitches that share it share the reference."""

    end: NetworkName
    layers: tuple[str, ...]  # that stitches end at
    scores: tuple[str, ...]  # of `SCORES`
    store: str  # the folder of the trained detectors
    with_validity: bool  # measure validity even if no detector is fitted; otherwise if one is
    batch_size: int
    dataset: str  # the name of the data that are stitched
    test: BaseImageSet
    id_dataset: str = ""  # the name of those of the end network's own activations; "": the same images
    id_data: BaseImageSet | None = None
    sanity_dataset: str = ""  # of those that detectors should find OOD; "": none
    sanity_data: BaseImageSet | None = None

    def batches(self, data: BaseImageSet, title: str, indices: Tensor | None = None) -> Batches:
        """Yield batches of a data set, or of some images of it, with a progress bar."""
        n_batches = -(-(len(data) if indices is None else len(indices)) // self.batch_size)
        return progress(data.batches(self.batch_size, indices=indices), title, n_batches)

    def sample(self) -> tuple[Tensor, ...]:
        """Return for each batch of test images the indices in it of those that validity is measured on, 2,000 in all.

        They are chosen at random, always the same ones.
        """
        chosen = self.test.permutation(0)[:N_IMAGES].sort().values
        n_batches = -(-len(self.test) // self.batch_size)
        counts = torch.bincount(chosen // self.batch_size, minlength=n_batches).tolist()
        return (chosen % self.batch_size).to(self.test.device).split(counts)


class Reference(NamedTuple):
    """The reference for stitches into some layers of a network."""

    setting: Setting
    detectors: dict[Key, Detector]
    validity: dict[str, Validity]  # by layer, if it is measured
    own: dict[Key, np.ndarray]  # (N,): scores of the network's own activations of the ID data
    sanity: dict[Key, np.ndarray]  # (M,): of those of the sanity-check data; empty without any
    checks: dict[Key, OODMetrics]  # how well detectors tell these two apart
    missing: list[str]  # for each detector of a layer that is missing, and its validity, the reason

    def of_score(self, score: str, found: Mapping[Key, Any]) -> dict[str, Any]:
        """Return by layer what was found for a score."""
        return {layer: each for (name, layer), each in found.items() if name == score}


@torch.no_grad()
def make_reference(network: Network, setting: Setting, training: Callable[[], BaseImageSet]) -> Reference:
    """Make the reference for stitches into layers of a network.

    Args:
        training: reads the training images, if a detector is fitted or validity is measured.
    """
    detectors, missing = _load(network, setting)
    fitted = {(score, layer): make_detector(score) for score in setting.scores if not SCORES[score].is_trained
              for layer in setting.layers}  # fmt: skip
    for detector in fitted.values():
        detector.id_data, detector.n_classes = setting.dataset, setting.test.n_classes
    is_measured = bool(fitted) or setting.with_validity
    measured = setting.layers if is_measured else ()
    validity = {("validity", layer): Validity(is_sequence=network.is_sequence(layer)) for layer in measured}
    if validity:
        data = training()
        order = data.permutation(0)[: None if fitted else N_IMAGES]
        for images, labels in setting.batches(data, "training activations", order):
            activations = network.activations(images, list(setting.layers))
            for (_, layer), each in (fitted | validity).items():
                each.add(activations[layer], labels)
    missing += _try_each("fit", fitted) + _try_each("fit", validity)
    detectors |= fitted

    id_data, sanity = setting.id_data, {}
    own_batches = setting.batches(setting.test, "own activations")
    own = score_network(network, detectors if id_data is None else {}, own_batches, validity, setting.sample())
    if id_data is not None:
        own = score_network(network, detectors, setting.batches(id_data, "ID activations"))
    missing += _try_each("fit_own", validity)
    if setting.sanity_data is not None:
        sanity = score_network(network, detectors, setting.batches(setting.sanity_data, "sanity-check activations"))
    checks = {key: ood_metrics(own[key], scores) for key, scores in sanity.items()}
    by_layer = {layer: each for (_, layer), each in validity.items()}
    return Reference(setting, detectors, by_layer, own, sanity, checks, missing)


def _load(network: Network, setting: Setting) -> tuple[dict[Key, Detector], list[str]]:
    """Load the trained detectors of layers, with sanity-check data also those of others; say why any is missing."""
    store, test, detectors, missing = DetectorStore(setting.store), setting.test, {}, []
    for score in (score for score in setting.scores if SCORES[score].is_trained):
        known = store.of(setting.end)  # a missing store is an error, a missing detector is not
        others = set(known).difference(setting.layers) if setting.sanity_data is not None else ()
        for layer in [*setting.layers, *sorted(others, key=network.depth)]:
            try:
                detectors[score, layer] = store.load(setting.end, layer, test.spec, device=test.device)
            except UserError as error:
                missing.append(str(error))
    return detectors, missing


def _try_each(method: str, takers: dict[Key, Any]) -> list[str]:
    """Fit what has taken in all images; take out what cannot be fitted, and return why."""
    reasons = []
    for (name, layer), each in list(takers.items()):
        try:
            getattr(each, method)()
        except ValueError as error:
            reasons.append(f"no {name} for {layer}: {error}")
            del takers[name, layer]
    return reasons


def score_network(
    network: Network,
    detectors: Mapping[Key, Detector],
    batches: Batches,
    validity: Mapping[Key, Validity] | None = None,
    sample: Iterable[Tensor] = repeat(torch.empty(0)),  # noqa: B008 - immutable
) -> dict[Key, np.ndarray]:
    """Score a network's own activations, and show those of sampled images to the validity of layers, in one pass."""
    layers = list(dict.fromkeys(layer for _, layer in [*detectors, *(validity or {})]))
    scores: dict[Key, list[Tensor]] = {key: [] for key in detectors}
    for (images, _), chosen in zip(batches if layers else (), sample, strict=False):
        activations = network.activations(images, layers)
        for (score, layer), detector in detectors.items():
            scores[score, layer].append(detector.score(activations[layer]))
        for (_, layer), each in (validity or {}).items():
            if len(chosen):
                each.add_own(activations[layer].index_select(0, chosen))
    return {key: torch.cat(parts).cpu().numpy() for key, parts in scores.items()}
