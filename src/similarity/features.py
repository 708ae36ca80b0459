"""The statistics that one pass of a network over the images collects of a layer: Gram matrices, and
second moments.

They are enough to compare two layers. Only where positions or tokens are the samples of CCA and
Procrustes, products of the activations of both layers are needed as well, and a function of a user's
code takes whole activations."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from src.choices.similarity import ACTIVATIONS, GRAMS, SAMPLES, Measure
from src.models.heads import check_axes
from src.similarity import measures
from src.similarity.grams import Grams, gram_matrices, reference_of
from src.similarity.samples import Samples
from src.statistics.moments import ROUNDING, Moments, Rows, as_rows
from src.values import NO_ALIGNMENT, Rank

POOLS = {3: "average pool", 2: "token mean", 1: "samples"}  # by the dimensions of one activation


def alignment_of(shape1: tuple[int, ...], shape2: tuple[int, ...], mode: str = "auto") -> str:
    """Return how CCA and Procrustes make samples × features of the activations of two layers.

    Args:
        shape1, shape2: of one activation: (C, H, W), (T, D) or (D,).
        mode: `auto`: positions are the samples for feature maps of equal shape, and tokens for equal
            numbers of tokens; otherwise images, with features averaged over positions or tokens.
            `pool`: images are the samples. `positions`: positions or tokens are the samples where
            both layers have equally many; elsewhere there is no alignment.
    Returns:
        An entry of `BY_POSITION`, `NO_ALIGNMENT`, or how each layer is averaged.
    """
    pools = dict.fromkeys(POOLS[len(shape)] for shape in (shape1, shape2))
    averaged = " / ".join(pools)
    if mode == "pool":
        return averaged
    if len(shape1) == len(shape2) == 3:
        has_equal_positions = shape1[1:] == shape2[1:]
        if has_equal_positions and (mode == "positions" or shape1 == shape2):
            return "positions"
    if len(shape1) == len(shape2) == 2 and shape1[0] == shape2[0]:
        return "tokens"
    are_vectors = len(shape1) == len(shape2) == 1
    if mode == "positions" and not are_vectors:
        return NO_ALIGNMENT
    return averaged


def alignments_of(
    layers1: "Mapping[str, LayerFeatures]", layers2: "Mapping[str, LayerFeatures]", mode: str
) -> dict[tuple[str, str], str]:
    """Return the alignment of each pair of layers, by the names of both layers; see `alignment_of`."""
    return {
        (name1, name2): alignment_of(first.shape, second.shape, mode)
        for (name1, first), (name2, second) in product(layers1.items(), layers2.items())
    }


class LayerFeatures:
    """The activations of one layer for n images, added batch by batch.

    Args:
        name: for messages.
        metrics: measures by column. Those of Gram matrices need the activations until `finish`, those
            of samples need sums, and a user's functions keep whole activations.
        ranks: numbers of principal components that are kept, which need sums; None: all of them.
    """

    def __init__(
        self,
        name: str,
        n_images: int,
        *,
        metrics: Mapping[str, Measure],
        ranks: Iterable[Rank] = (None,),
    ):
        self.name = name
        self.n_images = n_images
        self.n_seen = 0
        self.is_finished = False
        self.ranks = set(ranks)
        inputs = {measure.of for measure in metrics.values()}
        self.gram_metrics = {
            name: measure for name, measure in metrics.items() if measure.of == GRAMS
        }
        self.keeps_sums = SAMPLES in inputs or self.ranks != {None}
        self.keeps_whole = ACTIVATIONS in inputs

        self.shape: tuple[int, ...] = ()  # of one activation: (C, H, W), (T, D) or (D,)
        self.moments = Moments()  # of the positions
        self.widths: list[int] = []  # numbers of axes of the R Gram matrices, ascending
        # (R, n, n) of norm 1, by measure of Gram matrices; NaN where flawed
        self.matrices: dict[str, Tensor] = {}
        # Measures of Gram matrices that have no value, by the reason
        self.flaws: dict[str, list[str]] = {}

    def add(self, activation: Tensor) -> Rows | None:
        """Add a batch (B, *shape); return its rows, or None where no sums are kept.

        A finished layer stays as it is.
        """
        activation = activation.detach()
        if not self.shape:
            self._start(activation)
        exact = Rows.of(activation) if self.keeps_sums else None
        if self.is_finished:
            return exact
        batch = slice(self.n_seen, self.n_seen + len(activation))
        rows = as_rows(activation).unflatten(0, (len(activation), -1))  # (B, positions, C)
        if exact:
            self.moments = self.moments.pooled(exact.moments())
            self.averages[batch] = exact.centred.view(rows.shape).mean(1) + exact.mean
        if self.keeps_whole:
            self.whole[batch] = activation  # waits, as a user's function may run on the CPU
        if self.gram_metrics:
            if self.n_seen == 0:
                self.reference = reference_of(rows)  # (positions, C)
            self.activations[batch].copy_(rows - self.reference, non_blocking=True)
        self.n_seen = batch.stop
        return exact

    def _start(self, activation: Tensor) -> None:
        """Make room for the activations of all images, of the shape in the first batch (B, *shape)."""
        self.shape = tuple(activation.shape[1:])
        check_axes(self.name, self.shape)
        self.dtype = torch.promote_types(activation.dtype, torch.float32)
        device = activation.device
        if self.keeps_sums:
            shape = (self.n_images, self.n_channels)
            self.averages = torch.empty(shape, dtype=torch.float64, device=device)
        if self.keeps_whole:
            self.whole = _room((self.n_images, *self.shape), self.dtype, device)
        if self.gram_metrics:
            positions = (self.n_images, self.n_positions, self.n_channels)
            self.activations = _room(positions, self.dtype, device)

    def finish(self, *, device: torch.device | str) -> None:
        """Compute the matrices of measures of Gram matrices at all ranks, and drop the activations.

        Args:
            device: of the computation and the matrices.
        """
        was_finished = self.is_finished
        self.is_finished = True
        if was_finished or not self.gram_metrics:
            return
        self.widths = sorted({self.width(rank) for rank in self.ranks})
        axes = None
        if self.widths != [self.n_channels]:
            _, axes = self.spectrum
        if self.reference.is_cuda:  # copies to pinned memory may not have ended
            torch.cuda.synchronize(self.reference.device)
        grams = gram_matrices(self.activations, self.reference, axes, self.widths, device=device)
        del self.activations
        is_flawed = self._find_flaws(grams)
        for metric, measure in self.gram_metrics.items():
            n_least = measure.min_images
            if self.n_images < n_least:
                reason = f"it needs at least {n_least} images, not {self.n_images}"
                self.flaws.setdefault(reason, []).append(metric)
                self.matrices[metric] = torch.full_like(grams.centred, math.nan)
            else:
                matrices = measures.unit(measures.GRAM_MEASURES[metric](grams))
                matrices[is_flawed] = math.nan
                self.matrices[metric] = matrices

    def _find_flaws(self, grams: Grams) -> Tensor:
        """Return which Gram matrices (R,) have no similarity, and note why."""
        # A projection of constant activations has the rounding errors of the products
        eps = torch.finfo(self.dtype).eps
        variations = grams.centred.diagonal(dim1=1, dim2=2).sum(1)
        if not variations.isfinite().all():
            self.flaws[f"{self.name} has values that are not finite"] = list(self.gram_metrics)
            return torch.ones_like(variations, dtype=torch.bool)
        is_constant = variations <= max(ROUNDING, (2 * eps) ** 2) * (
            variations[-1] + 2 * grams.offsets[-1].sum()
        )
        if is_constant.any():
            self.flaws[f"{self.name} is the same for all images"] = list(self.gram_metrics)
        return is_constant

    @property
    def n_channels(self) -> int:
        """Number of channels C, or the width of tokens."""
        return self.shape[0] if len(self.shape) == 3 else self.shape[-1]

    @property
    def n_positions(self) -> int:
        """Number of positions or tokens of one activation."""
        return math.prod(self.shape) // self.n_channels

    def width(self, rank: Rank) -> int:
        """Return the number of axes of a rank; None and larger ranks keep all axes."""
        if rank is None:
            return self.n_channels
        return min(rank, self.n_channels)

    def is_full(self, rank: Rank) -> bool:
        """Return whether a rank keeps all axes."""
        return self.width(rank) == self.n_channels

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
        scale = float(self.moments.squared_norm) / self.n_positions
        return Samples(self.name, self.spectrum[1], self.pooled.T @ self.pooled, scale=scale)

    @property
    def n_bytes(self) -> int:
        """The memory that a finished layer takes."""
        tensors = list(self.matrices.values())
        if self.keeps_whole:
            tensors.append(self.whole)
        if self.keeps_sums:  # the axes are as large as the scatter, and `pooled` as `averages`
            tensors += [self.moments.scatter] * 2 + [self.averages] * 2
        return sum(tensor.nbytes for tensor in tensors)


def _room(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return an empty tensor for activations: on the device, or in pinned memory of the CPU.

    Pinned memory is taken if the tensor would take half of the free memory of a GPU.
    """
    if device.type != "cuda":
        return torch.empty(shape, dtype=dtype, device=device)
    n_free, _ = torch.cuda.mem_get_info(device)
    if math.prod(shape) * dtype.itemsize < n_free / 2:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.empty(shape, dtype=dtype, pin_memory=True)
