"""`digits` and `photo_patches`: 8×8 grey images shipped with the suite (sources and licences: embedded/README.md)."""

from pathlib import Path

import numpy as np
import torch

from src.datasets.in_memory import ImageSet, split_of
from src.datasets.registry import DatasetInfo, Loading

FOLDER = Path(__file__).parent / "embedded"


def load(info: DatasetInfo, root: Path, *, train: bool, device: torch.device | str, loading: Loading) -> ImageSet:
    """Load a split of an embedded data set; `root` is not used."""
    split = "train" if train else "test"
    with np.load(FOLDER / f"{info.source}.npz", allow_pickle=False) as arrays:
        images = torch.from_numpy(arrays[f"{split}_images"])  # uint8 (N, 1, 8, 8)
        labels = torch.from_numpy(arrays[f"{split}_labels"]).long() if info.n_classes else None
    return split_of(info, images, labels, train=train, device=device)
