"""The fingerprint of a set of images, by which results know the images they were made with."""

import hashlib

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
    for index in _spread(len(images)):
        digest.update(images.levels_of(index).cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _spread(n_images: int) -> list[int]:
    """Return the places of at most 64 images, evenly from the first to the last."""
    n_places = min(n_images, N_IMAGES)
    if n_places == 1:
        return [0]
    return [place * (n_images - 1) // (n_places - 1) for place in range(n_places)]
