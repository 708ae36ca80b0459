"""Stitches between many pairs of layers of two networks on shared passes; one pair is a grid of one.

Each batch takes one pass of the front network for all front layers and one of the end network for all end layers.
Stitches into the same end layer go on together, one behind the other along the batch: frozen networks in
evaluation mode treat samples independently, so every pair gets what it would get alone.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.choices import resolve
from src.choices.stitching import OBJECTIVES, Objective
from src.low_rank import low_rank_approx
from src.models import Network
from src.moments import Moments, Rows
from src.results.experiments import Pair
from src.runtime import Fitting, at_least_single
from src.stitching.layers import StitchingLayer
from src.stitching.matching import Batches
from src.stitching.moments import r2_of
from src.stitching.rows import Metrics
from src.stitching.stitched_model import activations_of_both
from src.training import HeadLosses, Task, classification_losses


class GridScore(NamedTuple):
    """What the stitches of a grid, and its two networks alone, give on a data set."""

    pairs: dict[Pair, Metrics]
    predictions: dict[Pair | str, Tensor]  # (N,): classes; by pair, of `front` (-1 of an encoder) and `end`, and labels


class Grid(Task):
    """Stitching layers between pairs of layers of two networks; also the task of training them.

    Args:
        front: the network that stitches start with.
        end: the network that they end with; may be the same object.
        layers: the stitching layer of each pair.
        front_rank: retained rank of front activations, cut in each batch (see low_rank_approx); None keeps all.
        objective: what training minimises.
        l1_coef: weight of the l1 norm of weights and biases in the training loss.
        frozen: keep both networks in evaluation mode while training. Otherwise, as in the public code, their
            parameters are fixed but their BatchNorm statistics move, in copies that are `front` and `end` of the
            grid; then there can be only one pair.
    """

    def __init__(
        self,
        front: Network,
        end: Network,
        layers: Mapping[Pair, StitchingLayer],
        *,
        front_rank: int | None = None,
        objective: Objective = OBJECTIVES["task"],
        l1_coef: float = 0.0,
        frozen: bool = True,
    ):
        if not frozen and len(layers) > 1:
            raise ValueError("networks whose statistics move cannot be shared by several pairs")
        self.front_rank, self.objective, self.l1_coef, self.frozen = front_rank, objective, l1_coef, frozen
        self.fitting = Fitting(next(front.parameters()).device)
        self.front_layers = list(dict.fromkeys(pair.front_layer for pair in layers))
        self.end_layers = list(dict.fromkeys(pair.end_layer for pair in layers))
        # In the order in which they run: one end layer after the other
        self.layers = {pair: layers[pair] for name in self.end_layers for pair in layers if pair.end_layer == name}
        self.heads = list(self.layers.values())
        self.compared = {name: objective.compared(name, end.behind(name), end.output_name) for name in self.end_layers}
        self.targets = list(dict.fromkeys(name for names in self.compared.values() for name in names))
        self.given = {"front": front, "end": end}  # targets and networks alone do not move with the statistics
        self.front, self.end = (front, end) if frozen else map(_contiguous_copy, (front, end))
        self.modules = [*self.heads, *([] if frozen else [self.front, self.end])]
        self.names = list(map(str, self.layers))

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        """Yield the objective of all stitches on a batch, in training plus the l1 term.

        Where an objective measures no accuracy, cross-entropies and hits of training are NaN.

        Args:
            images: (B, C, H, W).
        """
        logits = [self.end.output_name] if self.objective.measures_accuracy or not training else []
        behind = {name: [*compared, *logits] for name, compared in self.compared.items()}
        with torch.no_grad():
            acts, own = activations_of_both(self.front, self.front_layers, self.given["end"], self.targets, images)
            sources = self._truncated(acts)
        for pairs, stitched in self._tails(images, sources, behind):
            if self.end.output_name in stitched:
                group = classification_losses(stitched[self.end.output_name], labels)
            else:
                unknown = torch.full((len(pairs),), math.nan, device=labels.device)
                group = HeadLosses(unknown, unknown, unknown, (labels >= 0).sum())
            losses = group.losses
            if self.objective.function:
                loss, names = resolve(__package__, self.objective.function), self.compared[pairs[0].end_layer]
                losses = torch.stack([loss(stitched[name], own[name]) for name in names]).mean(0)
            if training and self.l1_coef:
                losses = losses + self.l1_coef * torch.stack([self.layers[pair].l1_norm() for pair in pairs])
            yield group._replace(losses=losses)

    @torch.no_grad()
    def evaluate(self, batches: Batches) -> GridScore:
        """Measure accuracy, predictions and representation difference of all stitches, and the given networks."""
        self.train(False)
        front_output = [] if self.front.is_encoder else [self.front.output_name]
        front_names = list(dict.fromkeys([*self.front_layers, *front_output]))
        end_names = list(dict.fromkeys([*self.end_layers, self.end.output_name]))
        predictions: dict[Pair | str, list[Tensor]] = defaultdict(list)
        residuals: dict[Pair, Tensor | float] = defaultdict(float)
        targets = dict.fromkeys(self.end_layers, Moments())
        for images, labels in batches:
            front_acts, end_acts = activations_of_both(self.front, front_names, self.end, end_names, images)
            predictions["labels"].append(labels)
            alone = {"end": end_acts[self.end.output_name]}
            if front_output:
                alone["front"] = front_acts[self.front.output_name]
            if not self.frozen:
                alone = {side: self.given[side](images) for side in alone}
            for side, logits in alone.items():
                predictions[side].append(logits.argmax(-1))
            for name in self.end_layers:
                targets[name] = targets[name].pooled(Rows.of(end_acts[name]).moments(diagonal=True))
            for pairs, stitched, logits in self.stitched(front_acts, images):
                squares = (at_least_single(stitched) - end_acts[pairs[0].end_layer]).square_()
                differences = squares.flatten(1).sum(1, dtype=torch.float64)
                for pair, difference, classes in zip(pairs, differences, logits.argmax(-1), strict=True):
                    residuals[pair] += difference
                    predictions[pair].append(classes)
        classes = {name: torch.cat(parts).cpu() for name, parts in predictions.items()}
        labels = classes["labels"]
        accuracy = {name: (found == labels).sum().item() / len(labels) for name, found in classes.items()}
        metrics = {}
        for pair, residual in residuals.items():
            target = targets[pair.end_layer]
            agreement, kappa = agreement_of(classes[pair], classes["end"])
            metrics[pair] = Metrics(
                accuracy=accuracy[pair],
                front_accuracy=accuracy.get("front", math.nan),
                end_accuracy=accuracy["end"],
                representation_difference=(residual / target.squared_norm).item(),
                agreement=agreement,
                kappa=kappa,
                n_images=len(labels),
                r2_test=r2_of(target, residual),
                front_depth=self.front.depth(pair.front_layer),
                end_depth=self.end.depth(pair.end_layer),
            )
        return GridScore(metrics, {"front": torch.full_like(labels, -1), **classes})

    def stitched(self, acts: Mapping[str, Tensor], images: Tensor) -> Iterator[tuple[list[Pair], Tensor, Tensor]]:
        """Yield some pairs at a time with their stitched activations (P, B, …) and logits (P, B, n_classes).

        Args:
            acts: of the front network.
            images: (B, C, H, W).
        """
        behind = dict.fromkeys(self.end_layers, [self.end.output_name])
        for pairs, found in self._tails(images, self._truncated(acts), behind):
            yield pairs, found[pairs[0].end_layer], found[self.end.output_name]

    def _truncated(self, acts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: low_rank_approx(acts[name], self.front_rank) for name in self.front_layers}

    def _tails(
        self, images: Tensor, sources: Mapping[str, Tensor], behind: Mapping[str, Sequence[str]]
    ) -> Iterator[tuple[list[Pair], dict[str, Tensor]]]:
        """Yield some pairs at a time with their activations (P, B, …) at the end layer and at others behind it.

        Args:
            images: (B, C, H, W).
            sources: by front layer, truncated to the rank of the grid.
            behind: those others by end layer; where there are none, no part of the end network runs.
        """
        for end_layer in self.end_layers:
            group = [pair for pair in self.layers if pair.end_layer == end_layer]
            names = [name for name in dict.fromkeys(behind[end_layer]) if name != end_layer]
            kind = end_layer, torch.is_grad_enabled()
            while group:
                n_samples = len(images)
                n_together = max(1, self.fitting.rows(kind) // n_samples)
                pairs, group = group[:n_together], group[n_together:]
                with self.fitting.measured(kind, len(pairs) * n_samples):
                    stitched = torch.cat([self.layers[pair](sources[pair.front_layer]) for pair in pairs])
                    acts = {end_layer: stitched}
                    if names:
                        acts |= self.end.activations(stitched, names, after=end_layer, images=images)
                    yield pairs, {name: act.unflatten(0, (len(pairs), -1)) for name, act in acts.items()}
                    del stitched, acts  # their memory is for the next


def _contiguous_copy(network: Network) -> Network:
    """Copy a network whose statistics are to move: in channels_last, those of BatchNorm on a CPU are imprecise."""
    return copy.deepcopy(network).to(memory_format=torch.contiguous_format)


def agreement_of(predictions: Tensor, others: Tensor) -> tuple[float, float]:
    """Compare two predictions (N,) of the same images.

    Returns:
        The share of equal ones, and Cohen's kappa (1960): 1 for equal ones, 0 for no more than chance, NaN where both
        give one and the same class.
    """
    n_classes = 1 + int(torch.maximum(predictions, others).max())
    shares = [torch.bincount(classes, minlength=n_classes).double() / len(classes) for classes in (predictions, others)]
    observed, by_chance = (predictions == others).double().mean().item(), (shares[0] @ shares[1]).item()
    return observed, math.nan if by_chance == 1 else (observed - by_chance) / (1 - by_chance)
