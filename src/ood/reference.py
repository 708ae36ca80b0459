"""The reference for stitches into a network: all that their evaluation takes from that network
alone.

It is made once for an end network, in one pass over its training images and one over the test
images, and handed in to the evaluation of each folder of stitches into it. Detectors, and what is
measured by them, are kept by score and layer."""

import math
from collections.abc import Callable, Iterable, Mapping
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
from src.ood.evaluation_rows import ValidityLimits
from src.ood.identifying import choose_foils
from src.ood.metrics import OODMetrics, ood_metrics
from src.ood.store import DetectorStore
from src.ood.validity import N_IMAGES, Validity, draw_noise

Batches = Iterable[tuple[Tensor, Tensor]]
Key = tuple[str, str]  # score and layer


class EvaluationOptions(NamedTuple):
    """What stitches are evaluated with; folders of stitches that share it share the reference."""

    end: NetworkName
    layers: tuple[str, ...]  # that stitches end at
    scores: tuple[str, ...]  # of `SCORES`
    store: str  # the folder of the trained detectors
    with_validity: bool  # measure validity even if no detector is fitted; otherwise if one is
    batch_size: int
    dataset: str  # the name of the data that are stitched
    test: BaseImageSet
    id_dataset: str = (
        ""  # the name of those of the end network's own activations; "": the same images
    )
    id_data: BaseImageSet | None = None
    sanity_dataset: str = ""  # of those that detectors should find OOD; "": none
    sanity_data: BaseImageSet | None = None

    def batches(self, data: BaseImageSet, title: str, indices: Tensor | None = None) -> Batches:
        """Yield batches of a data set, or of some images of it, with a progress bar."""
        n_batches = -(-(len(data) if indices is None else len(indices)) // self.batch_size)
        return progress(data.batches(self.batch_size, indices=indices), title, n_batches)

    def sampled(self) -> Tensor:
        """Return the indices of the test images that validity is measured on, in order: 2,000 drawn
        at random, or all.

        They are always the same ones.
        """
        return self.test.permutation(0)[:N_IMAGES].sort().values

    def sampled_in_batches(self) -> tuple[Tensor, ...]:
        """Return for each batch of test images the positions in it of those that validity is
        measured on."""
        sampled = self.sampled()
        n_batches = -(-len(self.test) // self.batch_size)
        counts = torch.bincount(sampled // self.batch_size, minlength=n_batches).tolist()
        return (sampled % self.batch_size).to(self.test.device).split(counts)


class Reference(NamedTuple):
    """The reference for stitches into some layers of a network."""

    options: EvaluationOptions
    detectors: dict[Key, Detector]
    validity: dict[str, Validity]  # by layer, if it is measured
    noise_costs: dict[
        str, float
    ]  # by layer with validity: the accuracy that noise of the limit costs, see below
    own: dict[Key, np.ndarray]  # (N,): scores of the network's own activations of the ID data
    sanity: dict[Key, np.ndarray]  # (M,): of those of the sanity-check data; empty without any
    checks: dict[Key, OODMetrics]  # how well detectors tell these two apart
    missing: list[str]  # for each detector of a layer that is missing, and its validity, the reason

    def of_score(self, score: str, found: Mapping[Key, Any]) -> dict[str, Any]:
        """Return by layer what was found for a score."""
        return {layer: each for (name, layer), each in found.items() if name == score}


@torch.no_grad()
def make_reference(
    network: Network, options: EvaluationOptions, training: Callable[[], BaseImageSet]
) -> Reference:
    """Make the reference for stitches into layers of a network.

    Args:
        training: reads the training images, if a detector is fitted or validity is measured.
    """
    # Detectors: from the store, and fitted to the training images, as validity is.
    detectors, missing = _load(network, options)
    fitted = {(score, layer): make_detector(score) for score in options.scores if not SCORES[score].is_trained
              for layer in options.layers}  # fmt: skip
    for detector in fitted.values():
        detector.id_data, detector.n_classes = options.dataset, options.test.n_classes
    is_measured = bool(fitted) or options.with_validity
    measured = options.layers if is_measured else ()
    validity = {
        ("validity", layer): Validity(is_sequence=network.is_sequence(layer)) for layer in measured
    }
    if validity:
        data = training()
        order = data.permutation(0)[: None if fitted else N_IMAGES]
        for images, labels in options.batches(data, "training activations", order):
            activations = network.activations(images, list(options.layers))
            for (_, layer), each in (fitted | validity).items():
                each.add(activations[layer], labels)
    for takers in (fitted, validity):
        missing += _try_each(takers, lambda taker: taker.fit())
    detectors |= fitted

    # One pass over the test images: scores, validity and logits of the network's own activations.
    id_data, sanity = options.id_data, {}
    own, logits = _measure_own(network, options, detectors if id_data is None else {}, validity)
    if id_data is not None:
        own = score_network(network, detectors, options.batches(id_data, "ID activations"))
    if validity:
        foils = choose_foils(logits)
        missing += _try_each(validity, lambda of_layer: of_layer.fit_end(foils))
    if options.sanity_data is not None:
        sanity = score_network(
            network, detectors, options.batches(options.sanity_data, "sanity-check activations")
        )
    checks = {key: ood_metrics(own[key], scores) for key, scores in sanity.items()}
    by_layer = {layer: of_layer for (_, layer), of_layer in validity.items()}
    noise_costs = measure_noise_costs(network, options, by_layer)
    return Reference(options, detectors, by_layer, noise_costs, own, sanity, checks, missing)


def _load(network: Network, options: EvaluationOptions) -> tuple[dict[Key, Detector], list[str]]:
    """Load the trained detectors of layers, with sanity-check data also those of others; say why
    any is missing."""
    store, test, detectors, missing = DetectorStore(options.store), options.test, {}, []
    for score in (score for score in options.scores if SCORES[score].is_trained):
        known = store.names_by_layer(
            options.end
        )  # a missing store is an error, a missing detector is not
        others = set(known).difference(options.layers) if options.sanity_data is not None else ()
        for layer in [*options.layers, *sorted(others, key=network.depth)]:
            try:
                detectors[score, layer] = store.load(
                    options.end, layer, test.spec, device=test.device
                )
            except UserError as error:
                missing.append(str(error))
    return detectors, missing


def _try_each(takers: dict[Key, Any], fit: Callable[[Any], None]) -> list[str]:
    """Fit what has taken in all images; take out what cannot be fitted, and return why."""
    reasons = []
    for (name, layer), taker in list(takers.items()):
        try:
            fit(taker)
        except ValueError as error:
            reasons.append(f"no {name} for {layer}: {error}")
            del takers[name, layer]
    return reasons


def score_network(
    network: Network, detectors: Mapping[Key, Detector], batches: Batches
) -> dict[Key, np.ndarray]:
    """Return the scores (N,) of a network's own activations by each detector, from one pass over
    the images."""
    layers = list(dict.fromkeys(layer for _, layer in detectors))
    scores: dict[Key, list[Tensor]] = {key: [] for key in detectors}
    for images, _ in batches if layers else ():
        _add_scores(scores, detectors, network.activations(images, layers))
    return _as_arrays(scores)


def _measure_own(
    network: Network,
    options: EvaluationOptions,
    detectors: Mapping[Key, Detector],
    validity: Mapping[Key, Validity],
) -> tuple[dict[Key, np.ndarray], Tensor]:
    """Score a network's own activations of the test images, and show sampled ones to the validity
    of each layer.

    Returns:
        The scores (N,) by detector, and the logits (n, classes) of the sampled images, if validity is measured.
    """
    layers = list(dict.fromkeys(layer for _, layer in [*detectors, *validity]))
    names = [*layers, network.output_name] if validity else layers
    scores: dict[Key, list[Tensor]] = {key: [] for key in detectors}
    logits: list[Tensor] = []
    batches = options.batches(options.test, "own activations")
    for (images, _), sampled in zip(
        batches if layers else (), options.sampled_in_batches(), strict=False
    ):
        activations = network.activations(images, list(dict.fromkeys(names)))
        _add_scores(scores, detectors, activations)
        if validity and len(sampled):
            logits.append(activations[network.output_name].index_select(0, sampled))
            for (_, layer), of_layer in validity.items():
                of_layer.add_end(activations[layer].index_select(0, sampled))
    return _as_arrays(scores), torch.cat(logits) if logits else torch.empty(0, 0)


def _add_scores(
    scores: Mapping[Key, list[Tensor]],
    detectors: Mapping[Key, Detector],
    activations: Mapping[str, Tensor],
) -> None:
    for (score, layer), detector in detectors.items():
        scores[score, layer].append(detector.score(activations[layer]))


def _as_arrays(scores: Mapping[Key, list[Tensor]]) -> dict[Key, np.ndarray]:
    return {key: torch.cat(parts).cpu().numpy() for key, parts in scores.items()}


def measure_noise_costs(
    network: Network, options: EvaluationOptions, validity: Mapping[str, Validity]
) -> dict[str, float]:
    """Return by layer how much accuracy the noise costs that is the limit of activations in
    distribution.

    The network goes on behind each layer from its own activations of the sampled test images, with
    the noise that calibrates the doses at `ValidityLimits.noise_dose`."""
    if not validity:
        return {}
    layers = list(validity)
    sampled = options.sampled()
    share = ValidityLimits().noise_dose
    amount = math.sqrt(share / (1 - share))  # in standard deviations of a channel
    noise = {
        layer: draw_noise(len(sampled), len(of_layer.deviations)).to(of_layer.deviations)
        * of_layer.deviations
        * amount
        for layer, of_layer in validity.items()
    }
    lost = dict.fromkeys(layers, 0.0)
    first = 0
    for images, labels in options.batches(options.test, "limits of noise", sampled):
        names = list(dict.fromkeys([*layers, network.output_name]))
        activations = network.activations(images, names)
        is_right = activations[network.output_name].argmax(-1) == labels
        for layer in layers:
            rows = noise[layer][first : first + len(images)].to(activations[layer])
            noisy = activations[layer] + over_positions(rows, activations[layer])
            is_output = layer == network.output_name
            logits = noisy if is_output else network(noisy, after=layer, images=images)
            lost[layer] += (is_right.sum() - (logits.argmax(-1) == labels).sum()).item()
        first += len(images)
    return {layer: n / len(sampled) for layer, n in lost.items()}


def over_positions(values: Tensor, activations: Tensor) -> Tensor:
    """Return values (B, C) of channels in a shape that adds to activations (B, C, H, W), (B, T, C)
    or (B, C)."""
    if activations.ndim == 4:
        return values[:, :, None, None]
    return values[:, None] if activations.ndim == 3 else values
