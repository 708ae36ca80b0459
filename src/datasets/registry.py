"""Loads data sets by name, or a user's images: a folder or an `.npz` file."""

import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.core.choices.datasets import DATASETS, IMAGENET, INTERVENTIONS, DatasetInfo, dataset_name
from src.core.errors import UserError
from src.core.inputs import are_images
from src.datasets import arrays, folders
from src.datasets.base import Device, ImageSet, InputSet, Loading, PlainInputs
from src.datasets.mapped import MappedImages


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
            file = arrays.InputFile(path)
            info = DatasetInfo(file.describe(), str(path), file.read)
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
) -> InputSet:
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
    of_images = [key for key in strengths if INTERVENTIONS[key].changes_images]
    if of_images and not are_images(info.spec.shape):
        option = of_images[0].replace("_", "-")
        raise UserError(f"--{option} changes images, and {name} has no images; leave it out")
    root = Path(root).expanduser()
    if info.read is not None:
        read = info.read
        if isinstance(read, str):
            read = pkgutil.resolve_name(read)
        images = split_of(info, *read(info.source, root, train), train=train, device=device)
    elif info is IMAGENET:
        images = folders.load_imagenet(root, info.spec, train=train, device=device, loading=loading)
    else:
        path = Path(info.source)
        images = folders.load_folder(path, info.spec, train=train, device=device, loading=loading)
    images.classes = info.spec.classes
    images.inputs = info.spec.inputs
    for key, row in INTERVENTIONS.items():
        if key in strengths and (train or row.changes_images):
            intervene = pkgutil.resolve_name(row.function)
            images = intervene(images, strengths[key], train=train, seed=seed if train else 0)
    return images


def split_of(
    info: DatasetInfo,
    images: Tensor | MappedImages,
    labels: Tensor | None,
    *,
    train: bool,
    device: Device,
) -> InputSet:
    """Return the set of images uint8 (N, C, H, W), or of tokens or vectors, and labels (N,) of a split."""
    if isinstance(images, Tensor) and not are_images(info.spec.shape):
        return PlainInputs(images, labels, n_classes=info.spec.n_classes, device=device)
    options: dict[str, Any] = {}
    if train:
        options["epoch_size"] = info.epoch_size
    if train and info.augmentation is not None:
        options["augmentation"] = pkgutil.resolve_name(info.augmentation)
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
