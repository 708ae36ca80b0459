"""Stitches between many pairs of layers of two networks on shared passes; one pair is a grid of
one.

Each batch takes one pass of the front network for all front layers and one of the end network for
all end layers. Stitches into the same end layer go on together, one behind the other along the
batch: frozen networks in evaluation mode treat samples independently, so every pair gets what it
would get alone."""

import copy
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.choices.stitching import OBJECTIVES, Objective
from src.low_rank import low_rank_approx
from src.models import Network
from src.moments import Moments, Rows
from src.runtime import Fitting, at_least_single
from src.stitching.experiments import Pair
from src.stitching.layers import StitchingLayer
from src.stitching.matching import Batches
from src.stitching.moments import r2_of
from src.stitching.objectives import loss_of
from src.stitching.stitch_rows import Metrics
from src.stitching.stitched_model import activations_of_both
from src.training import HeadLosses, Task, classification_losses


class GridScore(NamedTuple):
    """Metrics of the stitches of a grid on a data set, and the classes that they and the two
    networks predict."""

    pairs: dict[Pair, Metrics]
    predictions: dict[
        Pair | str, Tensor
    ]  # (N,): classes; by pair, of `front` (-1 of an encoder) and `end`, and labels


class _Sums(NamedTuple):
    """What an evaluation adds up over batches."""

    predictions: dict[
        Pair | str, list[Tensor]
    ]  # classes by pair, of `front` and `end`, and labels; (B,) a batch
    residuals: dict[
        Pair, Tensor | float
    ]  # squared differences between stitched and target activations
    targets: dict[str, Moments]  # of the end network's activations, by end layer


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
        self.front_rank = front_rank
        self.objective = objective
        self.l1_coef = l1_coef
        self.frozen = frozen
        self.fitting = Fitting(next(front.parameters()).device)
        self.front_layers = list(dict.fromkeys(pair.front_layer for pair in layers))
        self.end_layers = list(dict.fromkeys(pair.end_layer for pair in layers))
        # In the order in which they run: one end layer after the other
        self.layers = {
            pair: layers[pair]
            for name in self.end_layers
            for pair in layers
            if pair.end_layer == name
        }
        self.heads = list(self.layers.values())
        self.compared = {
            name: objective.compared(name, end.behind(name), end.output_name)
            for name in self.end_layers
        }
        self.targets = list(
            dict.fromkeys(name for names in self.compared.values() for name in names)
        )
        self.given = {
            "front": front,
            "end": end,
        }  # targets and networks alone do not move with the statistics
        self.front = front if frozen else _contiguous_copy(front)
        self.end = end if frozen else _contiguous_copy(end)
        self.modules = [*self.heads, *([] if frozen else [self.front, self.end])]
        self.names = list(map(str, self.layers))

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        """Yield the objective of all stitches on a batch, in training plus the l1 term.

        Where an objective measures no accuracy, cross-entropies and hits of training are NaN.

        Args:
            images: (B, C, H, W).
        """
        output_name = self.end.output_name
        needs_logits = self.objective.measures_accuracy or not training
        output_names = [output_name] if needs_logits else []
        behind = {
            end_layer: [*compared, *output_names] for end_layer, compared in self.compared.items()
        }
        with torch.no_grad():
            front_acts, target_acts = activations_of_both(
                self.front, self.front_layers, self.given["end"], self.targets, images
            )
            sources = self._truncated(front_acts)
        for pairs, stitched in self._tails(images, sources, behind):
            if needs_logits:
                group = classification_losses(stitched[output_name], labels)
            else:
                unknown = torch.full((len(pairs),), math.nan, device=labels.device)
                group = HeadLosses(unknown, unknown, unknown, (labels >= 0).sum())
            losses = group.losses
            if self.objective.loss:
                loss = loss_of(self.objective)
                names = self.compared[pairs[0].end_layer]
                losses = torch.stack(
                    [loss(stitched[name], target_acts[name]) for name in names]
                ).mean(0)
            if training and self.l1_coef:
                losses = losses + self.l1_coef * torch.stack(
                    [self.layers[pair].l1_norm() for pair in pairs]
                )
            yield group._replace(losses=losses)

    @torch.no_grad()
    def evaluate(self, batches: Batches) -> GridScore:
        """Return accuracies, predictions and representation differences of all stitches and of the
        given networks."""
        self.train(False)
        sums = _Sums(
            predictions=defaultdict(list),
            residuals=defaultdict(float),
            targets=dict.fromkeys(self.end_layers, Moments()),
        )
        for images, labels in batches:
            sums.predictions["labels"].append(labels)
            self._add_batch(images, sums)
        classes = {name: torch.cat(parts).cpu() for name, parts in sums.predictions.items()}
        metrics = self._metrics(classes, sums)
        no_classes = torch.full_like(classes["labels"], -1)
        return GridScore(metrics, {"front": no_classes, **classes})

    def _add_batch(self, images: Tensor, sums: "_Sums") -> None:
        """Add what the stitches and the networks alone give on a batch of images."""
        # One pass of each network
        front_names = list(self.front_layers)
        if not self.front.is_encoder:
            front_names.append(self.front.output_name)
        end_names = [*self.end_layers, self.end.output_name]
        front_acts, end_acts = activations_of_both(
            self.front,
            list(dict.fromkeys(front_names)),
            self.end,
            list(dict.fromkeys(end_names)),
            images,
        )

        # The networks alone
        logits = {"end": end_acts[self.end.output_name]}
        if not self.front.is_encoder:
            logits["front"] = front_acts[self.front.output_name]
        if not self.frozen:
            logits = {side: self.given[side](images) for side in logits}
        for side, logits_of_side in logits.items():
            sums.predictions[side].append(logits_of_side.argmax(-1))
        for end_layer in self.end_layers:
            moments = Rows.of(end_acts[end_layer]).moments(diagonal=True)
            sums.targets[end_layer] = sums.targets[end_layer].pooled(moments)

        # The stitches
        for pairs, stitched, stitched_logits in self.stitched(front_acts, images):
            squares = (at_least_single(stitched) - end_acts[pairs[0].end_layer]).square_()
            residuals = squares.flatten(1).sum(1, dtype=torch.float64)
            for pair, residual, classes in zip(
                pairs, residuals, stitched_logits.argmax(-1), strict=True
            ):
                sums.residuals[pair] += residual
                sums.predictions[pair].append(classes)

    def _metrics(self, classes: Mapping[Pair | str, Tensor], sums: "_Sums") -> dict[Pair, Metrics]:
        """Return the metrics of each pair, from predicted classes (N,) by pair and network, and the
        labels."""
        labels = classes["labels"]
        n_images = len(labels)
        accuracy = {
            name: (predicted == labels).sum().item() / n_images
            for name, predicted in classes.items()
        }
        metrics = {}
        for pair, residual in sums.residuals.items():
            target = sums.targets[pair.end_layer]
            agreement, kappa = agreement_of(classes[pair], classes["end"])
            metrics[pair] = Metrics(
                accuracy=accuracy[pair],
                front_accuracy=accuracy.get("front", math.nan),
                end_accuracy=accuracy["end"],
                representation_difference=(residual / target.squared_norm).item(),
                agreement=agreement,
                kappa=kappa,
                n_images=n_images,
                r2_test=r2_of(target, residual),
                front_depth=self.front.depth(pair.front_layer),
                end_depth=self.end.depth(pair.end_layer),
            )
        return metrics

    def stitched(
        self, acts: Mapping[str, Tensor], images: Tensor
    ) -> Iterator[tuple[list[Pair], Tensor, Tensor]]:
        """Yield some pairs at a time with their stitched activations (P, B, …) and logits (P, B,
        n_classes).

        Args:
            acts: of the front network, by layer.
            images: (B, C, H, W).
        """
        output_name = self.end.output_name
        behind = dict.fromkeys(self.end_layers, [output_name])
        for pairs, stitched in self._tails(images, self._truncated(acts), behind):
            yield pairs, stitched[pairs[0].end_layer], stitched[output_name]

    def _truncated(self, acts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: low_rank_approx(acts[name], self.front_rank) for name in self.front_layers}

    def _tails(
        self, images: Tensor, sources: Mapping[str, Tensor], behind: Mapping[str, Sequence[str]]
    ) -> Iterator[tuple[list[Pair], dict[str, Tensor]]]:
        """Yield some pairs at a time with their activations (P, B, …) at the end layer and at
        layers behind it.

        Args:
            images: (B, C, H, W).
            sources: by front layer, truncated to the rank of the grid.
            behind: the layers behind each end layer; where there are none, no part of the end network runs.
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
                    stitched = torch.cat(
                        [self.layers[pair](sources[pair.front_layer]) for pair in pairs]
                    )
                    acts = {end_layer: stitched}
                    if names:
                        acts |= self.end.activations(
                            stitched, names, after=end_layer, images=images
                        )
                    yield (
                        pairs,
                        {name: act.unflatten(0, (len(pairs), -1)) for name, act in acts.items()},
                    )
                    del stitched, acts  # their memory is for the next


def _contiguous_copy(network: Network) -> Network:
    """Copy a network whose statistics are to move: in channels_last, those of BatchNorm on a CPU
    are imprecise."""
    return copy.deepcopy(network).to(memory_format=torch.contiguous_format)


def agreement_of(predictions: Tensor, references: Tensor) -> tuple[float, float]:
    """Compare two predictions (N,) of the same images.

    Returns:
        The share of equal ones, and Cohen's kappa (1960): 1 for equal ones, 0 for no more than chance, NaN where both
        give one and the same class.
    """
    n_classes = 1 + int(torch.maximum(predictions, references).max())
    shares = [
        torch.bincount(classes, minlength=n_classes).double() / len(classes)
        for classes in (predictions, references)
    ]
    observed = (predictions == references).double().mean().item()
    by_chance = (shares[0] @ shares[1]).item()
    if by_chance == 1:
        return observed, math.nan
    return observed, (observed - by_chance) / (1 - by_chance)
