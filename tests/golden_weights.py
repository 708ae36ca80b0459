"""Weights that need no file: every implementation of the networks can draw them
(tests/data/README_models.md)."""

import math

import numpy as np
import torch
from torch import Tensor, nn


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
