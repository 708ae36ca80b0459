"""The reference of an evaluation: measurements of the end network without any stitch.

A reference holds the detectors at the end layers, their scores of the end network's activations,
and the baselines of skill. All folders of stitches into the network share it.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from src.core.choices.scores import SCORES
from src.core.console import progress
from src.datasets.base import Batches, InputSet
from src.models import Network
from src.ood.detectors import Detector, make_detector
from src.skill.baseline import Baselines
from src.statistics.detection import OODMetrics, ood_metrics

N_IMAGES = 2_000  # test images that skill is measured on, at most
N_OF_CLASS = 10  # of them for each class, if that is more
Value = TypeVar("Value")
ByScore = dict[str, dict[str, Value]]  # by score, in `SCORES`, and by layer


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
    train: InputSet  # to which detectors and baselines are fitted
    batch_size: int
    dataset: str  # name of `test`
    test: InputSet
    id_dataset: str = ""  # name of `id_data`
    id_data: InputSet | None = None  # None: the test images are the ID data
    sanity_dataset: str = ""  # name of `sanity_data`
    sanity_data: InputSet | None = None  # data that detectors should find OOD

    def batches(
        self,
        data: InputSet,
        title: str,
        indices: Tensor | None = None,
    ) -> Batches:
        """Yield batches of images and labels, of all or at indices, with a progress bar."""
        if indices is None:
            indices = torch.arange(len(data))
        n_batches = math.ceil(len(indices) / self.batch_size)
        return progress(data.batches(self.batch_size, indices=indices), title, n_batches)


class EndReference(NamedTuple):
    """Detectors, their scores of the end network's activations, and the baselines of skill."""

    options: EvaluationOptions
    end: Network
    detectors: ByScore[Detector]
    sampled: Tensor  # (n,): indices of the test images that skill is measured on, rising
    baselines: Baselines
    id_scores: ByScore[np.ndarray]  # (N,): of the end network's activations of the ID data
    # Empty without sanity-check data
    sanity_scores: ByScore[np.ndarray]  # (M,)
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
    trained: ByScore[Detector],
) -> EndReference:
    """Make the reference for stitches into `options.layers` of a network.

    Args:
        network: the end network.
        trained: the detectors of scores that need training. Those of other layers are measured on
            the ID data and the sanity-check data only.
    """
    fitted, missing = _fitted(network, options)
    detectors = {**trained, **fitted}
    id_data = options.test if options.id_data is None else options.id_data
    id_scores = score_network(network, detectors, options.batches(id_data, "ID activations"))
    sanity_scores: ByScore[np.ndarray] = {}
    checks: ByScore[OODMetrics] = {}
    if options.sanity_data is not None:
        batches = options.batches(options.sanity_data, "sanity-check activations")
        sanity_scores = score_network(network, detectors, batches)
    for score, of_layers in sanity_scores.items():
        checks[score] = {
            layer: ood_metrics(id_scores[score][layer], values)
            for layer, values in of_layers.items()
        }
    (n_classes,) = network.output_shape
    n_sampled = max(N_IMAGES, N_OF_CLASS * n_classes)
    sampled = options.test.permutation(0)[:n_sampled].sort().values
    baselines = Baselines(
        network, options.train, options.test, sampled, batch_size=options.batch_size
    )
    return EndReference(
        options, network, detectors, sampled, baselines, id_scores, sanity_scores, checks, missing
    )


def _fitted(network: Network, options: EvaluationOptions) -> tuple[ByScore[Detector], list[str]]:
    """Fit the detectors that need no training to training images; return a reason for each failure too."""
    unfitted: ByScore[Detector] = {}
    for score, layer in itertools.product(options.scores, options.layers):
        if not SCORES[score].is_trained:
            detector = make_detector(score)
            detector.id_data = options.dataset
            detector.n_classes = options.test.n_classes
            unfitted.setdefault(score, {})[layer] = detector
    if unfitted:
        indices = options.train.in_cheapest_order(options.train.permutation(0))
        for images, labels in options.batches(options.train, "training activations", indices):
            activations = network.activations(images, list(options.layers))
            for detectors in unfitted.values():
                for layer, detector in detectors.items():
                    detector.add(activations[layer], labels)
    fitted: ByScore[Detector] = {}
    missing = []
    for score, detectors in unfitted.items():
        for layer, detector in detectors.items():
            try:
                detector.fit()
            except ValueError as error:
                missing.append(f"no {score} for {layer}: {error}")
            else:
                fitted.setdefault(score, {})[layer] = detector
    return fitted, missing


def score_network(
    network: Network, detectors: ByScore[Detector], batches: Batches
) -> ByScore[np.ndarray]:
    """Return scores (N,) of the activations of a network, all from one pass."""
    layers = list(dict.fromkeys(itertools.chain(*detectors.values())))
    if not layers:
        return {}
    parts: defaultdict[tuple[str, str], list[Tensor]] = defaultdict(list)
    for images, _ in batches:
        activations = network.activations(images, layers, keep=True)
        for score, of_layers in detectors.items():
            for layer, detector in of_layers.items():
                parts[score, layer].append(detector.score(activations[layer]))
    scores: ByScore[np.ndarray] = {}
    for (score, layer), values in parts.items():
        scores.setdefault(score, {})[layer] = torch.cat(values).cpu().numpy()
    return scores
