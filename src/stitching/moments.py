"""Means and second moments of activations over rows, one a sample and position, in float64.

Direct matching is computed from them alone: many samples need no more memory than few, and all targets of a source
share one decomposition. They are kept about their own means, so that a large mean costs no digits, and moments of two
sets of rows are pooled by the formula of Chan, Golub and LeVeque (1983).

An upsampled source is never laid out: with R resizing the positions of Z, and X = R Z, XᵀX = Zᵀ(RᵀR)Z and
XᵀY = Zᵀ(RᵀY).
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from src.low_rank import Components, principal_axes
from src.moments import as_rows
from src.stitching.affine import resize

EPS = torch.finfo(torch.float64).eps
NOTHING = 1e-24  # of the squared mean: a variance below this share of it is the rounding of a constant


class TargetMoments(NamedTuple):
    """Moments of a target."""

    n_rows: int
    mean: Tensor  # (C2,)
    scatter: Tensor  # Σ(y−μ)(y−μ)ᵀ, (C2, C2), or its diagonal (C2,)

    @property
    def variations(self) -> Tensor:
        """Σ(y−μ)² of each channel, (C2,)."""
        return self.scatter if self.scatter.ndim == 1 else self.scatter.diagonal()

    @property
    def squared_norm(self) -> Tensor:
        """‖Y‖²."""
        return self.variations.sum() + self.n_rows * self.mean.square().sum()

    def pooled(self, other: "TargetMoments") -> "TargetMoments":
        """Return the moments over the rows of both."""
        step, weight = other.mean - self.mean, self.n_rows * other.n_rows / (self.n_rows + other.n_rows)
        between = step.square() if self.scatter.ndim == 1 else torch.outer(step, step)
        return TargetMoments(
            self.n_rows + other.n_rows,
            self.mean + other.n_rows / (self.n_rows + other.n_rows) * step,
            self.scatter + other.scatter + weight * between,
        )

    def root(self) -> Tensor:
        """Return S (q, C2) with q at most C2 and SᵀS = Σ(y−μ)(y−μ)ᵀ up to rounding."""
        factor, failed = torch.linalg.cholesky_ex(self.scatter)
        if not failed:
            return factor.T
        variations, axes = torch.linalg.eigh(self.scatter)
        varies = varying(variations, self.n_rows, self.mean)
        return variations[varies].sqrt()[:, None] * axes[:, varies].T

    def r2(self, squared_residual: Tensor) -> float:
        """Return R² = 1 − ‖residual‖²/‖Y−μ‖², at most 1; NaN for a target that does not vary, or what is no number."""
        variation = self.variations.sum()
        if variation <= NOTHING * self.squared_norm:
            return math.nan
        # Rounding may take the residual below zero; unlike min(), clamp() keeps NaN.
        return 1 - (squared_residual / variation).clamp(min=0).item()


class Target(NamedTuple):
    """A batch of target activations, prepared for any number of sources."""

    centred: Tensor  # in the shape that was given
    moments: TargetMoments

    @classmethod
    def of(cls, target: Tensor, *, full: bool = False) -> "Target":
        """Prepare a batch (B, C2, H, W), (B, T, C2) or (B, C2).

        Args:
            full: with the whole scatter matrix, not only its diagonal.
        """
        mean, centred = _centred(target)
        rows = as_rows(centred)
        scatter = rows.T @ rows if full else rows.square().sum(0)
        return cls(centred, TargetMoments(len(rows), mean, scatter))


class Moments(NamedTuple):
    """Moments of a source, with any number of targets over the same rows."""

    n_samples: int
    n_rows: int
    mean: Tensor  # (C1,)
    scatter: Tensor  # Σ(x−μ)(x−μ)ᵀ, (C1, C1)
    cross: Mapping[str, Tensor]  # Σ(x−μ)(y−μ)ᵀ, (C1, C2), by target
    targets: Mapping[str, TargetMoments]

    @classmethod
    def of(
        cls,
        source: Tensor,
        targets: Mapping[str, Target],
        *,
        size: tuple[int, int] | None = None,
        mode: str = "bilinear",
    ) -> "Moments":
        """Take the moments of a batch.

        Args:
            source: (B, C1, H, W), (B, T, C1) or (B, C1).
            targets: of the same samples, with the positions of the resized source.
            size: the (H, W) that the source's feature maps are resized to; None leaves them as they are.
            mode: `bilinear` or `nearest`.
        Raises:
            ValueError: the positions differ.
        """
        upsampling = None
        if size is not None and size[0] >= source.shape[2] and size[1] >= source.shape[3]:
            source = source.double()
            upsampling = _Upsampling(source.shape[2:], size, mode, source.device)
            mean = upsampling.mean(source)
            centred = source - mean[:, None, None]
            rows, weighted = as_rows(centred), as_rows(upsampling.gram(centred))
            n_rows = len(source) * math.prod(size)
        else:
            mean, centred = _centred(source if size is None else resize(source.double(), size, mode))
            rows = weighted = as_rows(centred)
            n_rows = len(rows)
        cross = {}
        for name, target in targets.items():
            if target.moments.n_rows != n_rows:
                raise ValueError(f"the source has {n_rows} positions, the target {target.moments.n_rows}")
            adjoint = target.centred if upsampling is None else upsampling.adjoint(target.centred)
            cross[name] = rows.T @ as_rows(adjoint)
        of_targets = {name: target.moments for name, target in targets.items()}
        return cls(len(source), n_rows, mean, rows.T @ weighted, cross, of_targets)

    def pooled(self, other: "Moments") -> "Moments":
        """Return the moments over the rows of both, with the targets of the other, which this has too."""
        n_rows = self.n_rows + other.n_rows
        step, weight = other.mean - self.mean, self.n_rows * other.n_rows / n_rows
        cross, targets = {}, {}
        for name, target in other.targets.items():
            own = self.targets[name]
            between = torch.outer(weight * step, target.mean - own.mean)
            cross[name] = self.cross[name] + other.cross[name] + between
            targets[name] = own.pooled(target)
        return Moments(
            self.n_samples + other.n_samples,
            n_rows,
            self.mean + other.n_rows / n_rows * step,
            self.scatter + other.scatter + weight * torch.outer(step, step),
            cross,
            targets,
        )

    def components(self, rank: int) -> Components:
        """Return the mean of the source and its first `rank` principal axes."""
        return Components(self.mean, principal_axes(self.scatter, rank))

    def in_coordinates(self, axes: Tensor) -> "Moments":
        """Return the moments of the source's coordinates X·axes, with axes (C1, r)."""
        cross = {name: axes.T @ cross for name, cross in self.cross.items()}
        return self._replace(mean=self.mean @ axes, scatter=axes.T @ self.scatter @ axes, cross=cross)

    def truncated(self, components: Components) -> "Moments":
        """Return the moments of the source truncated to principal components around their mean."""
        centre, axes = components
        projected = self.in_coordinates(axes @ axes.T)
        return projected._replace(mean=projected.mean + centre - axes @ (axes.T @ centre))

    def squared_residual(self, name: str, weight: Tensor, bias: Tensor) -> Tensor:
        """Return ‖XW+b−Y‖² of a map given as weight (C2, C1) and bias (C2,)."""
        target, cross = self.targets[name], self.cross[name]
        offset = target.mean - weight @ self.mean - bias
        within = target.variations.sum() - 2 * (weight.T * cross).sum() + (weight * (weight @ self.scatter)).sum()
        return within + self.n_rows * offset.square().sum()

    def check(self) -> None:
        """Check that all activations were finite.

        Raises:
            ValueError: they were not; says on which side.
        """
        if not torch.isfinite(self.scatter).all():
            raise ValueError("the source activations are not finite")
        if not all(torch.isfinite(target.scatter).all() for target in self.targets.values()):
            raise ValueError("the target activations are not finite")


