"""The tables of data sets and of interventions, and a user's own data: a folder of images or an `.npz` file.

A new data set, or a new intervention, is one row here and one function, which is imported when it is first used. The
parsers of all scripts list the names, so this module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from src.choices import resolve
from src.errors import UserError, unknown_name
from src.images import ImageSpec, Normalisation

if TYPE_CHECKING:
    import torch

    from src.datasets.base import BaseImageSet


class Recipe(NamedTuple):
    """An augmentation: the "module.class" of this package, and its arguments."""

    name: str
    arguments: dict[str, Any]


class DatasetInfo(NamedTuple):
    """A row of the table: describes a data set without loading it."""

    loader: str  # "module.function" of this package: (info, root, *, train, device, loading) -> BaseImageSet
    source: str  # name of the class, file or folder that the loader reads
    n_classes: int  # 0: unlabelled
    image_shape: tuple[int, int, int]  # (C, H, W) of an image in a batch
    augmentation: Recipe | None = None  # of the training images
    epoch_size: int | None = None  # images of an epoch of training; None: all
    normalisation: Normalisation | None = None  # None: values in [0, 1]
    classes: tuple[str, ...] = ()  # names in the order of the labels; empty: not known

    @property
    def spec(self) -> ImageSpec:
        """Its classes, and the shape and the values of its images."""
        return ImageSpec(self.n_classes, self.image_shape, self.normalisation, self.classes)


class Loading(NamedTuple):
    """How images are decoded from disk; data sets that are kept in memory ignore it.

    A worker imports the script that asked for it: there, `if __name__ == "__main__":` stands in front of the work.
    """

    n_workers: int = 0  # worker processes; 0: the main process decodes
    prefetch_factor: int = 1  # batches that each worker prepares ahead


CROP_FLIP = Recipe("augmentation.CropFlip", {"padding": 4})
JITTER = Recipe("augmentation.Affine", {"degrees": 5, "scale": (0.9, 1.1), "shear": 5, "edge": 4})
# The public code crops 224 of 224 pixels, which changes nothing: there is no crop here
TURN_AND_FLIP = Recipe("augmentation.Affine", {"degrees": 15, "flip": True, "size": 224})
SHIFT = Recipe("augmentation.CropFlip", {"padding": 1, "flip": False})  # a mirrored digit is no digit
SHIFT_FLIP = Recipe("augmentation.CropFlip", {"padding": 1})
OF_IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
IMAGENET = DatasetInfo("folders.load_imagenet", "imagenet", 1000, (3, 224, 224), normalisation=OF_IMAGENET)
OF_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
OF_FASHION = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
NUMERALS = tuple("0123456789")
TORCHVISION, EMBEDDED = "small_sets.load_torchvision", "small_sets.load_embedded"

DATASETS: dict[str, DatasetInfo] = {
    "cifar10": DatasetInfo(TORCHVISION, "CIFAR10", 10, (3, 32, 32), CROP_FLIP, classes=OF_CIFAR),
    "cifar100": DatasetInfo(TORCHVISION, "CIFAR100", 100, (3, 32, 32), CROP_FLIP),
    "svhn": DatasetInfo(TORCHVISION, "SVHN", 10, (3, 32, 32), JITTER, classes=NUMERALS),
    "mnist": DatasetInfo(TORCHVISION, "MNIST", 10, (1, 28, 28), JITTER, classes=NUMERALS),
    "fashion": DatasetInfo(TORCHVISION, "FashionMNIST", 10, (1, 28, 28), CROP_FLIP, classes=OF_FASHION),
    "cifar10_large": DatasetInfo(TORCHVISION, "CIFAR10", 10, (3, 224, 224), TURN_AND_FLIP, classes=OF_CIFAR),
    "cifar100_large": DatasetInfo(TORCHVISION, "CIFAR100", 100, (3, 224, 224), TURN_AND_FLIP),
    "imagenet": IMAGENET,
    "imagenet_mem": IMAGENET,  # of the public code, which held the files in memory; the page cache does
    "cifar5m": DatasetInfo("arrays.load_cifar5m", "cifar5m", 10, (3, 32, 32), epoch_size=50_000, classes=OF_CIFAR),
    "outlier_exposure": DatasetInfo("arrays.load_random_images", "oe", 0, (3, 32, 32), CROP_FLIP),
    "digits": DatasetInfo(EMBEDDED, "digits", 10, (1, 8, 8), SHIFT, classes=NUMERALS),
    "photo_patches": DatasetInfo(EMBEDDED, "photo_patches", 0, (1, 8, 8), SHIFT_FLIP),
}  # fmt: skip

DATASET_NAMES = tuple(DATASETS)


def dataset_name(text: str) -> str:
    """Check the name of a data set; the path of a user's folder or `.npz` file is made absolute."""
    path = Path(text).expanduser()
    if text in DATASETS:
        return text
    if path.is_dir() or (path.suffix == ".npz" and path.is_file()):
        return str(path.resolve())
    if "/" in text:
        raise UserError(f"dataset {text!r} is no folder of images and no .npz file; check the path")
    raise unknown_name(
        "dataset",
        text,
        DATASET_NAMES,
        where="exec_train.py --help lists all; or give a folder of images or an .npz file",
    )


