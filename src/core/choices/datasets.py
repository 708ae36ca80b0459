"""The data sets and the interventions, a row for each. This module does not import torch.

To add a data set, write its row here; arrays have a reader in `src.datasets.arrays`. To add an
intervention, write its function in `src.datasets.interventions` and its row here.
"""

from pathlib import Path
from typing import Any, NamedTuple

from src.core.errors import UserError, unknown_name
from src.core.inputs import InputSpec, Normalisation

OBJECTS = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CLOTHES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
    "ankle boot",
)  # fmt: skip
NUMERALS = tuple("0123456789")

SMALL = InputSpec(10, (3, 32, 32), classes=OBJECTS)
LARGE = InputSpec(10, (3, 224, 224), classes=OBJECTS)
NUMBERS = InputSpec(10, (3, 32, 32), classes=NUMERALS)
GREY_NUMBERS = InputSpec(10, (1, 28, 28), classes=NUMERALS)
CLOTHING = InputSpec(10, (1, 28, 28), classes=CLOTHES)
SMALL_NUMBERS = InputSpec(10, (1, 8, 8), classes=NUMERALS)

IMAGENET_VALUES = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

TORCHVISION = "src.datasets.arrays:read_torchvision"
EMBEDDED = "src.datasets.arrays:read_embedded"
# Augmentations
CROP_FLIP = "src.datasets.augmentation:CROP_FLIP"
SMALL_CROP_FLIP = "src.datasets.augmentation:SMALL_CROP_FLIP"
SMALL_CROP = "src.datasets.augmentation:SMALL_CROP"
JITTER = "src.datasets.augmentation:JITTER"
TURN_FLIP = "src.datasets.augmentation:TURN_FLIP"


class DatasetInfo(NamedTuple):
    """A row of the table: the description of a data set."""

    spec: InputSpec
    source: str  # name of the class, file or folder that is read
    read: Any = (
        None  # "module:function", or the function, see `datasets.arrays`; None: a folder of files
    )
    augmentation: str | None = None  # of the training images: "module:name"
    epoch_size: int | None = None  # images of an epoch of training; None: all


IMAGENET = DatasetInfo(InputSpec(1000, (3, 224, 224), IMAGENET_VALUES), "imagenet")
DATASETS = {
    "cifar10": DatasetInfo(SMALL, "CIFAR10", TORCHVISION, CROP_FLIP),
    "cifar100": DatasetInfo(InputSpec(100, (3, 32, 32)), "CIFAR100", TORCHVISION, CROP_FLIP),
    "svhn": DatasetInfo(NUMBERS, "SVHN", TORCHVISION, JITTER),
    "mnist": DatasetInfo(GREY_NUMBERS, "MNIST", TORCHVISION, JITTER),
    "fashion": DatasetInfo(CLOTHING, "FashionMNIST", TORCHVISION, CROP_FLIP),
    "cifar10_large": DatasetInfo(LARGE, "CIFAR10", TORCHVISION, TURN_FLIP),
    "cifar100_large": DatasetInfo(
        InputSpec(100, (3, 224, 224)), "CIFAR100", TORCHVISION, TURN_FLIP
    ),
    "imagenet": IMAGENET,
    # For this name the public code held the files in memory; the page cache does that
    "imagenet_mem": IMAGENET,
    "cifar5m": DatasetInfo(SMALL, "cifar5m", "src.datasets.arrays:read_cifar5m", epoch_size=50_000),
    "outlier_exposure": DatasetInfo(
        InputSpec(0, (3, 32, 32)), "oe", "src.datasets.arrays:read_random_images", CROP_FLIP
    ),
    # A mirrored digit is no digit
    "digits": DatasetInfo(SMALL_NUMBERS, "digits", EMBEDDED, SMALL_CROP),
    "mnist5k": DatasetInfo(SMALL_NUMBERS, "mnist5k", EMBEDDED),
    "photo_patches": DatasetInfo(
        InputSpec(0, (1, 8, 8)), "photo_patches", EMBEDDED, SMALL_CROP_FLIP
    ),
}
DATASET_NAMES = tuple(DATASETS)


def dataset_name(text: str) -> str:
    """Check the name of a data set, and return it; the path of a user's images becomes absolute.

    Raises:
        UserError: there is no such data set, folder or `.npz` file.
    """
    if text in DATASET_NAMES:
        return text
    path = Path(text).expanduser()
    if path.is_dir() or (path.suffix == ".npz" and path.is_file()):
        return str(path.resolve())
    if "/" in text or path.suffix:
        fault = (
            "is neither a folder of images nor an .npz file" if path.exists() else "does not exist"
        )
        raise UserError(
            f"dataset {text!r} {fault}; give a folder of images or an .npz file, and check the path"
        )
    raise unknown_name(
        "dataset",
        text,
        DATASET_NAMES,
        where="exec_train.py --help lists all; or give a folder of images or an .npz file",
    )


def dataset_label(name: str) -> str:
    """Return a short name for files and figures: of a user's images the last part of the path."""
    if name in DATASET_NAMES:
        return name
    return Path(name).stem


class Intervention(NamedTuple):
    """An intervention: a change of a data set that makes networks differ by construction.

    The strength is a probability. The protocol follows ReSi (Klabunde et al., ICLR 2025, arXiv
    2408.00531).
    """

    description: str  # for `--help`
    function: str  # "module:function"
    changes_images: bool  # of tests too; otherwise it changes the labels of training images alone


# In the order of application: dots encode the classes before labels are replaced
INTERVENTIONS = {
    "shortcut": Intervention(
        "paint a dot on each image. The hue of the dot (on grey images: the position) encodes the label with "
        "probability P, and a random class otherwise; on test images, always a random class",
        "src.datasets.interventions:shortcut",
        changes_images=True,
    ),
    "label_noise": Intervention(
        "replace the label of a training image by a random class with probability P",
        "src.datasets.interventions:label_noise",
        changes_images=False,
    ),
}
