"""Gram matrices of whole layers: products of the flattened activations of n images, at several
ranks.

In coordinates of the principal axes of the channels, a rank adds the Gram matrix of its further axes
to that of the rank before it. Blocks of features are multiplied in the precision of the activations
and added up in float64."""

import functools
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from src.core.activations import positions_of
from src.core.precision import full_precision

BLOCK_VALUES = 2**24  # numbers that are multiplied at once, 64 MiB of float32


class Grams(NamedTuple):
    """Gram matrices of one layer at several ranks, in float64.

    Without centring, an entry is centred_ij + offsets_i + offsets_j.
    """

    centred: Tensor  # (R, n, n), of activations minus their mean over the images
    offsets: Tensor  # (R, n)

    @property
    def uncentred(self) -> Tensor:
        """Gram matrices (R, n, n) without centring."""
        return self.centred + self.offsets[:, :, None] + self.offsets[:, None, :]


def gram_matrices(
    activations: Tensor,
    axes: Tensor | None = None,
    widths: Sequence[int] = (),
    *,
    device: torch.device | str = "cpu",
) -> Grams:
    """Return the Gram matrices of a layer at several ranks.

    Args:
        activations: (n, C, H, W), (n, T, C) or (n, C), multiplied in their own precision.
        axes: (C, C), the principal axes of the channels in columns; None: only the full rank.
        widths: the ranks: numbers of axes that are kept, ascending, at most C.
        device: of the computation and the result.
    """
    if axes is None:  # products do not depend on the order of features
        positions = activations.flatten(1)[:, :, None]
        widths = [1]
    else:
        positions = positions_of(activations)
        axes = axes[:, : widths[-1]].to(device, activations.dtype)
    n_images, n_positions, n_channels = positions.shape
    zeros = functools.partial(torch.zeros, dtype=torch.float64, device=device)
    centred = zeros(len(widths), n_images, n_images)
    offsets = zeros(len(widths), n_images)
    channel_mean = zeros(n_channels)

    # Blocks of positions, and in each the axes that a rank adds to the rank before it
    step = max(1, BLOCK_VALUES // (n_images * n_channels))
    with full_precision(device):
        for start in range(0, n_positions, step):
            part = positions[:, start : start + step].to(device)
            if axes is not None:
                part = part.contiguous()  # faster products
            part, mean = _centred(part)
            if axes is not None:
                channel_mean += mean.double().sum(0) / n_positions
                part = part @ axes  # (n, positions, widths[-1])
                mean = mean @ axes  # (positions, widths[-1])
            for place, (low, high) in enumerate(pairwise([0, *widths])):
                block = part[..., low:high].flatten(1)
                block_mean = mean[..., low:high].flatten()
                centred[place] += _products(block)
                offsets[place] += block @ block_mean
                offsets[place] += block_mean.double().square().sum() / 2
    centred.cumsum_(0)
    offsets.cumsum_(0)

    if axes is not None:  # truncation keeps the mean over all positions
        last_axes = [width - 1 for width in widths]
        kept = (axes.double().T @ channel_mean).square().cumsum(0)[last_axes]
        offsets += n_positions * (channel_mean.square().sum() - kept)[:, None] / 2
    return Grams(centred, offsets)


def _centred(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Return activations (n, ...) less their mean over the images, and the mean.

    Equal activations become 0, as the first one is subtracted before.
    """
    first = activations[0]
    differences = activations - first
    mean_difference = differences.mean(0)
    return differences.sub_(mean_difference), first + mean_difference


def _products(block: Tensor) -> Tensor:
    """Return the products (n, n) of the rows of a block (n, features)."""
    if block.device.type == "cpu":  # numpy computes one triangle, in half of the time
        return torch.from_numpy(block.numpy() @ block.numpy().T)
    return block @ block.T
