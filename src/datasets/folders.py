"""Folders of encoded images, a folder for each class: ImageNet (ILSVRC 2012) and a user's own."""

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
    n_bytes = len(paths) * settings.channels * settings.size**2
    if settings.size > IN_MEMORY or n_bytes > _memory_of(device) / 4:
        return _decoded(
            EncodedFiles(paths), labels, settings, len(classes), train=train, device=device, loading=loading
        )
    kept = settings._replace(augment="none") if train else settings
    small = _decoded(EncodedFiles(paths), labels, kept, len(classes), train=False, device="cpu", loading=loading)
    batches = [BatchSpec(indices, None) for indices in torch.arange(len(paths)).split(256)]
    images = torch.cat(list(progress(small.levels(batches), "decoding images", len(batches))))
    return ImageSet(
        images,
        labels,
        n_classes=len(classes),
        augmentation=_of_kept_images(settings) if train else None,
        normalisation=_normalisation(settings),
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
    return _decoded(files, labels, settings, info.n_classes, train=train, device=device, loading=loading)


@cache  # once for both splits
def _warn_of_subset(root: Path, n_classes: int) -> None:
    warn(
        f"{root} has {n_classes} class folders of ImageNet's 1000: labels are their places among them; for the labels "
        f"of a network of 1,000 outputs list all class names in {root / 'dataset.yaml'} (classes: [n01440764, …])"
    )


def _is_smaller(path: str, size: int) -> bool:
    try:
        with Image.open(path) as image:
            return min(image.size) < size
    except Exception:  # a damaged file can raise anything; decoding will report it
        return False


@cache  # once for both splits
def _note_enlargement(root: Path, size: int) -> None:
    note(
        f"{root} has no dataset.yaml, so images become 3×{size}×{size}, in resized crops; the first one is smaller: to "
        f"keep its size give it in {root / 'dataset.yaml'} (size: 32, and augment: crop_flip, for example)"
    )


def _decoded(
    files: EncodedFiles, labels: Tensor, settings: Settings, n_classes: int, *, train: bool, **options: Any
) -> DecodedImageSet:
    return DecodedImageSet(
        files,
        labels,
        n_classes=n_classes,
        image_shape=(settings.channels, settings.size, settings.size),
        transform=_plain(settings),
        augmentation=_augmented(settings) if train and settings.augment != "none" else None,
        normalisation=_normalisation(settings),
        **options,
    )


def _normalisation(settings: Settings) -> Normalisation:
    unchanged = set(settings.mean) == {0} and set(settings.std) == {1}
    return Normalisation() if unchanged else Normalisation(settings.mean, settings.std)


def _plain(settings: Settings) -> Transform:
    """Return the transform of test images: the whole image, or with `resized_crop` its middle, as for ImageNet."""
    short = round(settings.size * 8 / 7) if settings.augment == "resized_crop" else settings.size
    return T.Compose([T.Resize(short), T.CenterCrop(settings.size), T.PILToTensor()])


def _augmented(settings: Settings) -> Transform:
    size = settings.size
    steps = {
        "flip": [T.Resize(size), T.CenterCrop(size)],
        "crop_flip": [T.Resize(size), T.CenterCrop(size), T.RandomCrop(size, padding=_padding(size))],
        "resized_crop": [T.RandomResizedCrop(size)],
    }
    return T.Compose([*steps[settings.augment], T.RandomHorizontalFlip(), T.PILToTensor()])


def _of_kept_images(settings: Settings) -> Augmentation | None:
    """Return the augmentation of batches of images that have the right size already."""
    padding = _padding(settings.size)
    return {"none": None, "flip": CropFlip(0), "crop_flip": CropFlip(padding), "resized_crop": ResizedCrop()}[
        settings.augment
    ]


def _padding(size: int) -> int:
    return max(1, size // 8)  # 4 for 32 pixels, as for CIFAR


def _split_names(root: Path, train: bool) -> list[str]:
    return [name for name in SPLITS[train] if (root / name).is_dir()]


def _split_folder(root: Path, train: bool, *, remedy: str = "give a folder with train and val in it") -> Path:
    """Return the folder of a split: the first of its possible names that exists.

    Raises:
        UserError: none exists.
    """
    if _split_names(root, train):
        return root / _split_names(root, train)[0]
    names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    content = f"it holds {', '.join(names[:5])}{' …' if len(names) > 5 else ''}" if names else "it holds nothing"
    raise UserError(f"{root} has no folder {' or '.join(SPLITS[train])} ({content}); {remedy}")


def _classes(root: Path, settings: Settings) -> list[str]:
    """List the names of the classes in the order of their labels; an empty list where images are unlabelled.

    Raises:
        UserError: there is no split, or its classes differ from those of `dataset.yaml` or of the other split.
    """
    splits = [_split_folder(root, train) for train in SPLITS if _split_names(root, train)] or [
        _split_folder(root, True)
    ]
    folders = {split.name: {entry.name for entry in os.scandir(split) if _is_class(entry)} for split in splits}
    if not any(folders.values()):
        return []
    expected, whose = set(settings.classes), "dataset.yaml"
    if not expected:
        expected, whose = folders[splits[0].name], splits[0].name
    for name, own in folders.items():
        missing = set() if settings.classes else expected - own
        if missing or own - expected:
            differing = ", ".join(sorted(missing or own - expected)[:3])
            raise UserError(
                f"{root}: {name} {'lacks' if missing else 'has'} class folders ({differing}) that {whose} "
                f"{'has' if missing else 'lacks'}; list all classes in {root / 'dataset.yaml'}, or make them agree"
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
        raise UserError(
            f"{' '.join(str(error).split()).rstrip('.')}; put a folder of images there for each class"
        ) from error
    paths, labels = zip(*images, strict=True)
    return list(paths), torch.tensor(labels)


def _memory_of(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
