"""Loads data sets by name, or a user's images: a folder or an `.npz` file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from src.choices.datasets import DATASETS, INTERVENTIONS, DatasetInfo, dataset_name
from src.datasets import arrays, small_sets
from src.datasets.base import BaseImageSet, Loading
from src.datasets.interventions import INTERVENTION_FUNCTIONS
from src.ground.errors import UserError


def _load_imagenet(info: DatasetInfo, root: Path, **arguments: Any) -> BaseImageSet:
    """Load a split of ImageNet."""
    from src.datasets import folders  # imports torchvision, which loads as long as torch does

    return folders.load_imagenet(info, root, **arguments)


def _load_folder(info: DatasetInfo, root: Path, **arguments: Any) -> BaseImageSet:
    """Load a split of a user's folder of images."""
    from src.datasets import folders

    return folders.load_folder(info, root, **arguments)


# A loader takes the row of a data set and the arguments of `load_dataset`
LOADERS: dict[str, Callable[..., BaseImageSet]] = {
    "torchvision": small_sets.load_torchvision,
    "embedded": small_sets.load_embedded,
    "imagenet": _load_imagenet,
    "cifar5m": arrays.load_cifar5m,
    "random_images": arrays.load_random_images,
    "folder": _load_folder,
    "file": arrays.load_file,
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
        info = _describe(Path(dataset_name(name)))
    if labelled and info.n_classes == 0:
        labelled_names = [key for key, row in DATASETS.items() if row.n_classes]
        raise UserError(
            f"dataset {name!r} has no labels; choose one that has: {', '.join(labelled_names)}, "
            "or label your own"
        )
    return info


def _describe(path: Path) -> DatasetInfo:
    """Describe a user's folder or `.npz` file."""
    if path.is_dir():
        from src.datasets import folders

        return folders.describe(path)
    return arrays.describe(path)


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
    """Load one split of a data set; torchvision downloads its data sets when they are missing.

    Args:
        name: one of `DATASET_NAMES`, or the path of a folder of images or of an `.npz` file.
        root: the folder of all data sets (`-data`). For CIFAR-5M and the 300K images it may also be
            the folder of that set. Embedded data sets and a user's images do not need it.
        train: load the training split, with augmentation; otherwise the test split, without.
        device: where images are kept and batches are made.
        loading: how images are decoded from disk.
        interventions: the strength by name (a key of `INTERVENTIONS`); None: not applied.
            Interventions come before the augmentation. Test images get only dots, of classes that
            are drawn from all; a `shortcut` of 0 makes such dots on both splits.
        intervention_seed: everything drawn for an image depends on this seed and the index of the
            image, for image noise also on the epoch. It does not depend on batches, order, workers
            or processes. An image keeps its label and dot.
    Returns:
        An image set: `batches(batch_size)` yields float32 images (B, C, H, W), scaled to [0, 1] and
        normalised if the data set is, and int64 labels (B,); `epoch` yields them shuffled and
        augmented.
    Raises:
        UserError: there is no such data set, or its files are missing or damaged.
    """
    strengths = {}
    for key, strength in (interventions or {}).items():
        if strength is not None:
            strengths[key] = strength
    info = dataset_info(name, labelled=bool(strengths))
    load = LOADERS[info.loader]
    images = load(info, Path(root).expanduser(), train=train, device=device, loading=loading)
    images.classes = info.classes
    for key, row in INTERVENTIONS.items():
        if key in strengths and (train or row.changes_tests):
            intervene = INTERVENTION_FUNCTIONS[key]
            images = intervene(images, strengths[key], train=train, seed=intervention_seed)
    return images
