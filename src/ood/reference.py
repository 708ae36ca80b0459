"""The reference of an evaluation: measurements of the end network without any stitch.

A reference holds the detectors and the validity at the end layers, the scores of the end network's
own activations, and its own activations of the identified images and their foils at the end layers,
at all blocks behind them and in the output. All folders of stitches into the network share it.
Making it takes one pass over the training images, if something is fitted to them, one over the test
images, and one over identified images and foils; other data take passes of their own."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from src.choices.scores import ChosenScore
from src.datasets.base import BaseImageSet, Batches
from src.ground.console import progress
from src.models import Network
from src.models.activations import at_least_single, cells
from src.models.tokens import TokenLayout
from src.ood.detectors import Detector, make_detector
from src.ood.identifying import FEWEST, Foils, OwnLayer, choose_foils, way_of
from src.ood.validity import N_IMAGES, Validity
from src.statistics.detection import OODMetrics, ood_metrics
from src.training import not_finite

NO_IMAGES = torch.empty(0, dtype=torch.long)
Key = TypeVar("Key")
Value = TypeVar("Value")
ByScore = dict[str, dict[str, Value]]  # by score and layer


class DetectorKey(NamedTuple):
    """The score that a detector computes, and its layer."""

    score: str  # its title: the name in `SCORES`, or that of a user's class without its file
    layer: str


class TestBatch(NamedTuple):
    """A batch of test images, and the positions of the sampled and the identified images."""

    images: Tensor  # (B, C, H, W)
    labels: Tensor  # (B,)
    sampled: Tensor  # positions of the images that validity is measured on, rising
    identified: Tensor  # of the images that are identified, rising; all of them are sampled
    places: slice  # of the latter among all identified images


class EvaluationOptions(NamedTuple):
    """The options of an evaluation, without the end network and its trained detectors."""

    layers: tuple[str, ...]  # end layers of the stitches
    scores: Mapping[str, ChosenScore]  # by their titles in tables
    # Training images, which validity and detectors are fitted to. None: all detectors are trained, and
    # validity is not measured
    train: BaseImageSet | None
    batch_size: int
    dataset: str  # name of `test`
    test: BaseImageSet
    id_dataset: str = ""  # name of `id_data`
    id_data: BaseImageSet | None = None  # None: the test images are the ID data
    sanity_dataset: str = ""  # name of `sanity_data`
    sanity_data: BaseImageSet | None = None  # data that detectors should find OOD

    def batches(
        self,
        data: BaseImageSet,
        title: str,
        indices: Tensor | None = None,
        *,
        batch_size: int | None = None,
    ) -> Batches:
        """Yield batches of images and labels, with a progress bar.

        Args:
            title: the text of the progress bar.
            indices: the images to take, in this order; default: all images.
            batch_size: default: `self.batch_size`.
        """
        if batch_size is None:
            batch_size = self.batch_size
        if indices is None:
            n_images = len(data)
        else:
            n_images = len(indices)
        n_batches = math.ceil(n_images / batch_size)
        return progress(data.batches(batch_size, indices=indices), title, n_batches)

    def sample(self, n_images: int) -> Tensor:
        """Draw at most `n_images` test images; return their sorted indices, (n,).

        They are the same images in each call.
        """
        return self.test.permutation(0)[:n_images].sort().values

    def test_batches(
        self, title: str, sampled: Tensor, identified: Tensor = NO_IMAGES
    ) -> Iterator[TestBatch]:
        """Yield the test images in batches, with a progress bar.

        Args:
            title: the text of the progress bar.
            sampled: indices of the images that validity is measured on, (n,), rising.
            identified: indices of the identified images, likewise.
        """
        sampled_on_device = sampled.to(self.test.device)  # once: a copy to a GPU waits
        identified_on_device = identified.to(self.test.device)
        first = 0
        for images, labels in self.batches(self.test, title):
            ends = torch.tensor([first, first + len(images)])
            of_sample = slice(*torch.searchsorted(sampled, ends).tolist())
            places = slice(*torch.searchsorted(identified, ends).tolist())
            yield TestBatch(
                images,
                labels,
                sampled_on_device[of_sample] - first,
                identified_on_device[places] - first,
                places,
            )
            first += len(images)


class Reference(NamedTuple):
    """Detectors, validity, scores and foils of the end network's own activations."""

    options: EvaluationOptions
    detectors: dict[DetectorKey, Detector]
    validity: dict[str, Validity]  # by layer; empty if it is not measured
    sampled: Tensor  # (n,): indices of the test images that validity is measured on, rising
    foils: Foils | None  # None: too few images have one, so nothing is identified
    own_layers: dict[str, OwnLayer]  # by each layer of each way; empty without foils
    ways: dict[str, list[str]]  # by end layer: the layers where its stitches are judged
    # By score and layer; without sanity-check data, the last two are empty
    id_scores: ByScore[np.ndarray]  # (N,): of the network's own activations of the ID data
    sanity_scores: ByScore[np.ndarray]  # (M,): of the sanity-check data
    checks: ByScore[OODMetrics]  # of the sanity-check data, as OOD, against the ID data
    missing: list[str]  # a reason for each measurement that could not be prepared

    def test_batches(self) -> Iterator[TestBatch]:
        """Yield the test images in batches, with a progress bar."""
        identified = self.foils.images if self.foils else NO_IMAGES
        return self.options.test_batches("stitched activations", self.sampled, identified)


