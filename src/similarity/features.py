"""The features of a layer that measures take, wherever they come from: a pass over the images, or a store."""

import math
from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from src.similarity.cka import unit
from src.similarity.grams import Grams
from src.similarity.registry import MEASURES
from src.similarity.samples import CONSTANT, Samples, Undefined


def rows_of(activation: Tensor) -> Tensor:
    """Return activations (B, C, H, W), (B, T, D) or (B, D) as rows (B, positions, C)."""
    activation = activation.detach()
    rows = activation.movedim(1, -1) if activation.ndim == 4 else activation
    return rows.reshape(len(rows), -1, rows.shape[-1])


class Features:
    """A layer of n images. A subclass has the attributes below, `spectrum`, `pooled`, `mean` and `grams`.

    Args:
        name: of the layer, for messages.
    """

    shape: tuple[int, ...] = ()  # of one activation: (C, H, W), (T, D) or (D,)
    n_seen = 0  # images so far
    dtype: torch.dtype  # of the activations
    keep_sums: bool  # whether there is what CCA, Procrustes and lower ranks need
    sum: Tensor  # (C,), of the rows that `add` returns

    def __init__(self, name: str):
        self.name = name
        self.matrices: dict[str, Tensor] = {}  # (R, n, n) of norm 1 by measure, from `compute_grams`

    def add(self, activation: Tensor) -> Tensor | None:
        """Take a batch (B, *shape).

        Returns:
            Rows (B·positions, C) in double precision with values near 0, for cross products with another layer; None
            where no sums are kept.
        """
        raise NotImplementedError

    @property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Variances (C,) of the positions, the largest first, and their principal axes (C, C); on the CPU.

        Raises:
            Undefined: an activation is not finite.
        """
        raise NotImplementedError

    @property
    def pooled(self) -> Tensor:
        """Averages of the channels over positions (n, C), less some constant (C,)."""
        raise NotImplementedError

    @property
    def mean(self) -> Tensor:
        """Averages of the channels over positions and images (C,)."""
        raise NotImplementedError

    def grams(self, widths: Sequence[int], *, device: torch.device | str) -> Grams:
        """Return the Gram matrices at these numbers of axes, ascending; at most once.

        Raises:
            Undefined: as `spectrum`.
        """
        raise NotImplementedError

    @property
    def n_channels(self) -> int:
        """Number of channels C, or the width of tokens."""
        return self.shape[0] if len(self.shape) == 3 else self.shape[-1]

    @property
    def n_positions(self) -> int:
        """Number of positions or tokens of one activation."""
        return math.prod(self.shape) // self.n_channels

    @property
    def n_rows(self) -> int:
        """Number of images × positions."""
        return self.n_seen * self.n_positions

    @property
    def n_features(self) -> int:
        """Number of channels × positions."""
        return math.prod(self.shape)

    @property
    def axes(self) -> Tensor:
        """Principal axes of the positions (C, C), in columns; the first r span the representation of rank r."""
        return self.spectrum[1]

    @cached_property
    def scale(self) -> float:
        """The sum of squares of the activations."""
        return float(self.spectrum[0].sum()) + self.n_rows * float(self.mean.square().sum())

    @cached_property
    def positions(self) -> Samples:
        """Positions as samples."""
        variances, axes = self.spectrum
        return Samples(self.name, axes, variances, scale=self.scale)

    @cached_property
    def centred_pooled(self) -> Tensor:
        """Averages over positions (n, C) in coordinates of the principal axes; on the CPU."""
        return (self.pooled - self.pooled.mean(0)).cpu() @ self.axes

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

    def widths(self, ranks: Iterable[int | None]) -> list[int]:
        """Return the numbers of axes of several ranks, ascending, each once."""
        return sorted({self.width(rank) for rank in ranks})

    def compute_grams(
        self, ranks: Iterable[int | None], measures: Sequence[str], *, device: torch.device | str
    ) -> None:
        """Compute the matrices of these measures at all ranks."""
        self.gram_widths, self.flaws = self.widths(ranks), {}
        try:
            grams = self.grams(self.gram_widths, device=device)
        except Undefined as reason:
            self.flaws = dict.fromkeys(self.gram_widths, str(reason))
            return
        # A projection of constant activations is not constant: it has the rounding errors of the products.
        eps = torch.finfo(torch.promote_types(self.dtype, torch.float32)).eps
        rounding = max(CONSTANT, (2 * eps) ** 2)
        variations = grams.centred.diagonal(dim1=1, dim2=2).sum(1).tolist()
        size = variations[-1] + 2 * float(grams.offsets[-1].sum())
        for width, variation in zip(self.gram_widths, variations, strict=True):
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
        return self.gram_widths.index(width)
