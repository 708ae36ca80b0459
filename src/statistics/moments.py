"""Means and second moments of rows, added up batch by batch in float64.

A row holds the channels of a sample, or of a sample at a position.

    total = Moments()
    for activations in batches:
        total = total.pooled(Rows.of(activations).moments())

Moments are kept about their means, so a large mean costs no digits. Two sets of rows are pooled
exactly, by the formula of Chan, Golub and LeVeque (1983). Nothing waits for the device of the rows.

Products are in float64 on every device. Products of float32 blocks are good for 1e-7 only, but
direct matching and PWCCA decide by eigenvalues of 1e-10 which directions count: with fewer rows
than channels, float32 would give quite different weights.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from src.core.activations import as_rows

# A share of a sum of squares: less variation is the rounding of a constant in float64
ROUNDING = 1e-24
_ZERO = torch.zeros((), dtype=torch.float64)  # a sum with it takes any shape and device


class Moments(NamedTuple):
    """Number, mean and scatter of rows x; `Moments()` has no rows."""

    n_rows: int = 0
    mean: Tensor = _ZERO  # (C,)
    scatter: Tensor = _ZERO  # Σ(x−μ)(x−μ)ᵀ, (C, C), or its diagonal (C,)

    def pooled(self, second: "Moments") -> "Moments":
        """Return the moments of the rows of both sets together."""
        if self.n_rows == 0:
            return second
        n_rows = self.n_rows + second.n_rows
        step = second.mean - self.mean  # (C,)
        weight = self.n_rows * second.n_rows / n_rows
        scatter = self.scatter + second.scatter
        if scatter.ndim == 1:
            scatter = scatter.addcmul(step, step, value=weight)
        else:
            scatter = scatter.addr(step, step, alpha=weight)
        mean = self.mean + second.n_rows / n_rows * step
        return Moments(n_rows, mean, scatter)

    @property
    def covariance(self) -> Tensor:
        """The scatter divided by the number of rows: (C, C), or its diagonal (C,)."""
        return self.scatter / self.n_rows

    @property
    def variations(self) -> Tensor:
        """Σ(x−μ)² of each channel, (C,)."""
        if self.scatter.ndim == 1:
            return self.scatter
        return self.scatter.diagonal()

    @property
    def squared_norm(self) -> Tensor:
        """Σ‖x‖² over the rows, a scalar."""
        return self.variations.sum() + self.n_rows * self.mean.square().sum()

    def r2(self, squared_residual: Tensor) -> float:
        """Return R² = 1 − ‖residual‖²/‖X−μ‖² of a prediction of the rows, at most 1.

        It is NaN for rows that do not vary, and for a residual of NaN.
        """
        variation = self.variations.sum()
        if variation <= ROUNDING * self.squared_norm:
            return math.nan
        # Rounding may take the residual below zero; unlike min(), clamp() keeps NaN.
        return 1 - (squared_residual / variation).clamp(min=0).item()


class CrossMoments(NamedTuple):
    """Number, means and scatter of pairs of rows x and y; `CrossMoments()` has no rows.

    Both rows of a pair belong to the same sample and position.
    """

    n_rows: int = 0
    mean1: Tensor = _ZERO  # of x, (C1,)
    mean2: Tensor = _ZERO  # of y, (C2,)
    scatter: Tensor = _ZERO  # Σ(x−μ₁)(y−μ₂)ᵀ, (C1, C2)

    def pooled(self, second: "CrossMoments") -> "CrossMoments":
        """Return the moments of the pairs of both sets together."""
        if self.n_rows == 0:
            return second
        n_rows = self.n_rows + second.n_rows
        step1 = second.mean1 - self.mean1  # (C1,)
        step2 = second.mean2 - self.mean2  # (C2,)
        weight = self.n_rows * second.n_rows / n_rows
        share = second.n_rows / n_rows
        scatter = (self.scatter + second.scatter).addr(step1, step2, alpha=weight)
        return CrossMoments(n_rows, self.mean1 + share * step1, self.mean2 + share * step2, scatter)


class Rows(NamedTuple):
    """The mean of a batch of rows, and the rows minus that mean, in float64."""

    mean: Tensor  # (C,)
    centred: Tensor  # (n, C)

    @classmethod
    def of(cls, activations: Tensor) -> "Rows":
        """Return the rows of activations (B, C, H, W), (B, T, C) or (B, C), without gradients."""
        rows = as_rows(activations.detach()).to(torch.float64, copy=True)
        mean = rows.mean(0)
        return cls(mean, rows.sub_(mean))

    def moments(self, *, diagonal: bool = False) -> Moments:
        """Return the moments of the batch.

        Args:
            diagonal: compute only the diagonal of the scatter matrix.
        """
        if diagonal:
            scatter = self.centred.square().sum(0)
        else:
            scatter = self.centred.T @ self.centred
        return Moments(len(self.centred), self.mean, scatter)

    def cross(self, second: "Rows") -> CrossMoments:
        """Return the cross moments of rows x (this batch) and y (`second`), as many of each."""
        scatter = self.centred.T @ second.centred
        return CrossMoments(len(self.centred), self.mean, second.mean, scatter)