@torch.no_grad()
def make_reference(
    network: Network,
    options: EvaluationOptions,
    *,
    trained: Mapping[DetectorKey, Detector],
) -> Reference:
    """Make the reference for stitches into `options.layers` of a network.

    Args:
        network: the end network.
        trained: the detectors of scores that need training. Those of other layers are measured on
            the ID data and the sanity-check data only.
    """
    ways = {layer: way_of(network, layer) for layer in options.layers}
    layouts = {layer: network.token_layout(layer) for layer in chain(*ways.values())}
    output = network.output_name

    # What is fitted to training images
    fitted, validity, missing = _fitted(network, options, layouts)
    detectors = dict(trained) | fitted

    # The network's own activations of the test images, and of other ID data
    sampled = options.sample(N_IMAGES)
    test_batches = options.test_batches("own activations", sampled)
    if options.id_data is None:
        id_scores, logits = _measure_test_images(network, output, test_batches, detectors, validity)
    else:
        _, logits = _measure_test_images(network, output, test_batches, {}, validity)
        batches = options.batches(options.id_data, "ID activations")
        id_scores = score_network(network, detectors, batches)
    for layer, of_layer in list(validity.items()):
        missing += _remove_if_failing(validity, layer, of_layer.fit_end, f"validity for {layer}")

    # Its own activations of the identified images and their foils, all the way to the output
    chosen = choose_foils(logits, sampled)
    foils = None
    own_layers = {}
    if len(chosen.images) < FEWEST:
        missing.append(
            f"no identification: {len(chosen.images)} of the sampled test images have another image of their class, "
            f"{FEWEST} are needed"
        )
    else:
        foils = chosen
        own_layers = _own_layers(network, options, layouts, foils)

    sanity_scores = _sanity_scores(network, options, detectors)
    checks = {key: ood_metrics(id_scores[key], scores) for key, scores in sanity_scores.items()}
    return Reference(
        options=options,
        detectors=detectors,
        validity=validity,
        sampled=sampled,
        foils=foils,
        own_layers=own_layers,
        ways=ways,
        id_scores=_by_score(id_scores),
        sanity_scores=_by_score(sanity_scores),
        checks=_by_score(checks),
        missing=missing,
    )


class _Fitted(NamedTuple):
    """Detectors and validity, fitted to training images."""

    detectors: dict[DetectorKey, Detector]
    validity: dict[str, Validity]  # by layer; empty if it is not measured
    missing: list[str]  # a reason for each fit that failed


def _fitted(
    network: Network,
    options: EvaluationOptions,
    layouts: Mapping[str, TokenLayout | None],
) -> _Fitted:
    """Fit detectors and validity to training images, in one pass.

    Args:
        layouts: of the tokens, by layer.
    """
    detectors = _unfitted_detectors(options)
    validity: dict[str, Validity] = {}
    missing: list[str] = []
    if options.train is not None:
        for layer in options.layers:
            validity[layer] = Validity(layouts[layer])
        n_images = len(options.train) if detectors else N_IMAGES
        indices = options.train.in_cheapest_order(options.train.permutation(0)[:n_images])
        for images, labels in options.batches(options.train, "training activations", indices):
            activations = network.activations(images, list(validity))
            for key, detector in detectors.items():
                detector.add(activations[key.layer], labels)
            for layer, of_layer in validity.items():
                of_layer.add(activations[layer])
    for key, detector in list(detectors.items()):
        missing += _remove_if_failing(detectors, key, detector.fit, f"{key.score} for {key.layer}")
    for layer, of_layer in list(validity.items()):
        missing += _remove_if_failing(validity, layer, of_layer.fit, f"validity for {layer}")
    return _Fitted(detectors, validity, missing)


