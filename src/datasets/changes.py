"""What interventions do to a set of images: other labels, dots that tell a class, noise."""

import colorsys
import copy
from typing import NamedTuple

import torch
from torch import Tensor

from src.datasets.base import BaseImageSet, Change
from src.datasets.counters import normals, uniforms
from src.runtime import seed_of

LABELS, TRAINING_DOTS, TEST_DOTS, PLACES, VARIANCES, NOISE = range(6)  # what is drawn, as the second part of a key
PIXELS = 16  # of the shorter side of an image, for each pixel of the radius of a dot


def label_noise(images: BaseImageSet, share: float, *, train: bool, seed: int) -> BaseImageSet:
    """Give each training image, with probability `share`, a label drawn uniformly from all classes, its own included.

    With one seed, the images whose labels are drawn at a smaller share are among those of a larger one, and get the
    same labels there.
    """
    if not train:
        return images
    changed = copy.copy(images)
    changed.labels = _drawn_classes(images, share=1 - share, key=seed_of(seed, LABELS))
    return changed


def shortcut(images: BaseImageSet, share: float, *, train: bool, seed: int) -> BaseImageSet:
    """Paint a dot on each image, which tells its class with probability `share`, else one drawn from all classes.

    On test images the class is always drawn. See `Dots` for colours and places.
    """
    key = seed_of(seed, TRAINING_DOTS if train else TEST_DOTS)
    classes = _drawn_classes(images, share=share if train else 0.0, key=key)
    colours = class_colours(images.n_classes, images.image_shape[0])
    return _with(images, Dots(classes.cpu(), colours, seed_of(seed, PLACES, int(train))))


def image_noise(images: BaseImageSet, variance: float, *, train: bool, seed: int) -> BaseImageSet:
    """Add noise to the training images; see `Noise`."""
    return _with(images, Noise(variance, seed)) if train else images


def _drawn_classes(images: BaseImageSet, *, share: float, key: int) -> Tensor:
    """Return for each image its label with probability `share`, else a class drawn uniformly from all: (N,)."""
    draws = uniforms(key, torch.arange(len(images)), 2).to(images.device)
    classes = (draws[:, 1] * images.n_classes).to(images.labels.dtype)
    return torch.where(draws[:, 0] < share, images.labels, classes)


def _with(images: BaseImageSet, change: Change) -> BaseImageSet:
    changed = copy.copy(images)
    changed.changes = (*images.changes, change)
    return changed


class Dots(NamedTuple):
    """Dots on images: a disc of the colour of a class, at a place that is drawn for each image.

    The radius is a sixteenth of the shorter side, at least one pixel: 5 pixels of an 8×8 image, 21 of a 32×32 one. The
    whole disc lies within the middle square of the image, which the crop of test images leaves; the augmentation may
    cut it off. Images from files get it at the size that they have in the file.
    """

    classes: Tensor  # (N,), on the CPU: the class that each dot tells
    colours: Tensor  # uint8 (n_classes, C)
    key: int

    def __call__(self, images: Tensor, indices: Tensor, *, epoch: int) -> Tensor:
        """Paint on images uint8 (B, C, H, W), which have these `indices` (B,) in the set."""
        sides = images.shape[2:]
        side = min(sides)
        radius = max(1, round(side / PIXELS))
        places = uniforms(self.key, indices, 2).to(images.device)
        rows, columns = (
            torch.arange(n, device=images.device) - ((n - side) // 2 + radius + steps.long())[:, None]  # (B, n)
            for n, steps in zip(sides, (places * (side - 2 * radius)).unbind(1), strict=True)
        )
        # A half more than the radius: discs of few pixels look round
        inside = rows[:, :, None] ** 2 + columns[:, None] ** 2 <= radius * (radius + 0.5)  # (B, H, W)
        colours = self.colours[self.classes[indices].long()].to(images.device)
        return torch.where(inside[:, None], colours[:, :, None, None], images)


def class_colours(n_classes: int, n_channels: int) -> Tensor:
    """Return a colour for each class: hues all round the circle, or grey levels up to 255 where channels are not three.

    Returns:
        uint8 (n_classes, n_channels). No grey level is 0, the background of digits.
    """
    if n_channels != 3:
        levels = torch.arange(1, n_classes + 1) * 255 / n_classes
        return levels.round().to(torch.uint8)[:, None].expand(n_classes, n_channels)
    hues = [colorsys.hsv_to_rgb(label / n_classes, 1, 1) for label in range(n_classes)]
    return (torch.tensor(hues) * 255).round().to(torch.uint8)


class Noise(NamedTuple):
    """Gaussian noise on images, of a variance that is drawn for each, uniformly from 0 to `variance`.

    Variance and noise are drawn anew in each epoch, as those of an augmentation. Values are on the scale of 0 to 255,
    rounded and clipped. Images from files get noise at the size that they have in the file.
    """

    variance: float
    seed: int

    def __call__(self, images: Tensor, indices: Tensor, *, epoch: int) -> Tensor:
        """Add noise to images uint8 (B, C, H, W), which have these `indices` (B,) in the set."""
        here = indices.to(images.device)
        variances = self.variance * uniforms(seed_of(self.seed, VARIANCES, epoch), here, 1)
        noise = normals(seed_of(self.seed, NOISE, epoch), here, images[0].numel())
        noisy = images.float() + (variances.sqrt().float() * noise).view(images.shape)
        return noisy.round_().clamp_(0, 255).to(torch.uint8)
