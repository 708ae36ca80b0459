"""Within-class products of many stitches, accumulated over batches.

Class means are known only after the last batch. So activations are taken about the means so far
(Welford 1962, a batch at a time): sums over all images are exact, and the products of an image differ
from those about the final means only for the first few images of a class.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.core.activations import ActivationShape, TokenLayout, at_least_single, cells
from src.core.console import note_once
from src.core.errors import not_finite
from src.core.precision import full_precision
from src.models import Network
from src.skill.within_class import WithinClass

MOST_SUMS = 2**22  # numbers of the class means at one layer: 16 MiB a stitch


class AtPlaces(NamedTuple):
    """The within-class products of a stitch at the end layer and at the output."""

    end_layer: WithinClass
    output: WithinClass


def centred_logits(logits: Tensor) -> Tensor:
    """Return logits (…, n_classes) less their mean over classes, which does not change the softmax."""
    logits = at_least_single(logits)
    return logits - logits.mean(-1, keepdim=True)


def side_of_cells(shape: Sequence[int], n_classes: int) -> int | None:
    """Return the side of the grid to which a layer is pooled, so that its class means have at most `MOST_SUMS`
    values; None if it is not pooled.

    Args:
        shape: of an activation of one image, (C, H, W), (T, D) or (D,).
    """
    form = ActivationShape.of(shape)
    if form.n_positions == 1 or n_classes * form.n_values <= MOST_SUMS:
        return None
    return max(1, math.isqrt(MOST_SUMS // (n_classes * form.n_channels)))


class _ClassMeans:
    """Running means of the classes."""

    def __init__(self, n_classes: int, like: Tensor):
        self._means = like.new_zeros(n_classes, like.shape[1])
        self._counts = like.new_zeros(n_classes, 1)

    def take(self, values: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Update the means with a batch (B, D); return the means (K, D) before and after it.

        A class that begins in the batch has its mean after the batch before it as well.
        """
        members = values.new_zeros(len(values), len(self._means))
        members.scatter_(1, classes[:, None], 1)  # (B, K)
        n_members = members.sum(0)[:, None]
        counts = self._counts + n_members
        means = self._means + (members.T @ values - n_members * self._means) / counts.clamp(min=1)
        earlier = torch.where(self._counts > 0, self._means, means)
        self._means = means
        self._counts = counts
        return earlier, means


class _EndPlace:
    """The end network's activations at its end layer or its output, and their squared norms within classes.

    All activations are taken about a centre, as large means would cost digits.
    """

    def __init__(self, n_classes: int, side: int | None = None, layout: TokenLayout | None = None):
        self.n_classes = n_classes
        self.side = side
        self.layout = layout
        self.squares: list[Tensor] = []  # (B,) of each batch
        self._centre: Tensor | float = 0.0
        self._means: _ClassMeans | None = None

    def coordinates(self, activations: Tensor) -> Tensor:
        """Return activations (N, …) flattened to (N, D), average-pooled where the layer is large."""
        values = at_least_single(activations)
        if self.side is not None:
            values = cells(values, self.layout, side=self.side)
        return values.flatten(1) - self._centre

    def take(self, end_acts: Tensor, classes: Tensor) -> None:
        """Add the end network's activations (B, …) of a batch; the stitches' activations follow."""
        values = self.coordinates(end_acts)
        if self._means is None:
            self._centre = values.mean(0)
            values = values - self._centre
            self._means = _ClassMeans(self.n_classes, values)
        earlier, later = self._means.take(values, classes)
        self.classes = classes
        self.rest = values - earlier[classes]  # (B, D)
        self.squares.append(_dots(self.rest, values) - _dots_with(later, self.rest, classes))


class _StitchPlace:
    """The activations of a stitch at its end layer or the output, and their products within classes."""

    def __init__(self) -> None:
        self.products: list[Tensor] = []  # (B,) of each batch
        self.squares: list[Tensor] = []
        self._means: _ClassMeans | None = None

    def take(self, stitched: Tensor, end: _EndPlace) -> None:
        """Add the stitched activations (B, …) of the batch that was last added to `end`."""
        values = end.coordinates(stitched)
        if self._means is None:
            self._means = _ClassMeans(end.n_classes, values)
        earlier, later = self._means.take(values, end.classes)
        # ⟨s − s̄, o − ō⟩ with s̄ after the batch and ō before it; ‖s − s̄‖² with one of either
        self.products.append(_dots(values, end.rest) - _dots_with(later, end.rest, end.classes))
        of_means = (earlier * later).sum(1)[end.classes]
        crossed = _dots_with(earlier + later, values, end.classes)
        self.squares.append(_dots(values, values) - crossed + of_means)


