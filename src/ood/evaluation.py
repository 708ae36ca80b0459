"""Scores of stitched activations: how far out of distribution are they for the end network?"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from src.ground.brief import brief
from src.models import Network
from src.models.activations import at_least_single, cells, cells_and_mean
from src.models.tokens import TokenLayout
from src.ood.detectors import Detector
from src.ood.identifying import OwnLayer, Shown, shares_of
from src.ood.reference import DetectorKey, Reference, TestBatch
from src.statistics.detection import OODMetrics, auroc_interval, ood_metrics
from src.training import NO_CLASS, predicted_classes
from src.values import Interval, IntervalEstimate, Pair, StitchValidity


class Stitched(Protocol):
    """Stitches between layers of two networks, such as a `src.stitching.Grid`."""

    front: Network
    end: Network
    front_layers: list[str]
    end_layers: list[str]
    pairs: list[Pair]  # the layers of the stitches

    def train(self, mode: bool) -> None:
        """Switch networks and stitching layers to training mode, or to evaluation mode."""

    def stitched(
        self,
        acts: Mapping[str, Tensor],
        images: Tensor,
        behind: Mapping[str, Sequence[str]] | None = None,
    ) -> Iterator[tuple[list[Pair], dict[str, Tensor]]]:
        """Yield groups of P pairs into one end layer, with activations (P, B, …) by layer.

        Args:
            acts: activations (B, …) of the front network, by layer.
            behind: for each end layer, further layers behind it whose activations are needed.
        """


class StitchScores(NamedTuple):
    """The accuracy of a stitch on the test images, and the scores of its activations."""

    accuracy: float  # in [0, 1]; NaN if logits are not finite
    scores: dict[str, np.ndarray]  # (N,): by score, if the end layer has a detector for it
    validity: StitchValidity | None  # None: it was not measured
    # 1, 0, ½ or NaN of each identified image, (n,), by layer of the way; empty: not measured
    identified: dict[str, np.ndarray]
    shares: dict[str, IntervalEstimate]  # of identified images, by layer of the way

    def __repr__(self) -> str:
        return brief(self)

    @property
    def is_finite(self) -> bool:
        """Whether the activations are finite; after a training that diverged, they are not."""
        if math.isnan(self.accuracy):
            return False
        if self.validity is not None and math.isnan(self.validity.density):
            return False
        return all(np.isfinite(scores).all() for scores in self.scores.values())


class Detection(NamedTuple):
    """Scores of a detector in telling stitched activations from the end network's own activations.

    Stitched activations count as OOD. All numbers but `mean_own` are NaN if a score of a stitched
    activation is not finite.
    """

    metrics: OODMetrics
    auroc_interval: Interval
    mean_stitched: float  # score
    mean_own: float  # score


class _BatchScores(NamedTuple):
    """Scores of a stitch on each batch, kept on the device: a copy to the CPU would wait."""

    is_right: list[Tensor]  # (B,): 1, 0, or NaN where logits are not finite
    scores: dict[str, list[Tensor]]  # (B,), by score
    samples: list[Tensor]  # `cells_and_mean` of the sampled images, (n_in_batch, positions + 1, C)
    shown: dict[str, Shown]  # by layer of the way


@torch.no_grad()
def score_grid(grid: Stitched, reference: Reference) -> dict[Pair, StitchScores]:
    """Measure accuracy, scores, validity and identified images of all stitches of a grid.

    The grid takes one pass over the test images. A stitch whose activations are not finite has
    scores and validity of NaN.
    """
    scoring = GridScoring(grid, reference)
    grid.train(False)
    for batch in reference.test_batches():
        activations = grid.front.kept_activations(batch.images, grid.front_layers)
        for pairs, stitched in grid.stitched(activations, batch.images, scoring.ways):
            scoring.add_stitches(pairs, stitched, batch)
    return scoring.scores()


class GridScoring:
    """The scores of the stitches of a grid, which grow batch by batch.

    Attributes:
        ways: for each end layer, the layers at which images are identified; None: at no layer.
    """

    def __init__(self, grid: Stitched, reference: Reference):
        self.reference = reference
        self.ways = reference.ways if reference.foils else None
        self._detectors = {
            layer: _detectors_of_layer(reference.detectors, layer) for layer in grid.end_layers
        }
        self._kept = {pair: _BatchScores([], {}, [], defaultdict(Shown)) for pair in grid.pairs}

    def add_stitches(
        self, pairs: Sequence[Pair], stitched: Mapping[str, Tensor], batch: TestBatch
    ) -> None:
        """Add a group of P stitches into one end layer.

        Args:
            stitched: activations (P, B, …) at the layers of the way, from `Stitched.stitched`.
        """
        kept_of_pairs = [self._kept[pair] for pair in pairs]
        layer = pairs[0].end_layer
        at_end = stitched[layer]
        way = self.reference.ways[layer]
        classes = predicted_classes(stitched[way[-1]])  # (P, B)
        is_right = torch.where(classes == NO_CLASS, math.nan, classes == batch.labels)
        for of_pair, right in zip(kept_of_pairs, is_right, strict=True):
            of_pair.is_right.append(right)
        for score, detector in self._detectors[layer].items():
            scores = detector.score(at_end.flatten(0, 1)).unflatten(0, (len(pairs), -1))
            for of_pair, values in zip(kept_of_pairs, scores, strict=True):
                of_pair.scores.setdefault(score, []).append(values)
        in_cells = {}  # of the identified images, by layer
        if layer in self.reference.validity and len(batch.sampled):
            layout = self.reference.validity[layer].layout
            samples = _sampled_features(at_end, batch.sampled, layout)
            for of_pair, sample in zip(kept_of_pairs, samples, strict=True):
                of_pair.samples.append(sample)
            places = torch.searchsorted(batch.sampled, batch.identified)
            in_cells[layer] = samples[:, places, :-1].flatten(2)
        if self.ways and len(batch.identified):
            own_layers = {name: self.reference.own_layers[name] for name in way}
            in_cells = _in_cells(stitched, own_layers, batch.identified, known=in_cells)
            _add_shown(kept_of_pairs, in_cells, own_layers, batch.places)

    def scores(self) -> dict[Pair, StitchScores]:
        """Return the scores of each pair; the scores of its batches are dropped."""
        pairs = list(self._kept)
        return {pair: _stitch_scores(pair, self._kept.pop(pair), self.reference) for pair in pairs}


def _in_cells(
    stitched: Mapping[str, Tensor],
    own_layers: Mapping[str, OwnLayer],
    positions: Tensor,
    *,
    known: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return the cells of identified images at each layer of the way, (P, n_in_batch, D).

    Args:
        stitched: activations (P, B, …) of P stitches, by layer.
        own_layers: by layer of the way.
        positions: of the identified images in the batch, (n_in_batch,).
        known: the cells at some of the layers.
    """
    identified = {}
    for layer in own_layers:
        if layer not in known:
            of_layer = stitched[layer].index_select(1, positions).flatten(0, 1)
            identified[layer] = at_least_single(of_layer)
    in_cells = dict(known)
    for layer, activations in identified.items():
        pooled = cells(activations, own_layers[layer].layout).flatten(1)
        in_cells[layer] = pooled.unflatten(0, (-1, len(positions)))
    return in_cells


