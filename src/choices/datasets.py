"""The tables of data sets and of interventions, one row each. Importing this spares torch.

To add a data set, write its row here, and its loader in `src.datasets`, which
`src.datasets.registry.LOADERS` lists. To add an intervention, write its row here, and its function
in `src.datasets.interventions`, which lists it."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from src.errors import UserError, unknown_name
from src.images import ImageSpec, Normalisation


class Recipe(NamedTuple):
    """An augmentation: its key in `src.datasets.augmentation.KINDS`, and its arguments."""

    kind: str
    arguments: dict[str, Any]


class DatasetInfo(NamedTuple):
    """A row of the table: describes a data set without loading it."""

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
        """Its classes, and the shape and the values of its images."""
        return ImageSpec(self.n_classes, self.image_shape, self.normalisation, self.classes)


CROP_FLIP = Recipe("crop_flip", {"padding": 4})
JITTER = Recipe("affine", {"degrees": 5, "scale": (0.9, 1.1), "shear": 5, "edge": 4})
# The public code crops 224 of 224 pixels, which changes nothing: there is no crop here
TURN_AND_FLIP = Recipe("affine", {"degrees": 15, "flip": True, "size": 224})
SHIFT = Recipe("crop_flip", {"padding": 1, "flip": False})  # a mirrored digit is no digit
SHIFT_FLIP = Recipe("crop_flip", {"padding": 1})
OF_IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
IMAGENET = DatasetInfo("imagenet", "imagenet", 1000, (3, 224, 224), normalisation=OF_IMAGENET)
OF_CIFAR = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
OF_FASHION = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
NUMERALS = tuple("0123456789")

DATASETS: dict[str, DatasetInfo] = {
    "cifar10": DatasetInfo("torchvision", "CIFAR10", 10, (3, 32, 32), CROP_FLIP, classes=OF_CIFAR),
    "cifar100": DatasetInfo("torchvision", "CIFAR100", 100, (3, 32, 32), CROP_FLIP),
    "svhn": DatasetInfo("torchvision", "SVHN", 10, (3, 32, 32), JITTER, classes=NUMERALS),
    "mnist": DatasetInfo("torchvision", "MNIST", 10, (1, 28, 28), JITTER, classes=NUMERALS),
    "fashion": DatasetInfo("torchvision", "FashionMNIST", 10, (1, 28, 28), CROP_FLIP, classes=OF_FASHION),
    "cifar10_large": DatasetInfo("torchvision", "CIFAR10", 10, (3, 224, 224), TURN_AND_FLIP, classes=OF_CIFAR),
    "cifar100_large": DatasetInfo("torchvision", "CIFAR100", 100, (3, 224, 224), TURN_AND_FLIP),
    "imagenet": IMAGENET,
    # of the public code, which held the files in memory; the page cache does
    "imagenet_mem": IMAGENET,
    "cifar5m": DatasetInfo("cifar5m", "cifar5m", 10, (3, 32, 32), epoch_size=50_000, classes=OF_CIFAR),
    "outlier_exposure": DatasetInfo("random_images", "oe", 0, (3, 32, 32), CROP_FLIP),
    "digits": DatasetInfo("embedded", "digits", 10, (1, 8, 8), SHIFT, classes=NUMERALS),
    "photo_patches": DatasetInfo("embedded", "photo_patches", 0, (1, 8, 8), SHIFT_FLIP),
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
    """Return a short name for files and figures: for a user's own data the last part of the
    path."""
    return name if name in DATASETS else Path(name).stem


class Intervention(NamedTuple):
    """A row of the table of interventions: changes that make networks differ by construction.

    The protocol is that of ReSi (Klabunde et al., ICLR 2025, arXiv 2408.00531).
    """

    metavar: str  # of its strength, on the command line
    at_most: float  # the largest strength; the smallest is 0
    changes_tests: bool  # whether it changes test images too
    description: str  # for `--help`


# In the order of application: dots tell the classes that images have before labels are drawn anew;
# noise covers dots
INTERVENTIONS = {
    "shortcut": Intervention("P", 1, True, "a dot on each image tells its class with probability P, else any class, by "
                             "its hue or on grey images by its place; on test images any class"),
    "label_noise": Intervention("P", 1, False, "each training image gets, with probability P, a label drawn from all "
                                "classes"),
    "image_noise": Intervention("V", math.inf, False, "in each epoch each training image gets Gaussian noise, of a "
                                "variance drawn from 0 to V on the scale of 0 to 255"),
}  # fmt: skip
