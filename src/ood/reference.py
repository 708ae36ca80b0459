"""The reference of an evaluation: measurements of the end network without any stitch.

A reference holds the detectors at the end layers, their scores of the end network's own activations,
and the baselines of skill. All folders of stitches into the network share it.
"""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from src.choices.scores import SCORES
from src.core.console import progress
from src.datasets.base import BaseImageSet, Batches
from src.models import Network
from src.ood.detectors import Detector, make_detector
from src.skill.baseline import Baselines
from src.statistics.detection import OODMetrics, ood_metrics

N_IMAGES = 2_000  # test images that skill is measured on, at most
N_OF_CLASS = 10  # of them for each class, if that is more
Value = TypeVar("Value")
ByScore = dict[str, dict[str, Value]]  # by score and layer


class DetectorKey(NamedTuple):
    """The score that a detector computes, and its layer."""

    score: str  # in `SCORES`
    layer: str


class TestBatch(NamedTuple):
    """A batch of test images, and the positions of the sampled images, which skill is measured
    on."""

    images: Tensor  # (B, C, H, W)
    labels: Tensor  # (B,)
    sampled: Tensor  # positions of the sampled images, rising


class EvaluationOptions(NamedTuple):
    """The options of an evaluation, without the end network and its trained detectors."""

    layers: tuple[str, ...]  # end layers of the stitches
    scores: tuple[str, ...]  # in `SCORES`
    train: BaseImageSet  # to which detectors and baselines are fitted
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
    ) -> Batches:
        """Yield batches of images and labels, of all or at indices, with a progress bar."""
        if indices is None:
            indices = torch.arange(len(data))
        n_batches = math.ceil(len(indices) / self.batch_size)
        return progress(data.batches(self.batch_size, indices=indices), title, n_batches)


class Reference(NamedTuple):
    """Detectors, their scores of the end network's own activations, and the baselines of skill."""

    options: EvaluationOptions
    end: Network
    detectors: dict[DetectorKey, Detector]
    sampled: Tensor  # (n,): indices of the test images that skill is measured on, rising
    baselines: Baselines
    # By score and layer; without sanity-check data, the last two are empty
    id_scores: ByScore[np.ndarray]  # (N,): of the network's own activations of the ID data
    sanity_scores: ByScore[np.ndarray]  # (M,): of the sanity-check data
    checks: ByScore[OODMetrics]  # of the sanity-check data, as OOD, against the ID data
    missing: list[str]  # a reason for each measurement that could not be prepared

    def test_batches(self) -> Iterator[TestBatch]:
        """Yield the test images in batches, with a progress bar."""
        test = self.options.test
        sampled = self.sampled.to(test.device)  # once: a copy to a GPU waits
        first = 0
        for images, labels in self.options.batches(test, "stitched activations"):
            ends = torch.tensor([first, first + len(images)])
            of_sample = slice(*torch.searchsorted(self.sampled, ends).tolist())
            yield TestBatch(images, labels, sampled[of_sample] - first)
            first += len(images)


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
    fitted, missing = _fitted(network, options)
    detectors = dict(trained) | fitted
    id_data = options.test if options.id_data is None else options.id_data
    id_scores = score_network(network, detectors, options.batches(id_data, "ID activations"))
    sanity_scores = {}
    if options.sanity_data is not None:
        batches = options.batches(options.sanity_data, "sanity-check activations")
        sanity_scores = score_network(network, detectors, batches)
    checks = {key: ood_metrics(id_scores[key], scores) for key, scores in sanity_scores.items()}
    (n_classes,) = network.output_shape
    n_sampled = max(N_IMAGES, N_OF_CLASS * n_classes)
    sampled = options.test.permutation(0)[:n_sampled].sort().values
    return Reference(
        options=options,
        end=network,
        detectors=detectors,
        sampled=sampled,
        baselines=Baselines(
            network, options.train, options.test, sampled, batch_size=options.batch_size
        ),
        id_scores=_by_score(id_scores),
        sanity_scores=_by_score(sanity_scores),
        checks=_by_score(checks),
        missing=missing,
    )


def _fitted(
    network: Network, options: EvaluationOptions
) -> tuple[dict[DetectorKey, Detector], list[str]]:
    """Fit detectors in one pass of training images; return detectors, and the reason of each failure."""
    detectors = _unfitted_detectors(options)
    missing = []
    if detectors:
        indices = options.train.in_cheapest_order(options.train.permutation(0))
        for images, labels in options.batches(options.train, "training activations", indices):
            activations = network.activations(images, list(options.layers))
            for key, detector in detectors.items():
                detector.add(activations[key.layer], labels)
    for key, detector in list(detectors.items()):
        try:
            detector.fit()
        except ValueError as error:
            del detectors[key]
            missing.append(f"no {key.score} for {key.layer}: {error}")
    return detectors, missing


def _unfitted_detectors(options: EvaluationOptions) -> dict[DetectorKey, Detector]:
    """Make a detector for each score that needs no training and each end layer."""
    detectors = {}
    for score in options.scores:
        if SCORES[score].is_trained:
            continue
        for layer in options.layers:
            detector = make_detector(score)
            detector.id_data = options.dataset
            detector.n_classes = options.test.n_classes
            detectors[DetectorKey(score, layer)] = detector
    return detectors


def score_network(
    network: Network, detectors: Mapping[DetectorKey, Detector], batches: Batches
) -> dict[DetectorKey, np.ndarray]:
    """Score a network's own activations in one pass; return scores (N,) by detector."""
    if not detectors:
        return {}
    layers = list(dict.fromkeys(key.layer for key in detectors))
    scores: dict[DetectorKey, list[Tensor]] = {key: [] for key in detectors}
    for images, _ in batches:
        activations = network.activations(images, layers, keep=True)
        for key, detector in detectors.items():
            scores[key].append(detector.score(activations[key.layer]))
    return {key: torch.cat(parts).cpu().numpy() for key, parts in scores.items()}


def _by_score(values: Mapping[DetectorKey, Value]) -> ByScore[Value]:
    """Return the values of detectors by score and layer."""
    by_score: ByScore[Value] = {}
    for key, value in values.items():
        by_score.setdefault(key.score, {})[key.layer] = value
    return by_score
