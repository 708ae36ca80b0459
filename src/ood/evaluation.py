"""OOD scores and skill of stitched activations."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.core.grouping import grouped
from src.core.values import Pair, StitchSkill
from src.ood.reference import EndReference, TestBatch
from src.skill.baseline import BaselineKey
from src.skill.running import Following
from src.skill.skills import skill_of
from src.skill.widths import RunningWidth
from src.statistics.detection import auroc_interval, ood_metrics
from src.stitching.grid import Grid, GridEvaluation, GridMetrics
from src.stitching.layers import source_key
from src.training import NO_CLASS, predicted_classes


class OodEvaluation(NamedTuple):
    """The accuracy of a stitch on the test images, and the scores of its activations."""

    accuracy: float  # in [0, 1]; NaN if logits are not finite
    scores: dict[str, np.ndarray]  # (N,): by score, if the end layer has a detector for it
    skill: StitchSkill

    @property
    def is_finite(self) -> bool:
        """Whether the activations are finite; after a training run that diverged, they are not."""
        if math.isnan(self.accuracy):
            return False
        return all(np.isfinite(scores).all() for scores in self.scores.values())


class Separation(NamedTuple):
    """How well a detector separates stitched activations, which count as OOD, from those of the end network.

    All numbers but the last are NaN if a score of a stitched activation is not finite.
    """

    auroc: float = math.nan
    aupr: float = math.nan
    fpr95: float = math.nan
    auroc_low: float = math.nan  # the ends of the interval of 95 %
    auroc_high: float = math.nan
    mean_energy: float = math.nan  # score of the stitched activations
    mean_id_energy: float = math.nan  # score of the end network's activations


@torch.no_grad()
def score_grid(grid: Grid, reference: EndReference) -> dict[Pair, OodEvaluation]:
    """Measure accuracy, scores and skill of all stitches of a grid, in a pass over the test images.

    A stitch whose activations are not finite has scores and skill of NaN.
    """
    scoring = GridScoring(grid, reference)
    grid.train(False)
    names = [*grid.end_layers, reference.end.output_name]
    for batch in reference.test_batches():
        end_acts = reference.end.activations(batch.images, names, keep=True)
        front_acts = grid.front.activations(batch.images, grid.front_layers, keep=True)
        scoring.add_networks(front_acts, end_acts, batch)
        for pairs, stitched in grid.stitched(front_acts, batch.images):
            scoring.add_stitches(pairs, stitched, batch)
    return scoring.scores()


@torch.no_grad()
def measure_grids(
    grids: Mapping[str, Grid], reference: EndReference
) -> dict[str, tuple[GridMetrics, dict[Pair, OodEvaluation]]]:
    """Return what `Grid.evaluate` and what `score_grid` return, from one pass of the images.

    Args:
        grids: of the same layers of two networks, frozen.
        reference: of the end network.
    """
    any_grid, *_ = grids.values()
    for grid in grids.values():
        grid.train(False)
    evaluations = {name: GridEvaluation(grid) for name, grid in grids.items()}
    scorings = {name: GridScoring(grid, reference) for name, grid in grids.items()}
    for batch in reference.test_batches():
        front_acts, end_acts = any_grid.activations(batch.images)
        for name, grid in grids.items():
            evaluations[name].add_networks(batch.images, batch.labels, front_acts, end_acts)
            scorings[name].add_networks(front_acts, end_acts, batch)
            for pairs, stitched in grid.stitched(front_acts, batch.images):
                evaluations[name].add_stitches(pairs, stitched, end_acts)
                scorings[name].add_stitches(pairs, stitched, batch)
    # Baselines of all grids, from the same passes
    keys = [key for scoring in scorings.values() for key in scoring.keys.values()]
    reference.baselines.measured(keys)
    return {name: (evaluations[name].score(), scorings[name].scores()) for name in grids}


class GridScoring:
    """The scores of the stitches of a grid, which grow batch by batch."""

    def __init__(self, grid: Grid, reference: EndReference):
        self.grid = grid
        self.reference = reference
        # Of each batch, on the device: a copy to the CPU would wait
        self._is_right: dict[Pair, list[Tensor]] = {pair: [] for pair in grid.pairs}
        self._scores: dict[Pair, dict[str, list[Tensor]]] = {pair: {} for pair in grid.pairs}
        self._pairs = grouped(grid.pairs, lambda pair: source_key(pair, grid.layers[pair]))
        self._widths = {source: RunningWidth(len(reference.sampled)) for source in self._pairs}
        self._following = Following(
            reference.end, grid.end_layers, image_shape=reference.options.test.image_shape
        )

    def add_networks(
        self, front_acts: Mapping[str, Tensor], end_acts: Mapping[str, Tensor], batch: TestBatch
    ) -> None:
        """Add the activations (B, …) at the front layers, and those of the end network with its logits."""
        if not len(batch.sampled):
            return
        sampled = {name: values[batch.sampled] for name, values in end_acts.items()}
        self._following.add_end(sampled)
        for source, (pair, *_) in self._pairs.items():
            laid_out = self.grid.layers[pair].lay_out(front_acts[pair.front_layer][batch.sampled])
            self._widths[source].add(laid_out)

    def add_stitches(
        self, pairs: Sequence[Pair], stitched: Mapping[str, Tensor], batch: TestBatch
    ) -> None:
        """Add a group of P stitches into one end layer, behind the end network's activations of the batch.

        Args:
            stitched: activations (P, B, …) at the end layer and in the output, from
                `Grid.stitched`.
        """
        layer = pairs[0].end_layer
        at_end = stitched[layer]
        logits = stitched[self.grid.output_name]
        classes = predicted_classes(logits)  # (P, B)
        is_right = torch.where(classes == NO_CLASS, math.nan, classes == batch.labels)
        for pair, right in zip(pairs, is_right, strict=True):
            self._is_right[pair].append(right)
        for score, detectors in self.reference.detectors.items():
            if layer not in detectors:
                continue
            scores = detectors[layer].score(at_end.flatten(0, 1)).unflatten(0, (len(pairs), -1))
            for pair, values in zip(pairs, scores, strict=True):
                self._scores[pair].setdefault(score, []).append(values)
        if len(batch.sampled):
            sampled = (at_end[:, batch.sampled], logits[:, batch.sampled])
            self._following.add_stitches(pairs, layer, *sampled)

    @functools.cached_property
    def keys(self) -> dict[Pair, BaselineKey]:
        """The key of the baseline of each pair, once all batches are added."""
        widths = {source: running.rank for source, running in self._widths.items()}
        keys = {}
        for pair in self.grid.pairs:
            width = widths[source_key(pair, self.grid.layers[pair])]
            width = min(width, self.grid.front_rank or width)
            keys[pair] = self.reference.baselines.key(pair.end_layer, width, self.grid.form)
        return keys

    def scores(self) -> dict[Pair, OodEvaluation]:
        """Return the scores of each pair; the scores of its batches are dropped."""
        keys = self.keys
        baselines = self.reference.baselines.measured(keys.values())
        scores = {}
        for pair, key in keys.items():
            is_right = torch.cat(self._is_right[pair])
            of_pair = self._scores.pop(pair)
            scores[pair] = OodEvaluation(
                accuracy=is_right.sum().item() / len(is_right),
                scores={name: torch.cat(parts).cpu().numpy() for name, parts in of_pair.items()},
                skill=skill_of(self._following.products(pair), baselines[key]),
            )
        return scores


def separation_of(stitched: np.ndarray, own: np.ndarray, *, is_paired: bool) -> Separation:
    """Measure how well scores separate stitched activations from the activations of the end network.

    Args:
        stitched: scores of stitched activations, (M,), high for OOD.
        own: scores of the end network's activations, (N,).
        is_paired: both are of the same images, in the same order.
    """
    mean_own = float(own.mean())
    if not np.isfinite(stitched).all():
        return Separation(mean_id_energy=mean_own)
    metrics = ood_metrics(own, stitched)
    interval = auroc_interval(own, stitched, paired=is_paired)
    return Separation(*metrics, *interval, float(stitched.mean()), mean_own)
