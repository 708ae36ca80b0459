"""The moments of feature maps that are resized to more positions, without the resized maps."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from src.core.activations import as_rows
from src.statistics.moments import CrossMoments, Moments, Rows
from src.stitching.layers import resize_maps


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


def resized_rows(
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
    return Rows.of(resize_maps(source.double(), size, mode))


@cache  # so that nothing is moved to the device batch by batch
def _resize_matrix(n_in: int, n_out: int, mode: str, device: torch.device) -> Tensor:
    """Return the matrix (n_out, n_in) that resizes a line of n_in pixels to n_out, from the resize
    of unit lines."""
    lines = torch.eye(n_in, dtype=torch.float64)[None, :, :, None]  # (1, n_in, n_in, 1)
    return resize_maps(lines, (n_out, 1), mode)[0, :, :, 0].T.to(device)
