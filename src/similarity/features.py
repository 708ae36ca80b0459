"""Features of one layer's activations for measures: Gram matrices, and second moments.

They are enough to compare two layers. Only where positions or tokens are the samples of CCA and
Procrustes, products of the activations of both layers are needed as well, and a function of a user's
code takes whole activations."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from src.core.activations import ActivationShape, shape_of
from src.core.choices.similarity import GRAMS, SAMPLES, Measure
from src.core.values import Rank
from src.similarity.grams import Grams, gram_matrices
from src.similarity.samples import Samples
from src.statistics.moments import ROUNDING, CrossMoments, Moments, Rows

BATCH_VALUES = 2**22  # numbers that are added up at once, 32 MiB of float64
POOLS = {2: "average pool", 1: "token mean", 0: "samples"}  # by the number of axes of positions


def alignment_of(shape1: ActivationShape, shape2: ActivationShape, mode: str = "auto") -> str:
    """Return how CCA and Procrustes make samples × features of the activations of two layers.

    Args:
        mode: `auto`: positions are the samples for feature maps of equal shape, and tokens for equal
            numbers of tokens; otherwise images, with features averaged over positions or tokens.
            `pool`: images are the samples.
    Returns:
        An entry of `BY_POSITION`, or how each layer is averaged.
    """
    pools = dict.fromkeys(POOLS[len(shape.sizes)] for shape in (shape1, shape2))
    if mode != "pool" and shape1.sizes and shape1.sizes == shape2.sizes:
        if shape1.is_tokens:
            return "tokens"
        if shape1.n_channels == shape2.n_channels:
            return "positions"
    return " / ".join(pools)


def alignments_of(
    layers1: "Mapping[str, LayerFeatures]", layers2: "Mapping[str, LayerFeatures]", mode: str
) -> dict[tuple[str, str], str]:
    """Return the alignment of each pair of layers, by the names of both layers; see
    `alignment_of`."""
    return {
        (name1, name2): alignment_of(first.shape, second.shape, mode)
        for (name1, first), (name2, second) in product(layers1.items(), layers2.items())
    }


class LayerFeatures:
    """Features of one layer's activations for n images, for measures.

    Args:
        name: for messages.
        activations: (n, C, H, W), (n, T, D) or (n, D), at least in single precision.
        metrics: measures by column, as `load_measures` returns them.
        ranks: numbers of principal components that are kept; None: all of them.
        device: of the computation and the matrices.

    Attributes:
        matrices: (R, n, n) of norm 1, by measure of Gram matrices; NaN where flawed.
        flaws: measures of Gram matrices that have no value, by the reason.
    """

    def __init__(
        self,
        name: str,
        activations: Tensor,
        *,
        metrics: Mapping[str, Measure],
        ranks: Iterable[Rank] = (None,),
        device: torch.device | str = "cpu",
    ):
        self.name = name
        self.n_images = len(activations)
        self.shape = shape_of(activations)
        self.eps = torch.finfo(activations.dtype).eps
        self.widths = sorted({self.width(rank) for rank in ranks})  # of the R Gram matrices

        self.moments = Moments()  # of the positions
        self.averages = torch.empty(0)  # over the positions, (n, C)
        keeps_all_axes = self.widths == [self.shape.n_channels]
        if not keeps_all_axes or any(measure.of == SAMPLES for measure in metrics.values()):
            self._add_up(activations, device)

        self.matrices: dict[str, Tensor] = {}
        self.flaws: defaultdict[str, list[str]] = defaultdict(list)
        of_grams = {column: row for column, row in metrics.items() if row.of == GRAMS}
        if of_grams:
            axes = None
            if not keeps_all_axes:
                axes = self.spectrum[1]
            grams = gram_matrices(activations, axes, self.widths, device=device)
            self._make_matrices(grams, of_grams)

    def _add_up(self, activations: Tensor, device: torch.device | str) -> None:
        """Add up the moments of the positions and the averages over positions."""
        averages = []
        for batch in activations.split(_batch_size(activations)):
            rows = Rows.of(batch.to(device))
            self.moments = self.moments.pooled(rows.moments())
            of_images = rows.centred.view(len(batch), -1, self.shape.n_channels)
            averages.append(of_images.mean(1) + rows.mean)
        self.averages = torch.cat(averages)

    def _make_matrices(self, grams: Grams, metrics: Mapping[str, Measure]) -> None:
        """Make the matrices of measures of Gram matrices at all ranks."""
        is_flawed = self._find_flaws(grams, list(metrics))
        for metric, measure in metrics.items():
            if self.n_images < measure.min_images:
                reason = f"it needs at least {measure.min_images} inputs, not {self.n_images}"
                self.flaws[reason].append(metric)
                self.matrices[metric] = torch.full_like(grams.centred, math.nan)
            else:
                matrices = measure.function(grams)
                matrices = matrices / matrices.flatten(1).norm(dim=1)[:, None, None]
                matrices[is_flawed] = math.nan
                self.matrices[metric] = matrices

    def _find_flaws(self, grams: Grams, metrics: list[str]) -> Tensor:
        """Return which Gram matrices (R,) have no similarity, and note why."""
        # A projection of constant activations has the rounding errors of the products
        variations = grams.centred.diagonal(dim1=1, dim2=2).sum(1)
        if not variations.isfinite().all():
            self.flaws[f"{self.name} has values that are not finite"] = metrics
            return torch.ones_like(variations, dtype=torch.bool)
        is_constant = variations <= max(ROUNDING, (2 * self.eps) ** 2) * (
            variations[-1] + 2 * grams.offsets[-1].sum()
        )
        if is_constant.any():
            self.flaws[f"{self.name} is the same for all inputs"] = metrics
        return is_constant

    def width(self, rank: Rank) -> int:
        """Return the number of axes of a rank; None and larger ranks keep all axes."""
        if rank is None:
            return self.shape.n_channels
        return min(rank, self.shape.n_channels)

    def is_full(self, rank: Rank) -> bool:
        """Return whether a rank keeps all axes."""
        return self.width(rank) == self.shape.n_channels

    def gram_rows(self, ranks: Iterable[Rank]) -> list[int]:
        """Return the places of ranks among the Gram matrices."""
        return [self.widths.index(self.width(rank)) for rank in ranks]

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Variances (C,) of the positions, the largest first, and their principal axes (C, C) in
        columns; on the CPU.

        The first r axes span the representation of rank r. Where an activation is not finite, both
        are NaN.
        """
        scatter = self.moments.scatter.cpu()
        if not scatter.isfinite().all():
            return scatter.diagonal() * math.nan, scatter * math.nan
        variances, axes = torch.linalg.eigh(scatter)
        return variances.flip(0).clamp(min=0), axes.flip(1)

    @cached_property
    def pooled(self) -> Tensor:
        """Averages over positions (n, C), centred, in coordinates of the principal axes; on the
        CPU."""
        return (self.averages - self.averages.mean(0)).cpu() @ self.spectrum[1]

    @cached_property
    def positions(self) -> Samples:
        """Positions as samples."""
        variances, axes = self.spectrum
        return Samples(self.name, axes, variances, scale=float(self.moments.squared_norm))

    @cached_property
    def images(self) -> Samples:
        """Images as samples, averaged over positions."""
        scale = float(self.moments.squared_norm) / self.shape.n_positions
        return Samples(self.name, self.spectrum[1], self.pooled.T @ self.pooled, scale=scale)

    @property
    def n_bytes(self) -> int:
        """The memory that this layer takes."""
        # The axes are as large as the scatter, and `pooled` as `averages`
        n_of_moments = 2 * (self.moments.scatter.nbytes + self.averages.nbytes)
        return n_of_moments + sum(matrices.nbytes for matrices in self.matrices.values())


def cross_moments(
    activations1: Mapping[str, Tensor],
    activations2: Mapping[str, Tensor],
    pairs: Sequence[tuple[str, str]],
    *,
    device: torch.device | str,
) -> dict[tuple[str, str], CrossMoments]:
    """Return the products of the positions of pairs of layers.

    Args:
        activations1, activations2: (n, ...), by layer.
    """
    products = dict.fromkeys(pairs, CrossMoments())
    if not pairs:
        return products
    names1, names2 = map(dict.fromkeys, zip(*pairs, strict=True))
    n_images = len(activations1[pairs[0][0]])
    step = min(map(_batch_size, activations1.values()))
    for start in range(0, n_images, step):
        batch = slice(start, start + step)
        rows1 = {name: Rows.of(activations1[name][batch].to(device)) for name in names1}
        rows2 = {name: Rows.of(activations2[name][batch].to(device)) for name in names2}
        for name1, name2 in pairs:
            of_batch = rows1[name1].cross(rows2[name2])
            products[name1, name2] = products[name1, name2].pooled(of_batch)
    return products


def _batch_size(activations: Tensor) -> int:
    """Return the number of images to add up at once, by the size of their activations (n, ...)."""
    return max(1, BATCH_VALUES // activations[0].numel())
