"""Folders of encoded images, a folder for each class: ImageNet (ILSVRC 2012) or a user's images."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import transforms as T
from torchvision.datasets.folder import IMG_EXTENSIONS, is_image_file, make_dataset

from src.choices.datasets import IMAGENET_VALUES, DatasetInfo
from src.datasets.augmentation import CropFlip
from src.datasets.base import UNLABELLED, BaseImageSet, Device, ImageSet, Loading, Pass
from src.datasets.decoded import DecodedImageSet, Transform
from src.datasets.samples import Size, first_images, sizes_of, warn_of_lost_pixels
from src.ground.console import listed, note_once, progress, warn_once
from src.ground.errors import UserError, unknown_name
from src.ground.files import read_yaml, readable
from src.ground.images import Normalisation, make_normalisation

SPLITS = {True: ("train", "training_data"), False: ("val", "validation", "test", "validation_data")}
KEYS = ("size", "channels", "mean", "std", "augment", "classes")
# Sets of images up to these sizes are decoded once and kept
MAX_SIDE_KEPT = 64  # pixels
MAX_BYTES_KEPT = 4 * 2**30
IMAGENET_SOURCE = "https://image-net.org/download"


class FolderSettings(NamedTuple):
    """The settings in `dataset.yaml` of a folder of images; the defaults are ImageNet's."""

    size: int = 224  # images become (channels, size, size)
    channels: int = 3
    augment: str = "resized_crop"
    classes: tuple[str, ...] = ()  # in the order of the labels; empty: the class folders, sorted
    normalisation: Normalisation | None = IMAGENET_VALUES  # `mean` and `std` of the file


def read_settings(root: Path) -> FolderSettings:
    """Read `dataset.yaml` in `root`; without this file, all settings are the defaults.

    Raises:
        UserError: the file cannot be read, or a setting is unknown or not allowed.
    """
    return _settings(root, _written(root))


def settings_for_images(root: Path) -> FolderSettings:
    """Read `dataset.yaml` as `read_settings` does, with special defaults for small images.

    Without a `size` in the file, images that are smaller than the default and all of one size keep
    it, and are shifted and flipped in training unless `augment` says otherwise; a note says so. A
    warning says where small images are enlarged.
    """
    content = _written(root)
    if "size" in content:
        return _settings(root, content)
    size = _small_size(root)
    if size is None:
        return _settings(root, content)
    side = min(size)
    done = f"images are {size} and keep this size"
    if size.width != size.height:
        done = f"images are {size}, of which the middle {side}×{side} is kept"
    if "augment" not in content:
        done += "; in training they are shifted and flipped (augment: crop_flip, or none)"
    note_once(
        f"{root}: {done}; to say otherwise, write size: {FolderSettings().size} into "
        f"{root / 'dataset.yaml'}"
    )
    return _settings(root, {"size": side, "augment": "crop_flip"} | content)


def _written(root: Path) -> dict[str, Any]:
    """Return the content of `dataset.yaml` by key, not checked yet; {} without this file."""
    path = root / "dataset.yaml"
    if not path.is_file():
        return {}
    content = read_yaml(path)
    for key in content:
        if key not in KEYS:
            raise unknown_name(f"key in {path}", str(key), KEYS)
    return content


def _settings(root: Path, content: dict[str, Any]) -> FolderSettings:
    """Return the settings in the content of `dataset.yaml`."""
    if not content:
        return FolderSettings()
    remedy = (
        "allowed are size: 224, channels: 1 or 3, mean and std: a number a channel, augment: "
        f"{', '.join(AUGMENTATIONS)}, classes: a list of different names"
    )
    with readable(root / "dataset.yaml", remedy):
        written = {key: content[key] for key in FolderSettings._fields if key in content}
        settings = FolderSettings(**written)
        _check(settings)
        return settings._replace(
            classes=tuple(map(str, settings.classes)),
            normalisation=_normalisation(content, settings.channels),
        )


def _small_size(root: Path) -> Size | None:
    """Return the size of the images if it is one and below the default; else None.

    A sample of the images tells. Warns of small images of several sizes.
    """
    has_training_images = bool(_split_folders(root, train=True))
    split = _split_folder(root, has_training_images)
    folders = [split / name for name in _class_folders(split)] or [split]
    distinct_sizes = set(sizes_of(first_images(folders)))
    sizes = sorted(distinct_sizes, key=lambda size: (min(size), size))
    large = FolderSettings().size
    if not sizes or min(sizes[0]) >= large:
        return None
    if len(sizes) == 1:
        return sizes[0]
    warn_once(
        f"{root}: images of several sizes, such as {sizes[0]} and {sizes[-1]}, become "
        f"{large}×{large} in resized crops, and small ones are enlarged; for other images write "
        f"into {root / 'dataset.yaml'}: size: {min(sizes[0])}, and augment: crop_flip or none"
    )
    return None


