"""The base of all stitching layers, and those between feature maps."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = Sequence[int]


def resize(maps: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """Resize feature maps (B, C, H, W) to (B, C, *size), `bilinear` without aligned corners, or `nearest`."""
    return F.interpolate(maps, size=tuple(size), mode=mode, align_corners=False if mode == "bilinear" else None)


class StitchingLayer(nn.Module):
    """Base: lay out the source, then map each position affinely.

    A subclass has an affine `transform` (a 1×1 convolution or a linear map); `layout` gives what it is applied
    to, and `targets` the part of a target activation that it is to meet position by position. With a `size`,
    the laid-out map is resized to it.
    """

    transform: nn.Conv2d | nn.Linear
    size: tuple[int, int] | None = None
    source_key: tuple = ()  # tells layouts of a source apart, beside `size` and `upsample_mode`
    target_key: tuple = ()  # tells targets of an activation apart
    upsample_mode = "bilinear"

    def layout(self, source: Tensor) -> Tensor:
        """Return the source as a map (B, C, H, W) or as tokens (B, T, D), before any resizing."""
        return source

    def targets(self, target: Tensor) -> Tensor:
        """Return the part of the target activation whose positions are those of the laid-out, resized source."""
        return target

    def forward(self, source: Tensor) -> Tensor:
        """Map source activations (B, …) to the shape of target activations (B, …)."""
        return self.transform(self.layout(source))

    def set_affine(self, weight: Tensor, bias: Tensor) -> None:
        """Take over an affine map: weight (C2, C1), bias (C2,)."""
        with torch.no_grad():
            self.transform.weight.copy_(weight.reshape(self.transform.weight.shape))
            self.transform.bias.copy_(bias)

    @torch.no_grad()
    def sparsity(self, thresholds: Sequence[float]) -> list[float]:
        """Return the shares of weights and biases of the affine map whose magnitude is at most each threshold."""
        sizes = torch.cat([self.transform.weight.flatten(), self.transform.bias]).abs()
        return torch.stack([(sizes <= threshold).double().mean() for threshold in thresholds]).tolist()

    def l1_norm(self) -> Tensor:
        """Return the sum of the magnitudes of weights and biases of the affine map."""
        return self.transform.weight.abs().sum() + self.transform.bias.abs().sum()


class ConvToConv(StitchingLayer):
    """A 1×1 convolution between feature maps, which resizes where the sizes differ.

    Args:
        source: shape (C1, H1, W1).
        target: shape (C2, H2, W2).
        upsample_mode: `bilinear` or `nearest`.
    """

    def __init__(self, source: Shape, target: Shape, *, upsample_mode: str = "bilinear"):
        super().__init__()
        self.size = None if tuple(source[1:]) == tuple(target[1:]) else tuple(target[1:])
        self.upsample_mode = upsample_mode
        # Resizing weighs positions with weights that sum to 1, the convolution weighs channels: the two commute,
        # bias included, so the one that leaves less to do goes first.
        self.convolves_first = math.prod(target[1:]) > math.prod(source[1:])
        self.transform = nn.Conv2d(source[0], target[0], 1)

    def forward(self, source: Tensor) -> Tensor:
        """Map an activation of the front layer (B, …) to one of the end layer (B, C, H, W)."""
        maps = self.layout(source)
        if self.size is None:
            return self.transform(maps)
        if self.convolves_first:
            return resize(self.transform(maps), self.size, self.upsample_mode)
        return self.transform(resize(maps, self.size, self.upsample_mode))
