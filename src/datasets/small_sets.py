"""Data sets of small images, read whole: from torchvision, or shipped with the suite."""

import contextlib
import sys
from pathlib import Path

import numpy as np
import torch

from src.choices.datasets import DatasetInfo
from src.datasets.base import Device, ImageSet, Loading, split_of
from src.ground import files

EMBEDDED = Path(__file__).parent / "embedded"  # sources and licences: README.md there


def load_torchvision(
    info: DatasetInfo, root: Path, *, train: bool, device: Device, loading: Loading
) -> ImageSet:
    """Load a split of a data set below `root`; torchvision downloads it where it is missing."""
    from torchvision import datasets  # loads as long as torch does

    make_dataset = getattr(datasets, info.source)
    is_svhn = info.source == "SVHN"
    split: dict[str, bool | str] = {"train": train}
    if is_svhn:
        name_of_split = "train" if train else "test"
        split = {"split": name_of_split}

    # Files
    remedy = (
        f"{info.source} is downloaded to it: connect to the internet, or copy there what "
        f"torchvision.datasets.{info.source}(…, download=True) fetches elsewhere; remove damaged "
        "files; for other images give -d"
    )
    with files.readable(root, remedy):
        try:
            data = make_dataset(root, **split)
        except RuntimeError:  # files are missing, or their checksums are wrong
            lock = files.locked(root / f".{info.source.lower()}.lock")
            with lock, contextlib.redirect_stdout(sys.stderr):
                data = make_dataset(root, **split, download=True)

    # Images and labels
    images = torch.as_tensor(data.data)
    if images.ndim == 3:  # MNIST's (N, H, W)
        images = images[:, None]
    elif images.shape[-1] == 3:  # CIFAR's (N, H, W, C)
        images = images.permute(0, 3, 1, 2)
    if is_svhn:
        labels = torch.as_tensor(data.labels)
    else:
        labels = torch.as_tensor(data.targets)
    labels = labels.long()
    return split_of(info, images, labels, train=train, device=device)


def load_embedded(
    info: DatasetInfo, root: Path, *, train: bool, device: Device, loading: Loading
) -> ImageSet:
    """Load a split of an embedded data set, 8×8 grey images; `root` is not used."""
    split = "train" if train else "test"
    labels = None
    with np.load(EMBEDDED / f"{info.source}.npz", allow_pickle=False) as arrays:
        images = torch.from_numpy(arrays[f"{split}_images"])  # uint8 (N, 1, 8, 8)
        if info.n_classes:
            labels = torch.from_numpy(arrays[f"{split}_labels"]).long()
    return split_of(info, images, labels, train=train, device=device)