def _check(settings: FolderSettings) -> None:
    """Raise a ValueError that names the first invalid setting.

    The normalisation is not checked here.
    """
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
    """Return the normalisation of `dataset.yaml`: its `mean` and `std`, by default ImageNet's.

    Grey images have by default the mean over ImageNet's three channels.
    """
    numbers = {}
    for key, numbers_of_imagenet in IMAGENET_VALUES._asdict().items():
        default = list(numbers_of_imagenet)
        if n_channels != 3:
            default = [sum(numbers_of_imagenet) / 3]
        values = content.get(key, default)
        if isinstance(values, int | float):
            values = [values]
        numbers[key] = values
    return make_normalisation(numbers["mean"], numbers["std"], n_channels=n_channels)


def describe(root: Path) -> DatasetInfo:
    """Describe a user's folder of images."""
    settings = settings_for_images(root)
    classes = tuple(_classes(root, settings))
    return DatasetInfo(
        "folder",
        str(root),
        len(classes),
        (settings.channels, settings.size, settings.size),
        normalisation=settings.normalisation,
        classes=classes,
    )


def load_folder(
    info: DatasetInfo, root: Path, *, train: bool, device: Device, loading: Loading
) -> BaseImageSet:
    """Load a split of a user's folder of images.

    Images of at most 64×64 pixels that take at most 4 GiB are decoded once and kept on the device,
    unless each epoch takes new crops of the files. Larger images are decoded by workers, batch by
    batch. `root` is not used.
    """
    folder = Path(info.source)
    settings = settings_for_images(folder)
    decoded = _decoded(info, folder, settings, train=train, device=device, loading=loading)
    warn_of_lost_pixels(folder, decoded.paths)

    takes_crops_of_files = train and settings.augment == "resized_crop"
    n_bytes = len(decoded) * math.prod(info.image_shape)
    is_small = settings.size <= MAX_SIDE_KEPT and n_bytes <= MAX_BYTES_KEPT
    if takes_crops_of_files or not is_small:
        return decoded

    augmentation = None
    if train and settings.augment == "flip":
        augmentation = CropFlip(padding=0)
    if train and settings.augment == "crop_flip":
        augmentation = CropFlip(_padding(settings.size))
    return ImageSet(
        _decode_all(decoded),
        decoded.labels,
        n_classes=info.n_classes,
        augmentation=augmentation,
        normalisation=info.normalisation,
        device=device,
    )


def _decode_all(images: DecodedImageSet) -> Tensor:
    """Decode all images of a set, with a progress bar: uint8 (N, C, H, W) on the CPU."""
    batches = [slice(first, first + 256) for first in range(0, len(images), 256)]
    all_images = Pass(torch.arange(len(images)), batches)
    levels = progress(images.levels(all_images), "decoding images", len(batches))
    return torch.cat(list(levels))


def load_imagenet(
    info: DatasetInfo, root: Path, *, train: bool, device: Device, loading: Loading
) -> DecodedImageSet:
    """Load a split of ImageNet."""
    if not _split_folders(root, train):
        raise UserError(
            f"{_missing_split(root, train)}; fetch ILSVRC 2012 from {IMAGENET_SOURCE} and rename "
            f"its folders to {SPLITS[True][-1]} and {SPLITS[False][-1]}"
        )
    settings = FolderSettings(classes=read_settings(root).classes)
    images = _decoded(info, root, settings, train=train, device=device, loading=loading)
    n_classes = len(_classes(root, settings))
    has_fewer_listed = bool(settings.classes) and n_classes < info.n_classes
    if n_classes > info.n_classes or has_fewer_listed:
        raise UserError(
            f"{root} has {n_classes} classes, ImageNet has {info.n_classes}; "
            f"name {root} itself as the data set"
        )
    if n_classes < info.n_classes:
        warn_once(
            f"{root} has {n_classes} class folders of ImageNet's 1000: labels are their places in "
            "the alphabet; for the labels of a network of 1,000 outputs list all class names in "
            f"{root / 'dataset.yaml'} (classes: [n01440764, …])"
        )
    return images


