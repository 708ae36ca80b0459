"""Corrupted activations, on which detectors show what they can see. No OOD data are needed for that."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from src.models.heads import has_cls_token
from src.ood.pooling import ClassMeans


def mixed(activations: Tensor, labels: Tensor, means: ClassMeans) -> Tensor:
    """Mix each image half and half with the next one; the differences to the mean keep their variance."""
    mean = _like(means.overall()[None], activations)
    return mean + (activations - mean + activations.roll(1, 0) - mean) / 2**0.5


def half_way(activations: Tensor, labels: Tensor, means: ClassMeans) -> Tensor:
    """Move each image half-way to the mean of its class."""
    return (activations + _like(means.of(labels), activations)) / 2


def constant(activations: Tensor, labels: Tensor, means: ClassMeans) -> Tensor:
    """Replace each position by the mean over all; vectors stay."""
    if activations.ndim == 2:
        return activations
    axes = (2, 3) if activations.ndim == 4 else 1
    return activations.mean(axes, keepdim=True).expand_as(activations)


def shuffled(activations: Tensor, labels: Tensor, means: ClassMeans) -> Tensor:
    """Shuffle the positions, in one way for all images; a CLS token and vectors stay."""
    if activations.ndim == 2:
        return activations
    if activations.ndim == 3:
        first = int(has_cls_token(activations.shape[1]))
        order = first + _order(activations.shape[1] - first).to(activations.device)
        return torch.cat([activations[:, :first], activations[:, order]], 1)
    flat = activations.flatten(2)
    return flat[:, :, _order(flat.shape[2]).to(activations.device)].view_as(activations)


class Corruption(NamedTuple):
    """A way to corrupt activations."""

    title: str  # in tables
    apply: Callable[[Tensor, Tensor, ClassMeans], Tensor]  # (activations, labels, means) -> activations


CORRUPTIONS = {
    "mixed": Corruption("mixed images", mixed),
    "half_way": Corruption("half-way to class mean", half_way),
    "constant": Corruption("constant maps", constant),
    "shuffled": Corruption("shuffled positions", shuffled),
}


def _like(means: Tensor, activations: Tensor) -> Tensor:
    """Broadcast means (B, C) over the positions of activations."""
    means = means.to(activations.dtype)
    if activations.ndim == 4:
        return means[:, :, None, None]
    return means[:, None] if activations.ndim == 3 else means


def _order(n: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))
