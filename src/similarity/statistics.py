"""Statistics of a layer, added up batch by batch: sums for CCA and Procrustes, activations for Gram matrices."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from src.similarity.features import Features, rows_of
from src.similarity.grams import Grams, gram_matrices, reference_of
from src.similarity.samples import Undefined

POOLS = {3: "average pool", 2: "token mean", 1: "samples"}  # by the dimensions of one activation


class Alignment(NamedTuple):
    """The way in which CCA and Procrustes convert the activations of two layers to samples × features."""

    name: str
    by_position: bool  # positions or tokens are the samples; otherwise images are


NO_ALIGNMENT = Alignment("none", False)


def alignment(shape1: tuple[int, ...], shape2: tuple[int, ...], mode: str = "auto") -> Alignment:
    """Choose the alignment of two layers with activations of these shapes: (C, H, W), (T, D) or (D,).

    Args:
        mode: `auto`: for feature maps of equal shape, positions are the samples; for equal numbers of tokens, tokens
            are; otherwise images are, with features averaged over positions or tokens. `pool`: images always are.
            `positions`: positions or tokens are where both layers have equally many; elsewhere `NO_ALIGNMENT`.
    """
    kind = len(shape1) if len(shape1) == len(shape2) else 0
    equal_maps = kind == 3 and (shape1 == shape2 if mode == "auto" else shape1[1:] == shape2[1:])
    if mode != "pool" and equal_maps:
        return Alignment("positions", True)
    if mode != "pool" and kind == 2 and shape1[0] == shape2[0]:
        return Alignment("tokens", True)
    if mode == "positions" and kind != 1:
        return NO_ALIGNMENT
    pools = [POOLS[len(shape)] for shape in (shape1, shape2)]
    return Alignment(pools[0] if pools[0] == pools[1] else " / ".join(pools), False)


class Layer(Features):
    """The activations of one layer for n images, added batch by batch.

    Args:
        name: of the layer, for messages.
        keep_activations: keep activations in main memory, at least in float32; Gram matrices need them.
        keep_sums: keep the sums that all else needs: CCA, Procrustes and lower ranks.
    """

    def __init__(self, name: str, n_images: int, *, keep_activations: bool, keep_sums: bool):
        super().__init__(name)
        self.n_images, self.keep_activations, self.keep_sums = n_images, keep_activations, keep_sums

    def add(self, activation: Tensor) -> Tensor | None:
        """Add a batch; see `Features.add`."""
        rows = rows_of(activation)  # (B, positions, C)
        if not self.shape:
            self._start(activation, rows)
        batch = slice(self.n_seen, self.n_seen + len(rows))
        self.n_seen = batch.stop
        if self.keep_activations:
            # Subtracted while they are copied anyway, which spares the Gram matrices passes over all activations.
            if rows.device.type == "cpu":
                torch.sub(rows, self.reference, out=self.activations[batch])
            else:
                self.activations[batch] = (rows - self.reference).cpu()
        if not self.keep_sums:
            return None
        exact = rows.double()
        # With the values near 0, subtracting the mean from the sums in the end loses no digits.
        exact = exact - self.shift
        self.averages[batch] = exact.mean(1)
        exact = exact.flatten(0, 1)
        self.sum += exact.sum(0)
        self.products.addmm_(exact.T, exact)
        return exact

    def _start(self, activation: Tensor, rows: Tensor) -> None:
        _, n_positions, width = rows.shape
        self.shape, self.dtype = tuple(activation.shape[1:]), rows.dtype
        if self.keep_sums:
            self.shift = rows.double().mean((0, 1))
            self.sum, self.products = torch.zeros_like(self.shift), self.shift.new_zeros(width, width)
            self.averages = self.shift.new_zeros(self.n_images, width)
        if self.keep_activations:
            self.reference = reference_of(rows)  # (positions, C)
            self.activations = torch.empty(self.n_images, n_positions, width, dtype=self.reference.dtype)

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """See `Features.spectrum`."""
        if not self.products.isfinite().all():
            raise Undefined(f"{self.name} has values that are not finite")
        products = self.products - torch.outer(self.sum, self.sum) / self.n_rows
        variances, axes = torch.linalg.eigh(products.cpu())
        return variances.flip(0).clamp(min=0), axes.flip(1)

    @property
    def pooled(self) -> Tensor:
        """Averages over positions (n, C) less the `shift`."""
        return self.averages[: self.n_seen]

    @property
    def mean(self) -> Tensor:
        """Averages over positions and images (C,)."""
        return self.shift + self.sum / self.n_rows

    def grams(self, widths: Sequence[int], *, device: torch.device | str) -> Grams:
        """Compute the Gram matrices, and drop the activations; see `Features.grams`."""
        activations, whole = self.activations[: self.n_seen], list(widths) == [self.n_channels]
        del self.activations
        return gram_matrices(activations, self.reference, None if whole else self.axes, widths, device=device)
