"""CIFAR-10, CIFAR-100, SVHN, MNIST and Fashion-MNIST: downloaded by torchvision, into its folders, when missing.

Files which were made by hand in the same formats load as well, with a warning where checksums are published.
"""

import http.client
import os
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torchvision.datasets import CIFAR10, CIFAR100, MNIST, SVHN, FashionMNIST
from torchvision.datasets.utils import check_integrity, download_and_extract_archive, download_url

from src import files, report
from src.datasets.in_memory import ImageSet, named_set
from src.datasets.readers import read_cifar, read_mnist, read_svhn
from src.datasets.registry import Loading, dataset_info
from src.errors import UserError

PATIENCE = 5.0  # seconds for all servers of a data set together
DOWNLOAD_ERRORS = (
    UserError, OSError, RuntimeError, EOFError, ValueError, http.client.HTTPException, tarfile.TarError, zlib.error
)  # fmt: skip


class Split(NamedTuple):
    """The files of one split and where they come from."""

    image_shape: tuple[int, int, int]
    folder: str  # below the root
    md5: dict[str, str | None]  # file name -> published checksum, if any
    servers: tuple[str, ...]  # one of them must answer
    recipe: str  # for fetching by hand; {root} and {folder} are filled in
    fetch: Callable[[Path], object]  # download below a root
    read: Callable[[Sequence[Path]], tuple[np.ndarray, np.ndarray]]


def _cifar(source: type[CIFAR10], train: bool) -> Split:
    return Split(
        image_shape=(3, 32, 32),
        folder=source.base_folder,
        md5=dict(source.train_list if train else source.test_list),
        servers=(source.url,),
        recipe=f"fetch {source.url} and unpack it in {{root}}, so that it fills {{folder}}",
        fetch=lambda root: download_and_extract_archive(source.url, root, filename=source.filename, md5=source.tgz_md5),
        read=read_cifar,
    )


def _svhn(source: type[SVHN], train: bool) -> Split:
    url, name, md5 = source.split_list["train" if train else "test"]
    return Split(
        image_shape=(3, 32, 32),
        folder="",
        md5={name: md5},
        servers=(url,),
        recipe=f"fetch {url} into {{folder}}",
        fetch=lambda root: download_url(url, root, name, md5),
        read=read_svhn,
    )


def _mnist(source: type[MNIST], train: bool) -> Split:
    part = "train" if train else "t10k"
    names = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    return Split(
        image_shape=(1, 28, 28),
        folder=f"{source.__name__}/raw",
        md5=dict.fromkeys(names),  # published for the compressed files only
        servers=tuple(f"{mirror}{names[0]}.gz" for mirror in source.mirrors),
        recipe=f"fetch {' and '.join(f'{source.mirrors[0]}{name}.gz' for name in names)} into {{folder}}, gunzip them",
        fetch=lambda root: source(root, train=train, download=True),
        read=read_mnist,
    )


SOURCES = {
    "cifar10": (_cifar, CIFAR10),
    "cifar10_large": (_cifar, CIFAR10),
    "cifar100": (_cifar, CIFAR100),
    "cifar100_large": (_cifar, CIFAR100),
    "svhn": (_svhn, SVHN),
    "mnist": (_mnist, MNIST),
    "fashion": (_mnist, FashionMNIST),
}


def load(name: str, root: Path, *, train: bool, device: torch.device | str, loading: Loading) -> ImageSet:
    """Load a split from below `root`, after downloading it where it is missing.

    Raises:
        UserError: it is missing and cannot be downloaded, or it cannot be read.
    """
    describe, source = SOURCES[name]
    split = describe(source, train)
    if _missing(split, root):
        _download(name, split, root, lock=root / f".{source.__name__.lower()}.lock")
    images, labels = _read(name, split, root)
    return named_set(name, torch.from_numpy(images), torch.from_numpy(labels), train=train, device=device)


def _paths(split: Split, root: Path) -> list[Path]:
    return [root / split.folder / name for name in split.md5]


def _missing(split: Split, root: Path) -> list[Path]:
    return [path for path in _paths(split, root) if not path.is_file()]


def _read(name: str, split: Split, root: Path) -> tuple[np.ndarray, np.ndarray]:
    paths = _paths(split, root)
    try:
        images, labels = split.read(paths)
        _check(images, labels, image_shape=split.image_shape, n_classes=dataset_info(name).n_classes)
    except Exception as error:  # a damaged file can raise anything, as the documentation of pickle says
        reason = _one_line(error)
        raise UserError(
            f"{', '.join(map(str, paths))}: cannot be read as {name} ({reason}); "
            "remove what is damaged and run again to download it"
        ) from error
    other = [path.name for path, md5 in zip(paths, split.md5.values(), strict=True) if not check_integrity(path, md5)]
    if other:
        report.warn(f"{', '.join(other)} in {root / split.folder}: not the published files of {name}; used as they are")
    return images, labels


def _check(images: np.ndarray, labels: np.ndarray, *, image_shape: tuple[int, int, int], n_classes: int) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != image_shape:
        raise ValueError(f"images are {images.dtype} {images.shape[1:]}, expected uint8 {image_shape}")
    if not len(images) or len(images) != len(labels):
        raise ValueError(f"{len(images)} images, {len(labels)} labels")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()}, expected 0 to {n_classes - 1}")


def _download(name: str, split: Split, root: Path, *, lock: Path) -> None:
    """Download the missing files of a split; processes that want the same wait for the first.

    What is there already stays untouched, and files appear whole, so that others may read without the lock.
    """
    try:
        if not _reachable(split.servers):
            raise UserError("no answer from its server; is there a network?")
        with files.locked(lock):
            if _missing(split, root):
                with tempfile.TemporaryDirectory(dir=root, prefix=f"{lock.stem}.") as fresh:
                    split.fetch(Path(fresh))
                    (root / split.folder).mkdir(parents=True, exist_ok=True)
                    for file in (Path(fresh) / split.folder).iterdir():  # the other split as well, if it came along
                        if not (root / split.folder / file.name).exists():
                            os.replace(file, root / split.folder / file.name)
    except DOWNLOAD_ERRORS as error:
        folder = root / split.folder
        missing = ", ".join(path.name for path in _missing(split, root))
        raise UserError(
            f"dataset {name}: no {missing} in {folder}, and no download ({_one_line(error)}); "
            f"{split.recipe.format(root=root, folder=folder)}, then run again"
        ) from error


def _reachable(urls: Sequence[str]) -> bool:
    """Whether one of the servers answers at all within `PATIENCE`.

    Asked in a thread, because a name server that keeps silent obeys no timeout.
    """
    answers: list[bool] = []
    patience = PATIENCE / len(urls)
    asking = threading.Thread(target=lambda: answers.append(any(_answers(url, patience) for url in urls)), daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return any(answers)


def _answers(url: str, timeout: float) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError:
        return True  # if only to refuse
    except (OSError, http.client.HTTPException):
        return False
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
