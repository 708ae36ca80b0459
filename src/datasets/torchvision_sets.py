"""CIFAR-10, CIFAR-100, SVHN, MNIST and Fashion-MNIST, read and downloaded by torchvision."""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

import torch
import torchvision

from src import files
from src.datasets.in_memory import ImageSet, split_of
from src.datasets.registry import DatasetInfo, Loading
from src.errors import UserError

SOURCES = {  # by class of torchvision: address to fetch the files from by hand, and their folder below the root
    "CIFAR10": ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz, unpack it", "cifar-10-batches-py"),
    "CIFAR100": ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz, unpack it", "cifar-100-python"),
    "SVHN": ("http://ufldl.stanford.edu/housenumbers/{train,test}_32x32.mat", "."),
    "MNIST": ("https://ossci-datasets.s3.amazonaws.com/mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz, gunzip "
              "them", "MNIST/raw"),
    "FashionMNIST": ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{train,t10k}-{images-idx3,labels-idx1}"
                     "-ubyte.gz, gunzip them", "FashionMNIST/raw"),
}  # fmt: skip


def load(info: DatasetInfo, root: Path, *, train: bool, device: torch.device | str, loading: Loading) -> ImageSet:
    """Load a split of a data set below `root`, which is downloaded where it is missing.

    Raises:
        UserError: files are missing or damaged and cannot be downloaded.
    """
    try:
        try:
            data = _read(info.source, root, train=train)
        except RuntimeError:  # torchvision's: files are missing, or their checksums are wrong
            _download(info.source, root)
            data = _read(info.source, root, train=train)
    except Exception as error:  # a damaged file can raise anything
        address, folder = SOURCES[info.source]
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"dataset {info.source}: {reason}; remove what is damaged in {root / folder} and run again with a "
            f"connection to the internet, or fetch {address} and put it there"
        ) from error
    images = torch.as_tensor(data.data)
    if images.ndim == 3:  # MNIST's (N, H, W)
        images = images[:, None]
    elif images.shape[-1] == 3:  # CIFAR's (N, H, W, C)
        images = images.permute(0, 3, 1, 2)
    labels = torch.as_tensor(data.labels if info.source == "SVHN" else data.targets)
    return split_of(info, images, labels.long(), train=train, device=device)


def _read(source: str, root: Path, *, train: bool) -> torchvision.datasets.VisionDataset:
    dataset = getattr(torchvision.datasets, source)
    return dataset(root, split="train" if train else "test") if source == "SVHN" else dataset(root, train=train)


def _download(source: str, root: Path) -> None:
    """Download both splits, in one process at a time; files appear whole or not at all."""
    dataset = getattr(torchvision.datasets, source)
    options = [{"split": split} for split in ("train", "test")] if source == "SVHN" else [{"train": True}]
    with files.locked(root / f".{source.lower()}.lock"):
        with contextlib.suppress(RuntimeError):
            return [dataset(root, **option) for option in options]  # another process has downloaded it
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{source.lower()}.") as fresh:
            with contextlib.redirect_stdout(sys.stderr):
                for option in options:
                    dataset(fresh, **option, download=True)
            for file in Path(fresh).rglob("*"):
                if file.is_file():
                    target = root / file.relative_to(fresh)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(file, target)
