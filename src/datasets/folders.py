"""Folders of encoded images, a folder for each class: ImageNet (ILSVRC 2012) and a user's own."""

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms as T
from torchvision.datasets.folder import IMG_EXTENSIONS, is_image_file, make_dataset

from src.choices.datasets import OF_IMAGENET, DatasetInfo
from src.console import listed, progress, warn_once
from src.datasets.augmentation import CropFlip
from src.datasets.base import UNLABELLED, BaseImageSet, Device, Loading, Pass
from src.datasets.decoded import DecodedImageSet
from src.datasets.in_memory import ImageSet
from src.errors import UserError, unknown_name
from src.files import read_yaml, readable
from src.images import Normalisation, make_normalisation

SPLITS = {True: ("train", "training_data"), False: ("val", "validation", "test", "validation_data")}
AUGMENTATIONS = ("none", "flip", "crop_flip", "resized_crop")
KEYS = ("size", "channels", "mean", "std", "augment", "classes")
SMALL, MOST = (
    64,
    4 * 2**30,
)  # pixels and bytes: sets of images up to this size are decoded once and kept
IMAGENET_SOURCE = "https://image-net.org/download"


class FolderSettings(NamedTuple):
    """What `dataset.yaml` in a folder of images sets; the defaults are ImageNet's."""

    size: int = 224  # images become (channels, size, size)
    channels: int = 3
    augment: str = "resized_crop"
    classes: tuple[str, ...] = ()  # in the order of the labels; empty: the class folders, sorted
    normalisation: Normalisation | None = OF_IMAGENET  # `mean` and `std` of the file


def read_settings(root: Path) -> FolderSettings:
    """Read `dataset.yaml` in `root`; without one, all settings are the defaults."""
    path = root / "dataset.yaml"
    given = read_yaml(path) if path.is_file() else {}
    for key in given:
        if key not in KEYS:
            raise unknown_name(f"key in {path}", str(key), KEYS)
    settings = FolderSettings(**{key: given[key] for key in FolderSettings._fields if key in given})
    remedy = (
        "allowed are size: 224, channels: 1 or 3, mean and std: a number a channel, augment: "
        f"{', '.join(AUGMENTATIONS)}, classes: a list of different names"
    )
    with readable(path, remedy):
        _check(settings)
        numbers = {}
        for key, of_colours in OF_IMAGENET._asdict().items():
            own = given.get(key, of_colours if settings.channels == 3 else sum(of_colours) / 3)
            numbers[key] = [own] if isinstance(own, int | float) else own
        normalisation = make_normalisation(**numbers, n_channels=settings.channels)
        return settings._replace(
            classes=tuple(map(str, settings.classes)), normalisation=normalisation
        )


def _check(settings: FolderSettings) -> None:
    """Raise a ValueError that names the first setting that is not allowed; not of the
    normalisation."""
    classes = settings.classes
    is_allowed = {
        "size": isinstance(settings.size, int) and settings.size >= 1,
        "channels": settings.channels in (1, 3),
        "augment": settings.augment in AUGMENTATIONS,
        "classes": isinstance(classes, list | tuple) and len(set(classes)) == len(classes),
    }
    for name, allowed in is_allowed.items():
        if not allowed:
            raise ValueError(f"{name} cannot be {getattr(settings, name)}")


def describe(root: Path) -> DatasetInfo:
    """Describe a user's folder of images."""
    settings = read_settings(root)
    shape, classes = (
        (settings.channels, settings.size, settings.size),
        tuple(_classes(root, settings)),
    )
    of_images = {"normalisation": settings.normalisation, "classes": classes}
    return DatasetInfo("folder", str(root), len(classes), shape, **of_images)


def load_folder(
    info: DatasetInfo, root: Path, *, train: bool, device: Device, loading: Loading
) -> BaseImageSet:
    """Load a split of a user's folder of images.

    Images of at most 64×64 pixels that take at most 4 GiB are decoded once and kept on the device,
    unless each epoch takes other crops of the files. Others are decoded by workers for each batch.
    """
    root = Path(info.source)
    settings = read_settings(root)
    decoded = _decoded(info, root, settings, train=train, device=device, loading=loading)
    if not (root / "dataset.yaml").is_file():
        _note_enlargement(root, decoded.paths[0], settings.size)
    takes_crops = train and settings.augment == "resized_crop"
    if takes_crops or settings.size > SMALL or len(decoded) * math.prod(info.image_shape) > MOST:
        return decoded
    batches = [slice(first, first + 256) for first in range(0, len(decoded), 256)]
    levels = decoded.levels(Pass(torch.arange(len(decoded)), batches))
    padding = {"flip": 0, "crop_flip": _padding(settings.size)}.get(settings.augment)
    return ImageSet(
        torch.cat(list(progress(levels, "decoding images", len(batches)))),
        decoded.labels,
        n_classes=info.n_classes,
        augmentation=CropFlip(padding) if train and padding is not None else None,
        normalisation=info.normalisation,
        device=device,
    )


