"""What is kept of a layer while batches go by: sums for CCA and Procrustes, and for CKA the activations themselves."""

import math
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from src.similarity.cka import centred_grams
from src.similarity.samples import CONSTANT, Samples, Undefined

POOLS = {3: "average pool", 2: "token mean", 1: "samples"}  # by the dimensions of one activation


def alignment(shape1: tuple[int, ...], shape2: tuple[int, ...]) -> tuple[str, bool]:
    """How CCA and Procrustes make samples × features of activations, given their shapes without the batch.

    Feature maps (C, H, W) of equal shape: positions are the samples. Tokens (T, D) in equal number: tokens are,
    whatever the widths. Otherwise images are, by the average over positions or tokens.

    Returns:
        Its name, and whether positions or tokens are the samples.
    """
    if len(shape1) == len(shape2) == 3 and shape1 == shape2:
        return "positions", True
    if len(shape1) == len(shape2) == 2 and shape1[0] == shape2[0]:
        return "tokens", True
    pools = [POOLS[len(shape)] for shape in (shape1, shape2)]
    return pools[0] if pools[0] == pools[1] else " / ".join(pools), False


class Grams(NamedTuple):
    """Centred Gram matrices of a layer's flattened activations."""

    widths: list[int]  # the number of axes that are kept
    matrices: Tensor  # (len(widths), n, n); NaN where the activations do not vary over the images


class Layer:
    """The activations of one layer for n images, added batch by batch.

    Args:
        name: what it is called in messages.
        keep_activations: needed for CKA; in main memory, in their own precision.
    """

    def __init__(self, name: str, n_images: int, *, keep_activations: bool):
        self.name, self.n_images, self.n_seen = name, n_images, 0
        self.keep_activations = keep_activations
        self.shape: tuple[int, ...] = ()  # of one activation: (C, H, W), (T, D) or (D,)

    def add(self, activation: Tensor) -> Tensor:
        """Add a batch (B, *shape).

        Returns:
            Its rows (B·positions, C) in double precision, shifted, for cross products with another layer.
        """
        activation = activation.detach()
        rows = activation.movedim(1, -1) if activation.ndim == 4 else activation
        rows = rows.reshape(len(rows), -1, rows.shape[-1])  # (B, positions, C)
        exact = rows.double()
        if not self.shape:
            self._start(activation, rows, exact)
        batch = slice(self.n_seen, self.n_seen + len(rows))
        if self.keep_activations:
            self.activations[batch] = rows.cpu()
        # Sums about a point near the mean lose no digits when the mean is taken off in the end.
        exact = exact - self.shift
        self.pooled[batch] = exact.mean(1)
        exact = exact.flatten(0, 1)
        self.sum += exact.sum(0)
        self.products.addmm_(exact.T, exact)
        self.n_seen = batch.stop
        return exact

    def _start(self, activation: Tensor, rows: Tensor, exact: Tensor) -> None:
        _, self.n_positions, width = rows.shape
        self.shape = tuple(activation.shape[1:])
        self.shift = exact.mean((0, 1))
        self.sum, self.products = torch.zeros_like(self.shift), exact.new_zeros(width, width)
        self.pooled = exact.new_zeros(self.n_images, width)
        if self.keep_activations:
            self.activations = torch.empty(self.n_images, self.n_positions, width, dtype=rows.dtype)

    @property
    def n_rows(self) -> int:
        """Images × positions."""
        return self.n_seen * self.n_positions

    @property
    def is_finite(self) -> bool:
        """Whether all activations were finite."""
        return bool(self.products.isfinite().all())

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        """Variances (C,) along the principal axes (C, C) of the positions, the largest first; on the CPU."""
        if not self.is_finite:
            raise Undefined(f"{self.name} has values that are not finite")
        products = self.products - torch.outer(self.sum, self.sum) / self.n_rows
        variances, axes = torch.linalg.eigh(products.cpu())
        return variances.flip(0).clamp(min=0), axes.flip(1)

    @property
    def axes(self) -> Tensor:
        """The principal axes of the positions (C, C), in columns; the first r span the representation of rank r."""
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
        """Shape and numerical rank."""
        shape = "×".join(map(str, self.shape))
        try:
            rank = len(self.positions.basis().factor)
        except Undefined as reason:
            return f"{self.name}: {shape}; {reason}"
        return f"{self.name}: {shape}, numerical rank {rank} of {len(self.axes)}"

    def width(self, rank: int | None) -> int:
        """The number of axes that a rank stands for; None is full rank, and so is what exceeds it."""
        return len(self.axes) if rank is None else min(rank, len(self.axes))

    def compute_grams(self, ranks: Iterable[int | None], *, device: torch.device | str) -> None:
        """Make the Gram matrices of all ranks, and drop the activations, which nothing else needs."""
        widths = sorted({self.width(rank) for rank in ranks})
        self.grams = Grams(widths, centred_grams(self.activations[: self.n_seen], self.axes, widths, device=device))
        traces = self.grams.matrices.diagonal(dim1=1, dim2=2).sum(1)
        self.grams.matrices[traces <= CONSTANT * self.scale] = math.nan  # rounding
        del self.activations
