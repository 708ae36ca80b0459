"""The data sets by name: what is known before anything is loaded, and where the loader of each lives.

Importing this module is cheap: the parsers of all scripts list the names, so torch stays out.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from src.errors import UserError, unknown_name

if TYPE_CHECKING:
    import torch

    from src.datasets.base import BaseImageSet


class DatasetInfo(NamedTuple):
    """What is known of a data set without loading it."""

    module: str  # of this package; has load(name, root, *, train, device, loading)
    n_classes: int  # 0: unlabelled
    image_shape: tuple[int, int, int]  # (C, H, W) of what its batches deliver
    epoch_size: int | None = None  # images of an epoch of training; None: all


class Loading(NamedTuple):
    """How images are decoded from disk; sets that live in memory have no use for it."""

    n_workers: int = 0  # processes; 0: the main one
    prefetch_factor: int = 1  # batches that each of them prepares ahead


DATASETS: dict[str, DatasetInfo] = {
    "cifar10": DatasetInfo("torchvision_sets", 10, (3, 32, 32)),
    "cifar100": DatasetInfo("torchvision_sets", 100, (3, 32, 32)),
    "svhn": DatasetInfo("torchvision_sets", 10, (3, 32, 32)),
    "mnist": DatasetInfo("torchvision_sets", 10, (1, 28, 28)),
    "fashion": DatasetInfo("torchvision_sets", 10, (1, 28, 28)),
    "cifar10_large": DatasetInfo("torchvision_sets", 10, (3, 224, 224)),
    "cifar100_large": DatasetInfo("torchvision_sets", 100, (3, 224, 224)),
    "imagenet": DatasetInfo("imagenet", 1000, (3, 224, 224)),
    "imagenet_mem": DatasetInfo("imagenet", 1000, (3, 224, 224)),
    "cifar5m": DatasetInfo("arrays", 10, (3, 32, 32), epoch_size=50_000),
    "outlier_exposure": DatasetInfo("arrays", 0, (3, 32, 32)),
    "digits": DatasetInfo("embedded_sets", 10, (1, 8, 8)),
    "photo_patches": DatasetInfo("embedded_sets", 0, (1, 8, 8)),
}

DATASET_NAMES = tuple(DATASETS)


def dataset_info(name: str) -> DatasetInfo:
    """Look up a data set.

    Raises:
        UserError: there is none of this name; suggests close ones and lists all.
    """
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASET_NAMES)
    return DATASETS[name]


def load_dataset(
    name: str,
    root: str | Path,
    *,
    train: bool,
    device: torch.device | str = "cpu",
    loading: Loading = Loading(),  # noqa: B008 - immutable
) -> BaseImageSet:
    """Load one split of a data set; what torchvision knows is downloaded when missing.

    Args:
        name: one of `DATASET_NAMES`.
        root: the folder under which data sets lie (`-data`); the embedded ones ignore it; those of `arrays` have
            a folder of their own in it, which may be given as well.
        train: the training split, with its augmentation; otherwise the test split, without any.
        device: where images are kept and batches are made.
        loading: how ImageNet is decoded.

    Raises:
        UserError: the name is unknown; files are missing and cannot be downloaded, or damaged: says how to mend it.
    """
    family = importlib.import_module(f"src.datasets.{dataset_info(name).module}")
    return family.load(name, Path(root).expanduser(), train=train, device=device, loading=loading)


def load_labelled(
    name: str,
    root: str | Path,
    *,
    train: bool,
    device: torch.device | str = "cpu",
    loading: Loading = Loading(),  # noqa: B008 - immutable
) -> BaseImageSet:
    """`load_dataset` for what needs classes.

    Raises:
        UserError: as `load_dataset`, or the data set is unlabelled.
    """
    labelled_info(name)
    return load_dataset(name, root, train=train, device=device, loading=loading)


def labelled_info(name: str) -> DatasetInfo:
    """`dataset_info` for what needs classes.

    Raises:
        UserError: there is no such data set, or it is unlabelled.
    """
    info = dataset_info(name)
    if info.n_classes == 0:
        labelled = ", ".join(other for other, known in DATASETS.items() if known.n_classes)
        raise UserError(f"dataset {name!r} has no labels; choose one that has: {labelled}")
    return info
