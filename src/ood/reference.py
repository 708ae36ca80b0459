"""The reference of an evaluation: measurements of the end network without any stitch.

A reference holds the detectors and the validity at the end layers, and the scores of the end
network's own activations. All folders of stitches into the network share it. Making it takes one
pass over the training images and one pass over the test images; the costs of noise and other data
take passes of their own."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from src.choices.scores import is_trained, scores_by_title
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
Key = TypeVar("Key")
Value = TypeVar("Value")


class DetectorKey(NamedTuple):
    """The score that a detector computes, and its layer."""

    score: str  # name in `SCORES`, or of a user's class
    layer: str


class EvaluationOptions(NamedTuple):
    """The options of an evaluation; folders of stitches with equal options share a reference."""

    end: NetworkName
    layers: tuple[str, ...]  # end layers of the stitches
    scores: tuple[str, ...]  # names in `SCORES`, or FILE.py:CLASS of a user's code
    store: str  # folder of the trained detectors
    with_validity: bool  # False: measure validity only if a detector is fitted to training images
    batch_size: int
    dataset: str  # name of `test`
    test: BaseImageSet
    id_dataset: str = ""  # name of `id_data`
    id_data: BaseImageSet | None = None  # None: the test images are the ID data
    sanity_dataset: str = ""  # name of `sanity_data`
    sanity_data: BaseImageSet | None = None  # data that detectors should find OOD

    def batches(self, data: BaseImageSet, title: str, indices: Tensor | None = None) -> Batches:
        """Yield batches of images and labels, with a progress bar.

        Args:
            title: the text of the progress bar.
            indices: the images to take, in this order; default: all images.
        """
        n_images = len(data) if indices is None else len(indices)
        n_batches = math.ceil(n_images / self.batch_size)
        return progress(data.batches(self.batch_size, indices=indices), title, n_batches)

    def sample(self) -> Tensor:
        """Draw the test images that validity is measured on; return their sorted indices, (n,).

        They are 2,000 images at most, and the same images in each call.
        """
        return self.test.permutation(0)[:N_IMAGES].sort().values

    def sample_by_batch(self) -> tuple[Tensor, ...]:
        """Return the positions of the sampled images in each batch of test images.

        The tuple has a tensor (n_in_batch,) for each batch; it may be empty.
        """
        indices = self.sample()
        n_batches = math.ceil(len(self.test) / self.batch_size)
        n_in_batch = torch.bincount(indices // self.batch_size, minlength=n_batches)
        positions = (indices % self.batch_size).to(self.test.device)
        return positions.split(n_in_batch.tolist())


class Reference(NamedTuple):
    """Detectors, validity and scores of the end network's own activations."""

    options: EvaluationOptions
    detectors: dict[DetectorKey, Detector]
    validity: dict[str, Validity]  # by layer; empty if it is not measured
    noise_costs: dict[str, float]  # by layer with validity, see `measure_noise_costs`
    id_scores: dict[DetectorKey, np.ndarray]  # (N,): the network's own activations of the ID data
    sanity_scores: dict[DetectorKey, np.ndarray]  # (M,): of the sanity-check data
    checks: dict[DetectorKey, OODMetrics]  # of the sanity-check data, as OOD, against the ID data
    missing: list[str]  # a reason for each detector and each validity that could not be made

    def of_score(self, score: str, values: Mapping[DetectorKey, Value]) -> dict[str, Value]:
        """Return the values of one score by layer, such as `id_scores` of the energy."""
        return {key.layer: value for key, value in values.items() if key.score == score}


