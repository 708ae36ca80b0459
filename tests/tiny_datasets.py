"""Data sets of random images in the real formats, so that tests need no download."""

import pickle
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat

from src.datasets.base import ImageSet, InputSet


def random_images(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    """uint8 (n, *shape)."""
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def collect(batches: Iterable) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, C, H, W) and labels (N,) of all batches."""
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def labels_of(n: int, n_classes: int) -> list[int]:
    """All classes in turn."""
    return [i % n_classes for i in range(n)]


def write_cifar10(root: Path, n_train: int = 50, n_test: int = 20) -> None:
    """Five training batches that share n_train images, and a test batch."""
    folder = Path(root) / "cifar-10-batches-py"
    images, labels = random_images(n_train, 3072), labels_of(n_train, 10)
    batches = {
        f"data_batch_{i + 1}": {"data": images[rows], "labels": [labels[row] for row in rows]}
        for i, rows in enumerate(np.array_split(np.arange(n_train), 5))
    }
    batches["test_batch"] = {
        "data": random_images(n_test, 3072, seed=1),
        "labels": labels_of(n_test, 10),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, batch in batches.items():
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


def write_svhn(root: Path, n_train: int = 50, n_test: int = 20) -> None:
    """MATLAB files (H, W, C, N) in which class 10 is the digit 0."""
    Path(root).mkdir(parents=True, exist_ok=True)
    for seed, (split, n) in enumerate({"train": n_train, "test": n_test}.items()):
        labels = np.array([label or 10 for label in labels_of(n, 10)], dtype=np.uint8)[:, None]
        images = random_images(n, 3, 32, 32, seed=seed).transpose(2, 3, 1, 0)
        savemat(Path(root) / f"{split}_32x32.mat", {"X": images, "y": labels}, do_compression=True)


def write_cifar5m(
    folder: Path, sizes: Sequence[int], *, save=np.savez
) -> tuple[np.ndarray, np.ndarray]:
    """Six parts of so many images; returns all images and labels."""
    folder.mkdir(exist_ok=True)
    images = [random_images(n, 32, 32, 3, seed=i) for i, n in enumerate(sizes)]
    labels = [(np.arange(n) + i) % 10 for i, n in enumerate(sizes)]
    for i in range(6):
        save(folder / f"cifar5m_part{i}.npz", X=images[i], Y=labels[i])
    return np.concatenate(images), np.concatenate(labels)


def write_mnist(root: Path, n_train: int = 50, n_test: int = 20) -> None:
    """Pairs of idx files."""
    raw = Path(root) / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for seed, (split, n) in enumerate({"train": n_train, "t10k": n_test}.items()):
        images, labels = random_images(n, 28, 28, seed=seed), bytes(labels_of(n, 10))
        (raw / f"{split}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 0x803, n, 28, 28) + images.tobytes()
        )
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, n) + labels)


def write_imagenet(
    root: Path,
    n_train: int = 12,
    n_val: int = 7,
    *,
    classes: tuple[str, ...] = ("n03", "n01", "n02"),
):
    """Patches of real photographs, enlarged to images of several sizes; most are JPEGs, some grey,
    CMYK or PNG.

    Class folders are made in the order of `classes`, which is not the sorted one.
    """
    patches = np.load(
        Path(__file__).parents[1] / "src" / "datasets" / "embedded" / "photo_patches.npz"
    )
    for split, folder, n in (
        ("train", "training_data", n_train),
        ("test", "validation_data", n_val),
    ):
        for i in range(n):
            red, green, blue = (
                Image.fromarray(patches[f"{split}_images"][3 * i + c, 0]) for c in range(3)
            )
            image = Image.merge("RGB", (red, green, blue)).resize(
                (90 + 50 * (i % 4), 230 - 40 * (i % 3))
            )
            image = image.convert({3: "L", 4: "CMYK"}.get(i, "RGB"))
            path = (
                Path(root)
                / folder
                / classes[i % len(classes)]
                / f"{split}_{i}.{'png' if i == 5 else 'JPEG'}"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)


def write_folder(
    root: Path, *, n: int = 6, size: int = 12, classes=("ant", "bee", "cat"), test="val", yaml=""
) -> Path:
    """PNGs in a folder for each class, in turn; without classes they lie in the splits
    themselves."""
    for seed, split in enumerate(("train", test)):
        for i, image in enumerate(random_images(n, size, size, 3, seed=seed)):
            folder = root / split / classes[i % len(classes)] if classes else root / split
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i:03}.png")
    if yaml:
        (root / "dataset.yaml").write_text(yaml)
    return root


class DoubleSet(InputSet):
    """Normal numbers in float64, where rounding does not decide over ReLU masks, as images of ten
    classes.
    """

    def __init__(self, n: int, shape: tuple[int, ...]):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(n, *shape, dtype=torch.float64, generator=generator)
        labels = torch.randint(10, (n,), generator=generator)
        super().__init__(labels, n_classes=10, image_shape=shape, device="cpu")

    def _make(self, plan):
        for rows in plan.batches:
            yield self.images[plan.indices[rows]]


def few_grey_images(n: int, side: int, *, n_classes: int, **options) -> ImageSet:
    """A data set of random images in memory whose labels are in turn all classes."""
    return ImageSet(
        torch.from_numpy(random_images(n, 1, side, side)),
        torch.arange(n) % n_classes,
        n_classes=n_classes,
        **options,
    )
