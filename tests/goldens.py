"""Numbers: those of the public code in tests/data (see tests/data/README.md), and random ones."""

import json
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


def tensor(name: str, key: str) -> torch.Tensor:
    """One array as a tensor."""
    return torch.from_numpy(numbers(name)[key])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers in double precision."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
