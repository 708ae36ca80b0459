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


def one_hot_of(logits: Tensor) -> Tensor:
    """Return the predicted class of logits (B, n_classes), one-hot."""
    return torch.zeros_like(logits).scatter(1, logits.argmax(1, keepdim=True), 1)


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


class _Members(NamedTuple):
    """The classes of a batch, and the number of images of each class before and after it."""

    classes: Tensor  # (B,)
    one_hot: Tensor  # (B, K)
    before: Tensor  # (K, 1)
    after: Tensor  # (K, 1)

    def means(self, values: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means (…, K, D) of classes before and after values (…, B, D) of the batch are added.

        A class that begins in the batch has its mean after the batch before it as well.
        """
        n_members = self.after - self.before
        change = self.one_hot.to(values).mT @ values - n_members * means
        later = means + change / self.after.clamp(min=1)
        return torch.where(self.before > 0, means, later), later

    def dots(self, means: Tensor, values: Tensor) -> Tensor:
        """Return the inner products (…, B) of values (…, B, D) with the means (…, K, D) of their classes."""
        products = values @ means.mT  # (…, B, K)
        places = self.classes[:, None].expand(*products.shape[:-1], 1)
        return products.gather(-1, places)[..., 0]


class _EndPlace:
    """The end network's activations at its end layer or its output, and their squared norms within classes.

    All activations are taken about a centre, as large means would cost digits.
    """

    def __init__(self, side: int | None = None, layout: TokenLayout | None = None):
        self.side = side
        self.layout = layout
        self.squares: list[Tensor] = []  # (B,) of each batch
        self._centre: Tensor | float = 0.0
        self._means: Tensor | None = None  # (K, D)

    def coordinates(self, activations: Tensor) -> Tensor:
        """Return activations (N, …) flattened to (N, D), average-pooled where the layer is large."""
        values = at_least_single(activations)
        if self.side is not None:
            values = cells(values, self.layout, side=self.side)
        return values.flatten(1) - self._centre

    def take(self, end_acts: Tensor, members: _Members) -> None:
        """Add the end network's activations (B, …) of a batch; the stitches' activations follow."""
        values = self.coordinates(end_acts)
        if self._means is None:
            self._centre = values.mean(0)
            values = values - self._centre
            self._means = values.new_zeros(members.one_hot.shape[1], values.shape[1])
        earlier, self._means = members.means(values, self._means)
        self.rest = values - earlier[members.classes]  # (B, D)
        self.squares.append(_dots(self.rest, values) - members.dots(self._means, self.rest))


class _StitchPlace:
    """The products within classes of a stitch at its end layer or the output."""

    def __init__(self) -> None:
        self.products: list[Tensor] = []  # (B,) of each batch
        self.squares: list[Tensor] = []
        self.means: Tensor | None = None  # (K, D)


def _take(
    places: Sequence[_StitchPlace], stitched: Tensor, end: _EndPlace, members: _Members
) -> None:
    """Add activations (P, B, …) of P stitches on the batch that was last added to `end`."""
    values = end.coordinates(stitched.flatten(0, 1)).unflatten(0, stitched.shape[:2])
    nothing = values.new_zeros(members.one_hot.shape[1], values.shape[2])
    means = [nothing if place.means is None else place.means for place in places]
    earlier, later = members.means(values, torch.stack(means))  # (P, K, D)
    # ⟨s − s̄, o − ō⟩ with s̄ after the batch and ō before it; ‖s − s̄‖² with one of either
    products = _dots(values, end.rest) - members.dots(later, end.rest)
    of_means = (earlier * later).sum(2)[:, members.classes]
    squares = _dots(values, values) - members.dots(earlier + later, values) + of_means
    for place, *sums in zip(places, products, squares, later, strict=True):
        place.products.append(sums[0])
        place.squares.append(sums[1])
        place.means = sums[2]


def _dots(first: Tensor, second: Tensor) -> Tensor:
    """Return the inner products (…, B) of rows (…, B, D)."""
    return torch.einsum("...d,...d->...", first, second)


class Following:
    """Accumulates the within-class products of stitches with their end network over batches.

        following.add_end(end_acts)                            for each batch
        following.add_stitches(keys, layer, stitched, logits)  for stitches, on the same batch
        following.products(key).output.correlation             after the last batch

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
            self._places[layer] = _EndPlace(side, end.token_layout(layer))
            if side is not None:
                note_once(
                    f"{layer}: skill at the end layer is that of means over {side}×{side} cells, as "
                    f"{n_classes} classes of all its values would need too much memory"
                )
        self._output = _EndPlace()
        self._stitches: dict[Hashable, tuple[_StitchPlace, _StitchPlace]] = defaultdict(
            lambda: (_StitchPlace(), _StitchPlace())
        )
        self._layer_of: dict[Hashable, str] = {}
        self._classes: list[Tensor] = []
        self._members: _Members | None = None  # of the last batch

    def add_end(self, end_acts: Mapping[str, Tensor]) -> None:
        """Add the end network's activations (B, …) of a batch, at all end layers and the output."""
        logits = at_least_single(end_acts[self.output_name])
        classes = logits.argmax(1)
        one_hot = one_hot_of(logits)
        n_before = torch.zeros_like(logits[0])[:, None]
        if self._members is not None:
            n_before = self._members.after
        self._members = _Members(classes, one_hot, n_before, n_before + one_hot.sum(0)[:, None])
        self._classes.append(classes)
        with full_precision(self.device):  # even where networks compute in bfloat16
            for layer, place in self._places.items():
                place.take(end_acts[layer], self._members)
            self._output.take(centred_logits(logits), self._members)

    def add_stitches(
        self, keys: Sequence[Hashable], layer: str, stitched: Tensor, logits: Tensor
    ) -> None:
        """Add the activations of P stitches into one layer on the last batch.

        Args:
            keys: of the stitches.
            layer: their end layer.
            stitched: their activations there, (P, B, …).
            logits: (P, B, n_classes).
        """
        if self._members is None:
            raise ValueError("the end network's activations of the batch come first")
        self._layer_of |= dict.fromkeys(keys, layer)
        at_end_layer, at_output = zip(*(self._stitches[key] for key in keys), strict=True)
        with full_precision(self.device):
            _take(at_end_layer, stitched, self._places[layer], self._members)
            _take(at_output, centred_logits(logits), self._output, self._members)

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