def dataset_label(name: str) -> str:
    """Return a short name for files and figures: for a user's own data the last part of the path."""
    return name if name in DATASETS else Path(name).stem


def dataset_info(name: str, *, labelled: bool = False) -> DatasetInfo:
    """Look up a data set by name, or describe a user's folder or `.npz` file.

    Args:
        labelled: raise an error for a data set without labels.
    """
    info = DATASETS[name] if name in DATASETS else _describe(Path(dataset_name(name)))
    if labelled and info.n_classes == 0:
        choice = ", ".join(other for other, row in DATASETS.items() if row.n_classes)
        raise UserError(f"dataset {name!r} has no labels; choose one that has: {choice}, or label your own")
    return info


def _describe(path: Path) -> DatasetInfo:
    return resolve(__package__, f"{'folders' if path.is_dir() else 'arrays'}.describe")(path)


class Intervention(NamedTuple):
    """A row of the table of interventions: changes that make networks differ by construction.

    The protocol is that of ReSi (Klabunde et al., ICLR 2025, arXiv 2408.00531).
    """

    metavar: str  # of its strength, on the command line
    at_most: float  # the largest strength; the smallest is 0
    changes_tests: bool  # whether it changes test images too
    description: str  # for `--help`
    function: str  # "module.function" of this package: (images, strength, *, train, seed) -> the images, changed


# In the order of application: dots tell the classes that images have before labels are drawn anew; noise covers dots
INTERVENTIONS = {
    "shortcut": Intervention("P", 1, True, "a dot on each image tells its class with probability P, else any class, by "
                             "its hue or on grey images by its place; on test images any class",
                             "interventions.shortcut"),
    "label_noise": Intervention("P", 1, False, "each training image gets, with probability P, a label drawn from all "
                                "classes", "interventions.label_noise"),
    "image_noise": Intervention("V", math.inf, False, "in each epoch each training image gets Gaussian noise, of a "
                                "variance drawn from 0 to V on the scale of 0 to 255", "interventions.image_noise"),
}  # fmt: skip


def load_dataset(
    name: str,
    root: str | Path,
    *,
    train: bool,
    device: torch.device | str = "cpu",
    loading: Loading = Loading(),  # noqa: B008 - immutable
    interventions: Mapping[str, float | None] | None = None,
    intervention_seed: int = 0,
) -> BaseImageSet:
    """Load one split of a data set; torchvision downloads its own when they are missing.

    Args:
        name: one of `DATASET_NAMES`, or the path of a folder of images or of an `.npz` file.
        root: the folder of all data sets (`-data`). For CIFAR-5M and the 300K images it may also be their own folder
            below that one. Embedded data sets and a user's own ignore it.
        train: load the training split, with augmentation; otherwise the test split, without.
        device: where images are kept and batches are made.
        loading: how images are decoded from disk.
        interventions: strengths, by names of the table, of changes before the augmentation; None: not applied. Test
            images only get dots, of classes that are drawn from all; a `shortcut` of 0 makes such dots on both splits.
        intervention_seed: what is drawn for an image depends on this seed and its index, for image noise also on the
            epoch: not on batches, order, workers or processes. An image keeps its label and dot.
    """
    strengths = {key: value for key, value in (interventions or {}).items() if value is not None}
    info = dataset_info(name, labelled=bool(strengths))
    load = resolve(__package__, info.loader)
    images = load(info, Path(root).expanduser(), train=train, device=device, loading=loading)
    images.classes = info.classes
    for key, row in INTERVENTIONS.items():
        if key in strengths and (train or row.changes_tests):
            images = resolve(__package__, row.function)(images, strengths[key], train=train, seed=intervention_seed)
    return images
