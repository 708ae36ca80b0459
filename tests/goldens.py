"""Numbers: those of the public code in tests/data (see tests/data/README.md), and random ones."""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / "data"


@cache
def numbers(name: str) -> dict[str, np.ndarray]:
    """The arrays of tests/data/numerics/<name>.npz."""
    with np.load(DATA / "numerics" / f"{name}.npz") as arrays:
        return dict(arrays)


@cache
def notes(name: str):
    """The notes beside them."""
    return json.loads((DATA / "numerics" / f"{name}.json").read_text())


@cache
def block_names() -> dict[str, list[str]]:
    """The blocks of every network by its name."""
    texts = json.loads((DATA / "models" / "block_names.json").read_text())
    return {name: _unpacked(text) for names, text in texts.items() for name in names.split()}


def _unpacked(text: str) -> list[str]:
    """The names that a text such as "layer1.0-2 layer2" stands for."""
    names = []
    for part in text.split():
        stem, first, last = re.fullmatch(r"(\S*?)(?:(\d+)-(\d+))?", part).groups()
        if first is None:
            names.append(stem)
        else:
            names += [f"{stem}{number}" for number in range(int(first), int(last) + 1)]
    return names


def tensor(name: str, key: str) -> torch.Tensor:
    """One array as a tensor."""
    return torch.from_numpy(numbers(name)[key])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers in double precision."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
