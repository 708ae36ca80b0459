"""Folders of encoded images, a folder for each class: ImageNet (ILSVRC 2012) or a user's images."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.core.choices.datasets import IMAGENET_VALUES
from src.core.console import listed, note_once, progress, warn_once
from src.core.errors import UserError, unknown_name
from src.core.files import read_yaml, readable
from src.core.inputs import InputSpec, Normalisation, make_normalisation
from src.datasets.arrays import warn_of_binary_levels
from src.datasets.augmentation import Augmentation, CropFlip
from src.datasets.base import UNLABELLED, Device, ImageSet, InputSet, Loading, Pass
from src.datasets.decoded import DecodedImageSet, read_image

SPLITS = {True: ("train", "training_data"), False: ("val", "validation", "test", "validation_data")}
KEYS = ("size", "channels", "mean", "std", "augment", "classes")
AUGMENTATIONS = ("none", "flip", "crop_flip", "resized_crop")
# Sets of images up to these sizes are decoded once and kept
MAX_SIDE_KEPT = 64  # pixels
MAX_BYTES_KEPT = 4 * 2**30
N_SAMPLED = 100  # images that are looked at
IMAGENET_SOURCE = "https://image-net.org/download"


class FolderSettings(NamedTuple):
    """The settings in `dataset.yaml` of a folder of images; the defaults are ImageNet's."""

    size: int = 224  # images become (channels, size, size)
    channels: int = 3
    augment: str = "resized_crop"
    classes: tuple[str, ...] = ()  # in the order of the labels; empty: the class folders, sorted
    normalisation: Normalisation | None = IMAGENET_VALUES  # `mean` and `std` of the file

    @property
    def augmentation(self) -> Augmentation | None:
        """The augmentation of decoded training images; crops of the files come before it."""
        if self.augment == "flip":
            return CropFlip(padding=0)
        if self.augment == "crop_flip":
            return CropFlip(padding=max(1, self.size // 8))  # 4 for 32 pixels, as for CIFAR
        return None


def read_settings(root: Path) -> FolderSettings:
    """Read `dataset.yaml` in `root`; without this file, all settings are the defaults.

    Raises:
        UserError: the file cannot be read, or a setting is unknown or not allowed.
    """
    path = root / "dataset.yaml"
    if not path.is_file():
        return FolderSettings()
    content = read_yaml(path)
    for key in content:
        if key not in KEYS:
            raise unknown_name(f"key in {path}", str(key), KEYS)
    remedy = (
        "allowed are size: 224, channels: 1 or 3, mean and std: a number a channel, augment: "
        f"{', '.join(AUGMENTATIONS)}, classes: a list of different names"
    )
    with readable(path, remedy):
        written = {key: content[key] for key in FolderSettings._fields if key in content}
        settings = FolderSettings(**written)
        _check(settings)
        return settings._replace(
            classes=tuple(map(str, settings.classes)),
            normalisation=_normalisation(content, settings.channels),
        )


def _check(settings: FolderSettings) -> None:
    """Raise a ValueError that names the first invalid setting; the normalisation is not checked."""
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


def _normalisation(content: dict[str, Any], n_channels: int) -> Normalisation | None:
    """Return `mean` and `std` of `dataset.yaml`; default: ImageNet's, of grey images their means."""
    defaults: dict[str, Any] = IMAGENET_VALUES._asdict()
    if n_channels != 3:
        defaults = {key: sum(values) / 3 for key, values in defaults.items()}
    constants = {key: content.get(key, default) for key, default in defaults.items()}
    for key, values in constants.items():
        if isinstance(values, int | float):
            constants[key] = [values]
    return make_normalisation(**constants, n_channels=n_channels)


def describe(root: Path) -> InputSpec:
    """Describe a user's folder of images; errors as of `load_folder`."""
    settings = read_settings(root)
    classes = tuple(_classes(root, settings))
    if not (root / "dataset.yaml").is_file():
        note_once(
            f"{root} has no dataset.yaml: images are resized to 3×224×224 and normalised as for ImageNet; for "
            "another size write size, channels, mean and std to that file"
        )
    shape = (settings.channels, settings.size, settings.size)
    return InputSpec(len(classes), shape, settings.normalisation, classes)


def load_folder(
    root: Path, spec: InputSpec, *, train: bool, device: Device, loading: Loading
) -> InputSet:
    """Load a split of a user's folder of images.

    Images of at most 64×64 pixels that take at most 4 GiB are decoded once and kept on the device,
    unless each epoch takes new crops of the files. Larger images are decoded by workers, batch by
    batch.

    Raises:
        UserError: folders, images or settings are missing or wrong.
    """
    settings = read_settings(root)
    decoded = _decoded(root, spec, settings, train=train, device=device, loading=loading)
    _warn_of_lost_pixels(root, settings, decoded.paths)
    takes_crops_of_files = train and settings.augment == "resized_crop"
    n_bytes = len(decoded) * math.prod(spec.shape)
    is_small = settings.size <= MAX_SIDE_KEPT and n_bytes <= MAX_BYTES_KEPT
    if takes_crops_of_files or not is_small:
        return decoded

    batches = [slice(first, first + 256) for first in range(0, len(decoded), 256)]
    levels = decoded.levels(Pass(torch.arange(len(decoded)), batches))
    return ImageSet(
        torch.cat(list(progress(levels, "decoding images", len(batches)))),
        decoded.labels,
        n_classes=spec.n_classes,
        augmentation=decoded.augmentation,
        normalisation=spec.normalisation,
        device=device,
    )


def load_imagenet(
    root: Path, spec: InputSpec, *, train: bool, device: Device, loading: Loading
) -> InputSet:
    """Load a split of ImageNet; errors as of `load_folder`."""
    _split_folder(
        root,
        SPLITS[train],
        remedy=f"fetch ILSVRC 2012 from {IMAGENET_SOURCE} and rename its folders to {SPLITS[True][-1]} and "
        f"{SPLITS[False][-1]}",
    )
    settings = FolderSettings(classes=read_settings(root).classes)
    n_classes = len(_classes(root, settings))
    if n_classes > spec.n_classes or (settings.classes and n_classes < spec.n_classes):
        raise UserError(
            f"{root} has {n_classes} classes, ImageNet has {spec.n_classes}; "
            f"give {root} itself as -d"
        )
    if n_classes < spec.n_classes:
        warn_once(
            f"{root} has {n_classes} class folders of ImageNet's 1000: classes are numbered in alphabetical order; "
            "for the labels of a network of 1,000 outputs list all class names in "
            f"{root / 'dataset.yaml'} (classes: [n01440764, …])"
        )
    return _decoded(root, spec, settings, train=train, device=device, loading=loading)


def _decoded(
    root: Path,
    spec: InputSpec,
    settings: FolderSettings,
    *,
    train: bool,
    device: Device,
    loading: Loading,
) -> DecodedImageSet:
    """Return the images of a split, decoded when they are needed."""
    from torchvision import transforms as T  # loads as long as torch does

    paths, labels = _list_images(
        _split_folder(root, SPLITS[train]), settings, _classes(root, settings)
    )
    size = settings.size
    shorter_side = size
    crop = None
    if settings.augment == "resized_crop":  # the centre of an image is cut out for tests
        shorter_side = round(size * 8 / 7)
        crop = T.Compose([T.RandomResizedCrop(size), T.RandomHorizontalFlip(), T.PILToTensor()])
    images = DecodedImageSet(
        paths,
        labels,
        n_classes=spec.n_classes,
        image_shape=spec.shape,
        transform=T.Compose([T.Resize(shorter_side), T.CenterCrop(size), T.PILToTensor()]),
        normalisation=spec.normalisation,
        device=device,
        loading=loading,
    )
    if train:
        images.crop = crop
        images.augmentation = settings.augmentation
    return images


def _warn_of_lost_pixels(root: Path, settings: FolderSettings, paths: Sequence[str]) -> None:
    """Warn if images of a sample are enlarged, lose transparency, or all have levels 0 and 1 only."""
    sample = paths[:: math.ceil(len(paths) / N_SAMPLED)]
    smallest = settings.size
    highest = 0
    transparent = []
    for path in sample:
        image = read_image(path, "RGBA")
        pixels = np.asarray(image)  # (H, W, 4)
        smallest = min(smallest, *image.size)
        highest = max(highest, pixels[..., :3].max())
        if pixels[..., 3].min() < 255:
            transparent.append(path)
    if smallest < settings.size:
        note_once(
            f"{root}: images of {smallest} pixels are enlarged to {settings.size}; for smaller ones "
            f"write size: {smallest}, and augment: crop_flip or none, into {root / 'dataset.yaml'}"
        )
    if transparent:
        warn_once(
            f"{root}: {len(transparent)} of {len(sample)} images that were looked at have "
            f"transparent pixels, the first is {transparent[0]}; transparency is dropped, which reveals hidden "
            "colours; paste the images on a background"
        )
    if highest <= 1:
        warn_of_binary_levels(str(root))


def _split_folder(root: Path, names: Sequence[str], *, remedy: str = "") -> Path:
    """Return the folder of a split, the first of its names that exists; else raise a UserError."""
    folders = [root / name for name in names if (root / name).is_dir()]
    if folders:
        return folders[0]
    if not remedy:
        images = "training images" if names == SPLITS[True] else "test images"
        remedy = f"put the {images} into {root / names[0]}, a folder for each class"
    content = listed(sorted(path.name for path in root.glob("*")), n=5)
    raise UserError(
        f"{root} has no folder {', '.join(names[:-1])} or {names[-1]} (it holds {content or 'nothing'}); {remedy}"
    )


def _classes(root: Path, settings: FolderSettings) -> list[str]:
    """List the names of the classes in the order of their labels; empty: unlabelled images."""
    if settings.classes:
        return list(settings.classes)
    train = any((root / name).is_dir() for name in SPLITS[True])
    return _class_folders(_split_folder(root, SPLITS[train]))


def _class_folders(split: Path) -> list[str]:
    """List the names of the folders in a split, without hidden folders (.ipynb_checkpoints)."""
    folders = [entry for entry in os.scandir(split) if entry.is_dir()]
    return sorted(folder.name for folder in folders if not folder.name.startswith("."))


def _list_images(
    split: Path, settings: FolderSettings, classes: list[str]
) -> tuple[list[str], Tensor]:
    """List the images of a split as torchvision's ImageFolder does: paths and labels int64 (N,)."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, is_image_file, make_dataset

    folders = _class_folders(split)
    if not folders and not settings.classes:
        paths = sorted(entry.path for entry in os.scandir(split) if is_image_file(entry.name))
        if not paths:
            raise UserError(f"{split} holds neither images nor folders of images")
        return paths, torch.full((len(paths),), UNLABELLED)

    remedy = "put a folder of images there for each class, or list all classes in dataset.yaml"
    label_of = {name: label for label, name in enumerate(classes)}
    with readable(split, remedy):
        unknown = [name for name in folders if name not in label_of]
        if unknown:
            source = "dataset.yaml" if settings.classes else "the training images"
            raise ValueError(f"{', '.join(unknown[:3])} is no class of {source}")
        may_be_empty = bool(settings.classes)
        images = make_dataset(str(split), label_of, IMG_EXTENSIONS, allow_empty=may_be_empty)
        image_paths, labels = zip(*images, strict=True)
        return list(image_paths), torch.tensor(labels)
