"""What interventions do to a set of images: other labels, dots that tell a class, noise."""

import colorsys
import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor

from src.datasets.base import BaseImageSet, Change
from src.runtime import generator, seed_of

LABELS, TRAINING_DOTS, TEST_DOTS, NOISE = range(4)  # what is drawn, as the second part of a key
PIXELS = 16  # of the shorter side of an image, for each pixel of the radius of a dot


def label_noise(images: BaseImageSet, share: float, *, train: bool, seed: int) -> BaseImageSet:
    """Give each image, with probability `share`, a label drawn uniformly from all classes, its own
    included.

    With one seed, the images whose labels are drawn at a smaller share are among those of a larger
    one, and get the same labels there."""
    changed = copy.copy(images)
    changed.labels = _drawn_classes(images, 1 - share, generator(seed, LABELS)).to(images.labels)
    return changed


def shortcut(images: BaseImageSet, share: float, *, train: bool, seed: int) -> BaseImageSet:
    """Paint a dot on each image, which tells its class with probability `share`, else one drawn
    from all classes.

    On test images the class is always drawn. On images of three channels the hue of a dot tells the
    class and its place is drawn. On others the dot is white and its place tells the class: networks
    do not learn a grey level."""
    draws = generator(seed, TRAINING_DOTS if train else TEST_DOTS)
    classes = _drawn_classes(images, share if train else 0.0, draws)
    if images.image_shape[0] == 3:
        colours, places = (
            hues(images.n_classes)[classes],
            torch.rand(len(images), 2, generator=draws),
        )
    else:
        colours, places = (
            torch.full((len(images), 1), 255, dtype=torch.uint8),
            circle(images.n_classes)[classes],
        )
    return _with(images, Dots(colours, places))


def image_noise(images: BaseImageSet, variance: float, *, train: bool, seed: int) -> BaseImageSet:
    """Add noise to the images; see `Noise`."""
    return _with(images, Noise(variance, seed))


INTERVENTION_FUNCTIONS = {
    "shortcut": shortcut,
    "label_noise": label_noise,
    "image_noise": image_noise,
}


def _drawn_classes(images: BaseImageSet, share: float, draws: torch.Generator) -> Tensor:
    """Return for each image its label with probability `share`, else a class drawn uniformly from
    all: (N,)."""
    n = len(images)
    keeps = torch.rand(n, generator=draws) < share
    return torch.where(
        keeps, images.labels.cpu().long(), torch.randint(images.n_classes, (n,), generator=draws)
    )


def _with(images: BaseImageSet, change: Change) -> BaseImageSet:
    changed = copy.copy(images)
    changed.changes = (*images.changes, change)
    return changed


def hues(n_classes: int) -> Tensor:
    """Return a colour for each class, hues all round the circle: uint8 (n_classes, 3)."""
    colours = [colorsys.hsv_to_rgb(label / n_classes, 1, 1) for label in range(n_classes)]
    return (torch.tensor(colours) * 255).round().to(torch.uint8)


def circle(n_classes: int) -> Tensor:
    """Return a place for each class, all round the circle that touches the sides of [0, 1]²:
    (n_classes, 2)."""
    angles = [2 * math.pi * label / n_classes for label in range(n_classes)]
    places = [
        (0.5 - 0.5 * math.cos(angle), 0.5 + 0.5 * math.sin(angle)) for angle in angles
    ]  # row, column
    return torch.tensor(
        [[round(place, 6) for place in pair] for pair in places]
    )  # 0.5 on every machine


class Dots(NamedTuple):
    """Dots on images, each a disc of a colour at a place.

    The radius is a sixteenth of the shorter side, at least one pixel: 5 pixels of an 8×8 image, 21
    of a 32×32 one. The whole disc lies within the middle square of the image, which the crop of
    test images leaves; the augmentation may cut it off. Images from files get it at the size that
    they have in the file."""

    colours: Tensor  # uint8 (N, C), on the CPU
    # (N, 2), on the CPU: of the row and of the column of a centre in the middle square, from 0 to 1
    places: Tensor

    def __call__(self, images: Tensor, indices: Tensor, *, epoch: int) -> Tensor:
        """Paint on images uint8 (B, C, H, W), which have these `indices` (B,), on the CPU, in the
        set."""
        sides = images.shape[2:]
        side = min(sides)
        radius = max(1, round(side / PIXELS))
        n_places = side - 2 * radius
        steps = (self.places[indices] * n_places).floor_().clamp_(max=n_places - 1)
        dots = torch.cat([steps, self.colours[indices]], dim=1).to(images.device)  # one copy
        rows, columns = (
            torch.arange(n, device=images.device)
            - ((n - side) // 2 + radius + dots[:, axis, None])  # (B, n)
            for axis, n in enumerate(sides)
        )
        # A half more than the radius: discs of few pixels look round
        inside = rows[:, :, None] ** 2 + columns[:, None] ** 2 <= radius * (
            radius + 0.5
        )  # (B, H, W)
        return torch.where(inside[:, None], dots[:, 2:, None, None].to(torch.uint8), images)


class Noise(NamedTuple):
    """Gaussian noise on images, of a variance that is drawn for each, uniformly from 0 to
    `variance`.

    Variance and noise are drawn anew in each epoch, as those of an augmentation. Values are on the
    scale of 0 to 255, rounded and clipped. Images from files get noise at the size that they have
    in the file."""

    variance: float
    seed: int

    def __call__(self, images: Tensor, indices: Tensor, *, epoch: int) -> Tensor:
        """Add noise to images uint8 (B, C, H, W), which have these `indices` (B,), on the CPU, in
        the set."""
        first, draws = seed_of(self.seed, NOISE, epoch), torch.Generator()
        noise = torch.empty(images.shape)
        for row, i in zip(noise, indices.tolist(), strict=True):
            draws.manual_seed(first + i)
            deviation = (self.variance * torch.rand(1, generator=draws)).sqrt_()
            row.normal_(generator=draws).mul_(deviation)
        return noise.to(images.device).add_(images).round_().clamp_(0, 255).to(torch.uint8)
