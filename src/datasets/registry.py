"""Loads data sets by name, or a user's images: a folder or an `.npz` file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.choices.datasets import INTERVENTIONS, dataset_name
from src.core.errors import UserError
from src.core.images import ImageSpec, are_images
from src.datasets import arrays, folders
from src.datasets.arrays import read_embedded, read_torchvision
from src.datasets.augmentation import Affine, Augmentation, CropFlip
from src.datasets.base import BaseImageSet, Device, ImageSet, Loading
from src.datasets.inputs import InputSet
from src.datasets.interventions import INTERVENTION_FUNCTIONS
from src.datasets.mapped import MappedImages

OBJECTS = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CLOTHES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
    "ankle boot",
)  # fmt: skip
NUMERALS = tuple("0123456789")

SMALL = ImageSpec(10, (3, 32, 32), classes=OBJECTS)
LARGE = ImageSpec(10, (3, 224, 224), classes=OBJECTS)
NUMBERS = ImageSpec(10, (3, 32, 32), classes=NUMERALS)
GREY_NUMBERS = ImageSpec(10, (1, 28, 28), classes=NUMERALS)
SMALL_NUMBERS = ImageSpec(10, (1, 8, 8), classes=NUMERALS)

CROP_FLIP = CropFlip(padding=4)
JITTER = Affine(degrees=5, scale=(0.9, 1.1), shear=5, edge=4)
# The public code also crops 224 of 224 pixels, which changes nothing: this has no crop
TURN_FLIP = Affine(degrees=15, flip=True)


class DatasetInfo(NamedTuple):
    """A row of the table: the description of a data set."""

    spec: ImageSpec
    source: str  # name of the class, file or folder that is read
    read: Callable[[str, Path, bool], arrays.Arrays] | None = None  # None: a folder of files
    augmentation: Augmentation | None = None  # of the training images
    epoch_size: int | None = None  # images of an epoch of training; None: all


IMAGENET = DatasetInfo(folders.IMAGENET_SPEC, "imagenet")
DATASETS = {
    "cifar10": DatasetInfo(SMALL, "CIFAR10", read_torchvision, CROP_FLIP),
    "cifar100": DatasetInfo(ImageSpec(100, (3, 32, 32)), "CIFAR100", read_torchvision, CROP_FLIP),
    "svhn": DatasetInfo(NUMBERS, "SVHN", read_torchvision, JITTER),
    "mnist": DatasetInfo(GREY_NUMBERS, "MNIST", read_torchvision, JITTER),
    "fashion": DatasetInfo(
        GREY_NUMBERS._replace(classes=CLOTHES), "FashionMNIST", read_torchvision, CROP_FLIP
    ),
    "cifar10_large": DatasetInfo(LARGE, "CIFAR10", read_torchvision, TURN_FLIP),
    "cifar100_large": DatasetInfo(
        ImageSpec(100, (3, 224, 224)), "CIFAR100", read_torchvision, TURN_FLIP
    ),
    "imagenet": IMAGENET,
    # For this name the public code held the files in memory; the page cache does that
    "imagenet_mem": IMAGENET,
    "cifar5m": DatasetInfo(SMALL, "cifar5m", arrays.read_cifar5m, epoch_size=50_000),
    "outlier_exposure": DatasetInfo(
        ImageSpec(0, (3, 32, 32)), "oe", arrays.read_random_images, CROP_FLIP
    ),
    # A mirrored digit is no digit
    "digits": DatasetInfo(SMALL_NUMBERS, "digits", read_embedded, CropFlip(1, flip=False)),
    "mnist5k": DatasetInfo(SMALL_NUMBERS, "mnist5k", read_embedded),
    "photo_patches": DatasetInfo(
        ImageSpec(0, (1, 8, 8)), "photo_patches", read_embedded, CropFlip(1)
    ),
}


def dataset_info(name: str, *, labelled: bool = False) -> DatasetInfo:
    """Return the row of a data set, or describe a user's folder or `.npz` file.

    Args:
        labelled: refuse a data set without labels.
    Raises:
        UserError: there is no such data set, or it has no labels.
    """
    if name in DATASETS:
        info = DATASETS[name]
    else:
        path = Path(dataset_name(name))
        if path.is_dir():
            info = DatasetInfo(folders.describe(path), str(path))
        else:
            info = DatasetInfo(arrays.describe(path), str(path), arrays.read_file)
    if labelled and info.spec.n_classes == 0:
        labelled_names = [key for key, row in DATASETS.items() if row.spec.n_classes]
        raise UserError(
            f"dataset {name!r} has no labels; choose one that has: {', '.join(labelled_names)}, "
            "or label your own"
        )
    return info


def load_dataset(
    name: str,
    root: str | Path,
    *,
    train: bool,
    device: torch.device | str = "cpu",
    loading: Loading = Loading(),  # noqa: B008 - immutable
    interventions: Mapping[str, float | None] | None = None,
    seed: int = 0,
) -> BaseImageSet:
    """Load one split of a data set; torchvision downloads its data sets when they are missing.

    Args:
        name: one of `DATASET_NAMES`, or the path of a folder of images or of an `.npz` file.
        root: the folder of all data sets (`-data`), or of CIFAR-5M or the 300K images. Embedded
            data sets and a user's images do not need it.
        train: load the training split, with augmentation; otherwise the test split, without.
        device: where images are kept and batches are made.
        loading: how images are decoded from disk.
        interventions: the strength by name (a key of `INTERVENTIONS`); None: not applied. They come
            before the augmentation. Test images get only dots, of classes that are drawn.
        seed: of what interventions draw for training images; for test images it is 0.
    Returns:
        An image set: `batches(batch_size)` yields float32 images (B, C, H, W), scaled to [0, 1] and
        normalised if the data set is, and int64 labels (B,); `epoch` yields them shuffled and
        augmented.
    Raises:
        UserError: there is no such data set, or its files are missing or damaged.
    """
    strengths = {key: value for key, value in (interventions or {}).items() if value is not None}
    info = dataset_info(name, labelled=bool(strengths))
    if not are_images(info.spec.shape):
        _check_interventions(name, strengths)
    root = Path(root).expanduser()
    if info.read is not None:
        images = split_of(info, *info.read(info.source, root, train), train=train, device=device)
    elif info is IMAGENET:
        images = folders.load_imagenet(root, info.spec, train=train, device=device, loading=loading)
    else:
        path = Path(info.source)
        images = folders.load_folder(path, info.spec, train=train, device=device, loading=loading)
    images.classes = info.spec.classes
    images.inputs = info.spec.inputs
    for key, row in INTERVENTIONS.items():
        if key in strengths and (train or row.changes_images):
            intervene = INTERVENTION_FUNCTIONS[key]
            images = intervene(images, strengths[key], train=train, seed=seed if train else 0)
    return images


def _check_interventions(name: str, strengths: Mapping[str, float]) -> None:
    """Raise a UserError if an intervention changes images, and the data set has none."""
    of_images = [key for key in strengths if INTERVENTIONS[key].changes_images]
    if of_images:
        option = of_images[0].replace("_", "-")
        raise UserError(f"--{option} changes images, and {name} has no images; leave it out")


def split_of(
    info: DatasetInfo,
    images: Tensor | MappedImages,
    labels: Tensor | None,
    *,
    train: bool,
    device: Device,
) -> BaseImageSet:
    """Return the set of images uint8 (N, C, H, W), or of tokens or vectors, and labels (N,) of a split."""
    if isinstance(images, Tensor) and not are_images(info.spec.shape):
        return InputSet(images, labels, n_classes=info.spec.n_classes, device=device)
    options: dict[str, Any] = {}
    if train:
        options = {"augmentation": info.augmentation, "epoch_size": info.epoch_size}
    side = info.spec.shape[-1]
    if images.shape[-1] != side:
        options["size"] = side
    return ImageSet(
        images,
        labels,
        n_classes=info.spec.n_classes,
        normalisation=info.spec.normalisation,
        device=device,
        **options,
    )
