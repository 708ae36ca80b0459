"""Arrays of small images, read whole or mapped: of torchvision, shipped with the suite, of CIFAR-5M
and the 300K Random Images, and of a user's `.npz` files.

A reader takes the source in the row of a data set, the folder of all data sets and whether to read
the training split. It returns the images, uint8 (N, C, H, W), and labels (N,) or None. A user's file may also have
inputs that are no images: tokens, int64 (N, T), or vectors, float32 (N, D).
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.core import files
from src.core.console import listed, note_once, warn_once
from src.core.errors import UserError
from src.core.files import readable
from src.core.inputs import InputSpec, Normalisation, make_normalisation
from src.datasets.base import N_LOOKED_AT, examples
from src.datasets.mapped import MappedImages, check_archive, map_file, map_member

EMBEDDED = Path(__file__).parent / "embedded"  # sources and licences: README.md there
RANDOM_IMAGES = "300K_random_images.npy"
RANDOM_IMAGES_SOURCE = f"https://people.eecs.berkeley.edu/~hendrycks/{RANDOM_IMAGES}"
CIFAR5M_SOURCE = "https://github.com/preetum/cifar5m"
N_PARTS = 6
N_CLASSES_OF_CIFAR5M = 10
SHAPE = (32, 32, 3)  # (H, W, C) of CIFAR-5M and the 300K Random Images
REMEDY = (
    "save it with numpy.savez: x_train and x_test images uint8 (N, H, W, C) or (N, H, W), tokens (N, T) or vectors "
    "(N, D); y_train and y_test integers from 0 or names; for images optionally mean and std; optionally classes"
)
SPLITS = {True: "train", False: "test"}
FURTHER = (
    "y_train",
    "y_test",
    "classes",
    "mean",
    "std",
)  # arrays of a user's file beside the inputs
ARRAYS = ("x_train", "x_test", *FURTHER)
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
            with np.load(archive, allow_pickle=False) as arrays:
                labels.append(_checked_labels(arrays["Y"], "Y", n_images=len(images[-1])))
            largest = labels[-1].max()
            if largest >= N_CLASSES_OF_CIFAR5M:
                raise ValueError(
                    f"labels up to {largest}, expected at most {N_CLASSES_OF_CIFAR5M - 1}"
                )
    return MappedImages(images), torch.from_numpy(np.concatenate(labels).astype(np.int8))


def _folder(root: Path, name: str, content: str) -> Path:
    """Return `root` if it has this name or holds the file `content`, else `name` in it."""
    if root.name == name or (root / content).is_file():
        return root
    return root / name


class InputFile:
    """A user's `.npz` file: `x_train` and `x_test`, with or without `y_train` and `y_test`, `classes`,
    `mean` and `std`.

    Inputs are mapped; all else is read.

    Attributes:
        inputs: by whether they are for training; images (N, H, W, C) or (N, H, W), tokens (N, T) or
            vectors (N, D).
        labels: likewise, int64 (N,); empty for unlabelled inputs.
        classes: names of the classes in the order of the labels; (): labels are numbers.
    Raises:
        UserError: the file is missing or damaged, lacks an array, or has one of another kind.
    """

    def __init__(self, path: Path):
        self.path = path
        self.inputs: dict[bool, np.ndarray] = {}
        self.labels: dict[bool, Tensor] = {}
        with readable(path, REMEDY):
            check_archive(path)
            with np.load(path, allow_pickle=False) as arrays:
                self._arrays = {name: arrays[name] for name in FURTHER if name in arrays}
                unread = [name for name in arrays if name not in ARRAYS]
            if unread:
                note_once(f"{path}: {listed(unread)} is not read; read are {', '.join(ARRAYS)}")
            self.classes = self._read_classes()
            for train, split in SPLITS.items():
                inputs = map_member(path, f"x_{split}")
                if inputs.ndim != 2 or inputs.dtype.kind not in "iuf" or inputs.size == 0:
                    _check_images(inputs)
                self.inputs[train] = inputs
                name = f"y_{split}"
                if name in self._arrays:
                    labels = _checked_labels(
                        self._arrays[name], name, n_images=len(inputs), classes=self.classes
                    )
                    self.labels[train] = torch.from_numpy(labels)

    def read(self, source: str, root: Path, train: bool) -> Arrays:
        """Return a split; `source` and `root` are not used."""
        inputs = self.inputs[train]
        labels = self.labels.get(train)
        if inputs.ndim == 2:
            return self._as_tensor(inputs), labels
        if inputs[:N_LOOKED_AT].max() <= 1:
            warn_of_binary_levels(str(self.path))
        if inputs.ndim == 3:
            inputs = inputs[..., None]  # (N, H, W) -> (N, H, W, 1), still mapped
        return MappedImages([inputs]), labels

    def describe(self) -> InputSpec:
        """Return the description of the file; a UserError if its arrays do not fit together."""
        path = self.path
        inputs = self.inputs[True]
        shape = inputs.shape[1:]
        if shape != self.inputs[False].shape[1:]:
            raise UserError(
                f"{path}: x_train and x_test have unequal shapes; save inputs of one shape"
            )
        if len(self.labels) == 1:
            raise UserError(
                f"{path} has labels for one split only; save both y_train and y_test, or none for OOD "
                "data"
            )
        n_classes = 0
        if self.labels:
            largest = max(int(labels.max()) for labels in self.labels.values())
            n_classes = len(self.classes) or 1 + largest
            self._warn_of_missing_labels(n_classes)
        if inputs.ndim == 2:
            self._check_numbers()
            first = self._as_tensor(inputs[:N_LOOKED_AT])
            return InputSpec(n_classes, shape, classes=self.classes, inputs=examples(first))

        height, width, channels = (*shape, 1)[:3]
        if channels > 4 >= height:
            raise UserError(
                f"{path}: images are {shape}, but channels come last: save (N, H, W, C)"
            )
        normalisation = self._normalisation(channels)
        if n_classes and "mean" not in self._arrays:
            note_once(
                f"{path} has no mean and std: pixels are scaled to [0, 1] and not normalised; for networks that were "
                "trained on normalised images save mean and std, a number for each channel"
            )
        return InputSpec(n_classes, (channels, height, width), normalisation, self.classes)

    def _read_classes(self) -> tuple[str, ...]:
        """Return the names of the classes in the order of the labels; () if labels are numbers."""
        if "classes" in self._arrays:
            classes = tuple(self._arrays["classes"].astype(str).tolist())
            repeated = [name for name in classes if classes.count(name) > 1]
            if repeated:
                raise ValueError(
                    f"the array classes has {repeated[0]!r} twice; give each class its own name"
                )
            return classes
        labels = [array for name, array in self._arrays.items() if name in ("y_train", "y_test")]
        names = [array.astype(str) for array in labels if array.dtype.kind in "US"]
        if not names:
            return ()
        classes = tuple(np.unique(np.concatenate(names)).tolist())
        note_once(
            f"{self.path}: the labels are names, and are numbered in alphabetical order: {listed(classes, n=10)}; if "
            "the outputs of the network are in another order, save an array classes"
        )
        return classes

    def _warn_of_missing_labels(self, n_classes: int) -> None:
        """Warn if no input of a split has one of the labels 0..n_classes-1."""
        for train, labels in self.labels.items():
            split = "training" if train else "test"
            missing = np.setdiff1d(np.arange(n_classes), labels)
            if len(missing):
                warn_once(
                    f"{self.path}: no {split} input has label {missing[0]}; labels count from 0, so there are "
                    f"{n_classes} classes, {len(missing)} of them without a {split} input"
                )

    def _check_numbers(self) -> None:
        """Raise a UserError unless both splits are tokens, or both vectors, without a normalisation."""
        are_tokens = {train: inputs.dtype.kind in "iu" for train, inputs in self.inputs.items()}
        if are_tokens[True] != are_tokens[False]:
            raise UserError(
                f"{self.path}: x_train is {self.inputs[True].dtype}, and x_test {self.inputs[False].dtype}; save both "
                "as integers (tokens), or both as floats (vectors)"
            )
        if "mean" in self._arrays or "std" in self._arrays:
            raise UserError(
                f"{self.path}: mean and std apply to images, and tokens and vectors are not normalised; leave mean "
                "and std out"
            )
        noun = "tokens" if are_tokens[True] else "vectors"
        note_once(
            f"{self.path}: inputs are {noun} of {self.inputs[True].shape[1]} numbers, which are not normalised"
        )

    def _normalisation(self, n_channels: int) -> Normalisation | None:
        """Return the arrays `mean` and `std`; None if the file has neither."""
        missing = {"mean", "std"} - self._arrays.keys()
        if len(missing) == 2:
            return None
        with readable(self.path, REMEDY):
            if missing:
                raise ValueError(f"it has no {missing.pop()}; give both mean and std, or neither")
            mean, std = [
                np.atleast_1d(self._arrays[name]).astype(float).tolist() for name in ("mean", "std")
            ]
            return make_normalisation(mean, std, n_channels=n_channels)

    def _as_tensor(self, numbers: np.ndarray) -> Tensor:
        """Return tokens (N, T) as int64, and vectors (N, D) as float32."""
        if numbers.dtype.kind in "iu":
            if numbers.min() < 0:
                raise UserError(
                    f"{self.path} has negative tokens; give integers from 0, or vectors as floats"
                )
            return torch.from_numpy(numbers.astype(np.int64))
        vectors = torch.from_numpy(numbers.astype(np.float32))
        if not vectors.isfinite().all():
            raise UserError(
                f"{self.path} has vectors with values that are not finite; remove these vectors"
            )
        return vectors


def warn_of_binary_levels(source: str) -> None:
    """Warn that all levels of the images in a folder or a file are 0 or 1."""
    warn_once(
        f"{source}: all pixels are 0 or 1, and 255 is white, so that the images are black; multiply pixels by 255"
    )


def _check_images(images: np.ndarray, *, shape: tuple[int, int, int] | None = None) -> None:
    """Raise a ValueError unless images are uint8, of a shape if it is given."""
    fits = images.ndim in (3, 4)
    expected = "(N, H, W, C) or (N, H, W)"
    if shape is not None:
        fits = images.shape[1:] == shape
        expected = f"(N, {', '.join(map(str, shape))})"
    if images.dtype != np.uint8 or not fits or len(images) == 0:
        remedy = ""
        if fits and images.dtype.kind == "f":
            remedy = '; from floats x ≥ 0 make them by (x * 255 / x.max()).round().astype("uint8")'
        raise ValueError(f"{images.dtype} {images.shape}, expected uint8 {expected}{remedy}")


def _checked_labels(
    labels: np.ndarray, name: str, *, n_images: int, classes: Sequence[str] = ()
) -> np.ndarray:
    """Return labels int64 (N,), from integers from 0 or names of classes; else raise a ValueError."""
    if labels.dtype.kind in "US" and labels.shape == (n_images,):
        names, places = np.unique(labels.astype(str), return_inverse=True)
        unknown = [str(label) for label in names if label not in classes]
        if unknown:
            raise ValueError(f"{name} has {unknown[0]!r}, which is not in the array classes")
        labels = np.array([classes.index(label) for label in names])[places]
    if labels.dtype.kind not in "iu" or labels.shape != (n_images,):
        raise ValueError(
            f"{name} is {labels.dtype} {labels.shape}, expected {n_images} integers from 0, or names"
        )
    if labels.min() < 0:
        raise ValueError(f"{name} has label {labels.min()}, expected integers from 0, or names")
    if classes and labels.max() >= len(classes):
        raise ValueError(f"{name} has label {labels.max()}, and there are {len(classes)} classes")
    return labels.astype(np.int64)