@torch.no_grad()
def make_reference(
    network: Network, options: EvaluationOptions, load_training_set: Callable[[], BaseImageSet]
) -> Reference:
    """Make the reference for stitches into `options.layers` of a network.

    Args:
        network: the end network.
        load_training_set: called only if detectors are fitted or validity is measured.
    """
    trained, missing = _load_trained(network, options)

    # Detectors and validity that are fitted to training images
    fitted = _unfitted_detectors(options)
    validity: dict[str, Validity] = {}
    if fitted or options.with_validity:
        for layer in options.layers:
            validity[layer] = Validity(is_sequence=network.is_sequence(layer))
        training_set = load_training_set()
        n_images = len(training_set) if fitted else N_IMAGES
        indices = training_set.permutation(0)[:n_images]
        batches = options.batches(training_set, "training activations", indices)
        _add_training_images(network, batches, fitted, validity)
    for key, detector in list(fitted.items()):
        missing += _remove_if_failing(fitted, key, detector.fit, f"{key.score} for {key.layer}")
    for layer, of_layer in list(validity.items()):
        missing += _remove_if_failing(validity, layer, of_layer.fit, f"validity for {layer}")
    detectors = trained | fitted

    # The network's own activations of the test images, and of other ID data
    if options.id_data is None:
        id_scores, logits = _measure_test_images(network, options, detectors, validity)
    else:
        _, logits = _measure_test_images(network, options, {}, validity)
        batches = options.batches(options.id_data, "ID activations")
        id_scores = score_network(network, detectors, batches)
    missing += _fit_end(validity, logits)
    noise_costs = measure_noise_costs(network, options, validity)

    # Sanity-check data
    sanity_scores = {}
    if options.sanity_data is not None:
        batches = options.batches(options.sanity_data, "sanity-check activations")
        sanity_scores = score_network(network, detectors, batches)
    checks = {key: ood_metrics(id_scores[key], scores) for key, scores in sanity_scores.items()}
    return Reference(
        options, detectors, validity, noise_costs, id_scores, sanity_scores, checks, missing
    )


def _load_trained(
    network: Network, options: EvaluationOptions
) -> tuple[dict[DetectorKey, Detector], list[str]]:
    """Load the trained detectors of the end layers; return a reason for each missing detector too.

    With sanity-check data, the detectors of all layers in the store are loaded.

    Raises:
        UserError: there is no store.
    """
    detectors: dict[DetectorKey, Detector] = {}
    missing = []
    store = DetectorStore(options.store)
    for score in options.scores:
        if not is_trained(score):
            continue
        layers = list(options.layers)
        stored = store.names_by_layer(options.end)
        if options.sanity_data is not None:
            layers += sorted(set(stored).difference(layers), key=network.depth)
        for layer in layers:
            try:
                detectors[DetectorKey(score, layer)] = store.load(
                    options.end, layer, options.test.spec, device=options.test.device
                )
            except UserError as error:
                missing.append(str(error))
    return detectors, missing


def _unfitted_detectors(options: EvaluationOptions) -> dict[DetectorKey, Detector]:
    """Make a detector for each score that needs no training and each end layer."""
    detectors = {}
    for title, score in scores_by_title(options.scores).items():
        if is_trained(score):
            continue
        for layer in options.layers:
            detector = make_detector(score)
            detector.id_data = options.dataset
            detector.n_classes = options.test.n_classes
            detectors[DetectorKey(title, layer)] = detector
    return detectors


def _add_training_images(
    network: Network,
    batches: Batches,
    detectors: Mapping[DetectorKey, Detector],
    validity: Mapping[str, Validity],
) -> None:
    """Add the activations of training images to detectors and validity, in one pass."""
    for images, labels in batches:
        activations = network.activations(images, list(validity))
        for key, detector in detectors.items():
            detector.add(activations[key.layer], labels)
        for layer, of_layer in validity.items():
            of_layer.add(activations[layer], labels)


def _remove_if_failing(
    table: dict[Key, Value], key: Key, fit: Callable[[], None], name: str
) -> list[str]:
    """Call `fit`; if it raises a ValueError, remove the key from the table.

    Returns:
        The reason of the failure in a list; an empty list after success.
    """
    try:
        fit()
    except ValueError as error:
        del table[key]
        return [f"no {name}: {error}"]
    return []


def _fit_end(validity: dict[str, Validity], logits: Tensor) -> list[str]:
    """Finish the network's own activations of the sampled test images at each layer.

    Layers whose validity cannot be measured are removed; the reasons are returned.

    Args:
        logits: of the sampled test images, (n, classes).
    """
    if not validity:
        return []
    reasons = []
    foils = choose_foils(logits)
    for layer, of_layer in list(validity.items()):
        fit = partial(of_layer.fit_end, foils)
        reasons += _remove_if_failing(validity, layer, fit, f"validity for {layer}")
    return reasons


def score_network(
    network: Network, detectors: Mapping[DetectorKey, Detector], batches: Batches
) -> dict[DetectorKey, np.ndarray]:
    """Score a network's own activations in one pass; return scores (N,) by detector."""
    if not detectors:
        return {}
    layers = _distinct(key.layer for key in detectors)
    scores: dict[DetectorKey, list[Tensor]] = {key: [] for key in detectors}
    for images, _ in batches:
        activations = network.activations(images, layers)
        _add_scores(scores, detectors, activations)
    return _concatenated(scores)


