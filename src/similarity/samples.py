"""Representations as samples × features, kept as the second moments that CCA and Procrustes
need."""

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from src.statistics.moments import ROUNDING

EIGENVALUE_CUTOFF = 1e-10  # times the largest eigenvalue: smaller ones count as zero
TIE = 1e-6  # canonical correlations this near to each other count as equal


class Undefined(ValueError):
    """A measure has no value for these activations; the message says why."""


class Basis(NamedTuple):
    """The samples (n, features) at one rank as `basis @ factor`.

    `basis` (n, k) is orthonormal and not computed. k is the numerical rank.
    """

    whitening: Tensor  # (width, k): from the coordinates to the basis
    factor: Tensor  # (k, features)
    norm: float  # Frobenius norm of the samples


class Samples:
    """Centred samples × features; the first r coordinates are the representation of rank r.

    Args:
        name: of the representation, for errors.
        axes: (features, coordinates), orthonormal columns; rank r is the projection onto the first r.
        moments: second moments Σ zzᵀ (coordinates, coordinates) of the centred samples in these
            coordinates; or (coordinates,), the diagonal of a diagonal matrix.
        scale: sum of squares of the samples before centring.
    """

    def __init__(self, name: str, axes: Tensor, moments: Tensor, *, scale: float):
        self.name = name
        self.axes = axes
        self.moments = moments
        self.scale = scale
        self._bases: dict[int, Basis] = {}

    def basis(self, width: int) -> Basis:
        """Return the basis of the directions in which the samples vary, at a rank of this width.

        Raises:
            Undefined: the samples are constant, or not finite.
        """
        if width in self._bases:
            return self._bases[width]
        if not self.moments.isfinite().all():
            raise Undefined(f"{self.name} has values that are not finite")
        if self.moments.ndim == 1:
            variances = self.moments[:width]
            rotation = torch.eye(width).to(self.moments)
        else:
            variances, rotation = torch.linalg.eigh(self.moments[:width, :width])
        cutoff = EIGENVALUE_CUTOFF * float(variances.max())
        kept = variances > max(cutoff, ROUNDING * self.scale)
        if not kept.any():
            raise Undefined(f"{self.name} is constant over the samples")
        deviations = variances[kept].sqrt()
        rotation = rotation[:, kept]
        factor = deviations[:, None] * (rotation.T @ self.axes[:, :width].T)
        norm = float(variances.clamp(min=0).sum().sqrt())
        self._bases[width] = Basis(rotation / deviations, factor, norm)
        return self._bases[width]


class SamplesPair:
    """Two representations of the same samples, each at a rank.

    Args:
        cross: Σ z₁z₂ᵀ in the coordinates of both, at these ranks or larger ones.
    """

    def __init__(self, first: Basis, second: Basis, cross: Tensor):
        self.first = first
        self.second = second
        self.cross = cross[: len(first.whitening), : len(second.whitening)]

    @cached_property
    def singular(self) -> tuple[Tensor, Tensor, Tensor]:
        """The left singular vectors (k1, k1) of Q₁ᵀQ₂, its singular values, and its right singular
        vectors (k2, k2).

        Q₁ and Q₂ are orthonormal bases of the samples within their numerical rank.
        """
        overlap = self.first.whitening.T @ self.cross @ self.second.whitening  # (k1, k2), Q₁ᵀQ₂
        left, cosines, right = torch.linalg.svd(overlap)
        return left, cosines, right.T

    @cached_property
    def reversed(self) -> "SamplesPair":
        """The pair in reverse order, with the singular vectors of this pair."""
        pair = SamplesPair(self.second, self.first, self.cross.T)
        pair.singular = self.singular[::-1]
        return pair

    def canonical(self) -> tuple[Tensor, Tensor]:
        """Return the correlations (k1,) of the canonical directions of the first representation, and the
        sums (k1,) over the features of their absolute products with each direction.

        The directions are the left singular vectors of Q₁ᵀQ₂, and the singular values the correlations, in
        descending order; 0 for directions without a partner.

        Correlations that differ by at most 1e-6 count as equal, and so do all directions without a
        partner. The directions of such a group are the principal axes of the first representation
        within the group, so that they do not depend on the order of the samples.
        """
        directions, cosines, _ = self.singular
        n_directions = len(directions)
        correlations = torch.zeros(n_directions, dtype=cosines.dtype)
        correlations[: len(cosines)] = cosines.clamp(max=1)  # rounding
        # The products of directions and features, (k1, features1)
        coordinates = directions.T @ self.first.factor
        # A group begins where the correlation differs from the one before it
        begins = (correlations[:-1] - correlations[1:] > TIE).nonzero().flatten() + 1
        for group in torch.arange(n_directions).tensor_split(begins):
            if len(group) > 1:
                # Ascending: the largest variance is the last
                _, axes = torch.linalg.eigh(coordinates[group] @ coordinates[group].T)
                coordinates[group] = axes.flip(1).T @ coordinates[group]
                correlations[group] = correlations[group].mean()
        return correlations, coordinates.abs().sum(1)
