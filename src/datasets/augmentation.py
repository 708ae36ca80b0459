"""Augmentation of whole batches, with the distribution of torchvision's transforms of single
images.

`draw` draws a row of random numbers for each image, always on the CPU, so that a run on a GPU sees
the same images as one on the CPU. `apply` changes images uint8 (B, C, H, W) by their rows, on the
device of both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from numpy.lib.stride_tricks import sliding_window_view
from torch import Generator, Tensor


@dataclass(frozen=True)
class CropFlip:
    """RandomCrop behind zero padding, and RandomHorizontalFlip."""

    padding: int
    flip: bool = True

    def draw(self, generator: Generator, n: int) -> Tensor:
        """Draw int64 (n, 3): top and left edge of the crop, 0..2*padding, and whether to flip, 0 or
        1."""
        top, left = torch.randint(0, 2 * self.padding + 1, (2, n), generator=generator)
        return torch.stack([top, left, _coin(generator, n, fair=self.flip)], dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Crop and flip images (B, C, H, W)."""
        top, left, flip = parameters.unbind(1)
        cropped = crop(F.pad(images, (self.padding,) * 4), top, left, size=images.shape[2:])
        return mirror_(cropped, flip) if self.flip else cropped


@dataclass(frozen=True)
class Affine:
    """Resize, RandomAffine around the centre without translation, RandomHorizontalFlip.

    As with Pad and CenterCrop, edge pixels are repeated `edge` times on every side; beyond them,
    pixels are black. With `size`, images are first resized to (size, size)."""

    degrees: float
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    edge: int = 0
    flip: bool = False
    size: int | None = None

    def draw(self, generator: Generator, n: int) -> Tensor:
        """Draw float64 (n, 4): clockwise angle and shear along x in degrees, scale, whether to
        flip."""
        angle, shear, scale = torch.rand(3, n, generator=generator, dtype=torch.float64)
        low, high = self.scale
        flip = _coin(generator, n, fair=self.flip).double()
        numbers = (
            self.degrees * (2 * angle - 1),
            self.shear * (2 * shear - 1),
            low + (high - low) * scale,
            flip,
        )
        return torch.stack(numbers, dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Resize, turn, shear, scale and flip images (B, C, H, W) to (B, C, H or size, W or
        size)."""
        angle, shear, scale, flip = parameters.unbind(1)
        images = resize(images, self.size)
        canvas = F.pad(images.float(), (self.edge,) * 4, mode="replicate")
        height, width = canvas.shape[2:]
        slant, cos, sin = shear.deg2rad().tan(), angle.deg2rad().cos(), angle.deg2rad().sin()
        # The inverse of torchvision's rotation, scale and shear maps pixels of the result to those
        # of the image, both counted from the centre; affine_grid counts both axes from -1 to 1
        x = torch.stack(
            [(cos - sin * slant) / scale, (cos * slant + sin) / scale * (height / width), 0 * cos],
            dim=1,
        )
        y = torch.stack([-sin / scale * (width / height), cos / scale, 0 * cos], dim=1)
        grid = F.affine_grid(
            torch.stack([x, y], dim=1).float(), list(canvas.shape), align_corners=False
        )
        warped = (
            F.grid_sample(canvas, grid, "nearest", "zeros", align_corners=False)
            .round_()
            .to(torch.uint8)
        )
        height, width = images.shape[2:]
        seen = warped[:, :, self.edge : self.edge + height, self.edge : self.edge + width]
        return mirror_(seen, flip) if self.flip else seen


def take(images: Tensor, indices: Tensor) -> Tensor:
    """Return the images (B, C, H, W) at `indices` (B,) of a set (N, C, H, W); both on one
    device."""
    if _on_cpu(images):
        return torch.from_numpy(images.numpy()[indices.numpy()])
    return images[indices]


def crop(images: Tensor, top: Tensor, left: Tensor, *, size: Sequence[int]) -> Tensor:
    """Crop each image of (B, C, ., .) to `size` (height, width) at its `top` and `left` (B,); all
    on one device."""
    if _on_cpu(images):
        windows = sliding_window_view(
            images.numpy(), size, axis=(2, 3)
        )  # (B, C, tops, lefts, *size), not copied
        return torch.from_numpy(windows[np.arange(len(images)), :, top.numpy(), left.numpy()])
    windows = images.unfold(2, size[0], 1).unfold(3, size[1], 1)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def mirror_(images: Tensor, chosen: Tensor) -> Tensor:
    """Flip images (B, C, H, W) in place where `chosen` (B,), on their device, is 1 and not 0."""
    if _on_cpu(images):
        pixels, rows = images.numpy(), chosen.bool().numpy()
        pixels[rows] = pixels[rows][..., ::-1]
        return images
    return images.copy_(torch.where(chosen.bool()[:, None, None, None], images.flip(-1), images))


def resize(images: Tensor, size: int | None) -> Tensor:
    """Resize uint8 images (B, C, H, W) to (B, C, size, size), bilinear, antialiased; None leaves
    them as they are."""
    return images if size is None else TF.resize(images, [size, size], antialias=True)


def _on_cpu(images: Tensor) -> bool:
    """Return whether numpy can index the images; it copies rows of bytes 3 to 5 times faster than
    torch."""
    return images.device.type == "cpu"


Augmentation = CropFlip | Affine
KINDS = {"crop_flip": CropFlip, "affine": Affine}


def _coin(generator: Generator, n: int, *, fair: bool) -> Tensor:
    """Draw 0 or 1, int64 (n,); all are 0 unless `fair`."""
    return torch.randint(0, 2 if fair else 1, (n,), generator=generator)
