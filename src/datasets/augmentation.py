"""Augmentation of a batch at once, with the distribution of torchvision's transforms of single images.

An augmentation draws its random numbers (`draw`) apart from using them (`apply`). Numbers are always drawn on the
CPU and coordinates are whole numbers, so that a run on a GPU sees the same pixels as one on the CPU.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Generator, Tensor

from src.datasets.pixels import crop, enlarge, mirror_, take

FIXED_POINT_BITS = 16  # PIL's affine transform counts in units of 2^-16 pixel


class Augmentation(Protocol):
    """A random change of images; works on a set that carries `padding` zeros around every image."""

    padding: int

    def draw(self, generator: Generator, n: int) -> Tensor:
        """Random parameters for n images, one row each, on the CPU."""

    def apply(self, padded: Tensor, indices: Tensor, parameters: Tensor) -> Tensor:
        """The uint8 images (B, C, H, W) at `indices` (B,) of the set, changed by the rows of `parameters`."""


@dataclass(frozen=True)
class CropFlip:
    """RandomCrop behind zero padding, and RandomHorizontalFlip."""

    padding: int
    flip: bool = True

    def draw(self, generator: Generator, n: int) -> Tensor:
        """Columns: top and left of the crop, 0..2*padding, and whether to flip, 0 or 1; int64 (n, 3)."""
        top, left = torch.randint(0, 2 * self.padding + 1, (2, n), generator=generator)
        return torch.stack([top, left, _coin(generator, n, fair=self.flip)], dim=1)

    def apply(self, padded: Tensor, indices: Tensor, parameters: Tensor) -> Tensor:
        """Crop and flip images of the set (N, C, H + 2*padding, W + 2*padding) to uint8 (B, C, H, W)."""
        top, left, flip = parameters.unbind(1)
        size = (padded.shape[2] - 2 * self.padding, padded.shape[3] - 2 * self.padding)
        cropped = crop(padded, indices, top, left, size=size)
        return mirror_(cropped, flip) if self.flip else cropped


@dataclass(frozen=True)
class Affine:
    """Resize, RandomAffine around the centre without translation, RandomHorizontalFlip.

    The image lies on a canvas which repeats its edge pixels `edge` times on every side (Pad, then CenterCrop);
    beyond the canvas all is black. With `size`, images are first enlarged to (size, size).
    """

    padding: ClassVar[int] = 0  # the canvas is a matter of indices

    degrees: float
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    edge: int = 0
    flip: bool = False
    size: int | None = None

    def draw(self, generator: Generator, n: int) -> Tensor:
        """Columns: clockwise angle and shear along x in degrees, scale, whether to flip; float64 (n, 4)."""
        angle, shear, scale = torch.rand(3, n, generator=generator, dtype=torch.float64)
        low, high = self.scale
        return torch.stack(
            [
                self.degrees * (2 * angle - 1),
                self.shear * (2 * shear - 1),
                low + (high - low) * scale,
                _coin(generator, n, fair=self.flip).double(),
            ],
            dim=1,
        )

    def apply(self, padded: Tensor, indices: Tensor, parameters: Tensor) -> Tensor:
        """Enlarge, turn, shear, scale and flip images of the set (N, C, H, W) to uint8 (B, C, H or size, W or size)."""
        angle, shear, scale, flip = parameters.unbind(1)
        images = enlarge(take(padded, indices), self.size)
        warped = warp(images, angle, shear, scale, edge=self.edge)
        return mirror_(warped, flip) if self.flip else warped


def warp(images: Tensor, angle: Tensor, shear: Tensor, scale: Tensor, *, edge: int = 0) -> Tensor:
    """Each image (B, C, H, W) seen through its own affine map, with the nearest pixel, exactly as PIL does it.

    Args:
        angle, shear, scale: float64 (B,) on the CPU: clockwise and along x, in degrees; a factor.
        edge: how many times the edge pixels are repeated on every side before the map; further out is 0.
    """
    height, width = images.shape[2:]
    x, y = _source_pixels(angle, shear, scale, height=height, width=width, edge=edge, device=images.device)
    inside = (x >= -edge) & (x < width + edge) & (y >= -edge) & (y < height + edge)  # (B, H, W): on the canvas
    nearest = y.clamp_(0, height - 1).mul_(width).add_(x.clamp_(0, width - 1)).long()
    flat = nearest.flatten(1)[:, None].expand(-1, images.shape[1], -1)  # (B, C, H*W)
    return images.flatten(2).gather(2, flat).view(images.shape) * inside[:, None]


def _source_pixels(angle, shear, scale, *, height, width, edge, device) -> tuple[Tensor, Tensor]:
    """Column x and row y, int32 (B, H, W), of the pixel that each pixel of the result shows."""
    a, b, c, d = _inverse_matrix(angle, shear, scale)
    centre_x, centre_y = width / 2 + edge, height / 2 + edge
    # PIL starts at the middle of the canvas' first pixel and adds rounded steps; so do these sums
    x0 = _fixed(a * (0.5 - centre_x) + b * (0.5 - centre_y) + centre_x, device)
    y0 = _fixed(c * (0.5 - centre_x) + d * (0.5 - centre_y) + centre_y, device)
    column = torch.arange(edge, edge + width, dtype=torch.int32, device=device)  # (W,)
    row = torch.arange(edge, edge + height, dtype=torch.int32, device=device)[:, None]  # (H, 1)
    x = (x0 + _fixed(b, device) * row) + _fixed(a, device) * column
    y = (y0 + _fixed(d, device) * row) + _fixed(c, device) * column
    return (x >> FIXED_POINT_BITS) - edge, (y >> FIXED_POINT_BITS) - edge


def _inverse_matrix(angle: Tensor, shear: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The map from the result back to the image: torchvision's rotation, scale and shear, inverted; each (B,)."""
    angle, slant = angle.deg2rad(), shear.deg2rad().tan()
    cos, sin = angle.cos(), angle.sin()
    return (cos - sin * slant) / scale, (cos * slant + sin) / scale, -sin / scale, cos / scale


def _fixed(values: Tensor, device: torch.device) -> Tensor:
    """Real numbers (B,) as int32 (B, 1, 1) in PIL's fixed point; computed on the CPU, since cosines differ on GPUs."""
    return (values * 2**FIXED_POINT_BITS + 0.5).floor().to(torch.int32).to(device)[:, None, None]


def _coin(generator: Generator, n: int, *, fair: bool) -> Tensor:
    """0 or 1, int64 (n,); all 0 unless `fair`."""
    return torch.randint(0, 2 if fair else 1, (n,), generator=generator)


CROP_AND_FLIP = CropFlip(padding=4)
JITTER = Affine(degrees=5, scale=(0.9, 1.1), shear=5, edge=4)
# The random crop of the public code's large sets takes 224 of 224 pixels: it has no choice and is left out
TURN_AND_FLIP = Affine(degrees=15, flip=True, size=224)

AUGMENTATIONS: dict[str, Augmentation | None] = {
    "cifar10": CROP_AND_FLIP,
    "cifar100": CROP_AND_FLIP,
    "svhn": JITTER,
    "mnist": JITTER,
    "fashion": CROP_AND_FLIP,
    "cifar10_large": TURN_AND_FLIP,
    "cifar100_large": TURN_AND_FLIP,
    "cifar5m": None,  # so many images that none is seen often
    "outlier_exposure": CROP_AND_FLIP,
    "digits": CropFlip(padding=1, flip=False),  # a mirrored digit is none
    "photo_patches": CropFlip(padding=1),
}
