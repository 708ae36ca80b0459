"""A sample of the image files in a folder: their sizes, and losses in decoding.

The sample has at most `N_SAMPLED` files, so that a folder of millions of images costs no more.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torchvision.datasets.folder import is_image_file

from src.ground.console import warn_once
from src.ground.files import readable

N_SAMPLED = 100
REMEDY = "restore or remove it"  # of an image that cannot be read


class Size(NamedTuple):
    """The size of an image in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.height}×{self.width}"


def first_images(folders: Sequence[str | Path]) -> list[str]:
    """List the first images of each folder, equally many, and `N_SAMPLED` in all folders.

    Images in folders below count as well. Of more than `N_SAMPLED` folders some are left out.
    """
    step = math.ceil(len(folders) / N_SAMPLED)
    chosen = folders[::step]
    n_images = max(1, N_SAMPLED // len(chosen))
    paths: list[str] = []
    for folder in chosen:
        of_folder: list[str] = []
        for place, subfolders, names in os.walk(folder):
            subfolders.sort()  # the order of the walk, which is the file system's otherwise
            of_folder += [
                os.path.join(place, name) for name in sorted(names) if is_image_file(name)
            ]
            if len(of_folder) >= n_images:
                break
        paths += of_folder[:n_images]
    return paths


def sizes_of(paths: Sequence[str]) -> list[Size]:
    """Return the sizes of images; only the beginnings of the files are read."""
    sizes = []
    for path in paths:
        with readable(path, REMEDY), Image.open(path) as image:
            sizes.append(Size(*image.size))
    return sizes


def warn_of_lost_pixels(root: Path, paths: Sequence[str]) -> None:
    """Warn if images of a sample lose transparency, or if none has a level above 1.

    Args:
        root: the folder of the data set, for the messages.
        paths: of all images of a split.
    """
    step = math.ceil(len(paths) / N_SAMPLED)
    sample = paths[::step]
    transparent = []
    is_binary = True
    for path in sample:
        with readable(path, REMEDY), Image.open(path) as image:
            if has_transparency(image):
                transparent.append(path)
            is_binary = is_binary and _is_binary(image)
    if transparent:
        warn_once(
            f"{root}: {len(transparent)} of {len(sample)} images that were looked at have "
            f"transparent pixels, the first is {transparent[0]}; transparency is dropped, and the "
            "hidden colours are seen: paste the images on a background"
        )
    if is_binary:
        warn_of_binary_levels(str(root))


def _is_binary(image: Image.Image) -> bool:
    """Return whether all levels of an image of 8 bits are 0 or 1."""
    if image.mode.startswith(("I", "F")):  # more than 8 bits
        return False
    return bool(np.asarray(image.convert("RGB")).max() <= 1)


def has_transparency(image: Image.Image) -> bool:
    """Return whether a pixel of an image is transparent."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return False
    return bool(np.asarray(image.convert("RGBA"))[..., 3].min() < 255)


def warn_of_binary_levels(source: str) -> None:
    """Warn that all levels of the images in a folder or a file are 0 or 1."""
    warn_once(
        f"{source}: all levels of its images are 0 or 1, and 255 is white, so that networks see "
        "black; multiply them by 255"
    )