def varying(variations: Tensor, n_rows: int, mean: Tensor) -> Tensor:
    """Tell in which directions rows vary by more than rounding in float64.

    Args:
        variations: eigenvalues of a scatter matrix (C,), ascending.
        mean: of the rows, (C,).
    Returns:
        (C,): bool.
    """
    rounding = 10 * len(variations) * EPS * variations[-1]
    return variations > torch.maximum(rounding, NOTHING * n_rows * mean.square().sum())


def _centred(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over rows (C,), and activations without it; feature maps then have the channel last in memory."""
    rows = as_rows(activations).double()
    mean = rows.mean(0)
    rows = rows - mean
    if activations.ndim == 4:
        n, _, height, width = activations.shape
        return mean, rows.view(n, height, width, -1).movedim(-1, 1)
    return mean, rows.view(activations.shape)


class _Upsampling:
    """The resize R of feature maps as a matrix for each direction, and what follows from it without applying R."""

    def __init__(self, source: torch.Size, target: tuple[int, int], mode: str, device: torch.device):
        self.vertical, self.horizontal = (  # (H2, H1), (W2, W1)
            _resize_matrix(n_in, n_out, mode).to(device) for n_in, n_out in zip(source, target, strict=True)
        )

    def mean(self, maps: Tensor) -> Tensor:
        """Return the mean (C,) over samples and positions of R applied to maps of the source's size."""
        return torch.einsum("bchw,h,w->c", maps, self.vertical.mean(0), self.horizontal.mean(0)) / len(maps)

    def gram(self, maps: Tensor) -> Tensor:
        """RᵀR applied to maps of the source's size."""
        return self.vertical.T @ self.vertical @ maps @ (self.horizontal.T @ self.horizontal)

    def adjoint(self, maps: Tensor) -> Tensor:
        """Rᵀ applied to maps of the target's size."""
        return self.vertical.T @ maps @ self.horizontal


def _resize_matrix(n_in: int, n_out: int, mode: str) -> Tensor:
    """Return the matrix (n_out, n_in) that resizes a line of n_in pixels to n_out, from the resize of unit lines."""
    lines = torch.eye(n_in, dtype=torch.float64)[None, :, :, None]  # (1, n_in, n_in, 1)
    return resize(lines, (n_out, 1), mode)[0, :, :, 0].T
