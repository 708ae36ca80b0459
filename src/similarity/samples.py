"""Representations as samples × features, stored as the second moments that CCA and Procrustes need."""

from typing import NamedTuple

import torch
from torch import Tensor

EIGENVALUE_CUTOFF = 1e-10  # times the largest eigenvalue: smaller ones count as zero
CONSTANT = 1e-24  # times the sum of squares: less variation than that is rounding, in double precision


class Undefined(ValueError):
    """A measure has no value for these activations; the message says why."""


class Basis(NamedTuple):
    """The samples (n, features) at one rank as `basis @ factor`; `basis` (n, k) is orthonormal and not computed."""

    whitening: Tensor  # (rank, k): from the first `rank` axes to the basis; k is the numerical rank
    factor: Tensor  # (k, features)
    norm: float  # Frobenius norm of the samples


class Samples:
    """Centred samples × features; the first r coordinates are the representation of rank r.

    Args:
        name: of the representation, for errors.
        axes: (features, coordinates), orthonormal columns; rank r is the projection onto the first r.
        moments: second moments Σ zzᵀ (coordinates, coordinates) of the centred samples in these coordinates; or
            (coordinates,), the diagonal of a diagonal matrix.
        scale: sum of squares of the samples before centring.
    """

    def __init__(self, name: str, axes: Tensor, moments: Tensor, *, scale: float):
        self.name, self.axes, self.moments, self.scale = name, axes, moments, scale
        self._bases: dict[int, Basis] = {}

    def width(self, rank: int | None) -> int:
        """Return the number of coordinates of a rank: all of them for None and for larger ranks."""
        n_coordinates = self.axes.shape[1]
        return n_coordinates if rank is None else min(rank, n_coordinates)

    def basis(self, rank: int | None = None) -> Basis:
        """Return the basis of the directions in which the samples vary, at one rank (None: full).

        Raises:
            Undefined: the samples are constant.
        """
        width = self.width(rank)
        if width not in self._bases:
            self._bases[width] = self._basis(width)
        return self._bases[width]

    def _basis(self, width: int) -> Basis:
        if self.moments.ndim == 1:
            variances, rotation = self.moments[:width], torch.eye(width).to(self.moments)
        else:
            variances, rotation = torch.linalg.eigh(self.moments[:width, :width])
        kept = variances > max(EIGENVALUE_CUTOFF * float(variances.max()), CONSTANT * self.scale)
        if not kept.any():
            raise Undefined(f"{self.name} is constant over the samples")
        deviations, rotation = variances[kept].sqrt(), rotation[:, kept]
        factor = deviations[:, None] * (rotation.T @ self.axes[:, :width].T)
        return Basis(rotation / deviations, factor, float(variances.clamp(min=0).sum().sqrt()))


class SamplesPair(NamedTuple):
    """Two representations of the same samples."""

    first: Samples
    second: Samples
    cross: Tensor  # (features1, features2): Σ z₁z₂ᵀ in the coordinates of both

    def block(self, rank1: int | None, rank2: int | None) -> Tensor:
        """Return the cross moments of two ranks, (width1, width2)."""
        return self.cross[: self.first.width(rank1), : self.second.width(rank2)]


def matrices(x, y, *, centred: bool = True) -> tuple[Tensor, Tensor]:
    """Convert two arrays or tensors (n, ...) to samples × features in double precision.

    Args:
        centred: subtract the mean over the samples.

    Raises:
        ValueError: there are no features, fewer than two samples, or different numbers of samples.
        Undefined: a value is not finite, or all samples are the same.
    """
    x, y = _matrix(x, "the first representation", centred), _matrix(y, "the second representation", centred)
    if len(x) != len(y):
        raise ValueError(f"{len(x)} samples cannot be compared with {len(y)}")
    return x, y


def _matrix(x, name: str, centred: bool) -> Tensor:
    x = torch.as_tensor(x).detach().double()
    if x.ndim < 2 or len(x) < 2 or x[0].numel() == 0:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; give at least two samples × features")
    x = x.flatten(1)
    if not x.isfinite().all():
        raise Undefined(f"{name} has values that are not finite")
    moved = x - x.mean(0)
    if moved.square().sum() <= CONSTANT * x.square().sum():
        raise Undefined(f"{name} is constant over the samples")
    return moved if centred else x


def samples_pair(x, y) -> SamplesPair:
    """Express arrays (n, features1) and (n, features2) by their own principal axes; raises as `matrices`."""
    factors = [torch.linalg.svd(z, full_matrices=False) for z in matrices(x, y)]
    first, second = (
        Samples(name, axes.T, deviations.square(), scale=0.0)
        for name, (_, deviations, axes) in zip(("first", "second"), factors, strict=True)
    )
    (basis1, deviations1, _), (basis2, deviations2, _) = factors
    return SamplesPair(first, second, deviations1[:, None] * (basis1.T @ basis2) * deviations2)
