"""Folders of encoded images, a folder for each class: ImageNet (ILSVRC 2012) and a user's own."""

import contextlib
import math
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms as T
from torchvision.datasets.folder import IMG_EXTENSIONS, is_image_file, make_dataset

from src.console import note, progress, warn
from src.datasets.augmentation import Augmentation, CropFlip, ResizedCrop
from src.datasets.base import UNLABELLED, BaseImageSet, BatchSpec, Normalisation
from src.datasets.dataset_yaml import Settings, read_settings
from src.datasets.decoded import DecodedImageSet, EncodedFiles, HeldFiles, Transform
from src.datasets.in_memory import ImageSet
from src.datasets.registry import DatasetInfo, Loading
from src.errors import UserError

SPLITS = {True: ("train", "training_data"), False: ("val", "validation", "test", "validation_data")}
IN_MEMORY = 64  # pixels: images up to this size are decoded once, where they fit
IMAGENET = (
    "fetch ILSVRC 2012 from https://image-net.org/download and rename its folders to training_data, validation_data"
)


def describe(root: Path) -> DatasetInfo:
    """Describe a user's folder of images.

    Raises:
        UserError: it is not one, or `dataset.yaml` is wrong.
    """
    settings = read_settings(root)
    shape = (settings.channels, settings.size, settings.size)
    return DatasetInfo("folders.load_folder", str(root), len(_classes(root, settings)), shape)


def load_folder(
    info: DatasetInfo, root: Path, *, train: bool, device: torch.device | str, loading: Loading
) -> BaseImageSet:
    """Load a split of a user's folder of images.

    Images of at most 64×64 pixels that fit into a quarter of the device's memory are decoded once and kept there.
    Others are decoded by workers for each batch.

    Raises:
        UserError: folders are missing or empty, the classes of the splits differ, or an image is damaged.
    """
    root, device = Path(info.source), torch.device(device)
    settings = read_settings(root)
    classes = _classes(root, settings)
    paths, labels = _scan(_split_folder(root, train), classes, some_empty=bool(settings.classes))
    if not (root / "dataset.yaml").is_file() and _is_smaller(paths[0], settings.size):
        _note_enlargement(root, settings.size)
    augmented, of_kept_images = _augmentations(settings) if train else (None, None)
    options = _options(settings, len(classes))
    decoded = DecodedImageSet(
        EncodedFiles(paths), labels, **options, augmentation=augmented, loading=loading, device=device
    )
    if settings.size > IN_MEMORY or len(paths) * math.prod(decoded.image_shape) > _memory_of(device) / 4:
        return decoded
    if train and settings.augment == "resized_crop":
        decoded.transform = _plain(settings._replace(augment="none"))  # whole images, of which crops are taken
    batches = [BatchSpec(indices, None) for indices in torch.arange(len(paths)).split(256)]
    images = torch.cat(list(progress(decoded.levels(batches), "decoding images", len(batches))))
    return ImageSet(
        images,
        labels,
        n_classes=len(classes),
        augmentation=of_kept_images,
        normalisation=decoded.normalisation,
        device=device,
    )


def load_imagenet(
    info: DatasetInfo, root: Path, *, train: bool, device: torch.device | str, loading: Loading
) -> DecodedImageSet:
    """Load a split of ImageNet; its files are read for each batch, or once and held in memory.

    Raises:
        UserError: as `load_folder`, or the classes are not those of ImageNet.
    """
    settings = Settings(classes=read_settings(root).classes)
    folder = _split_folder(root, train, remedy=IMAGENET)
    classes = _classes(root, settings)
    if len(classes) > info.n_classes or (settings.classes and len(classes) < info.n_classes):
        raise UserError(f"{root} has {len(classes)} classes, ImageNet has {info.n_classes}; use -d {root} for your own")
    if len(classes) < info.n_classes:
        _warn_of_subset(root, len(classes))
    paths, labels = _scan(folder, classes, some_empty=bool(settings.classes))
    held = info.source == "memory"
    files = HeldFiles(paths, n_threads=max(1, loading.n_workers)) if held else EncodedFiles(paths)
    augmented = _augmentations(settings)[0] if train else None
    options = _options(settings, info.n_classes)
    return DecodedImageSet(files, labels, **options, augmentation=augmented, loading=loading, device=device)


@cache  # once for both splits
def _warn_of_subset(root: Path, n_classes: int) -> None:
    warn(
        f"{root} has {n_classes} class folders of ImageNet's 1000: labels are their places among them; for the labels "
        f"of a network of 1,000 outputs list all class names in {root / 'dataset.yaml'} (classes: [n01440764, …])"
    )


def _is_smaller(path: str, size: int) -> bool:
    with contextlib.suppress(Exception), Image.open(path) as image:  # decoding will report a damaged one
        return min(image.size) < size
    return False


