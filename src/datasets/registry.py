"""Loads data sets and describes a user's own: a folder of images or an `.npz` file."""

from collections.abc import Mapping
from pathlib import Path

import torch

from src.choices.datasets import DATASETS, INTERVENTIONS, DatasetInfo, dataset_name
from src.datasets import arrays, folders, small_sets
from src.datasets.base import BaseImageSet, Loading
from src.datasets.interventions import INTERVENTION_FUNCTIONS
from src.errors import UserError

# Each takes a row of the table, or a description of the user's data, and the arguments of
# `load_dataset`.
LOADERS = {
    "torchvision": small_sets.load_torchvision,
    "embedded": small_sets.load_embedded,
    "imagenet": folders.load_imagenet,
    "cifar5m": arrays.load_cifar5m,
    "random_images": arrays.load_random_images,
    "folder": folders.load_folder,
    "file": arrays.load_file,
}


def dataset_info(name: str, *, labelled: bool = False) -> DatasetInfo:
    """Look up a data set by name, or describe a user's folder or `.npz` file.

    Args:
        labelled: raise an error for a data set without labels.
    """
    info = DATASETS[name] if name in DATASETS else _describe(Path(dataset_name(name)))
    if labelled and info.n_classes == 0:
        choice = ", ".join(other for other, row in DATASETS.items() if row.n_classes)
        raise UserError(
            f"dataset {name!r} has no labels; choose one that has: {choice}, or label your own"
        )
    return info


def _describe(path: Path) -> DatasetInfo:
    return folders.describe(path) if path.is_dir() else arrays.describe(path)


def load_dataset(
    name: str,
    root: str | Path,
    *,
    train: bool,
    device: torch.device | str = "cpu",
    loading: Loading = Loading(),  # noqa: B008 - immutable
    interventions: Mapping[str, float | None] | None = None,
    intervention_seed: int = 0,
) -> BaseImageSet:
    """Load one split of a data set; torchvision downloads its own when they are missing.

    Args:
        name: one of `DATASET_NAMES`, or the path of a folder of images or of an `.npz` file.
        root: the folder of all data sets (`-data`). For CIFAR-5M and the 300K images it may also be their own folder
            below that one. Embedded data sets and a user's own ignore it.
        train: load the training split, with augmentation; otherwise the test split, without.
        device: where images are kept and batches are made.
        loading: how images are decoded from disk.
        interventions: strengths, by names of the table, of changes before the augmentation; None: not applied. Test
            images only get dots, of classes that are drawn from all; a `shortcut` of 0 makes such dots on both splits.
        intervention_seed: what is drawn for an image depends on this seed and its index, for image noise also on the
            epoch: not on batches, order, workers or processes. An image keeps its label and dot.
    """
    strengths = {key: value for key, value in (interventions or {}).items() if value is not None}
    info = dataset_info(name, labelled=bool(strengths))
    load = LOADERS[info.loader]
    images = load(info, Path(root).expanduser(), train=train, device=device, loading=loading)
    images.classes = info.classes
    for key, row in INTERVENTIONS.items():
        if key in strengths and (train or row.changes_tests):
            change = INTERVENTION_FUNCTIONS[key]
            images = change(images, strengths[key], train=train, seed=intervention_seed)
    return images