def _measure_test_images(
    network: Network,
    options: EvaluationOptions,
    detectors: Mapping[DetectorKey, Detector],
    validity: Mapping[str, Validity],
) -> tuple[dict[DetectorKey, np.ndarray], Tensor]:
    """Score the network's own activations of the test images; fill the validity of each layer.

    Returns:
        Scores (N,) by detector, and the logits (n, classes) of the sampled test images; without
        validity the logits are empty.
    """
    layers = [key.layer for key in detectors]
    if validity:
        layers += [*validity, network.output_name]
    layers = _distinct(layers)
    if not layers:
        return {}, torch.empty(0, 0)

    scores: dict[DetectorKey, list[Tensor]] = {key: [] for key in detectors}
    logits: list[Tensor] = []
    batches = options.batches(options.test, "own activations")
    for (images, _), positions in zip(batches, options.sample_by_batch(), strict=True):
        activations = network.activations(images, layers)
        _add_scores(scores, detectors, activations)
        if validity and len(positions):
            logits.append(activations[network.output_name].index_select(0, positions))
            for layer, of_layer in validity.items():
                of_layer.add_end(activations[layer].index_select(0, positions))
    if not logits:
        return _concatenated(scores), torch.empty(0, 0)
    return _concatenated(scores), torch.cat(logits)


def _add_scores(
    scores: Mapping[DetectorKey, list[Tensor]],
    detectors: Mapping[DetectorKey, Detector],
    activations: Mapping[str, Tensor],
) -> None:
    """Append the scores (B,) of a batch to the list of each detector."""
    for key, detector in detectors.items():
        scores[key].append(detector.score(activations[key.layer]))


def _concatenated(scores: Mapping[DetectorKey, list[Tensor]]) -> dict[DetectorKey, np.ndarray]:
    """Concatenate the scores of all batches, (N,) by detector."""
    return {key: torch.cat(parts).cpu().numpy() for key, parts in scores.items()}


def _distinct(names: Iterable[str]) -> list[str]:
    """Return the distinct names in their order."""
    return list(dict.fromkeys(names))


def measure_noise_costs(
    network: Network, options: EvaluationOptions, validity: Mapping[str, Validity]
) -> dict[str, float]:
    """Return the accuracy that noise costs the network, by layer, from -1 to 1.

    At each layer in turn, noise at the limit of its dose, `ValidityLimits.noise_dose`, is added to
    the network's own activations of the sampled test images. It is the same noise that calibrates
    the doses.
    """
    if not validity:
        return {}
    indices = options.sample()
    dose = ValidityLimits().noise_dose
    amount = math.sqrt(dose / (1 - dose))  # in standard deviations of a channel
    noise = {}  # (n, C) by layer
    for layer, of_layer in validity.items():
        deviations = of_layer.deviations
        noise[layer] = draw_noise(len(indices), len(deviations)).to(deviations)
        noise[layer] *= deviations
        noise[layer] *= amount

    # Counts stay on the device until the end: reading one would wait for the GPU.
    n_lost = {
        layer: torch.zeros((), dtype=torch.long, device=options.test.device) for layer in validity
    }
    names = _distinct([*validity, network.output_name])
    first = 0
    for images, labels in options.batches(options.test, "limits of noise", indices):
        activations = network.activations(images, names)
        n_right = _n_right(activations[network.output_name], labels)
        batch = slice(first, first + len(images))
        for layer, values in noise.items():
            noisy = activations[layer] + over_positions(values[batch], activations[layer])
            if layer == network.output_name:
                logits = noisy
            else:
                logits = network(noisy, after=layer, images=images)
            n_lost[layer] = n_lost[layer] + n_right - _n_right(logits, labels)
        first += len(images)
    return {layer: n.item() / len(indices) for layer, n in n_lost.items()}


def _n_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the images with the highest logit at their label; return a scalar on their device."""
    return (logits.argmax(-1) == labels).sum()


def over_positions(values: Tensor, activations: Tensor) -> Tensor:
    """Reshape values of channels (B, C) so that they can be added to activations.

    Args:
        activations: (B, C, H, W), (B, T, C) or (B, C); the values get their type and device.
    """
    values = values.to(activations)
    if activations.ndim == 4:
        return values[:, :, None, None]
    if activations.ndim == 3:
        return values[:, None]
    return values