def _dots(first: Tensor, second: Tensor) -> Tensor:
    """Return the inner products (B,) of rows (B, D)."""
    return torch.einsum("bd,bd->b", first, second)


def _dots_with(means: Tensor, values: Tensor, classes: Tensor) -> Tensor:
    """Return the inner products (B,) of rows (B, D) with the means (K, D) of their classes."""
    return (values @ means.T).gather(1, classes[:, None])[:, 0]


class Following:
    """Accumulates the within-class products of stitches with their end network over batches.

        following.add_end(end_acts)                              for each batch
        following.add_stitch(key, layer, stitched, logits)  for each stitch, on the same batch
        following.products(key).output.correlation          after the last batch

    Args:
        end: the end network.
        end_layers: of the stitches.
        image_shape: (C, H, W) of the images.
    """

    def __init__(self, end: Network, end_layers: Sequence[str], *, image_shape: Sequence[int]):
        shapes = end.activation_shapes(end_layers, image_shape)
        (n_classes,) = end.output_shape
        self.output_name = end.output_name
        self.device = end.example.device
        self._places = {}
        for layer in end_layers:
            side = side_of_cells(shapes[layer], n_classes)
            self._places[layer] = _EndPlace(n_classes, side, end.token_layout(layer))
            if side is not None:
                note_once(
                    f"{layer}: skill at the end layer is that of means over {side}×{side} cells, as "
                    f"{n_classes} classes of all its values would need too much memory"
                )
        self._output = _EndPlace(n_classes)
        self._stitches: dict[Hashable, tuple[_StitchPlace, _StitchPlace]] = defaultdict(
            lambda: (_StitchPlace(), _StitchPlace())
        )
        self._layer_of: dict[Hashable, str] = {}
        self._classes: list[Tensor] = []

    def add_end(self, end_acts: Mapping[str, Tensor]) -> None:
        """Add the end network's activations (B, …) of a batch, at all end layers and the output."""
        logits = end_acts[self.output_name]
        classes = logits.argmax(1)
        self._classes.append(classes)
        with full_precision(self.device):  # even where networks compute in bfloat16
            for layer, place in self._places.items():
                place.take(end_acts[layer], classes)
            self._output.take(centred_logits(logits), classes)

    def add_stitch(self, key: Hashable, layer: str, stitched: Tensor, logits: Tensor) -> None:
        """Add the activations of a stitch on the last batch.

        Args:
            key: of the stitch.
            layer: its end layer.
            stitched: its activations there, (B, …).
            logits: (B, n_classes).
        """
        self._layer_of[key] = layer
        at_end_layer, at_output = self._stitches[key]
        with full_precision(self.device):
            at_end_layer.take(stitched, self._places[layer])
            at_output.take(centred_logits(logits), self._output)

    def products(self, key: Hashable) -> AtPlaces:
        """Return the within-class products of a stitch over all batches, and free its memory.

        Raises:
            UserError: the end network's logits are not finite.
        """
        at_end_layer, at_output = self._stitches.pop(key)
        end = self._places[self._layer_of.pop(key)]
        classes = torch.cat(self._classes)
        n_of_class = torch.bincount(classes)[classes].cpu().numpy()
        output = _within_class(at_output, self._output, n_of_class)
        if not np.isfinite(output.own_squares).all():
            raise not_finite("the end network")
        return AtPlaces(_within_class(at_end_layer, end, n_of_class), output)


def _within_class(stitch: _StitchPlace, end: _EndPlace, n_of_class: np.ndarray) -> WithinClass:
    """Return the within-class products of all images as arrays (n,)."""
    return WithinClass(
        torch.cat(stitch.products).double().cpu().numpy(),
        torch.cat(stitch.squares).double().cpu().numpy(),
        torch.cat(end.squares).double().cpu().numpy(),
        n_of_class,
    )
