"""The table of interventions: changes of the training images or labels that make networks differ by construction.

The protocol is that of ReSi (Klabunde et al., ICLR 2025, arXiv 2408.00531). A new intervention is one row here and one
function. The parser reads the rows, so this module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from src.doors import resolve

if TYPE_CHECKING:
    from src.datasets.base import BaseImageSet


class Intervention(NamedTuple):
    """A row of the table."""

    metavar: str  # of its strength, on the command line
    at_most: float  # the largest strength; the smallest is 0
    description: str  # for `--help`
    function: str  # "module.function" of this package: (images, strength, *, train, seed) -> the images, changed


# In the order of application: dots tell the classes that images have before labels are drawn anew; noise covers dots
INTERVENTIONS = {
    "shortcut": Intervention("P", 1, "a dot on each image tells its class with probability P, else any class (hues, or "
                             "grey levels); on test images any class", "changes.shortcut"),
    "label_noise": Intervention("P", 1, "each training image gets, with probability P, a label drawn from all classes",
                                "changes.label_noise"),
    "image_noise": Intervention("V", math.inf, "in each epoch each training image gets Gaussian noise, of a variance "
                                "drawn from 0 to V on the scale of 0 to 255", "changes.image_noise"),
}  # fmt: skip


def intervene(images: BaseImageSet, strengths: Mapping[str, float | None], *, train: bool, seed: int) -> BaseImageSet:
    """Return a set of images and labels as interventions change them; the set that is given stays as it is.

    They change images before the augmentation does. What is drawn for an image depends on the seed and its index, for
    image noise also on the epoch: not on batches, order, workers or processes. An image keeps its label and dot.

    Args:
        images: a labelled set, in memory, mapped or decoded from disk.
        strengths: by names of the table; None: not applied. A `shortcut` of 0 makes dots that tell nothing.
        train: the set is that of training. Test images only get dots, of classes that are drawn from all.
        seed: of the interventions.
    Raises:
        ValueError: the images have no labels, or a strength is out of range.
    """
    for name, row in INTERVENTIONS.items():
        strength = strengths.get(name)
        if strength is None:
            continue
        if images.n_classes == 0 or not 0 <= strength <= row.at_most:
            raise ValueError(f"{name} {strength}: labelled images and a strength from 0 to {row.at_most} are needed")
        images = resolve(__package__, row.function)(images, strength, train=train, seed=seed)
    return images
