"""Moments of matched activations in float64, over rows: a row for each sample and position.

Direct matching needs only the moments. So many samples take no more memory than few, and all
targets of a source share one decomposition."""

from collections.abc import Hashable, Mapping
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from src.core.activations import as_rows
from src.low_rank import Components, principal_axes
from src.statistics.moments import CrossMoments, Moments, Rows
from src.stitching.layers import resize


class UpsampledRows(NamedTuple):
    """The rows X of a batch of upsampled feature maps, which are never laid out.

    With R resizing the positions of the maps' rows Z, X = R Z, XᵀX = Zᵀ(RᵀR)Z and XᵀY = Zᵀ(RᵀY).
    """

    mean: Tensor  # (C,)
    maps: Tensor  # (B, C, H, W), about the mean
    centred: Tensor  # (B·H·W, C): their rows Z
    down: Tensor  # (H2, H): resizes columns
    across: Tensor  # (W2, W): resizes lines

    @classmethod
    def of(cls, maps: Tensor, size: tuple[int, int], mode: str) -> "UpsampledRows":
        """Prepare a batch (B, C, H, W) for a resize to a size (H2, W2), `bilinear` or `nearest`."""
        down = _resize_matrix(maps.shape[2], size[0], mode, maps.device)
        across = _resize_matrix(maps.shape[3], size[1], mode, maps.device)
        maps = maps.double()
        mean = torch.einsum("bchw,h,w->c", maps, down.mean(0), across.mean(0)) / len(maps)
        maps = maps - mean[:, None, None]
        return cls(mean, maps, as_rows(maps), down, across)

    def moments(self) -> Moments:
        """Return the moments of the batch."""
        resized_twice = self.down.T @ self.down @ self.maps @ (self.across.T @ self.across)
        n_rows = len(self.maps) * len(self.down) * len(self.across)
        return Moments(n_rows, self.mean, self.centred.T @ as_rows(resized_twice))

    def cross(self, second: Rows) -> CrossMoments:
        """Return the moments with a batch of as many rows."""
        positions = second.centred.unflatten(0, (len(self.maps), len(self.down), -1))
        maps = positions.movedim(-1, 1)  # (B, C2, H2, W2)
        scatter = self.centred.T @ as_rows(self.down.T @ maps @ self.across)
        return CrossMoments(len(second.centred), self.mean, second.mean, scatter)


def source_rows(
    source: Tensor, size: tuple[int, int] | None = None, mode: str = "bilinear"
) -> Rows | UpsampledRows:
    """Prepare a batch (B, C, H, W), (B, T, C) or (B, C).

    Args:
        size: to which feature maps are resized; None: they are not.
        mode: `bilinear` or `nearest`.
    """
    if size is None:
        return Rows.of(source)
    if size[0] >= source.shape[2] and size[1] >= source.shape[3]:
        return UpsampledRows.of(source, size, mode)
    return Rows.of(resize(source.double(), size, mode))


class SourceMoments(NamedTuple):
    """Moments of a source, with any number of targets over the same rows."""

    n_samples: int
    source: Moments
    # By target, whose key is any hashable value; a target without cross moments is not matched
    targets: Mapping[Hashable, Moments]
    cross: Mapping[Hashable, Tensor]  # Σ(x−μ₁)(y−μ₂)ᵀ by target, (C1, C2)
    axes: Tensor | None = None  # (C1, r): to which `truncated` has truncated the source

    def pooled(
        self, further: "SourceMoments", pooled_targets: Mapping[Hashable, Moments] | None = None
    ) -> "SourceMoments":
        """Return the moments over the samples of both.

        Args:
            further: moments of the same targets, over further samples.
            pooled_targets: moments of targets over the samples of both, where they are computed
                already.
        """
        targets = dict(pooled_targets or {})
        for name, moments in further.targets.items():
            if name not in targets:
                targets[name] = self.targets[name].pooled(moments)
        return SourceMoments(
            self.n_samples + further.n_samples,
            self.source.pooled(further.source),
            {name: targets[name] for name in further.targets},
            {name: self._with(name).pooled(further._with(name)).scatter for name in further.cross},
        )

    def _with(self, name: Hashable) -> CrossMoments:
        """Return the moments of the source with a target."""
        return CrossMoments(
            self.source.n_rows, self.source.mean, self.targets[name].mean, self.cross[name]
        )

    def components(self, rank: int) -> Components:
        """Return the mean of the source and its first `rank` principal axes."""
        return Components(self.source.mean, principal_axes(self.source.scatter, rank))

    def in_coordinates(self, axes: Tensor) -> "SourceMoments":
        """Return the moments of the source's coordinates X·axes, with axes (C1, r)."""
        n_rows, mean, scatter = self.source
        source = Moments(n_rows, mean @ axes, axes.T @ scatter @ axes)
        cross = {name: axes.T @ of_target for name, of_target in self.cross.items()}
        return self._replace(source=source, cross=cross)

    def truncated(self, components: Components) -> "SourceMoments":
        """Return the moments of the source truncated to principal components around their mean."""
        centre, axes = components
        projected = self.in_coordinates(axes @ axes.T)
        mean = projected.source.mean + centre - axes @ (axes.T @ centre)
        return projected._replace(source=projected.source._replace(mean=mean), axes=axes)

    def squared_residual(self, name: Hashable, weight: Tensor, bias: Tensor) -> Tensor:
        """Return ‖XW+b−Y‖² of a map given as weight (C2, C1) and bias (C2,)."""
        target = self.targets[name]
        cross = self.cross[name]
        offset = target.mean - weight @ self.source.mean - bias
        squared = (weight * (weight @ self.source.scatter)).sum()
        within = target.variations.sum() - 2 * (weight.T * cross).sum() + squared
        return within + self.source.n_rows * offset.square().sum()


@cache  # so that nothing is moved to the device batch by batch
def _resize_matrix(n_in: int, n_out: int, mode: str, device: torch.device) -> Tensor:
    """Return the matrix (n_out, n_in) that resizes a line of n_in pixels to n_out, from the resize
    of unit lines."""
    lines = torch.eye(n_in, dtype=torch.float64)[None, :, :, None]  # (1, n_in, n_in, 1)
    return resize(lines, (n_out, 1), mode)[0, :, :, 0].T.to(device)
