"""Augmentation of whole batches, with the distribution of torchvision's transforms of images.

`draw` draws a row of random numbers for each image. It draws on the CPU, so that a run on a GPU
sees the same images. `apply` changes images uint8 (B, C, H, W) by their rows; both are on one
device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass(frozen=True)
class CropFlip:
    """RandomCrop after zero padding, and RandomHorizontalFlip."""

    padding: int
    flip: bool = True

    def draw(self, generator: Generator, n: int) -> Tensor:
        """Draw int64 (n, 3): top and left edge of the crop, 0..2*padding, and 1 for a flip."""
        top, left = torch.randint(0, 2 * self.padding + 1, (2, n), generator=generator)
        flip = _draw_flips(generator, n, flip=self.flip)
        return torch.stack([top, left, flip], dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Crop and flip images (B, C, H, W)."""
        top, left, flip = parameters.unbind(1)
        padded = F.pad(images, (self.padding,) * 4)
        return mirrored(crop(padded, top, left, size=images.shape[2:]), flip)


@dataclass(frozen=True)
class Affine:
    """RandomAffine around the centre without translation, and RandomHorizontalFlip.

    Edge pixels are repeated `edge` times on every side; beyond these pixels the image is black.
    """

    degrees: float
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    edge: int = 0
    flip: bool = False

    def draw(self, generator: Generator, n: int) -> Tensor:
        """Draw float64 (n, 4): clockwise angle, shear along x, scale, 1 for a flip.

        Angle and shear are in degrees.
        """
        angle, shear, scale = torch.rand(3, n, generator=generator, dtype=torch.float64)
        flip = _draw_flips(generator, n, flip=self.flip)
        smallest, largest = self.scale
        numbers = [
            self.degrees * (2 * angle - 1),
            self.shear * (2 * shear - 1),
            smallest + (largest - smallest) * scale,
            flip.double(),
        ]
        return torch.stack(numbers, dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Rotate, shear, scale and flip images (B, C, H, W)."""
        height, width = images.shape[2:]
        canvas = F.pad(images.float(), (self.edge,) * 4, mode="replicate")
        grid = _affine_grid(parameters, list(canvas.shape))
        warped = F.grid_sample(canvas, grid, "nearest", "zeros", align_corners=False)
        levels = warped.round_().to(torch.uint8)
        centre = levels[:, :, self.edge : self.edge + height, self.edge : self.edge + width]
        return mirrored(centre, parameters[:, 3])


def _affine_grid(parameters: Tensor, shape: list[int]) -> Tensor:
    """Return where pixels of rotated, sheared, scaled images come from: (B, H, W, 2), of -1 to 1."""
    # The inverse of torchvision's rotation, scale and shear; pixels count from the centre
    angle, shear, scale, _ = parameters.unbind(1)
    height, width = shape[2:]
    slant = shear.deg2rad().tan()
    cos = angle.deg2rad().cos()
    sin = angle.deg2rad().sin()
    zero = 0 * cos
    x = [(cos - sin * slant) / scale, (cos * slant + sin) / scale * (height / width), zero]
    y = [-sin / scale * (width / height), cos / scale, zero]
    matrices = torch.stack([torch.stack(x, dim=1), torch.stack(y, dim=1)], dim=1)  # (B, 2, 3)
    return F.affine_grid(matrices.float(), shape, align_corners=False)


def crop(images: Tensor, top: Tensor, left: Tensor, *, size: Sequence[int]) -> Tensor:
    """Cut a window of `size` (height, width) out of each image (B, C, ., .), on one device.

    Args:
        top, left: edges (B,) of the windows.
    """
    height, width = size
    windows = images.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, tops, lefts, height, width)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def mirrored(images: Tensor, chosen: Tensor) -> Tensor:
    """Return images (B, C, H, W), flipped where `chosen` (B,) is 1; both are on one device."""
    return torch.where(chosen.bool()[:, None, None, None], images.flip(-1), images)


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images uint8 (B, C, H, W) to (B, C, size, size), bilinear and antialiased."""
    import torchvision.transforms.functional as TF  # loads as long as torch does

    return TF.resize(images, [size, size], antialias=True)


Augmentation = CropFlip | Affine
CROP_FLIP = CropFlip(padding=4)
SMALL_CROP_FLIP = CropFlip(padding=1)
SMALL_CROP = CropFlip(padding=1, flip=False)
JITTER = Affine(degrees=5, scale=(0.9, 1.1), shear=5, edge=4)
# The public code also crops 224 of 224 pixels, which changes nothing: this has no crop
TURN_FLIP = Affine(degrees=15, flip=True)


def _draw_flips(generator: Generator, n: int, *, flip: bool) -> Tensor:
    """Draw 0 or 1 with equal probability, int64 (n,); without `flip` all are 0."""
    return torch.randint(0, 1 + flip, (n,), generator=generator)
