"""Means and second moments of rows, one a sample or one a sample and position, added up batch by
batch in float64.

Moments are kept about their own means, so that a large mean costs no digits. Those of two sets of
rows are pooled exactly, by the formula of Chan, Golub and LeVeque (1983). Nothing waits for the
device of the rows. Products are in float64 on every device: those of float32 blocks are good for
1e-7, and direct matching and PWCCA decide which directions count by eigenvalues of 1e-10 (goldens
with fewer rows than channels then get other weights altogether).

    total = Moments()
    for activations in batches:
        total = total.pooled(Rows.of(activations).moments())
"""

from typing import NamedTuple

import torch
from torch import Tensor

ROUNDING = (
    1e-24  # of a sum of squares: less variation than that is the rounding of a constant in float64
)
_ZERO = torch.zeros((), dtype=torch.float64)  # takes any shape and device in a sum


def as_rows(activations: Tensor) -> Tensor:
    """Reshape an activation to one row for each position: (B, C, H, W) -> (B·H·W, C), (B, T, D) ->
    (B·T, D)."""
    if activations.ndim == 4:
        activations = activations.movedim(1, -1)  # (B, H, W, C)
    return activations.reshape(-1, activations.shape[-1])


class Moments(NamedTuple):
    """Moments of rows; `Moments()` are those of no rows."""

    n_rows: int = 0
    mean: Tensor = _ZERO  # (C,)
    scatter: Tensor = _ZERO  # Σ(x−μ)(x−μ)ᵀ, (C, C), or its diagonal (C,)

    def pooled(self, other: "Moments") -> "Moments":
        """Return the moments over the rows of both."""
        n_rows, step = self.n_rows + other.n_rows, other.mean - self.mean
        weight = self.n_rows * other.n_rows / n_rows
        scatter = self.scatter + other.scatter
        if scatter.ndim == 1:
            scatter = scatter.addcmul(step, step, value=weight)
        else:
            scatter = scatter.addr(step, step, alpha=weight)
        return Moments(n_rows, self.mean + other.n_rows / n_rows * step, scatter)

    @property
    def covariance(self) -> Tensor:
        """The scatter over the number of rows."""
        return self.scatter / self.n_rows

    @property
    def variations(self) -> Tensor:
        """Σ(x−μ)² of each channel, (C,)."""
        return self.scatter if self.scatter.ndim == 1 else self.scatter.diagonal()

    @property
    def squared_norm(self) -> Tensor:
        """Σ‖x‖²."""
        return self.variations.sum() + self.n_rows * self.mean.square().sum()


class CrossMoments(NamedTuple):
    """Moments of rows x with rows y of the same samples and positions; `CrossMoments()` are those
    of no rows."""

    n_rows: int = 0
    mean1: Tensor = _ZERO  # (C1,)
    mean2: Tensor = _ZERO  # (C2,)
    scatter: Tensor = _ZERO  # Σ(x−μ₁)(y−μ₂)ᵀ, (C1, C2)

    def pooled(self, other: "CrossMoments") -> "CrossMoments":
        """Return the moments over the rows of both."""
        n_rows, step1, step2 = (
            self.n_rows + other.n_rows,
            other.mean1 - self.mean1,
            other.mean2 - self.mean2,
        )
        weight, share = self.n_rows * other.n_rows / n_rows, other.n_rows / n_rows
        scatter = (self.scatter + other.scatter).addr(step1, step2, alpha=weight)
        return CrossMoments(n_rows, self.mean1 + share * step1, self.mean2 + share * step2, scatter)


class Rows(NamedTuple):
    """A batch of rows about their mean, prepared for products with any number of others."""

    mean: Tensor  # (C,)
    centred: Tensor  # (n, C)

    @classmethod
    def of(cls, activations: Tensor) -> "Rows":
        """Prepare a batch (B, C, H, W), (B, T, C) or (B, C); gradients do not pass."""
        rows = as_rows(activations.detach()).to(torch.float64, copy=True)
        mean = rows.mean(0)
        return cls(mean, rows.sub_(mean))

    def moments(self, *, diagonal: bool = False) -> Moments:
        """Return the moments of the batch.

        Args:
            diagonal: only the diagonal of the scatter matrix.
        """
        scatter = self.centred.square().sum(0) if diagonal else self.centred.T @ self.centred
        return Moments(len(self.centred), self.mean, scatter)

    def cross(self, other: "Rows") -> CrossMoments:
        """Return the moments with another batch of as many rows."""
        return CrossMoments(
            len(self.centred), self.mean, other.mean, self.centred.T @ other.centred
        )
