"""Statistics of a layer, added up batch by batch: sums for CCA and Procrustes, activations for Gram matrices."""

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from src.similarity.cka import unit
from src.similarity.grams import gram_matrices
from src.similarity.registry import MEASURES
from src.similarity.samples import CONSTANT, Samples, Undefined

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


class Layer:
    """The activations of one layer for n images, added batch by batch.

    Args:
        name: of the layer, for messages.
        keep_activations: keep activations in main memory, in their own precision; Gram matrices need them.
        keep_sums: keep the sums that all else needs: CCA, Procrustes and lower ranks.
    """

    def __init__(self, name: str, n_images: int, *, keep_activations: bool, keep_sums: bool):
        self.name, self.n_images, self.n_seen = name, n_images, 0
        self.keep_activations, self.keep_sums = keep_activations, keep_sums
        self.matrices: dict[str, Tensor] = {}  # (R, n, n) of norm 1 by measure, from `compute_grams`
        self.shape: tuple[int, ...] = ()  # of one activation: (C, H, W), (T, D) or (D,)

    def add(self, activation: Tensor) -> Tensor | None:
        """Add a batch (B, *shape).

        Returns:
            The shifted rows (B·positions, C) in double precision, for cross products with another layer; None
            where no sums are kept.
        """
        activation = activation.detach()
        rows = activation.movedim(1, -1) if activation.ndim == 4 else activation
        rows = rows.reshape(len(rows), -1, rows.shape[-1])  # (B, positions, C)
        if not self.shape:
            self._start(activation, rows)
        batch = slice(self.n_seen, self.n_seen + len(rows))
        self.n_seen = batch.stop
        if self.keep_activations:
            self.activations[batch] = rows.cpu()
        if not self.keep_sums:
            return None
        exact = rows.double()
        # With the values near 0, subtracting the mean from the sums in the end loses no digits.
        exact = exact - self.shift
        self.pooled[batch] = exact.mean(1)
        exact = exact.flatten(0, 1)
        self.sum += exact.sum(0)
        self.products.addmm_(exact.T, exact)
        return exact

    def _start(self, activation: Tensor, rows: Tensor) -> None:
        _, self.n_positions, self.n_channels = rows.shape
        self.shape, width = tuple(activation.shape[1:]), self.n_channels
        if self.keep_sums:
            self.shift = rows.double().mean((0, 1))
            self.sum, self.products = torch.zeros_like(self.shift), self.shift.new_zeros(width, width)
            self.pooled = self.shift.new_zeros(self.n_images, width)
        if self.keep_activations:
            self.activations = torch.empty(self.n_images, self.n_positions, width, dtype=rows.dtype)

    @property
    def n_rows(self) -> int:
        """Number of images × positions."""
        return self.n_seen * self.n_positions

    @property
    def n_features(self) -> int:
        """Number of channels × positions."""
        return self.n_channels * self.n_positions

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        """Variances (C,) of the positions, the largest first, and their principal axes (C, C); on the CPU."""
        if not self.products.isfinite().all():
            raise Undefined(f"{self.name} has values that are not finite")
        products = self.products - torch.outer(self.sum, self.sum) / self.n_rows
        variances, axes = torch.linalg.eigh(products.cpu())
        return variances.flip(0).clamp(min=0), axes.flip(1)

    @property
    def axes(self) -> Tensor:
        """Principal axes of the positions (C, C), in columns; the first r span the representation of rank r."""
        return self._spectrum[1]

    @cached_property
    def scale(self) -> float:
        """The sum of squares of the activations."""
        mean = self.shift + self.sum / self.n_rows
        return float(self._spectrum[0].sum()) + self.n_rows * float(mean.square().sum())

    @cached_property
    def positions(self) -> Samples:
        """Positions as samples."""
        variances, axes = self._spectrum
        return Samples(self.name, axes, variances, scale=self.scale)

    @cached_property
    def centred_pooled(self) -> Tensor:
        """Averages over positions (n, C) in coordinates of the principal axes; on the CPU."""
        pooled = self.pooled[: self.n_seen]
        return (pooled - pooled.mean(0)).cpu() @ self.axes

    @cached_property
    def images(self) -> Samples:
        """Images as samples, averaged over positions."""
        moments = self.centred_pooled.T @ self.centred_pooled
        return Samples(self.name, self.axes, moments, scale=self.scale / self.n_positions)

    def describe(self) -> str:
        """Describe the layer in a line: its shape and, where sums are kept, its numerical rank."""
        shape = "×".join(map(str, self.shape))
        if not self.keep_sums:
            return f"{self.name}: {shape}"
        try:
            rank = len(self.positions.basis().factor)
        except Undefined as reason:
            return f"{self.name}: {shape}; {reason}"
        return f"{self.name}: {shape}, numerical rank {rank} of {self.n_channels}"

    def width(self, rank: int | None) -> int:
        """Return the number of axes of a rank: all of them for None and for larger ranks."""
        return self.n_channels if rank is None else min(rank, self.n_channels)

    def compute_grams(
        self, ranks: Iterable[int | None], measures: Sequence[str], *, device: torch.device | str
    ) -> None:
        """Compute the matrices of these measures at all ranks, and drop the activations."""
        self.widths, self.flaws = sorted({self.width(rank) for rank in ranks}), {}
        activations, whole = self.activations[: self.n_seen], self.widths == [self.n_channels]
        del self.activations
        try:
            grams = gram_matrices(activations, None if whole else self.axes, self.widths, device=device)
        except Undefined as reason:
            self.flaws = dict.fromkeys(self.widths, str(reason))
            return
        # A projection of constant activations is not constant: it has the rounding errors of the products.
        eps = torch.finfo(torch.promote_types(activations.dtype, torch.float32)).eps
        rounding = max(CONSTANT, (2 * eps) ** 2)
        variations = grams.centred.diagonal(dim1=1, dim2=2).sum(1).tolist()
        size = variations[-1] + 2 * float(grams.offsets[-1].sum())
        for width, variation in zip(self.widths, variations, strict=True):
            if not math.isfinite(variation):
                self.flaws[width] = f"{self.name} has values that are not finite"
            elif variation <= rounding * size:
                self.flaws[width] = f"{self.name} is the same for all images"
        self.matrices = {name: unit(MEASURES[name].function(grams)) for name in measures}

    def gram_row(self, rank: int | None) -> int:
        """Return the place of a rank in the matrices (R, n, n) of `compute_grams`.

        Raises:
            Undefined: there are no such matrices at this rank.
        """
        width = self.width(rank)
        if width in self.flaws:
            raise Undefined(self.flaws[width])
        return self.widths.index(width)