def _decoded(
    info: DatasetInfo,
    root: Path,
    settings: FolderSettings,
    *,
    train: bool,
    device: Device,
    loading: Loading,
) -> DecodedImageSet:
    """Return the images of a split, decoded when they are needed."""
    split = _split_folder(root, train)
    paths, labels = _list_images(split, settings, _classes(root, settings))
    size = settings.size
    augmentation = None
    if train:
        augmentation = AUGMENTATIONS[settings.augment](size)
    shorter_side = size
    if settings.augment == "resized_crop":  # the centre of an image is cut out for tests
        shorter_side = round(size * 8 / 7)
    return DecodedImageSet(
        paths,
        labels,
        n_classes=info.n_classes,
        image_shape=info.image_shape,
        transform=T.Compose([T.Resize(shorter_side), T.CenterCrop(size), T.PILToTensor()]),
        augmentation=augmentation,
        normalisation=info.normalisation,
        device=device,
        loading=loading,
    )


def _padding(size: int) -> int:
    """Return the padding of crops: 4 for 32 pixels, as for CIFAR."""
    return max(1, size // 8)


def _no_augmentation(size: int) -> None:
    """Return no transform: training images are decoded as test images are."""
    return None


def _flip(size: int) -> Transform:
    """Return a transform to uint8 (C, size, size): the centre, flipped at random."""
    whole = [T.Resize(size), T.CenterCrop(size)]
    return T.Compose([*whole, T.RandomHorizontalFlip(), T.PILToTensor()])


def _crop_flip(size: int) -> Transform:
    """Return a transform to uint8 (C, size, size): the centre, shifted and flipped at random."""
    whole = [T.Resize(size), T.CenterCrop(size)]
    crop = T.RandomCrop(size, padding=_padding(size))
    return T.Compose([*whole, crop, T.RandomHorizontalFlip(), T.PILToTensor()])


def _resized_crop(size: int) -> Transform:
    """Return a transform to uint8 (C, size, size): a random part, flipped at random."""
    return T.Compose([T.RandomResizedCrop(size), T.RandomHorizontalFlip(), T.PILToTensor()])


# Makers of a transform to images of a size, by the value of `augment`
AUGMENTATIONS: dict[str, Callable[[int], Transform | None]] = {
    "none": _no_augmentation,
    "flip": _flip,
    "crop_flip": _crop_flip,
    "resized_crop": _resized_crop,
}


def _split_folder(root: Path, train: bool) -> Path:
    """Return the folder of a split: the first of its possible names that exists.

    Raises:
        UserError: no such folder exists.
    """
    folders = _split_folders(root, train)
    if not folders:
        images = "training images" if train else "test images"
        place = root / SPLITS[train][0]
        raise UserError(
            f"{_missing_split(root, train)}; put the {images} into {place}, a folder for each class"
        )
    return folders[0]


def _split_folders(root: Path, train: bool) -> list[Path]:
    """List the existing folders with a name of the split."""
    return [root / name for name in SPLITS[train] if (root / name).is_dir()]


def _missing_split(root: Path, train: bool) -> str:
    """Return the first half of the message that the folder of a split is missing."""
    *names, last_name = SPLITS[train]
    content = []
    if root.is_dir():
        content = sorted(path.name for path in root.iterdir())
    held = listed(content, n=5) or "nothing"
    return f"{root} has no folder {', '.join(names)} or {last_name} (it holds {held})"


def _classes(root: Path, settings: FolderSettings) -> list[str]:
    """List the names of the classes in the order of their labels; empty: unlabelled images."""
    if settings.classes:
        return list(settings.classes)
    has_training_images = bool(_split_folders(root, train=True))
    return _class_folders(_split_folder(root, has_training_images))


def _class_folders(split: Path) -> list[str]:
    """List the names of the folders in a split, without hidden folders (.ipynb_checkpoints)."""
    folders = [entry for entry in os.scandir(split) if entry.is_dir()]
    return sorted(folder.name for folder in folders if not folder.name.startswith("."))


def _list_images(
    split: Path, settings: FolderSettings, classes: list[str]
) -> tuple[list[str], Tensor]:
    """List the images in the folder of a split, as torchvision's ImageFolder does.

    Returns:
        Their paths, and their labels int64 (N,).
    Raises:
        UserError: there are no images, or folders that are no class.
    """
    folders = _class_folders(split)

    # Without classes
    if not folders and not settings.classes:
        paths = sorted(entry.path for entry in os.scandir(split) if is_image_file(entry.name))
        if not paths:
            raise UserError(f"{split} holds neither images nor folders of images")
        return paths, torch.full((len(paths),), UNLABELLED)

    # With a folder for each class
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
