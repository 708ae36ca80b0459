"""Arrays of small images, read whole or mapped: of torchvision, shipped with the suite, of CIFAR-5M
and the 300K Random Images, and of a user's `.npz` files.

A reader takes the source in the row of a data set, the folder of all data sets and whether to read
the training split. It returns the images, uint8 (N, C, H, W), and labels (N,) or None.
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.datasets.mapped import MappedImages, map_file, map_member
from src.ground import files
from src.ground.console import note_once, warn_once
from src.ground.errors import UserError
from src.ground.files import readable
from src.ground.images import ImageSpec, Normalisation, make_normalisation

EMBEDDED = Path(__file__).parent / "embedded"  # sources and licences: README.md there
RANDOM_IMAGES = "300K_random_images.npy"
RANDOM_IMAGES_SOURCE = f"https://people.eecs.berkeley.edu/~hendrycks/{RANDOM_IMAGES}"
CIFAR5M_SOURCE = "https://github.com/preetum/cifar5m"
N_PARTS = 6
N_CLASSES_OF_CIFAR5M = 10
IMAGES_AT_ONCE = 1000  # that are looked at
SHAPE = (32, 32, 3)  # (H, W, C) of CIFAR-5M and the 300K Random Images
REMEDY = (
    "save it with numpy.savez: x_train and x_test uint8 (N, H, W, C) or (N, H, W); y_train and "
    "y_test whole numbers from 0, or none; mean and std a number a channel, or none"
)
Arrays = tuple[Tensor | MappedImages, Tensor | None]


def read_torchvision(source: str, root: Path, train: bool) -> Arrays:
    """Read a split of a data set below `root`; torchvision downloads it where it is missing."""
    from torchvision import datasets  # loads as long as torch does

    make_dataset = getattr(datasets, source)
    is_svhn = source == "SVHN"
    split: dict[str, bool | str] = {"train": train}
    if is_svhn:
        split = {"split": "train" if train else "test"}

    # Files
    remedy = (
        f"{source} is downloaded to it: connect to the internet, or copy there what "
        f"torchvision.datasets.{source}(…, download=True) fetches elsewhere; remove damaged "
        "files; for other images give -d"
    )
    with readable(root, remedy):
        try:
            data = make_dataset(root, **split)
        except RuntimeError:  # files are missing, or their checksums are wrong
            lock = files.locked(root / f".{source.lower()}.lock")
            with lock, contextlib.redirect_stdout(sys.stderr):
                data = make_dataset(root, **split, download=True)

    # Images and labels
    images = torch.as_tensor(data.data)
    if images.ndim == 3:  # MNIST's (N, H, W)
        images = images[:, None]
    elif images.shape[-1] == 3:  # CIFAR's (N, H, W, C)
        images = images.permute(0, 3, 1, 2)
    labels = data.labels if is_svhn else data.targets
    return images, torch.as_tensor(labels).long()


def read_embedded(source: str, root: Path, train: bool) -> Arrays:
    """Read a split of an embedded data set, 8×8 grey images; `root` is not used."""
    split = "train" if train else "test"
    with np.load(EMBEDDED / f"{source}.npz", allow_pickle=False) as arrays:
        images = torch.from_numpy(arrays[f"{split}_images"])  # uint8 (N, 1, 8, 8)
        if f"{split}_labels" not in arrays:
            return images, None
        return images, torch.from_numpy(arrays[f"{split}_labels"]).long()


def read_random_images(source: str, root: Path, train: bool) -> Arrays:
    """Map the 300K Random Images: both splits have all images."""
    path = _folder(root, source, RANDOM_IMAGES) / RANDOM_IMAGES
    with readable(path, f"fetch {RANDOM_IMAGES_SOURCE} into that place, then run again"):
        images = map_file(path)
        _check_images(images, shape=SHAPE)
    return MappedImages([images]), None


def read_cifar5m(source: str, root: Path, train: bool) -> Arrays:
    """Map CIFAR-5M: its six parts for training, the test images of CIFAR-10 for testing."""
    if not train:
        return read_torchvision("CIFAR10", root, train)
    folder = _folder(root, source, "cifar5m_part0.npz")
    remedy = f"fetch all {N_PARTS} parts from {CIFAR5M_SOURCE} into that folder, then run again"
    images = []
    labels = []
    for i in range(N_PARTS):
        archive = folder / f"cifar5m_part{i}.npz"
        with readable(archive, remedy):
            images.append(map_member(archive, "X"))
            _check_images(images[-1], shape=SHAPE)
            labels_of_part = _read_labels(archive, "Y", n_images=len(images[-1]))
            largest = labels_of_part.max()
            if largest >= N_CLASSES_OF_CIFAR5M:
                raise ValueError(
                    f"labels up to {largest}, expected at most {N_CLASSES_OF_CIFAR5M - 1}"
                )
        labels.append(labels_of_part.astype(np.int8))
    return MappedImages(images), torch.from_numpy(np.concatenate(labels))


def _folder(root: Path, name: str, content: str) -> Path:
    """Return the folder `name` in `root`; or `root`, if it has this name or holds the file `content`."""
    if root.name == name or (root / content).is_file():
        return root
    return root / name


def read_file(source: str, root: Path, train: bool) -> Arrays:
    """Map a split of a user's `.npz` file; `root` is not used."""
    images, labels = _read_split(Path(source), "train" if train else "test")
    _warn_of_binary_levels(source, images)
    if images.ndim == 3:
        images = images[..., None]  # (N, H, W) -> (N, H, W, 1), still mapped
    if labels is None:
        return MappedImages([images]), None
    return MappedImages([images]), torch.from_numpy(labels)


