"""Arrays of small images, read whole or mapped: of torchvision, shipped with the suite, of CIFAR-5M
and the 300K Random Images, and of a user's `.npz` files.

A reader takes the source in the row of a data set, the folder of all data sets and whether to read
the training split. It returns the images, uint8 (N, C, H, W), and labels (N,) or None. A user's file may also have
inputs that are no images: tokens, int64 (N, T), or vectors, float32 (N, D).
"""

import contextlib
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.core import files
from src.core.console import listed, note_once, warn_once
from src.core.errors import UserError
from src.core.files import readable
from src.core.images import ImageSpec, Normalisation, make_normalisation
from src.datasets.inputs import examples
from src.datasets.mapped import MappedImages, map_file, map_member

EMBEDDED = Path(__file__).parent / "embedded"  # sources and licences: README.md there
RANDOM_IMAGES = "300K_random_images.npy"
RANDOM_IMAGES_SOURCE = f"https://people.eecs.berkeley.edu/~hendrycks/{RANDOM_IMAGES}"
CIFAR5M_SOURCE = "https://github.com/preetum/cifar5m"
N_PARTS = 6
N_CLASSES_OF_CIFAR5M = 10
N_LOOKED_AT = 1000  # images
SHAPE = (32, 32, 3)  # (H, W, C) of CIFAR-5M and the 300K Random Images
# Of a user's file
ARRAYS = ("x_train", "y_train", "x_test", "y_test", "mean", "std", "classes")
REMEDY = (
    "save it with numpy.savez: x_train and x_test images uint8 (N, H, W, C) or (N, H, W), tokens (N, T) or vectors "
    "(N, D); y_train and y_test integers from 0 or names; for images optionally mean and std; optionally classes"
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
    """Return `root` if it has this name or holds the file `content`, else `name` in it."""
    if root.name == name or (root / content).is_file():
        return root
    return root / name


def read_file(source: str, root: Path, train: bool) -> Arrays:
    """Map a split of a user's `.npz` file, or read its tokens or vectors; `root` is not used."""
    path = Path(source)
    array, numbers = _read_split(path, "train" if train else "test", _read_classes(path))
    labels = None
    if numbers is not None:
        labels = torch.from_numpy(numbers)
    if array.ndim == 2:
        return _as_tensor(array, path), labels
    if array[:N_LOOKED_AT].max() <= 1:
        warn_of_binary_levels(source)
    if array.ndim == 3:
        array = array[..., None]  # (N, H, W) -> (N, H, W, 1), still mapped
    return MappedImages([array]), labels


def _as_tensor(array: np.ndarray, path: Path) -> Tensor:
    """Return an array (N, D) of integers as int64, and one of fractions as float32."""
    if array.dtype.kind in "iu":
        if array.size and array.min() < 0:
            raise UserError(
                f"{path} has negative tokens; give integers from 0, or vectors as floats"
            )
        return torch.from_numpy(array.astype(np.int64))
    vectors = torch.from_numpy(array.astype(np.float32))
    if not vectors.isfinite().all():
        raise UserError(f"{path} has vectors with values that are not finite; remove these vectors")
    return vectors


def describe(path: Path) -> ImageSpec:
    """Describe a user's `.npz` file: `x_train` and `x_test`, with or without `y_train` and
    `y_test`, `classes`, `mean` and `std`.

    Raises:
        UserError: the file is damaged, lacks an array, or its arrays do not fit.
    """
    classes = _read_classes(path)
    with _archive(path) as arrays:
        unread = [name for name in arrays if name not in ARRAYS]
    if unread:
        note_once(f"{path}: {listed(unread)} is not read; read are {', '.join(ARRAYS)}")
    train_inputs, train_labels = _read_split(path, "train", classes)
    test_inputs, test_labels = _read_split(path, "test", classes)
    if train_inputs.shape[1:] != test_inputs.shape[1:]:
        raise UserError(f"{path}: x_train and x_test have unequal shapes; save inputs of one shape")
    if (train_labels is None) != (test_labels is None):
        raise UserError(
            f"{path} has labels for one split only; save both y_train and y_test, or none for OOD "
            "data"
        )
    n_classes = 0
    if train_labels is not None and test_labels is not None:
        n_classes = len(classes) or 1 + max(int(train_labels.max()), int(test_labels.max()))
        _warn_of_missing_labels(path, train_labels, n_classes, split="training")
        _warn_of_missing_labels(path, test_labels, n_classes, split="test")
    if train_inputs.ndim == 2:
        _check_numbers(path, train_inputs, test_inputs)
        first = _as_tensor(train_inputs[:N_LOOKED_AT], path)
        return ImageSpec(n_classes, train_inputs.shape[1:], classes=classes, inputs=examples(first))
    image_shape = _image_shape(path, train_inputs.shape[1:])
    normalisation = _read_normalisation(path, n_channels=image_shape[0])
    with np.load(path, allow_pickle=False) as arrays:
        has_constants = "mean" in arrays
    if n_classes and not has_constants:
        note_once(
            f"{path} has no mean and std: pixels are scaled to [0, 1] and not normalised; for networks that were "
            "trained on normalised images save mean and std, a number for each channel"
        )
    return ImageSpec(n_classes, image_shape, normalisation, classes)


def _check_numbers(path: Path, train_inputs: np.ndarray, test_inputs: np.ndarray) -> None:
    """Raise a UserError unless both splits are tokens, or both vectors, without a normalisation."""
    are_tokens = train_inputs.dtype.kind in "iu"
    if are_tokens != (test_inputs.dtype.kind in "iu"):
        raise UserError(
            f"{path}: x_train is {train_inputs.dtype}, and x_test {test_inputs.dtype}; save both as integers "
            "(tokens), or both as floats (vectors)"
        )
    with np.load(path, allow_pickle=False) as arrays:
        if "mean" in arrays or "std" in arrays:
            raise UserError(
                f"{path}: mean and std apply to images, and tokens and vectors are not normalised; leave mean and "
                "std out"
            )
    noun = "tokens" if are_tokens else "vectors"
    note_once(
        f"{path}: inputs are {noun} of {train_inputs.shape[1]} numbers, which are not normalised"
    )


def _archive(path: Path) -> np.lib.npyio.NpzFile:
    """Open an `.npz` file; a ValueError if it is none."""
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError("it is no .npz archive")
    return np.load(path, allow_pickle=False)


def _read_classes(path: Path) -> tuple[str, ...]:
    """Return the names of the classes in the order of the labels; () if labels are numbers."""
    with readable(path, REMEDY), _archive(path) as arrays:
        if "classes" in arrays:
            classes = tuple(arrays["classes"].astype(str).tolist())
            if len(set(classes)) < len(classes):
                name = next(name for name in classes if classes.count(name) > 1)
                raise ValueError(
                    f"the array classes has {name!r} twice; give each class its own name"
                )
            return classes
        labels = [arrays[name] for name in ("y_train", "y_test") if name in arrays]
        names = [array.astype(str) for array in labels if array.dtype.kind in "US"]
    if not names:
        return ()
    classes = tuple(np.unique(np.concatenate(names)).tolist())
    note_once(
        f"{path}: the labels are names, and are numbered in alphabetical order: {listed(classes, n=10)}; if the "
        "outputs of the network are in another order, save an array classes"
    )
    return classes


def _warn_of_missing_labels(path: Path, labels: np.ndarray, n_classes: int, *, split: str) -> None:
    """Warn if no image of a split has one of the labels 0..n_classes-1."""
    missing = np.setdiff1d(np.arange(n_classes), labels)
    if len(missing):
        warn_once(
            f"{path}: no {split} image has label {missing[0]}; labels count from 0, so there are "
            f"{n_classes} classes, {len(missing)} of them without a {split} image"
        )


def _image_shape(path: Path, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return (C, H, W) of the images (H, W, C) or (H, W) of a file."""
    height, width, channels = (*shape, 1)[:3]
    if channels > 4 >= height:
        raise UserError(f"{path}: images are {shape}, but channels come last: save (N, H, W, C)")
    return channels, height, width


def _read_normalisation(path: Path, *, n_channels: int) -> Normalisation | None:
    """Read the arrays `mean` and `std` of a file; None if it has neither."""
    with readable(path, REMEDY), np.load(path, allow_pickle=False) as arrays:
        if "mean" not in arrays and "std" not in arrays:
            return None
        for given, missing in (("mean", "std"), ("std", "mean")):
            if missing not in arrays:
                raise ValueError(f"it has {given}, but no {missing}; give both or none")
        mean = np.atleast_1d(arrays["mean"]).astype(float)
        std = np.atleast_1d(arrays["std"]).astype(float)
        return make_normalisation(mean.tolist(), std.tolist(), n_channels=n_channels)


def warn_of_binary_levels(source: str) -> None:
    """Warn that all levels of the images in a folder or a file are 0 or 1."""
    warn_once(
        f"{source}: all pixels are 0 or 1, and 255 is white, so that the images are black; multiply pixels by 255"
    )


def _read_split(
    path: Path, split: str, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Map the inputs of a split, images or numbers (N, D), and read its labels (N,) if any."""
    with readable(path, REMEDY):
        inputs = map_member(path, f"x_{split}")
        if inputs.ndim != 2 or inputs.dtype.kind not in "iuf" or inputs.size == 0:
            _check_images(inputs)
        with np.load(path) as arrays:
            is_labelled = f"y_{split}" in arrays
        if not is_labelled:
            return inputs, None
        return inputs, _read_labels(path, f"y_{split}", n_images=len(inputs), classes=classes)


def _check_images(images: np.ndarray, *, shape: tuple[int, int, int] | None = None) -> None:
    """Raise a ValueError unless images are uint8, of a shape if it is given."""
    fits = images.shape[1:] == shape
    expected = f"(N, {', '.join(map(str, shape or ()))})"
    if shape is None:
        fits = images.ndim in (3, 4)
        expected = "(N, H, W, C) or (N, H, W)"
    if images.dtype != np.uint8 or not fits or len(images) == 0:
        remedy = ""
        if fits and images.dtype.kind == "f":
            remedy = '; from floats x ≥ 0 make them by (x * 255 / x.max()).round().astype("uint8")'
        raise ValueError(f"{images.dtype} {images.shape}, expected uint8 {expected}{remedy}")


def _read_labels(
    archive: Path, name: str, *, n_images: int, classes: Sequence[str] = ()
) -> np.ndarray:
    """Read labels int64 (N,), integers from 0 or names of classes; else raise a ValueError."""
    with np.load(archive, allow_pickle=False) as arrays:
        labels = arrays[name]
    if labels.dtype.kind in "US" and labels.shape == (n_images,):
        labels = _places(labels.astype(str), classes, name)
    if labels.dtype.kind not in "iu" or labels.shape != (n_images,):
        raise ValueError(
            f"{name} is {labels.dtype} {labels.shape}, expected {n_images} integers from 0, or names"
        )
    if labels.min() < 0:
        raise ValueError(f"{name} has label {labels.min()}, expected integers from 0, or names")
    if classes and labels.max() >= len(classes):
        raise ValueError(f"{name} has label {labels.max()}, and there are {len(classes)} classes")
    return labels.astype(np.int64)


def _places(labels: np.ndarray, classes: Sequence[str], name: str) -> np.ndarray:
    """Return the places of names (N,) among the classes; a ValueError if a name is no class."""
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise ValueError(f"{name} has {str(unknown[0])!r}, which is not in the array classes")
    place_of = {label: place for place, label in enumerate(classes)}
    return np.array([place_of[label] for label in labels.tolist()])
