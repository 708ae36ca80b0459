"""The tables of data sets and of interventions. This module does not import torch.

To add a data set, write its row here and its loader in `src.datasets`; list the loader in
`src.datasets.registry.LOADERS`. To add an intervention, write its row here and its function in
`src.datasets.interventions`; list the function in `INTERVENTION_FUNCTIONS`.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

from src.ground.errors import UserError, unknown_name
from src.ground.images import ImageSpec, Normalisation


class Recipe(NamedTuple):
    """An augmentation: its key in `src.datasets.augmentation.KINDS`, and its arguments."""

    kind: str
    arguments: dict[str, Any]


class DatasetInfo(NamedTuple):
    """A row of the table: the description of a data set."""

    loader: str  # key in `src.datasets.registry.LOADERS`
    source: str  # name of the class, file or folder that the loader reads
    n_classes: int  # 0: unlabelled
    image_shape: tuple[int, int, int]  # (C, H, W) of an image in a batch
    augmentation: Recipe | None = None  # of the training images
    epoch_size: int | None = None  # images of an epoch of training; None: all
    normalisation: Normalisation | None = None  # None: values in [0, 1]
    classes: tuple[str, ...] = ()  # names in the order of the labels; empty: not known

    @property
    def spec(self) -> ImageSpec:
        """The classes of the data set, and the shape and the values of its images."""
        return ImageSpec(self.n_classes, self.image_shape, self.normalisation, self.classes)


CROP_FLIP = Recipe("crop_flip", {"padding": 4})
JITTER = Recipe("affine", {"degrees": 5, "scale": (0.9, 1.1), "shear": 5, "edge": 4})
# The public code also crops 224 of 224 pixels, which changes nothing: this has no crop
TURN_FLIP = Recipe("affine", {"degrees": 15, "flip": True, "size": 224})
SHIFT = Recipe("crop_flip", {"padding": 1, "flip": False})  # a mirrored digit is no digit
SHIFT_FLIP = Recipe("crop_flip", {"padding": 1})

GREY = (1, 28, 28)
SMALL = (3, 32, 32)
LARGE = (3, 224, 224)

IMAGENET_VALUES = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
IMAGENET = DatasetInfo("imagenet", "imagenet", 1000, LARGE, normalisation=IMAGENET_VALUES)

OBJECTS = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CLOTHES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
    "ankle boot",
)  # fmt: skip
NUMERALS = tuple("0123456789")

DATASETS: dict[str, DatasetInfo] = {
    "cifar10": DatasetInfo("torchvision", "CIFAR10", 10, SMALL, CROP_FLIP, classes=OBJECTS),
    "cifar100": DatasetInfo("torchvision", "CIFAR100", 100, SMALL, CROP_FLIP),
    "svhn": DatasetInfo("torchvision", "SVHN", 10, SMALL, JITTER, classes=NUMERALS),
    "mnist": DatasetInfo("torchvision", "MNIST", 10, GREY, JITTER, classes=NUMERALS),
    "fashion": DatasetInfo("torchvision", "FashionMNIST", 10, GREY, CROP_FLIP, classes=CLOTHES),
    "cifar10_large": DatasetInfo("torchvision", "CIFAR10", 10, LARGE, TURN_FLIP, classes=OBJECTS),
    "cifar100_large": DatasetInfo("torchvision", "CIFAR100", 100, LARGE, TURN_FLIP),
    "imagenet": IMAGENET,
    # For this name the public code held the files in memory; the page cache does that
    "imagenet_mem": IMAGENET,
    "cifar5m": DatasetInfo("cifar5m", "cifar5m", 10, SMALL, epoch_size=50_000, classes=OBJECTS),
    "outlier_exposure": DatasetInfo("random_images", "oe", 0, SMALL, CROP_FLIP),
    "digits": DatasetInfo("embedded", "digits", 10, (1, 8, 8), SHIFT, classes=NUMERALS),
    "mnist5k": DatasetInfo("embedded", "mnist5k", 10, (1, 8, 8), classes=NUMERALS),
    "photo_patches": DatasetInfo("embedded", "photo_patches", 0, (1, 8, 8), SHIFT_FLIP),
}

DATASET_NAMES = tuple(DATASETS)


def dataset_name(text: str) -> str:
    """Check the name of a data set, and return it; the path of a user's images becomes absolute.

    Raises:
        UserError: there is no such data set, folder or `.npz` file.
    """
    if text in DATASETS:
        return text
    path = Path(text).expanduser()
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
    """Return a short name for files and figures: of a user's images the last part of the path."""
    if name in DATASETS:
        return name
    return Path(name).stem


class Intervention(NamedTuple):
    """A row of the table of interventions: changes that make networks differ by construction.

    The protocol follows ReSi (Klabunde et al., ICLR 2025, arXiv 2408.00531).
    """

    metavar: str  # of its strength, on the command line
    at_most: float  # the largest strength; the smallest is 0
    changes_tests: bool  # whether it changes test images too
    description: str  # for `--help`


# In the order of application. Dots come first: they tell the classes before labels are drawn anew.
# Noise comes last: it covers dots.
INTERVENTIONS = {
    "shortcut": Intervention(
        metavar="P",
        at_most=1,
        changes_tests=True,
        description="paint a dot on each image. Its hue (on grey images: its place) shows the "
        "label with probability P, and otherwise a random class. On test images it always shows a "
        "random class",
    ),
    "label_noise": Intervention(
        metavar="P",
        at_most=1,
        changes_tests=False,
        description="with probability P give a training image a label drawn from all classes",
    ),
    "image_noise": Intervention(
        metavar="V",
        at_most=math.inf,
        changes_tests=False,
        description="add Gaussian noise to the training images, drawn anew in each epoch; the "
        "variance for an image is drawn from 0 to V, on the scale of 0 to 255",
    ),
}
