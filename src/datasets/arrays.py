"""Data sets of arrays on disk: CIFAR-5M, the 300K Random Images, and a user's `.npz` files."""

from pathlib import Path
from typing import cast

import numpy as np
import torch

from src.choices.datasets import DATASETS, DatasetInfo
from src.datasets.base import Device, ImageSet, Loading, split_of
from src.datasets.mapped import MappedImages, map_file, map_member
from src.datasets.small_sets import load_torchvision
from src.ground.console import note_once, warn_once
from src.ground.errors import UserError
from src.ground.files import readable
from src.ground.images import Normalisation, make_normalisation

RANDOM_IMAGES = "300K_random_images.npy"
RANDOM_IMAGES_SOURCE = f"https://people.eecs.berkeley.edu/~hendrycks/{RANDOM_IMAGES}"
CIFAR5M_SOURCE = "https://github.com/preetum/cifar5m"
N_PARTS = 6
IMAGES_AT_ONCE = 1000  # that are looked at
SHAPE = (32, 32, 3)  # (H, W, C) of the images of both sets
REMEDY = (
    "save it with numpy.savez: x_train and x_test uint8 (N, H, W, C) or (N, H, W); y_train and "
    "y_test whole numbers from 0, or none; mean and std a number a channel, or none"
)


def load_random_images(
    info: DatasetInfo, root: Path, *, train: bool, device: Device, loading: Loading
) -> ImageSet:
    """Load the 300K Random Images: both splits have all images, the training split augments."""
    path = _folder(root, info.source, RANDOM_IMAGES) / RANDOM_IMAGES
    with readable(path, f"fetch {RANDOM_IMAGES_SOURCE} into that place, then run again"):
        images = map_file(path)
        _check_images(images, shape=SHAPE)
    return split_of(info, MappedImages([images]), None, train=train, device=device)


def load_cifar5m(
    info: DatasetInfo, root: Path, *, train: bool, device: Device, loading: Loading
) -> ImageSet:
    """Load CIFAR-5M: its six parts for training, the test images of CIFAR-10 for testing."""
    if not train:
        cifar10 = DATASETS["cifar10"]
        return load_torchvision(cifar10, root, train=False, device=device, loading=loading)
    folder = _folder(root, info.source, "cifar5m_part0.npz")
    remedy = f"fetch all {N_PARTS} parts from {CIFAR5M_SOURCE} into that folder, then run again"
    images = []
    labels = []
    for i in range(N_PARTS):
        archive = folder / f"cifar5m_part{i}.npz"
        with readable(archive, remedy):
            images_of_part = map_member(archive, "X")
            _check_images(images_of_part, shape=SHAPE)
            labels_of_part = _read_labels(archive, "Y", n_images=len(images_of_part))
            largest = labels_of_part.max()
            if largest >= info.n_classes:
                raise ValueError(f"labels up to {largest}, expected at most {info.n_classes - 1}")
        images.append(images_of_part)
        labels.append(labels_of_part.astype(np.int8))
    all_labels = torch.from_numpy(np.concatenate(labels))
    return split_of(info, MappedImages(images), all_labels, train=True, device=device)


def _folder(root: Path, name: str, content: str) -> Path:
    """Return the folder `name` in `root`; or `root`, if it has this name or holds `content`.

    Args:
        content: the name of a file.
    """
    if root.name == name or (root / content).is_file():
        return root
    return root / name


def describe(path: Path) -> DatasetInfo:
    """Describe a user's `.npz` file.

    It has `x_train` and `x_test`. A labelled file has `y_train` and `y_test`. Arrays `mean` and
    `std` give the normalisation of values in [0, 1].
    """
    train_images, train_labels = _read_split(path, "train")
    test_images, test_labels = _read_split(path, "test")
    if (train_labels is None) != (test_labels is None):
        raise UserError(
            f"{path} has labels for one split only; save both y_train and y_test, or none for OOD "
            "data"
        )
    n_classes = 0
    if train_labels is not None and test_labels is not None:
        n_classes = 1 + max(int(train_labels.max()), int(test_labels.max()))
        _warn_of_missing_labels(path, train_labels, n_classes, kind="training")
        _warn_of_missing_labels(path, test_labels, n_classes, kind="test")
    shape = _image_shape(path, train_images, test_images)
    normalisation = _read_normalisation(path, n_channels=shape[0])
    if n_classes and normalisation is None:
        note_once(
            f"{path} has no mean and std: images are values in [0, 1], not normalised; for networks that were "
            "trained on normalised images save mean and std, a number a channel"
        )
    return DatasetInfo("file", str(path), n_classes, shape, normalisation=normalisation)


