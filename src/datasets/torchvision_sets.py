"""CIFAR-10, CIFAR-100, SVHN, MNIST and Fashion-MNIST, read and downloaded by torchvision."""

import contextlib
import sys
from pathlib import Path

import torch
import torchvision

from src import files
from src.datasets.in_memory import ImageSet, split_of
from src.datasets.registry import DatasetInfo, Loading


def load(info: DatasetInfo, root: Path, *, train: bool, device: torch.device | str, loading: Loading) -> ImageSet:
    """Load a split of a data set below `root`, which torchvision downloads where it is missing.

    Raises:
        UserError: files are missing or damaged and cannot be downloaded.
    """
    dataset = getattr(torchvision.datasets, info.source)
    split = {"split": "train" if train else "test"} if info.source == "SVHN" else {"train": train}
    remedy = "remove damaged files there and run again with a connection to the internet, or copy there what "
    with files.readable(root, f"{remedy}torchvision.datasets.{info.source}(…, download=True) fetches elsewhere"):
        try:
            data = dataset(root, **split)
        except RuntimeError:  # files are missing, or their checksums are wrong
            with files.locked(root / f".{info.source.lower()}.lock"), contextlib.redirect_stdout(sys.stderr):
                data = dataset(root, **split, download=True)
    images = torch.as_tensor(data.data)
    if images.ndim == 3:  # MNIST's (N, H, W)
        images = images[:, None]
    elif images.shape[-1] == 3:  # CIFAR's (N, H, W, C)
        images = images.permute(0, 3, 1, 2)
    labels = torch.as_tensor(data.labels if info.source == "SVHN" else data.targets)
    return split_of(info, images, labels.long(), train=train, device=device)
