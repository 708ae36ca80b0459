"""Stitches between many pairs of layers of two networks, on shared passes.

A batch of images takes one pass of the front network for all front layers, and one pass of the end
network for all end layers. Stitches into one end layer then run through the end network together,
concatenated along the batch, as many as `Fitting` allows: on a CPU 256 rows, which is one pair at
the default batch size. Frozen networks in evaluation mode treat samples independently, so a
pair in a grid gets the results of a grid of that pair only.
"""

import contextlib
import copy
import itertools
import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.core.activations import at_least_single
from src.core.choices.stitching import OBJECTIVES, Objective
from src.core.console import listed, warn_once
from src.core.errors import not_finite
from src.core.grouping import grouped
from src.core.values import Metrics, Pair
from src.datasets.base import Batches, batches_in
from src.low_rank import low_rank_approx
from src.models import Network, activations_of_both
from src.statistics.moments import Moments, Rows
from src.stitching.layers import StitchingLayer
from src.stitching.objectives import loss_of
from src.training import (
    NO_CLASS,
    HeadLosses,
    Task,
    classification_losses,
    predicted_classes,
)
from src.training.task import Head

SHARE_OF_FREE = 0.8  # of the free memory of a GPU; the rest is a reserve
SHARE_OF_GPU = 0.25  # of all memory of a GPU: it is free in most runs, so that groups stay the same
ROWS_OF_CPU = 256  # more rows at once overrun the caches
ROUNDING = 1e-6  # of activations


class GridMetrics(NamedTuple):
    """The metrics of the stitches of a grid on a data set, and all predicted classes."""

    pairs: dict[Pair, Metrics]
    # Classes (N,) by pair, and of "front" (-1 for an encoder), "end" and "labels"
    predictions: dict[Pair | str, Tensor]