def _add_shown(
    kept: Sequence[_BatchScores],
    in_cells: Mapping[str, Tensor],
    own_layers: Mapping[str, OwnLayer],
    places: slice,
) -> None:
    """Add the sums of P stitches over the identified images of a batch, at each layer of the way.

    Args:
        in_cells: from `_in_cells`.
        own_layers: by layer of the way.
        places: of the images among all identified ones.
    """
    for layer, own_layer in own_layers.items():
        sums = own_layer.compare(in_cells[layer], places)
        for i, of_pair in enumerate(kept):
            of_pair.shown[layer].add(*sums, i)


def _detectors_of_layer(
    detectors: Mapping[DetectorKey, Detector], layer: str
) -> dict[str, Detector]:
    """Return the detectors of a layer by score."""
    return {key.score: detector for key, detector in detectors.items() if key.layer == layer}


def _sampled_features(stitched: Tensor, positions: Tensor, layout: TokenLayout | None) -> Tensor:
    """Return the `cells_and_mean` of sampled images, (P, n_in_batch, positions + 1, C).

    Args:
        stitched: activations of P stitches for a batch, (P, B, …).
        positions: of the sampled images in the batch, (n_in_batch,).
        layout: of the tokens.
    """
    sampled = at_least_single(stitched.index_select(1, positions)).flatten(0, 1)
    return cells_and_mean(sampled, layout).unflatten(0, (len(stitched), -1))


def _stitch_scores(pair: Pair, kept: _BatchScores, reference: Reference) -> StitchScores:
    """Return the scores of a stitch from the scores of its batches."""
    is_right = torch.cat(kept.is_right)
    accuracy = is_right.sum().item() / len(is_right)
    scores = {score: torch.cat(parts).cpu().numpy() for score, parts in kept.scores.items()}
    validity = None
    if kept.samples:
        validity = reference.validity[pair.end_layer].of_stitch(torch.cat(kept.samples))
    identified = {}
    for layer, shown in kept.shown.items():
        identified[layer] = reference.own_layers[layer].identified(shown).cpu().numpy()
    return StitchScores(accuracy, scores, validity, identified, shares_of(identified))


def detection_of(stitched: np.ndarray, own: np.ndarray, *, is_paired: bool) -> Detection:
    """Measure how well scores tell stitched activations from the end network's own activations.

    Args:
        stitched: scores of stitched activations, (M,), high for OOD.
        own: scores of the end network's own activations, (N,).
        is_paired: both are of the same images, in the same order.
    """
    mean_own = float(own.mean())
    if not np.isfinite(stitched).all():
        undefined = Interval(math.nan, math.nan)
        return Detection(OODMetrics(math.nan, math.nan, math.nan), undefined, math.nan, mean_own)
    metrics = ood_metrics(own, stitched)
    interval = auroc_interval(own, stitched, paired=is_paired)
    return Detection(metrics, interval, float(stitched.mean()), mean_own)
