"""What one pass of a network over the images gives: Gram matrices and second moments of its layers.

Two such objects are compared without their networks. Only where positions or tokens are the samples of CCA and
Procrustes, products of both networks' activations are needed as well (`CrossProducts`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from src.choices.measures import GRAMS, MEASURES, PAPER, SAMPLES, take_any, with_companions
from src.moments import ROUNDING, CrossMoments, Moments, Rows, as_rows
from src.results.tables import Rank
from src.similarity import measures
from src.similarity.grams import Grams, gram_matrices, reference_of
from src.similarity.samples import Samples, Undefined

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
        name: for messages.
        keep_activations: keep activations until `finish`, at least in float32; Gram matrices need them.
        keep_sums: keep the moments that all else needs: CCA, Procrustes and lower ranks.
    """

    def __init__(self, name: str, n_images: int, *, keep_activations: bool, keep_sums: bool):
        self.name, self.n_images, self.n_seen = name, n_images, 0
        self.keep_activations, self.keep_sums = keep_activations, keep_sums
        self.shape: tuple[int, ...] = ()  # of one activation: (C, H, W), (T, D) or (D,)
        self.moments = Moments()  # of the positions
        self.matrices: dict[str, Tensor] = {}  # (R, n, n) of norm 1, by measure of Gram matrices
        self.gram_widths: list[int] = []  # the numbers of axes of these R
        self.flaws: dict[int, str] = {}  # by number of axes: why there are no matrices

    def add(self, activation: Tensor) -> Rows | None:
        """Add a batch (B, *shape); return its rows where sums are kept."""
        rows = as_rows(activation.detach()).unflatten(0, (len(activation), -1))  # (B, positions, C)
        if not self.shape:
            self._start(activation, rows)
        batch = slice(self.n_seen, self.n_seen + len(rows))
        self.n_seen = batch.stop
        if self.keep_activations:
            # Subtracted while they are copied anyway, which spares the Gram matrices passes over all activations.
            if rows.device == self.activations.device:
                torch.sub(rows, self.reference, out=self.activations[batch])
            else:
                self.activations[batch].copy_(rows - self.reference, non_blocking=True)
        if not self.keep_sums:
            return None
        exact = Rows.of(activation)
        self.moments = self.moments.pooled(exact.moments())
        # Averages less those of the first batch, near 0, lose no digits.
        self.averages[batch] = exact.centred.view(len(rows), -1, self.n_channels).mean(1) + (exact.mean - self.shift)
        return exact

    def _start(self, activation: Tensor, rows: Tensor) -> None:
        _, n_positions, width = rows.shape
        self.shape, self.dtype = tuple(activation.shape[1:]), rows.dtype
        if self.keep_sums:
            self.shift = rows.double().mean((0, 1))
            self.averages = self.shift.new_empty(self.n_images, width)
        if self.keep_activations:
            self.reference = reference_of(rows)  # (positions, C)
            shape, dtype = (self.n_images, n_positions, width), self.reference.dtype
            self.activations = torch.empty(shape, dtype=dtype, **_where(rows.device, math.prod(shape), dtype))

    def finish(self, ranks: Iterable[Rank], metrics: Sequence[str], *, device: torch.device | str) -> None:
        """Compute the matrices of measures of Gram matrices at all ranks, and drop the activations."""
        if not self.keep_activations:
            return
        widths, activations = sorted({self.width(rank) for rank in ranks}), self.activations
        self.gram_widths = widths
        del self.activations
        try:
            axes = None if widths == [self.n_channels] else self.spectrum[1]
        except Undefined as reason:
            self.flaws = dict.fromkeys(widths, str(reason))
            return
        grams = gram_matrices(activations, self.reference, axes, widths, device=device)
        self.flaws = self._flaws(grams)
        self.matrices = {name: measures.unit(getattr(measures, name)(grams)) for name in metrics}

    def _flaws(self, grams: Grams) -> dict[int, str]:
        # A projection of constant activations is not constant: it has the rounding errors of the products.
        eps = torch.finfo(torch.promote_types(self.dtype, torch.float32)).eps
        rounding, flaws = max(ROUNDING, (2 * eps) ** 2), {}
        variations = grams.centred.diagonal(dim1=1, dim2=2).sum(1).tolist()
        size = variations[-1] + 2 * float(grams.offsets[-1].sum())
        for width, variation in zip(self.gram_widths, variations, strict=True):
            if not math.isfinite(variation):
                flaws[width] = f"{self.name} has values that are not finite"
            elif variation <= rounding * size:
                flaws[width] = f"{self.name} is the same for all images"
        return flaws

    def gram_row(self, rank: Rank) -> int:
        """Return the place of a rank in `matrices`.

        Raises:
            Undefined: there are no such matrices at this rank.
        """
        width = self.width(rank)
        if width in self.flaws:
            raise Undefined(self.flaws[width])
        return self.gram_widths.index(width)

    @property
    def n_channels(self) -> int:
        """Number of channels C, or the width of tokens."""
        return self.shape[0] if len(self.shape) == 3 else self.shape[-1]

    @property
    def n_positions(self) -> int:
        """Number of positions or tokens of one activation."""
        return math.prod(self.shape) // self.n_channels

    def width(self, rank: Rank) -> int:
        """Return the number of axes of a rank: all of them for None and for larger ranks."""
        return self.n_channels if rank is None else min(rank, self.n_channels)

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Variances (C,) of the positions, the largest first, and their principal axes (C, C) in columns; on the CPU.

        The first r axes span the representation of rank r.

        Raises:
            Undefined: an activation is not finite.
        """
        scatter = self.moments.scatter.cpu()
        if not scatter.isfinite().all():
            raise Undefined(f"{self.name} has values that are not finite")
        variances, axes = torch.linalg.eigh(scatter)
        return variances.flip(0).clamp(min=0), axes.flip(1)

    @cached_property
    def positions(self) -> Samples:
        """Positions as samples."""
        variances, axes = self.spectrum
        return Samples(self.name, axes, variances, scale=float(self.moments.squared_norm))

    @cached_property
    def pooled(self) -> Tensor:
        """Averages over positions (n, C), centred, in coordinates of the principal axes; on the CPU."""
        return (self.averages - self.averages.mean(0)).cpu() @ self.spectrum[1]

    @cached_property
    def images(self) -> Samples:
        """Images as samples, averaged over positions."""
        scale = float(self.moments.squared_norm) / self.n_positions
        return Samples(self.name, self.spectrum[1], self.pooled.T @ self.pooled, scale=scale)

    @property
    def n_bytes(self) -> int:
        """The memory of what is kept once it is finished."""
        kept = list(self.matrices.values())
        if self.keep_sums:
            kept += [self.moments.scatter] * 2 + [self.averages] * 2  # the axes and what is pooled as well
        return sum(tensor.nbytes for tensor in kept)


class NetworkFeatures:
    """The layers of one network on some images: what measures need of them at some ranks.

    Add the activations of all images batch by batch, then call `finish`; `passes.take_features` does both.

    Args:
        layers: their names for messages, by name.
        n_images: how many will be added.
        metrics: names in `MEASURES`.
        ranks: numbers of principal components that are kept; None: all of them.
    Raises:
        UserError: a measure is unknown.
    """

    def __init__(
        self,
        layers: Mapping[str, str],
        *,
        n_images: int,
        metrics: Sequence[str] = PAPER,
        ranks: Sequence[Rank] = (None,),
    ):
        metrics = with_companions(metrics)
        self.n_images, self.ranks, self.is_finished = n_images, tuple(ranks), False
        of_grams = [name for name in metrics if MEASURES[name].of == GRAMS]
        self.gram_metrics = [name for name in of_grams if MEASURES[name].min_images <= n_images]
        keep_sums = take_any(metrics, SAMPLES) or {*ranks} != {None}
        self.layers = {
            name: Layer(title, n_images, keep_activations=bool(of_grams), keep_sums=keep_sums)
            for name, title in layers.items()
        }

    def add(self, activations: Mapping[str, Tensor]) -> dict[str, Rows]:
        """Add a batch: the activations (B, C, H, W), (B, T, D) or (B, D) of all layers for the same images.

        Returns:
            Their rows, where sums are kept. Of finished features, nothing else is done.
        """
        if self.is_finished:
            return {name: Rows.of(activations[name]) for name in self.layers}
        rows = {name: layer.add(activations[name]) for name, layer in self.layers.items()}
        return {name: each for name, each in rows.items() if each is not None}

    def finish(self, *, device: torch.device | str) -> None:
        """Compute Gram matrices on a device, once all images are added, and drop the activations."""
        for layer in self.layers.values():
            layer.finish(self.ranks, self.gram_metrics, device=device)
        self.is_finished = True

    @property
    def n_bytes(self) -> int:
        """The memory of finished features."""
        return sum(layer.n_bytes for layer in self.layers.values())


class CrossProducts:
    """Products of the activations of two networks, for pairs of layers whose samples are positions or tokens.

    Args:
        alignment: `auto`, `pool` or `positions`, see `alignment`.
        metrics: names in `MEASURES`; only some need products.
    """

    def __init__(self, alignment: str, metrics: Sequence[str]):
        self.alignment, self.of_samples = alignment, take_any(metrics, SAMPLES)
        self.moments: dict[tuple[str, str], CrossMoments] = {}

    def are_needed(self, first: NetworkFeatures, second: NetworkFeatures) -> bool:
        """Return whether positions of some layers are samples, as far as their shapes are known."""
        pairs = product(first.layers.values(), second.layers.values())
        is_known = first.is_finished and second.is_finished
        may_be = not is_known or any(self._is_by_position(*pair) for pair in pairs)
        return self.of_samples and self.alignment != "pool" and may_be

    def add(
        self, first: NetworkFeatures, second: NetworkFeatures, rows1: Mapping[str, Rows], rows2: Mapping[str, Rows]
    ) -> None:
        """Add a batch of rows, which `NetworkFeatures.add` returned."""
        if not self.of_samples:
            return
        for name1, name2 in product(first.layers, second.layers):
            if self._is_by_position(first.layers[name1], second.layers[name2]):
                total = self.moments.get((name1, name2), CrossMoments())
                self.moments[name1, name2] = total.pooled(rows1[name1].cross(rows2[name2]))

    def _is_by_position(self, first: Layer, second: Layer) -> bool:
        return alignment(first.shape, second.shape, self.alignment).by_position


def _where(device: torch.device, n_values: int, dtype: torch.dtype) -> dict:
    """Choose the place of activations: on a GPU while half of its free memory is left, else in pinned memory."""
    if device.type == "cpu":
        return {"device": device}
    free, _ = torch.cuda.mem_get_info(device)
    return {"device": device} if n_values * dtype.itemsize < free / 2 else {"pin_memory": True}
