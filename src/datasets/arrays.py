"""CIFAR-5M and the 300K Random Images: arrays fetched by hand, too large to be copied into memory."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from src.datasets.in_memory import ImageSet, named_set
from src.datasets.mapped import MappedImages, MappedImageSet
from src.datasets.npy_files import Place, check_images, file_place, header_at, map_array
from src.datasets.npz_members import DAMAGES, Member, places
from src.datasets.registry import Loading, load_dataset
from src.errors import UserError

RANDOM_IMAGES = "300K_random_images.npy"
RANDOM_IMAGES_SOURCE = f"https://people.eecs.berkeley.edu/~hendrycks/{RANDOM_IMAGES}"
CIFAR5M_SOURCE = "https://github.com/preetum/cifar5m"
N_PARTS = 6
N_CLASSES = 10
LABELS_AT_ONCE = 2**17


def load(name: str, root: Path, *, train: bool, device: torch.device | str, loading: Loading) -> ImageSet:
    """Load a split; `root` may be the folder of the data set itself.

    Raises:
        UserError: files are missing, damaged or hold something else; or, for what has to be unpacked, no room.
    """
    if name == "outlier_exposure":
        return _random_images(root, train=train, device=device)
    if not train:
        return load_dataset("cifar10", root, train=False, device=device)
    return _cifar5m(root, device=device)


def _random_images(root: Path, *, train: bool, device: torch.device | str) -> ImageSet:
    """The one split: what is trained on and what is tested on differ in the augmentation alone."""
    path = _folder(root, "oe", [RANDOM_IMAGES]) / RANDOM_IMAGES
    if not path.is_file():
        raise UserError(
            f"dataset outlier_exposure: no {path}; fetch {RANDOM_IMAGES_SOURCE} (300K Random Images, "
            "from the debiased 80 Million Tiny Images) into that place, then run again"
        )
    with _readable(path, RANDOM_IMAGES_SOURCE):
        place = file_place(path)
        check_images(header_at(place))
        images = MappedImages([map_array(place)])
    return named_set("outlier_exposure", images, None, train=train, device=device, kind=MappedImageSet)


def _cifar5m(root: Path, *, device: torch.device | str) -> ImageSet:
    """The training split: images from all parts, each mapped where it lies, and labels in memory."""
    names = [f"cifar5m_part{i}" for i in range(N_PARTS)]
    folder = _folder(root, "cifar5m", [f"{name}{ending}" for name in names for ending in (".npz", "_X.npy")])
    parts = [[Member(folder / f"{name}.npz", array) for array in "XY"] for name in names]
    missing = [part[0].archive.name for part in parts if not all(member.file.is_file() for member in part)]
    if missing:
        raise UserError(
            f"dataset cifar5m: no {', '.join(missing)} in {folder}; all {N_PARTS} parts are needed: "
            f"fetch them from {CIFAR5M_SOURCE} into that folder, then run again"
        )
    for part in parts:
        _check_part(*part)
    found = places([member for part in parts for member in part])
    images, labels = [], []
    for of_images, of_labels in zip(found[::2], found[1::2], strict=True):
        with _readable(of_images.path, CIFAR5M_SOURCE):
            images.append(map_array(of_images))
        with _readable(of_labels.path, CIFAR5M_SOURCE):
            labels.append(_labels(of_labels))
    every_label = torch.from_numpy(np.concatenate(labels))
    return named_set("cifar5m", MappedImages(images), every_label, train=True, device=device, kind=MappedImageSet)


def _folder(root: Path, name: str, contents: Sequence[str]) -> Path:
    """The folder `name` in `root`, or `root` itself if it is that folder already."""

    def holds(folder: Path) -> bool:
        return any((folder / content).is_file() for content in contents)

    inner = root / name
    return root if not holds(inner) and (holds(root) or root.name == name) else inner


def _check_part(images: Member, labels: Member) -> None:
    """Refuse a part before anything is unpacked."""
    headers = []
    for member in (images, labels):
        with _readable(member.file, CIFAR5M_SOURCE):
            member.place()  # a truncated archive shows here
            headers.append(member.header())
    of_images, of_labels = headers
    with _readable(images.file, CIFAR5M_SOURCE):
        check_images(of_images)
        if of_labels.dtype.kind not in "iu" or of_labels.shape != of_images.shape[:1]:
            raise ValueError(f"Y is {of_labels.dtype} {of_labels.shape}, expected whole numbers {of_images.shape[:1]}")


def _labels(place: Place) -> np.ndarray:
    """Read labels 0..9 as int8 (N,): millions of them, a few at a time.

    Raises:
        ValueError: there are others.
    """
    header = header_at(place)
    labels = np.empty(header.shape, dtype=np.int8)
    with open(place.path, "rb") as file:
        file.seek(place.offset + header.start)
        for start in range(0, len(labels), LABELS_AT_ONCE):
            some = np.fromfile(file, header.dtype, min(LABELS_AT_ONCE, len(labels) - start))
            if some.min() < 0 or some.max() >= N_CLASSES:
                raise ValueError(f"labels from {some.min()} to {some.max()}, expected 0 to {N_CLASSES - 1}")
            labels[start : start + len(some)] = some
    return labels


@contextlib.contextmanager
def _readable(path: Path, source: str) -> Iterator[None]:
    """Turn what a damaged file raises into an error that says where to get another."""
    try:
        yield
    except DAMAGES as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read ({reason}); remove it and fetch it again from {source}") from error
