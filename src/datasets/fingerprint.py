"""The fingerprint of a set of images, by which results know the images they were made with."""

import hashlib

import torch
from torch import Tensor

from src.datasets.base import BaseImageSet

N_IMAGES = 64  # whose pixels count


def fingerprint(images: BaseImageSet) -> str:
    """Return a SHA-256 of the labels, of the form of the images, and of some of the images.

    The form is their number, shape and normalisation. At most 64 images count, spread evenly over
    the set, as they are decoded: with interventions, without augmentation. So the fingerprint does
    not depend on file, format or device, and large sets take no longer than small ones. A change of
    few images between those 64 is not seen.
    """
    digest = hashlib.sha256()
    digest.update(f"{len(images)} {images.image_shape} {images.normalisation}\n".encode())
    digest.update(images.labels.cpu().int().numpy().astype("<i4", copy=False).data)
    levels = images.levels_of(_spread(len(images)))
    digest.update(levels.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _spread(n_images: int) -> Tensor:
    """Return the places of at most 64 images, evenly from the first to the last."""
    n_places = min(n_images, N_IMAGES)
    n_steps = max(1, n_places - 1)
    return torch.arange(n_places) * (n_images - 1) // n_steps