def _unfitted_detectors(options: EvaluationOptions) -> dict[DetectorKey, Detector]:
    """Make a detector for each score that needs no training and each end layer."""
    detectors = {}
    for title, score in options.scores.items():
        if score.is_trained:
            continue
        for layer in options.layers:
            detector = make_detector(score.name)
            detector.id_data = options.dataset
            detector.n_classes = options.test.n_classes
            detectors[DetectorKey(title, layer)] = detector
    return detectors


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


def _sanity_scores(
    network: Network, options: EvaluationOptions, detectors: Mapping[DetectorKey, Detector]
) -> dict[DetectorKey, np.ndarray]:
    """Return the scores (M,) of the sanity-check data by detector; {} without such data."""
    if options.sanity_data is None:
        return {}
    batches = options.batches(options.sanity_data, "sanity-check activations")
    return score_network(network, detectors, batches)


def _own_layers(
    network: Network,
    options: EvaluationOptions,
    layouts: Mapping[str, TokenLayout | None],
    foils: Foils,
) -> dict[str, OwnLayer]:
    """Return the network's own activations of images and foils at each layer, from one pass.

    A batch has images in front, and their foils behind.

    Args:
        layouts: of the tokens, by layer.
    """
    n_together = max(1, options.batch_size // 2)
    parts = zip(foils.images.split(n_together), foils.foils.split(n_together), strict=True)
    indices = torch.cat([torch.cat(part) for part in parts])
    batches = options.batches(options.test, "images and foils", indices, batch_size=2 * n_together)
    own_layers = {layer: OwnLayer(layout) for layer, layout in layouts.items()}
    for images, _ in batches:
        activations = network.activations(images, list(layouts))
        single = {layer: at_least_single(values) for layer, values in activations.items()}
        in_cells = {layer: cells(values, layouts[layer]) for layer, values in single.items()}
        for layer, own_layer in own_layers.items():
            own_layer.add(*in_cells[layer].flatten(1).chunk(2))
    for own_layer in own_layers.values():
        own_layer.fit()
    return own_layers


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
    output: str,
    batches: Iterable[TestBatch],
    detectors: Mapping[DetectorKey, Detector],
    validity: Mapping[str, Validity],
) -> tuple[dict[DetectorKey, np.ndarray], Tensor]:
    """Score the network's own activations of the test images; fill the validity of each layer.

    Args:
        output: the name of the network's output.

    Returns:
        Scores (N,) by detector, and the logits (N, classes) of all test images.
    """
    layers = _distinct([*(key.layer for key in detectors), *validity, output])
    scores: dict[DetectorKey, list[Tensor]] = {key: [] for key in detectors}
    logits: list[Tensor] = []
    for batch in batches:
        activations = network.kept_activations(batch.images, layers)
        _add_scores(scores, detectors, activations)
        logits.append(activations[output])
        if len(batch.sampled):
            for layer, of_layer in validity.items():
                of_layer.add_end(activations[layer].index_select(0, batch.sampled))
    all_logits = torch.cat(logits)
    if not all_logits.isfinite().all():
        raise not_finite("the end network")
    return _concatenated(scores), all_logits


def _add_scores(
    scores: Mapping[DetectorKey, list[Tensor]],
    detectors: Mapping[DetectorKey, Detector],
    activations: Mapping[str, Tensor],
) -> None:
    """Append the scores (B,) of a batch to the list of each detector."""
    for key, detector in detectors.items():
        scores[key].append(detector.score(activations[key.layer]))


def _by_score(values: Mapping[DetectorKey, Value]) -> ByScore[Value]:
    """Return the values of detectors by score and layer."""
    by_score: ByScore[Value] = {}
    for key, value in values.items():
        by_score.setdefault(key.score, {})[key.layer] = value
    return by_score


def _concatenated(scores: Mapping[DetectorKey, list[Tensor]]) -> dict[DetectorKey, np.ndarray]:
    """Concatenate the scores of all batches, (N,) by detector."""
    return {key: torch.cat(parts).cpu().numpy() for key, parts in scores.items()}


def _distinct(names: Iterable[str]) -> list[str]:
    """Return the distinct names in their order."""
    return list(dict.fromkeys(names))