def _warn_of_missing_labels(path: Path, labels: np.ndarray, n_classes: int, *, kind: str) -> None:
    """Warn if no image of a split has one of the labels 0..n_classes-1.

    Args:
        kind: of the images, "training" or "test".
    """
    present = set(np.unique(labels).tolist())
    missing = [label for label in range(n_classes) if label not in present]
    if missing:
        warn_once(
            f"{path}: no {kind} image has label {missing[0]}; labels count from 0, so there are "
            f"{n_classes} classes, {len(missing)} of them without a {kind} image"
        )


def _image_shape(
    path: Path, train_images: np.ndarray, test_images: np.ndarray
) -> tuple[int, int, int]:
    """Return (C, H, W) of the images (N, H, W, C) or (N, H, W) of a file.

    Raises:
        UserError: the splits disagree, or the channels do not come last.
    """
    shape = train_images.shape[1:]
    if shape != test_images.shape[1:]:
        raise UserError(
            f"{path}: x_train and x_test have images of unequal shapes; save them in one shape"
        )
    height, width = shape[:2]
    channels = shape[2] if len(shape) == 3 else 1
    if channels > 4 >= height:
        raise UserError(f"{path}: images are {shape}, but channels come last: save (N, H, W, C)")
    return channels, height, width


def _read_normalisation(path: Path, *, n_channels: int) -> Normalisation | None:
    """Read the arrays `mean` and `std` of a file; None if it has neither."""
    with readable(path, REMEDY), np.load(path, allow_pickle=False) as arrays:
        if "mean" not in arrays and "std" not in arrays:
            return None
        mean = np.atleast_1d(arrays["mean"]).astype(float)
        std = np.atleast_1d(arrays["std"]).astype(float)
        return make_normalisation(mean.tolist(), std.tolist(), n_channels=n_channels)


def load_file(
    info: DatasetInfo, root: Path, *, train: bool, device: Device, loading: Loading
) -> ImageSet:
    """Load a split of a user's `.npz` file; `root` is not used."""
    split = "train" if train else "test"
    images, labels = _read_split(Path(info.source), split)
    if _is_binary(images):
        from src.datasets.samples import warn_of_binary_levels

        warn_of_binary_levels(info.source)
    if images.ndim == 3:
        images = cast(np.memmap, images[..., None])  # (N, H, W) -> (N, H, W, 1), still mapped
    labels_tensor = None
    if labels is not None:
        labels_tensor = torch.from_numpy(labels)
    return split_of(info, MappedImages([images]), labels_tensor, train=train, device=device)


def _is_binary(images: np.ndarray) -> bool:
    """Return whether all levels of uint8 images are 0 or 1.

    Blocks of images are read up to the first with a higher level, which is the first block as a
    rule.
    """
    blocks = range(0, len(images), IMAGES_AT_ONCE)
    return all(images[first : first + IMAGES_AT_ONCE].max() <= 1 for first in blocks)


def _read_split(path: Path, split: str) -> tuple[np.memmap, np.ndarray | None]:
    """Map the images of a split, uint8 (N, H, W, C) or (N, H, W), and read its labels.

    Returns:
        The images, and labels int64 (N,) or None.
    """
    with readable(path, REMEDY):
        images = map_member(path, f"x_{split}")
        _check_images(images)
        with np.load(path) as arrays:
            is_labelled = f"y_{split}" in arrays
        if not is_labelled:
            return images, None
        return images, _read_labels(path, f"y_{split}", n_images=len(images))


def _check_images(images: np.ndarray, *, shape: tuple[int, int, int] | None = None) -> None:
    """Raise a ValueError unless images are uint8 (N, *shape), and at least one.

    Args:
        shape: (H, W, C); None allows any (H, W, C) and (H, W).
    """
    if shape is None:
        fits = images.ndim in (3, 4)
        expected = "(N, H, W, C) or (N, H, W)"
    else:
        fits = images.shape[1:] == shape
        expected = f"(N, {', '.join(map(str, shape))})"
    if images.dtype != np.uint8 or not fits or len(images) == 0:
        raise ValueError(f"{images.dtype} {images.shape}, expected uint8 {expected}")


def _read_labels(archive: Path, name: str, *, n_images: int) -> np.ndarray:
    """Read the labels of an archive: int64 (N,).

    Raises:
        ValueError: the labels are not whole numbers (N,) from 0.
    """
    with np.load(archive, allow_pickle=False) as arrays:
        labels = arrays[name]
    if labels.dtype.kind not in "iu" or labels.shape != (n_images,) or labels.min() < 0:
        raise ValueError(
            f"{name} is {labels.dtype} {labels.shape}, expected whole numbers from 0, ({n_images},)"
        )
    return labels.astype(np.int64)
