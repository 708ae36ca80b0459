"""Interventions on a data set: random labels, and dots that encode a class."""

import colorsys
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from src.core.seeds import generator
from src.datasets.base import InputSet

# The second part of the key of a generator: draws of different things are independent
LABELS, TRAINING_DOTS, TEST_DOTS = range(3)
PIXELS_OF_RADIUS = 16  # the shorter side of an image in pixels, for each pixel of a dot's radius


def label_noise(images: InputSet, share: float, *, train: bool, seed: int) -> InputSet:
    """Return the images, with a random class as the label with probability `share`."""
    # With one seed, a label that is drawn at some share is drawn at every larger share
    draws = generator(seed, LABELS)
    labels = _draw_classes(images, keep=1 - share, draws=draws)
    return images.copied(labels=labels.to(images.labels))


def shortcut(images: InputSet, share: float, *, train: bool, seed: int) -> InputSet:
    """Return the images with a dot on each, which encodes the class with probability `share`.

    Otherwise the dot encodes a random class. On test images the class is always random. On images of three
    channels the hue of a dot encodes the class, and its position is random. On other images the dot is white
    and its position encodes the class: networks do not learn a
    grey level.
    """
    stream = TEST_DOTS
    if train:
        stream = TRAINING_DOTS
    draws = generator(seed, stream)
    classes = _draw_classes(images, keep=share * train, draws=draws)
    if images.image_shape[0] == 3:
        colours = hues(images.n_classes)[classes]
        places = torch.rand(len(images), 2, generator=draws)
    else:
        colours = torch.full((len(images), 1), 255, dtype=torch.uint8)
        places = circle(images.n_classes)[classes]
    return images.copied(changes=(*images.changes, Dots(colours, places)))


def _draw_classes(images: InputSet, *, keep: float, draws: torch.Generator) -> Tensor:
    """Return the label of each image with probability `keep`, else a random class: int64 (N,)."""
    n_images = len(images)
    is_kept = torch.rand(n_images, generator=draws) < keep
    drawn = torch.randint(images.n_classes, (n_images,), generator=draws)
    return torch.where(is_kept, images.labels.cpu().long(), drawn)


def hues(n_classes: int) -> Tensor:
    """Return a colour for each class, of evenly spaced hues: uint8 (n_classes, 3)."""
    colours = [colorsys.hsv_to_rgb(label / n_classes, 1, 1) for label in range(n_classes)]
    return (torch.tensor(colours) * 255).round().to(torch.uint8)


def circle(n_classes: int) -> Tensor:
    """Return a position for each class, on the circle inscribed in [0, 1]².

    Returns:
        (n_classes, 2): row and column, rounded to be equal on every machine.
    """
    angles = [2 * math.pi * label / n_classes for label in range(n_classes)]
    places = [(0.5 - 0.5 * math.cos(angle), 0.5 + 0.5 * math.sin(angle)) for angle in angles]
    return torch.tensor([[round(row, 6), round(column, 6)] for row, column in places])


@dataclass(frozen=True)
class Dots:
    """A disc on each image, with a colour and a position.

    The radius is a sixteenth of the shorter side, at least one pixel: a dot covers 5 pixels of an
    8×8 image, 21 pixels of a 32×32 image. A disc lies within the middle square of its image, which
    the crop of test images keeps; the augmentation may cut it off. Images from files get a dot at
    the size that they have in the file.
    """

    colours: Tensor  # uint8 (N, C), on the CPU
    places: Tensor  # (N, 2) in 0..1, on the CPU: row and column of a centre in the middle square

    def __call__(self, images: Tensor, indices: Tensor) -> Tensor:
        """Paint the dots on images; arguments and result as of `Change`."""
        height, width = images.shape[2:]
        side = min(height, width)
        radius = max(1, round(side / PIXELS_OF_RADIUS))

        # The centres, in pixels of the middle square behind its first `radius` pixels
        n_places = side - 2 * radius
        steps = (self.places[indices] * n_places).floor_().clamp_(max=n_places - 1)
        dots = torch.cat([steps, self.colours[indices]], dim=1).to(images.device)  # moved in one go
        centre_rows = dots[:, 0, None] + (height - side) // 2 + radius  # (B, 1)
        centre_columns = dots[:, 1, None] + (width - side) // 2 + radius
        colours = dots[:, 2:].to(torch.uint8)

        # Discs; a half more than the radius makes discs of few pixels look round
        rows = torch.arange(height, device=images.device) - centre_rows  # (B, H)
        columns = torch.arange(width, device=images.device) - centre_columns  # (B, W)
        squared_distances = rows[:, :, None] ** 2 + columns[:, None] ** 2  # (B, H, W)
        is_inside = squared_distances <= radius * (radius + 0.5)
        return torch.where(is_inside[:, None], colours[:, :, None, None], images)