def describe(path: Path) -> ImageSpec:
    """Describe a user's `.npz` file: `x_train` and `x_test`, with or without `y_train` and `y_test`,
    `mean` and `std`.

    Raises:
        UserError: the file is damaged, lacks an array, or its arrays do not fit.
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
    shape = _image_shape(path, train_images.shape[1:], test_images.shape[1:])
    normalisation = _read_normalisation(path, n_channels=shape[0])
    if n_classes and normalisation is None:
        note_once(
            f"{path} has no mean and std: images are values in [0, 1], not normalised; for networks that were "
            "trained on normalised images save mean and std, a number a channel"
        )
    return ImageSpec(n_classes, shape, normalisation)


def _warn_of_missing_labels(path: Path, labels: np.ndarray, n_classes: int, *, kind: str) -> None:
    """Warn if no image of a split has one of the labels 0..n_classes-1."""
    missing = np.setdiff1d(np.arange(n_classes), labels)
    if len(missing):
        warn_once(
            f"{path}: no {kind} image has label {missing[0]}; labels count from 0, so there are "
            f"{n_classes} classes, {len(missing)} of them without a {kind} image"
        )


def _image_shape(
    path: Path, shape: Sequence[int], test_shape: Sequence[int]
) -> tuple[int, int, int]:
    """Return (C, H, W) of the images (H, W, C) or (H, W) of both splits of a file."""
    if shape != test_shape:
        raise UserError(
            f"{path}: x_train and x_test have images of unequal shapes; save them in one shape"
        )
    height, width, channels = (*shape, 1)[:3]
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


def _warn_of_binary_levels(source: str, images: np.ndarray) -> None:
    """Warn if all levels of images are 0 or 1; the first block with a higher level ends the search."""
    for first in range(0, len(images), IMAGES_AT_ONCE):
        if images[first : first + IMAGES_AT_ONCE].max() > 1:
            return
    warn_of_binary_levels(source)


def warn_of_binary_levels(source: str) -> None:
    """Warn that all levels of the images in a folder or a file are 0 or 1."""
    warn_once(
        f"{source}: all levels of its images are 0 or 1, and 255 is white, so that networks see "
        "black; multiply them by 255"
    )


def _read_split(path: Path, split: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Map the images of a split, uint8 (N, H, W, C) or (N, H, W), and read its labels (N,) if any."""
    with readable(path, REMEDY):
        images = map_member(path, f"x_{split}")
        _check_images(images)
        with np.load(path) as arrays:
            is_labelled = f"y_{split}" in arrays
        if not is_labelled:
            return images, None
        return images, _read_labels(path, f"y_{split}", n_images=len(images))


def _check_images(images: np.ndarray, *, shape: tuple[int, int, int] | None = None) -> None:
    """Raise a ValueError unless images are uint8 (N, H, W, C) of a shape; None: or any (N, H, W)."""
    fits = images.shape[1:] == shape
    expected = f"(N, {', '.join(map(str, shape or ()))})"
    if shape is None:
        fits = images.ndim in (3, 4)
        expected = "(N, H, W, C) or (N, H, W)"
    if images.dtype != np.uint8 or not fits or len(images) == 0:
        raise ValueError(f"{images.dtype} {images.shape}, expected uint8 {expected}")


def _read_labels(archive: Path, name: str, *, n_images: int) -> np.ndarray:
    """Read labels int64 (N,) of an archive; a ValueError unless they are whole numbers from 0."""
    with np.load(archive, allow_pickle=False) as arrays:
        labels = arrays[name]
    if labels.dtype.kind not in "iu" or labels.shape != (n_images,) or labels.min() < 0:
        raise ValueError(
            f"{name} is {labels.dtype} {labels.shape}, expected whole numbers from 0, ({n_images},)"
        )
    return labels.astype(np.int64)