@cache  # once for both splits
def _note_enlargement(root: Path, size: int) -> None:
    note(
        f"{root} has no dataset.yaml, so images become 3×{size}×{size}, in resized crops; the first one is smaller: to "
        f"keep its size give it in {root / 'dataset.yaml'} (size: 32, and augment: crop_flip, for example)"
    )


def _options(settings: Settings, n_classes: int) -> dict[str, Any]:
    """Return the arguments of `DecodedImageSet` that the settings choose for both splits."""
    unchanged = set(settings.mean) == {0} and set(settings.std) == {1}
    return {
        "n_classes": n_classes,
        "image_shape": (settings.channels, settings.size, settings.size),
        "transform": _plain(settings),
        "normalisation": None if unchanged else Normalisation(settings.mean, settings.std),
    }


def _plain(settings: Settings) -> Transform:
    """Return the transform of test images: the whole image, or with `resized_crop` its middle, as for ImageNet."""
    short = round(settings.size * 8 / 7) if settings.augment == "resized_crop" else settings.size
    return T.Compose([T.Resize(short), T.CenterCrop(settings.size), T.PILToTensor()])


def _augmentations(settings: Settings) -> tuple[Transform | None, Augmentation | None]:
    """Return the augmentation of encoded images, and that of batches of images that have the right size already."""
    size, padding = settings.size, max(1, settings.size // 8)  # 4 for 32 pixels, as for CIFAR
    whole = [T.Resize(size), T.CenterCrop(size)]
    steps, of_batches = {
        "none": (None, None),
        "flip": (whole, CropFlip(0)),
        "crop_flip": ([*whole, T.RandomCrop(size, padding=padding)], CropFlip(padding)),
        "resized_crop": ([T.RandomResizedCrop(size)], ResizedCrop()),
    }[settings.augment]
    return steps and T.Compose([*steps, T.RandomHorizontalFlip(), T.PILToTensor()]), of_batches


def _splits(root: Path) -> dict[bool, Path]:
    """Find the folders of the splits, by whether they are for training: the first of the possible names that exists."""
    found = {train: [root / name for name in names if (root / name).is_dir()] for train, names in SPLITS.items()}
    return {train: folders[0] for train, folders in found.items() if folders}


def _split_folder(root: Path, train: bool, *, remedy: str = "give a folder with train and val in it") -> Path:
    """Return the folder of a split.

    Raises:
        UserError: it does not exist.
    """
    if train not in _splits(root):
        names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
        content = f"it holds {', '.join(names[:5]) or 'nothing'}{' …' if len(names) > 5 else ''}"
        raise UserError(f"{root} has no folder {' or '.join(SPLITS[train])} ({content}); {remedy}")
    return _splits(root)[train]


def _classes(root: Path, settings: Settings) -> list[str]:
    """List the names of the classes in the order of their labels; an empty list where images are unlabelled.

    Raises:
        UserError: there is no split, or its classes differ from those of `dataset.yaml` or of the other split.
    """
    splits = _splits(root).values() or [_split_folder(root, True)]
    folders = {split.name: {entry.name for entry in os.scandir(split) if _is_class(entry)} for split in splits}
    if not any(folders.values()):
        return []
    whose, expected = ("dataset.yaml", set(settings.classes)) if settings.classes else next(iter(folders.items()))
    for name, own in folders.items():
        differing = own - expected or (set() if settings.classes else expected - own)
        if differing:
            raise UserError(
                f"{root}: {name} and {whose} do not have the same classes ({', '.join(sorted(differing)[:3])}); list "
                f"all classes in {root / 'dataset.yaml'}, or make the folders agree"
            )
    return list(settings.classes) or sorted(expected)


def _is_class(entry: os.DirEntry) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")  # .ipynb_checkpoints and the like


def _scan(folder: Path, classes: list[str], *, some_empty: bool) -> tuple[list[str], Tensor]:
    """List the images in the folder of a split, with their labels int64 (N,).

    Args:
        some_empty: allow classes without images.
    Raises:
        UserError: there are no images, or a class has none.
    """
    if not classes:
        paths = sorted(entry.path for entry in os.scandir(folder) if is_image_file(entry.name))
        if not paths:
            raise UserError(f"{folder} holds neither images nor folders of images")
        return paths, torch.full((len(paths),), UNLABELLED)
    label_of = {name: label for label, name in enumerate(classes)}
    try:
        images = make_dataset(str(folder), label_of, IMG_EXTENSIONS, allow_empty=some_empty)
        images = [image for image in images if f"{os.sep}." not in image[0][len(str(folder)) :]]  # not hidden
        if not images:
            raise FileNotFoundError(f"{folder} holds no images")
    except OSError as error:  # a class, or all of them, without images
        raise UserError(f"{str(error).rstrip('.')}; put a folder of images there for each class") from error
    paths, labels = zip(*images, strict=True)
    return list(paths), torch.tensor(labels)


def _memory_of(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
