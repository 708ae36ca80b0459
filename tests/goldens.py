"""Numbers: those of the public code in tests/data (see tests/data/README.md), and random ones; and weights
that need no file, as every implementation of the networks can draw them (tests/data/README_models.md)."""

import json
import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

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


def golden_state_dict(module: nn.Module, base: int = 0) -> dict[str, Tensor]:
    """The state dict of `module` with deterministic float32 values.

    Args:
        module: only the keys, shapes and types of its state are read.
        base: the seed of the first entry; the i-th one has `base + i`.
    """
    state = module.state_dict()
    return {key: _values(key, tensor, base + i) for i, (key, tensor) in enumerate(state.items())}


def load_golden_weights(module: nn.Module, base: int = 0) -> nn.Module:
    """Load these weights into `module` and return it."""
    module.load_state_dict(golden_state_dict(module, base))
    return module


def golden_input(shape: tuple[int, ...]) -> Tensor:
    """The float32 input of the goldens: sin(0.01 i) for the i-th entry."""
    return torch.from_numpy(np.sin(np.arange(math.prod(shape)) * 0.01).astype(np.float32)).reshape(
        shape
    )


def _values(key: str, tensor: Tensor, seed: int) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    r = np.random.RandomState(seed).standard_normal(tensor.numel()).reshape(tensor.shape)
    return torch.from_numpy(_scaled(key, r).astype(np.float32))


def _scaled(key: str, r: np.ndarray) -> np.ndarray:
    if key.endswith("running_var"):
        return 1 + 0.5 * abs(r)
    if key.endswith("running_mean"):
        return 0.1 * r
    if r.ndim >= 2:
        return r * np.sqrt(2 / (r.size / r.shape[0]))
    if key.endswith("weight"):
        return 1 + 0.1 * r
    return 0.1 * r
