"""`dataset.yaml` in a folder of images: size, normalisation, augmentation and classes; by default ImageNet's."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from src.errors import UserError, unknown_name
from src.files import read_yaml

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
MAX_SIZE = 10_000  # pixels
AUGMENTATIONS = ("none", "flip", "crop_flip", "resized_crop")


class Settings(NamedTuple):
    """The keys of `dataset.yaml`, with their defaults."""

    size: int = 224  # images become (channels, size, size)
    channels: int = 3
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    augment: str = "resized_crop"
    classes: tuple[str, ...] = ()  # in the order of the labels; empty: the class folders, sorted


def read_settings(root: Path) -> Settings:
    """Read `dataset.yaml` in `root`; without one, all settings are the defaults.

    Raises:
        UserError: the file cannot be read, or a key or a value is not allowed.
    """
    path = root / "dataset.yaml"
    given = read_yaml(path) if path.is_file() else {}
    for key in given:
        if key not in Settings._fields:
            raise unknown_name(f"key in {path}", str(key), Settings._fields)
    channels = given.get("channels", 3)
    for key, default in (("mean", MEAN), ("std", STD)):
        given[key] = _numbers(given.get(key), default if channels == 3 else (sum(default) / len(default),))
    if isinstance(given.get("classes"), list):
        given["classes"] = tuple(map(str, given["classes"]))
    settings = Settings(**given)
    allowed = {
        "size": type(settings.size) is int and 0 < settings.size <= MAX_SIZE,  # isinstance would allow True
        "channels": type(settings.channels) is int and settings.channels in (1, 3),
        "mean": len(settings.mean) == channels and all(map(math.isfinite, settings.mean)),
        "std": len(settings.std) == channels and all(0 < value < math.inf for value in settings.std),
        "augment": settings.augment in AUGMENTATIONS,
        "classes": isinstance(settings.classes, tuple) and len(set(settings.classes)) == len(settings.classes),
    }
    for key, fits in allowed.items():
        if not fits:
            raise UserError(
                f"{path}: {key} cannot be {getattr(settings, key)}; allowed are size: 224, channels: 1 or 3, mean and "
                f"std: a number a channel, augment: {', '.join(AUGMENTATIONS)}, classes: a list of different names"
            )
    return settings


def _numbers(given: Any, default: tuple[float, ...]) -> tuple[float, ...]:
    """Convert a number or a list of numbers to a tuple, which is empty for anything else."""
    values = default if given is None else given if isinstance(given, list) else [given]
    return tuple(map(float, values)) if all(isinstance(value, int | float) for value in values) else ()