def load_imagenet(
    info: DatasetInfo, root: Path, *, train: bool, device: Device, loading: Loading
) -> DecodedImageSet:
    """Load a split of ImageNet."""
    if not _folders_of(root, train):
        raise UserError(
            f"{_lacks(root, train)}; fetch ILSVRC 2012 from {IMAGENET_SOURCE} and rename its folders to "
            f"{SPLITS[True][-1]} and {SPLITS[False][-1]}"
        )
    settings = FolderSettings(classes=read_settings(root).classes)
    images = _decoded(info, root, settings, train=train, device=device, loading=loading)
    n_classes = len(_classes(root, settings))
    if n_classes > info.n_classes or (settings.classes and n_classes < info.n_classes):
        raise UserError(
            f"{root} has {n_classes} classes, ImageNet has {info.n_classes}; name {root} itself as the data set"
        )
    if n_classes < info.n_classes:
        warn_once(
            f"{root} has {n_classes} class folders of ImageNet's 1000: labels are their places among them; for the "
            f"labels of a network of 1,000 outputs list all class names in {root / 'dataset.yaml'} (classes: "
            "[n01440764, …])"
        )
    return images


def _note_enlargement(root: Path, first: str, size: int) -> None:
    """Say that images become larger, if the first one does."""
    with readable(first, "restore or remove it"), Image.open(first) as image:
        if min(image.size) < size:
            warn_once(
                f"{root} has no dataset.yaml, so images become 3×{size}×{size}, in resized crops; the first one is "
                f"smaller: to keep its size give it in {root / 'dataset.yaml'} (size: 32, and augment: crop_flip, for "
                "example)"
            )


def _decoded(
    info: DatasetInfo, root: Path, settings: FolderSettings, *, train: bool, **options: Any
) -> DecodedImageSet:
    """Make the set of a split of which each image is decoded when it is needed."""
    paths, labels = _list_images(_split_folder(root, train), settings, _classes(root, settings))
    size, whole = settings.size, [T.Resize(settings.size), T.CenterCrop(settings.size)]
    last = [T.RandomHorizontalFlip(), T.PILToTensor()]
    augmentation = {
        "none": None,
        "flip": T.Compose([*whole, *last]),
        "crop_flip": T.Compose([*whole, T.RandomCrop(size, padding=_padding(size)), *last]),
        "resized_crop": T.Compose([T.RandomResizedCrop(size), *last]),
    }[settings.augment]
    short = (
        round(size * 8 / 7) if settings.augment == "resized_crop" else size
    )  # then test images lose their border
    return DecodedImageSet(
        paths,
        labels,
        n_classes=info.n_classes,
        image_shape=info.image_shape,
        transform=T.Compose([T.Resize(short), T.CenterCrop(size), T.PILToTensor()]),
        augmentation=augmentation if train else None,
        normalisation=info.normalisation,
        **options,
    )


def _padding(size: int) -> int:
    return max(1, size // 8)  # 4 for 32 pixels, as for CIFAR


def _split_folder(root: Path, train: bool) -> Path:
    """Return the folder of a split: the first of the possible names that exists."""
    folders = _folders_of(root, train)
    if not folders:
        images = "training images" if train else "test images"
        place = root / SPLITS[train][0]
        raise UserError(
            f"{_lacks(root, train)}; put the {images} into {place}, a folder for each class"
        )
    return folders[0]


def _folders_of(root: Path, train: bool) -> list[Path]:
    return [root / name for name in SPLITS[train] if (root / name).is_dir()]


def _lacks(root: Path, train: bool) -> str:
    """Return the first half of the message that the folder of a split is missing."""
    *names, last = SPLITS[train]
    content = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    return f"{root} has no folder {', '.join(names)} or {last} (it holds {listed(content, n=5) or 'nothing'})"


def _classes(root: Path, settings: FolderSettings) -> list[str]:
    """List the names of the classes in the order of their labels; an empty list where images are
    unlabelled."""
    has_training = any((root / name).is_dir() for name in SPLITS[True])
    return list(settings.classes) or _class_folders(_split_folder(root, has_training))


def _class_folders(split: Path) -> list[str]:
    return sorted(
        entry.name for entry in os.scandir(split) if entry.is_dir() and entry.name[0] != "."
    )  # .ipynb_…


def _list_images(
    split: Path, settings: FolderSettings, classes: list[str]
) -> tuple[list[str], Tensor]:
    """List the images in the folder of a split, as torchvision's ImageFolder does, with their
    labels int64 (N,)."""
    folders = _class_folders(split)
    if not folders and not settings.classes:
        paths = sorted(entry.path for entry in os.scandir(split) if is_image_file(entry.name))
        if not paths:
            raise UserError(f"{split} holds neither images nor folders of images")
        return paths, torch.full((len(paths),), UNLABELLED)
    label_of = {name: label for label, name in enumerate(classes)}
    with readable(
        split, "put a folder of images there for each class, or list all classes in dataset.yaml"
    ):
        unknown = [name for name in folders if name not in label_of]
        if unknown:
            where = "dataset.yaml" if settings.classes else "the training images"
            raise ValueError(f"{', '.join(unknown[:3])} is no class of {where}")
        images = make_dataset(
            str(split), label_of, IMG_EXTENSIONS, allow_empty=bool(settings.classes)
        )
        paths, labels = zip(*images, strict=True)
        return list(paths), torch.tensor(labels)
