"""Data sets of arrays on disk: CIFAR-5M, the 300K Random Images, and a user's `.npz` files."""

from pathlib import Path

import numpy as np
import torch

from src.choices.datasets import DATASETS, DatasetInfo
from src.console import warn_once
from src.datasets.base import Device, Loading
from src.datasets.in_memory import ImageSet, split_of
from src.datasets.mapped import MappedImages, map_member
from src.datasets.small_sets import load_torchvision
from src.errors import UserError
from src.files import readable
from src.images import make_normalisation

RANDOM_IMAGES = "300K_random_images.npy"
RANDOM_IMAGES_SOURCE = f"https://people.eecs.berkeley.edu/~hendrycks/{RANDOM_IMAGES}"
CIFAR5M_SOURCE = "https://github.com/preetum/cifar5m"
N_PARTS = 6
REMEDY = (
    "save it with numpy.savez: x_train and x_test uint8 (N, H, W, C) or (N, H, W), y_train and y_test whole numbers "
    "from 0 or none, mean and std a number a channel or none"
)


def load_random_images(
    info: DatasetInfo, root: Path, *, train: bool, device: Device, loading: Loading
) -> ImageSet:
    """Load the 300K Random Images: both splits have all images, the training split augments
    them."""
    path = _folder(root, info.source, RANDOM_IMAGES) / RANDOM_IMAGES
    with readable(path, f"fetch {RANDOM_IMAGES_SOURCE} into that place, then run again"):
        images = _checked_images(
            np.load(path, mmap_mode="r", allow_pickle=False), shape=(32, 32, 3)
        )
    return split_of(info, MappedImages([images]), None, train=train, device=device)


def load_cifar5m(
    info: DatasetInfo, root: Path, *, train: bool, device: Device, loading: Loading
) -> ImageSet:
    """Load CIFAR-5M: its six parts are the training split, the test images of CIFAR-10 the test
    split."""
    if not train:
        return load_torchvision(
            DATASETS["cifar10"], root, train=False, device=device, loading=loading
        )
    folder = _folder(root, info.source, "cifar5m_part0.npz")
    images, labels = [], []
    for i in range(N_PARTS):
        archive = folder / f"cifar5m_part{i}.npz"
        with readable(
            archive,
            f"fetch all {N_PARTS} parts from {CIFAR5M_SOURCE} into that folder, then run again",
        ):
            images.append(_checked_images(map_member(archive, "X"), shape=(32, 32, 3)))
            own = _labels(archive, "Y", n_images=len(images[-1]))
            if own.max() >= info.n_classes:
                raise ValueError(f"labels up to {own.max()}, expected at most {info.n_classes - 1}")
            labels.append(own.astype(np.int8))
    every_label = torch.from_numpy(np.concatenate(labels))
    return split_of(info, MappedImages(images), every_label, train=True, device=device)


def _folder(root: Path, name: str, content: str) -> Path:
    """Return the folder `name` in `root`, or `root` itself where that has this name or contains the
    file `content`."""
    return root if root.name == name or (root / content).is_file() else root / name


def describe(path: Path) -> DatasetInfo:
    """Describe a user's `.npz` file: `x_train`, `x_test`, and if it is labelled `y_train`,
    `y_test`.

    Arrays `mean` and `std` say how values in [0, 1] are to be normalised.
    """
    images, labels = zip(*(_own_arrays(path, split) for split in ("train", "test")), strict=True)
    if any(one is None for one in labels) and not all(one is None for one in labels):
        raise UserError(
            f"{path} has labels for one split only; save both y_train and y_test, or none for OOD data"
        )
    n_classes = 0 if labels[0] is None else 1 + max(int(one.max()) for one in labels)
    present = {*np.unique(labels[0]).tolist()} if n_classes else set()
    if len(present) < n_classes:
        first = next(label for label in range(n_classes) if label not in present)
        warn_once(
            f"{path}: no training image has label {first}; labels count from 0, so there are {n_classes} classes, "
            f"{n_classes - len(present)} of them without a training image"
        )
    if images[0].shape[1:] != images[1].shape[1:]:
        raise UserError(
            f"{path}: x_train and x_test have images of unequal shapes; save them in one shape"
        )
    height, width, channels = (*images[0].shape[1:], 1)[:3]
    if channels > 4 >= height:
        raise UserError(
            f"{path}: images are {images[0].shape[1:]}, but channels come last: save (N, H, W, C)"
        )
    shape, normalisation = (channels, height, width), None
    with readable(path, REMEDY), np.load(path, allow_pickle=False) as arrays:
        if {"mean", "std"} & set(arrays):
            numbers = (
                np.atleast_1d(arrays[name]).astype(float).tolist() for name in ("mean", "std")
            )
            normalisation = make_normalisation(*numbers, n_channels=channels)
    return DatasetInfo("file", str(path), n_classes, shape, normalisation=normalisation)


def load_file(
    info: DatasetInfo, root: Path, *, train: bool, device: Device, loading: Loading
) -> ImageSet:
    """Load a split of a user's `.npz` file."""
    images, labels = _own_arrays(Path(info.source), "train" if train else "test")
    labels = None if labels is None else torch.from_numpy(labels)
    images = images if images.ndim == 4 else images[..., None]
    return split_of(info, MappedImages([images]), labels, train=train, device=device)


def _own_arrays(path: Path, split: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Map the images uint8 (N, H, W, C) or (N, H, W) of a split and read its labels int64 (N,), if
    it has any."""
    with readable(path, REMEDY):
        images = _checked_images(map_member(path, f"x_{split}"))
        with np.load(path) as arrays:
            is_labelled = f"y_{split}" in arrays
        return images, _labels(path, f"y_{split}", n_images=len(images)) if is_labelled else None


def _checked_images(images: np.ndarray, *, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Return images that are uint8 (N, *shape), or without a `shape` (N, H, W, C) or (N, H, W);
    raises ValueError."""
    fits = images.ndim in (3, 4) if shape is None else images.shape[1:] == shape
    if images.dtype != np.uint8 or not fits or not len(images):
        expected = (
            "(N, H, W, C) or (N, H, W)" if shape is None else f"(N, {', '.join(map(str, shape))})"
        )
        raise ValueError(f"{images.dtype} {images.shape}, expected uint8 {expected}")
    return images


def _labels(archive: Path, name: str, *, n_images: int) -> np.ndarray:
    """Read labels int64 (N,) of an archive; raises ValueError if they are not whole numbers (N,)
    from 0."""
    with np.load(archive, allow_pickle=False) as arrays:
        labels = arrays[name]
    if labels.dtype.kind not in "iu" or labels.shape != (n_images,) or labels.min() < 0:
        raise ValueError(
            f"{name} is {labels.dtype} {labels.shape}, expected whole numbers from 0, ({n_images},)"
        )
    return labels.astype(np.int64)