class Grid(Task[Pair]):
    """Stitching layers between pairs of layers of two networks, and the task of training the layers.

    Args:
        front: the network in which stitches begin.
        end: the network in which stitches end; may be the same object.
        layers: the stitching layer of each pair.
        front_rank: truncate front activations to this rank in each batch (see `low_rank_approx`);
            None: do not truncate.
        objective: the loss of training.
        l1_coef: weight of the l1 norm of the stitching layers in the loss of training.
        form: the closed form that the layers are of; "": they are trained, or of a user's form.
        frozen: keep both networks in evaluation mode during training. Otherwise, as in the public
            code, their parameters are fixed, but their BatchNorm statistics move. Then `front` and
            `end` of the grid are copies, and there can be only one pair.

    Attributes:
        layers: the stitching layer of each pair, in the order in which the pairs run: one end layer
            after the next.
        pairs: the layers of the stitches, in that order.
        originals: the networks without moved statistics, by "front" and "end".
        output_name: the layer of the end network with its logits.
        front_output: the layer of the front network with its logits; None: it is an encoder.
        compared: for each end layer, the layers at which the objective compares activations.

    Raises:
        ValueError: several pairs, and `frozen` is false.
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
        form: str = "",
        frozen: bool = True,
    ):
        if not frozen and len(layers) > 1:
            raise ValueError("networks whose statistics move cannot be shared by several pairs")
        self.front_rank = front_rank
        self.objective = objective
        self.l1_coef = l1_coef
        self.form = form
        self.frozen = frozen
        self.front_layers = list(dict.fromkeys(pair.front_layer for pair in layers))

        # Pairs run one end layer after the next
        self.pairs_into = grouped(layers, lambda pair: pair.end_layer)
        self.pairs = list(itertools.chain.from_iterable(self.pairs_into.values()))
        self.layers = {pair: layers[pair] for pair in self.pairs}
        self.heads = self.layers
        self.end_layers = list(self.pairs_into)

        self.output_name = end.output_name
        self.front_output: str | None = None  # None: an encoder gives no logits
        if not front.is_encoder:
            self.front_output = front.output_name
        self.fitting = Fitting(front.example.device)

        self.compared = {}
        for end_layer in self.end_layers:
            behind = [end_layer, *end.behind(end_layer), end.output_name]
            self.compared[end_layer] = behind[objective.compares]
        all_compared = itertools.chain.from_iterable(self.compared.values())
        self.compared_layers = list(dict.fromkeys(all_compared))

        self.originals = {"front": front, "end": end}
        self.front = front
        self.end = end
        self.modules: list[Head] = [*self.layers.values()]
        if not frozen:
            self.front = _contiguous_copy(front)
            self.end = _contiguous_copy(end)
            self.modules += [self.front, self.end]

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        """Yield the losses of all stitches on a batch, a group of pairs at a time.

        The groups follow the order of `layers`. A group has one end layer; the pairs of an end
        layer may be several groups, as memory allows. Without logits, as in training on an
        objective that measures no accuracy, cross-entropies and hits are NaN.

        Args:
            images: (B, C, H, W).
            labels: (B,); -1 means unlabelled.
            training: add the l1 term to the objective, leave out logits that it does not need, and
                keep no activations.
        """
        needs_logits = self.objective.measures_accuracy or not training
        logits = [self.output_name] * needs_logits
        behind = {end_layer: [*names, *logits] for end_layer, names in self.compared.items()}
        with torch.no_grad():
            front_acts, target_acts = activations_of_both(
                self.front,
                self.front_layers,
                self.originals["end"],
                self.compared_layers,
                images,
                keep=not training,
            )

        for pairs, stitched in self.stitched(front_acts, images, behind):
            if needs_logits:
                group = classification_losses(stitched[self.output_name], labels)
            else:
                unknown = torch.full((len(pairs),), math.nan, device=labels.device)
                group = HeadLosses(unknown, unknown, unknown, (labels >= 0).sum())
            losses = group.losses
            if self.objective.loss:
                losses = self._compared_losses(pairs[0].end_layer, stitched, target_acts)
            if training and self.l1_coef:
                norms = torch.stack([self.layers[pair].l1_norm() for pair in pairs])
                losses = losses + self.l1_coef * norms
            yield group._replace(losses=losses)

    def _compared_losses(
        self, end_layer: str, stitched: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the mean loss of an objective over the compared layers, (P,).

        Args:
            end_layer: of all P pairs.
            stitched: activations (P, B, …) of the stitched networks, by layer.
            targets: activations (B, …) of the end network, by layer.
        """
        loss = loss_of(self.objective)
        losses = [loss(stitched[layer], targets[layer]) for layer in self.compared[end_layer]]
        return torch.stack(losses).mean(0)

    @torch.no_grad()
    def evaluate(self, batches: Batches) -> GridMetrics:
        """Return the metrics of all stitches, and the predictions of stitches and networks.

        Everything switches to evaluation mode. If statistics moved in training, predictions and
        accuracies of the two networks are still those of `originals`. The representation difference
        and R² compare a stitch with the moved end network.

        Args:
            batches: images (B, C, H, W) and labels (B,) of a data set.
        Raises:
            UserError: the logits of a network or a stitch are not finite.
            UserError: the batches are no pairs of inputs and labels.
        """
        evaluation = GridEvaluation(self)
        self.train(False)
        for images, labels in batches_in(batches):
            front_acts, end_acts = self.activations(images)
            evaluation.add_networks(images, labels, front_acts, end_acts)
            for pairs, stitched in self.stitched(front_acts, images):
                evaluation.add_stitches(pairs, stitched, end_acts)
        return evaluation.score()

    def activations(self, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the activations (B, …) of the front layers and of the end layers, and the logits
        of both networks, by layer.

        Args:
            images: (B, C, H, W).
        """
        front_names = filter(None, [*self.front_layers, self.front_output])
        end_names = [*self.end_layers, self.output_name]
        return activations_of_both(
            self.front,
            list(dict.fromkeys(front_names)),
            self.end,
            list(dict.fromkeys(end_names)),
            images,
            keep=True,
        )

    def stitched(
        self,
        acts: Mapping[str, Tensor],
        images: Tensor,
        behind: Mapping[str, Sequence[str]] | None = None,
    ) -> Iterator[tuple[list[Pair], dict[str, Tensor]]]:
        """Yield groups of P pairs, with the activations (P, B, …) of the stitched networks by layer.

        All pairs of a group have one end layer. Its activations are among those of the group. The
        pairs of an end layer may be several groups, as memory allows.

        Args:
            acts: activations (B, …) of the front network, by layer; not truncated yet.
            images: (B, C, H, W).
            behind: for each end layer, the layers behind it whose activations are needed; without any the end
                network does not run. None: the output (P, B, n_classes), by the name `output_name`.
        """
        if behind is None:
            behind = dict.fromkeys(self.end_layers, [self.output_name])
        sources = {name: low_rank_approx(acts[name], self.front_rank) for name in self.front_layers}
        n_samples = len(images)
        for end_layer, pairs_of_layer in self.pairs_into.items():
            names = [name for name in dict.fromkeys(behind[end_layer]) if name != end_layer]
            kind = (end_layer, torch.is_grad_enabled())
            waiting = pairs_of_layer
            while waiting:
                # As many pairs as fit into the memory of the device
                n_together = max(1, self.fitting.rows(kind) // n_samples)
                pairs = waiting[:n_together]
                waiting = waiting[n_together:]
                with self.fitting.measured(kind, len(pairs) * n_samples):
                    stitched = torch.cat(
                        [self.layers[pair](sources[pair.front_layer]) for pair in pairs]
                    )
                    by_layer = {end_layer: stitched}
                    if names:
                        by_layer |= self.end.activations(
                            stitched, names, after=end_layer, images=images
                        )
                    shape = (len(pairs), -1)
                    yield pairs, {name: act.unflatten(0, shape) for name, act in by_layer.items()}
                    del stitched, by_layer  # free their memory for the next group


class Fitting:
    """Tells how many rows of a batch fit into the memory of a device at once.

    Rows differ by the kind of work that is done with a row. On a GPU the number follows from a share
    of its memory, or of its free memory where that is less, and from the memory that earlier rows of
    the kind took. It is a power of two. So groups, and with them rounding, are the same in each run
    on a GPU that has enough free memory. On other devices it is always `ROWS_OF_CPU`.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._bytes_per_row: dict[Hashable, float] = {}  # by kind

    def rows(self, kind: Hashable) -> int:
        """Return the number of rows of a kind that fit; 1 until rows of the kind were measured."""
        if self.device.type != "cuda":
            return ROWS_OF_CPU
        if kind not in self._bytes_per_row:
            return 1
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        free, total = torch.cuda.mem_get_info(self.device)
        n_bytes = min(SHARE_OF_FREE * (free + cached), SHARE_OF_GPU * total)
        n_rows = max(1, int(n_bytes / self._bytes_per_row[kind]))
        return 2 ** (n_rows.bit_length() - 1)

    @contextlib.contextmanager
    def measured(self, kind: Hashable, n_rows: int) -> Iterator[None]:
        """Measure the memory that the block takes for `n_rows` rows of a kind."""
        if self.device.type != "cuda":
            yield
            return
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        yield
        peak = torch.cuda.max_memory_allocated(self.device) - before
        self._bytes_per_row[kind] = max(1, peak) / n_rows


class GridEvaluation:
    """The metrics of the stitches of a grid, which grow batch by batch.

    A batch is added by `add_networks`, and then `add_stitches` for each group of stitches.

    Args:
        grid: to be in evaluation mode when batches are added.
    """

    def __init__(self, grid: Grid):
        self.grid = grid
        # Classes (B,) of each batch, by pair, and of "front", "end" and "labels"
        self._predictions: defaultdict[Pair | str, list[Tensor]] = defaultdict(list)
        # ‖H−G‖² of stitched (H) and end activations (G), scalars
        self._residuals = {pair: torch.zeros((), dtype=torch.float64) for pair in grid.pairs}
        # Of the end network's activations, by end layer
        self._targets = dict.fromkeys(grid.end_layers, Moments())
        self._first: dict[str, Tensor] = {}  # front activations (1, …) of the first image
        self._constant = grid.pairs  # those whose layers map the same for all images so far

    def add_networks(
        self,
        images: Tensor,
        labels: Tensor,
        front_acts: Mapping[str, Tensor],
        end_acts: Mapping[str, Tensor],
    ) -> None:
        """Add the two networks without a stitch, on a batch of images (B, C, H, W).

        Args:
            labels: (B,).
            front_acts, end_acts: from `Grid.activations`.
        """
        grid = self.grid
        logits = {"end": end_acts[grid.output_name]}
        if grid.front_output is not None:
            logits["front"] = front_acts[grid.front_output]
        if not grid.frozen:
            logits = {side: grid.originals[side](images) for side in logits}
        for side, logits_of_side in logits.items():
            self._predictions[side].append(predicted_classes(logits_of_side))
        self._predictions["labels"].append(labels)
        for front_layer in grid.front_layers:
            self._first.setdefault(front_layer, front_acts[front_layer][:1].clone())
        self._constant = [pair for pair in self._constant if self._is_constant(pair, front_acts)]
        for end_layer in grid.end_layers:
            moments = Rows.of(end_acts[end_layer]).moments(diagonal=True)
            self._targets[end_layer] = self._targets[end_layer].pooled(moments)

    def _is_constant(self, pair: Pair, front_acts: Mapping[str, Tensor]) -> bool:
        """Return whether the input of the layer of a pair is that of the first image, but for rounding."""
        layer = self.grid.layers[pair]
        first = layer.lay_out(self._first[pair.front_layer])
        acts = front_acts[pair.front_layer]
        for some in (acts[:2], acts):  # two images show that most layers vary
            if not torch.allclose(layer.lay_out(some), first, rtol=ROUNDING, atol=0):
                return False
        return True

    def add_stitches(
        self, pairs: Sequence[Pair], stitched: Mapping[str, Tensor], end_acts: Mapping[str, Tensor]
    ) -> None:
        """Add a group of P stitches into one end layer, on the images of the last batch.

        Args:
            stitched: activations (P, B, …) at the end layer and in the output, from
                `Grid.stitched`.
            end_acts: from `Grid.activations`.
        """
        end_layer = pairs[0].end_layer
        squares = (at_least_single(stitched[end_layer]) - end_acts[end_layer]).square_()
        residuals = squares.flatten(1).sum(1, dtype=torch.float64)
        predicted = predicted_classes(stitched[self.grid.output_name])
        for pair, residual, classes in zip(pairs, residuals, predicted, strict=True):
            self._residuals[pair] = self._residuals[pair] + residual
            self._predictions[pair].append(classes)

    def score(self) -> GridMetrics:
        """Return the metrics of all stitches, and the predictions of stitches and networks.

        Warns of front layers whose activations are constant.

        Raises:
            UserError: the logits of a network or a stitch are not finite.
        """
        classes = {name: torch.cat(parts).cpu() for name, parts in self._predictions.items()}
        for name, predicted in classes.items():
            if (predicted == NO_CLASS).any():
                title = str(name)
                if name in self.grid.originals:
                    title = f"the {name} network"
                raise not_finite(title)
        constant = dict.fromkeys(pair.front_layer for pair in self._constant)
        if constant and len(classes["labels"]) > 1:
            warn_once(
                f"the activations of {listed(constant)} of the front network are constant over the test inputs, so "
                "that its stitches show the end network the same input each time; check that the network is trained, "
                "and its inputs"
            )
        no_classes = torch.full_like(classes["labels"], -1)
        return GridMetrics(self._metrics(classes), {"front": no_classes, **classes})

    def _metrics(self, classes: Mapping[Pair | str, Tensor]) -> dict[Pair, Metrics]:
        """Return the metrics of each pair.

        Args:
            classes: predicted classes (N,) by pair, of "end", maybe of "front", and the "labels".
        """
        grid = self.grid
        n_images = len(classes["labels"])
        accuracy = {}
        for name, predicted in classes.items():
            accuracy[name] = (predicted == classes["labels"]).sum().item() / n_images
        front_relative_depths = grid.front.relative_depths(grid.front_layers)
        end_relative_depths = grid.end.relative_depths(grid.end_layers)
        cuts = grid.end.cut_names
        metrics = {}
        for pair, residual in self._residuals.items():
            target = self._targets[pair.end_layer]
            agreement, kappa = agreement_of(classes[pair], classes["end"])
            metrics[pair] = Metrics(
                accuracy=accuracy[pair],
                front_accuracy=accuracy.get("front", math.nan),
                end_accuracy=accuracy["end"],
                representation_difference=(residual / target.squared_norm).item(),
                agreement=agreement,
                kappa=kappa,
                n_images=n_images,
                r2_test=target.r2(residual),
                front_depth=grid.front.depth(pair.front_layer),
                end_depth=grid.end.depth(pair.end_layer),
                front_relative_depth=front_relative_depths[pair.front_layer],
                end_relative_depth=end_relative_depths[pair.end_layer],
                end_is_cut=pair.end_layer in cuts,
                front_nondeterminism=grid.originals["front"].nondeterminism or None,
                end_nondeterminism=grid.originals["end"].nondeterminism or None,
            )
        return metrics


def _contiguous_copy(network: Network) -> Network:
    """Return a copy of a network in the contiguous memory format.

    In channels_last, moving statistics of BatchNorm are imprecise on a CPU.
    """
    return copy.deepcopy(network).to(memory_format=torch.contiguous_format)


def agreement_of(predictions: Tensor, references: Tensor) -> tuple[float, float]:
    """Compare two predictions (N,) of the same images.

    Returns:
        The share of images with equal predictions, and Cohen's kappa (1960). Kappa is 1 for equal
        predictions, 0 for agreement by chance, and NaN if both predict one class for all images.
    """
    n_classes = 1 + int(torch.maximum(predictions, references).max())
    n_images = len(predictions)
    shares = torch.bincount(predictions, minlength=n_classes).double() / n_images
    reference_shares = torch.bincount(references, minlength=n_classes).double() / n_images
    observed = (predictions == references).double().mean().item()
    by_chance = (shares @ reference_shares).item()
    if by_chance == 1:
        return observed, math.nan
    return observed, (observed - by_chance) / (1 - by_chance)
