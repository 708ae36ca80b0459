"""Moments of a source and of the targets that it is matched to, over rows: one a sample and position, in float64.

Direct matching is computed from them alone: many samples need no more memory than few, and all targets of a source
share one decomposition. An upsampled source is never laid out: with R resizing the positions of Z, and X = R Z,
XᵀX = Zᵀ(RᵀR)Z and XᵀY = Zᵀ(RᵀY).
"""

import math
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from src.low_rank import Components, principal_axes
from src.moments import ROUNDING, CrossMoments, Moments, Rows, as_rows
from src.stitching.layers import resize


class Target(NamedTuple):
    """A batch of target activations, prepared for any number of sources."""

    rows: Rows
    moments: Moments

    @classmethod
    def of(cls, target: Tensor, *, full: bool = False) -> "Target":
        """Prepare a batch (B, C2, H, W), (B, T, C2) or (B, C2).

        Args:
            full: with the whole scatter matrix, not only its diagonal.
        """
        rows = Rows.of(target)
        return cls(rows, rows.moments(diagonal=not full))


class SourceMoments(NamedTuple):
    """Moments of a source, with any number of targets over the same rows."""

    n_samples: int
    source: Moments
    cross: Mapping[str, CrossMoments]  # by target
    targets: Mapping[str, Moments]

    @classmethod
    def of(
        cls,
        source: Tensor,
        targets: Mapping[str, Target],
        *,
        size: tuple[int, int] | None = None,
        mode: str = "bilinear",
    ) -> "SourceMoments":
        """Take the moments of a batch.

        Args:
            source: (B, C1, H, W), (B, T, C1) or (B, C1).
            targets: of the same samples, with the positions of the resized source.
            size: the (H, W) that the source's feature maps are resized to; None leaves them as they are.
            mode: `bilinear` or `nearest`.
        """
        n_channels = source.shape[1] if source.ndim == 4 else source.shape[-1]
        n_rows = source.numel() // n_channels if size is None else len(source) * math.prod(size)
        for target in targets.values():
            if target.moments.n_rows != n_rows:
                raise ValueError(f"the source has {n_rows} positions, the target {target.moments.n_rows}")
        others = {name: target.rows.centred for name, target in targets.items()}
        if size is not None and size[0] >= source.shape[2] and size[1] >= source.shape[3]:
            lines = zip(source.shape[2:], size, strict=True)
            down, across = (_resize_matrix(*line, mode, source.device) for line in lines)  # (H2, H1), (W2, W1)
            source = source.double()
            mean = torch.einsum("bchw,h,w->c", source, down.mean(0), across.mean(0)) / len(source)
            maps = source - mean[:, None, None]
            centred = as_rows(maps)
            scatter = centred.T @ as_rows(down.T @ down @ maps @ (across.T @ across))  # Zᵀ(RᵀR)Z
            moments = Moments(n_rows, mean, scatter)
            for name, other in others.items():
                maps = other.unflatten(0, (-1, *size)).movedim(-1, 1)  # (B, C2, H2, W2)
                others[name] = as_rows(down.T @ maps @ across)  # RᵀY
        else:
            rows = Rows.of(source if size is None else resize(source.double(), size, mode))
            moments, centred = rows.moments(), rows.centred
        means = {name: target.moments.mean for name, target in targets.items()}
        cross = {
            name: CrossMoments(n_rows, moments.mean, means[name], centred.T @ other) for name, other in others.items()
        }
        return cls(len(source), moments, cross, {name: target.moments for name, target in targets.items()})

    def pooled(self, other: "SourceMoments") -> "SourceMoments":
        """Return the moments over the rows of both, with the targets of the other, which this has too."""
        return SourceMoments(
            self.n_samples + other.n_samples,
            self.source.pooled(other.source),
            {name: self.cross[name].pooled(cross) for name, cross in other.cross.items()},
            {name: self.targets[name].pooled(target) for name, target in other.targets.items()},
        )

    def components(self, rank: int) -> Components:
        """Return the mean of the source and its first `rank` principal axes."""
        return Components(self.source.mean, principal_axes(self.source.scatter, rank))

    def in_coordinates(self, axes: Tensor) -> "SourceMoments":
        """Return the moments of the source's coordinates X·axes, with axes (C1, r)."""
        n_rows, mean, scatter = self.source
        cross = {
            name: each._replace(mean1=each.mean1 @ axes, scatter=axes.T @ each.scatter)
            for name, each in self.cross.items()
        }
        return self._replace(source=Moments(n_rows, mean @ axes, axes.T @ scatter @ axes), cross=cross)

    def truncated(self, components: Components) -> "SourceMoments":
        """Return the moments of the source truncated to principal components around their mean."""
        centre, axes = components
        projected = self.in_coordinates(axes @ axes.T)
        mean = projected.source.mean + centre - axes @ (axes.T @ centre)
        cross = {name: each._replace(mean1=mean) for name, each in projected.cross.items()}
        return projected._replace(source=projected.source._replace(mean=mean), cross=cross)

    def squared_residual(self, name: str, weight: Tensor, bias: Tensor) -> Tensor:
        """Return ‖XW+b−Y‖² of a map given as weight (C2, C1) and bias (C2,)."""
        target, cross = self.targets[name], self.cross[name].scatter
        offset = target.mean - weight @ self.source.mean - bias
        squared = (weight * (weight @ self.source.scatter)).sum()
        within = target.variations.sum() - 2 * (weight.T * cross).sum() + squared
        return within + self.source.n_rows * offset.square().sum()


def r2_of(target: Moments, squared_residual: Tensor) -> float:
    """Return R² = 1 − ‖residual‖²/‖Y−μ‖², at most 1; NaN for a target that does not vary, or what is no number."""
    variation = target.variations.sum()
    if variation <= ROUNDING * target.squared_norm:
        return math.nan
    # Rounding may take the residual below zero; unlike min(), clamp() keeps NaN.
    return 1 - (squared_residual / variation).clamp(min=0).item()


@cache  # so that nothing is moved to the device batch by batch
def _resize_matrix(n_in: int, n_out: int, mode: str, device: torch.device) -> Tensor:
    """Return the matrix (n_out, n_in) that resizes a line of n_in pixels to n_out, from the resize of unit lines."""
    lines = torch.eye(n_in, dtype=torch.float64)[None, :, :, None]  # (1, n_in, n_in, 1)
    return resize(lines, (n_out, 1), mode)[0, :, :, 0].T.to(device)
