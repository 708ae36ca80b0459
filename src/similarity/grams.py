"""Gram matrices of whole layers: products of the flattened activations of n images, at several
ranks.

In coordinates of the principal axes of the channels, the next rank only adds the Gram matrix of its
further axes. Blocks of features are multiplied in the precision of the activations and added up in
float64. The activations come less a reference near their mean; what it has left of the mean is
subtracted from the products."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from src.runtime import at_least_single, full_precision

BLOCK_VALUES = 2**24  # numbers that are multiplied at once, 64 MiB of float32


class Grams(NamedTuple):
    """Gram matrices of one layer at several ranks, in float64."""

    centred: Tensor  # (R, n, n), of activations minus their mean over the images
    offsets: (
        Tensor  # (R, n): the Gram matrix without centring is centred_ij + offsets_i + offsets_j
    )

    @property
    def uncentred(self) -> Tensor:
        """Gram matrices (R, n, n) without centring."""
        return self.centred + self.offsets[:, :, None] + self.offsets[:, None, :]


def reference_of(activations: Tensor) -> Tensor:
    """Return the mean (positions, C) of some activations (B, positions, C), at least in float32.

    What is less such a reference has values near 0, of which products lose no digits; equal
    activations become 0."""
    activations = at_least_single(activations)
    return activations[0] + (activations - activations[0]).mean(0)


def gram_matrices(
    activations: Tensor,
    reference: Tensor,
    axes: Tensor | None,
    widths: Sequence[int],
    *,
    device: torch.device | str,
) -> Grams:
    """Return the Gram matrices of a layer at several ranks.

    Args:
        activations: (n, positions, C), less the reference; multiplied in their own precision.
        reference: (positions, C), the same for all images and near their mean, as from `reference_of`.
        axes: (C, C), the principal axes in columns; may be None where `widths` is [C].
        widths: the ranks: numbers of axes that are kept, ascending, at most C.
        device: of the computation and the result.
    """
    n, n_positions, n_channels = activations.shape
    dtype, exact = activations.dtype, {"dtype": torch.float64, "device": device}
    axes = None if axes is None else axes[:, : widths[-1]].to(device, dtype)
    total = torch.zeros(len(widths), n, n, **exact)
    offsets, squares = torch.zeros(len(widths), n, **exact), torch.zeros(len(widths), **exact)
    channel_mean = torch.zeros(n_channels, **exact)
    step = max(1, BLOCK_VALUES // (n * n_channels))
    with full_precision(device):
        for start in range(0, n_positions, step):
            part = activations[:, start : start + step].to(
                device
            )  # (n, positions, C); a view where nothing moves
            shift = reference[start : start + step].to(device)  # (positions, C)
            if axes is not None:
                channel_mean += (part.mean(0) + shift).double().sum(0) / n_positions
                part, shift = (
                    part @ axes,
                    shift @ axes,
                )  # (n, positions, widths[-1]), (positions, widths[-1])
            for i, (low, high) in enumerate(pairwise([0, *widths])):
                block, block_shift = part[..., low:high].flatten(1), shift[..., low:high].flatten()
                total[i] += _products(block)
                offsets[i] += block @ block_shift
                squares[i] += block_shift.double().square().sum()
    total, offsets = total.cumsum_(0), offsets.cumsum_(0) + squares.cumsum_(0)[:, None] / 2
    if axes is not None:  # truncation keeps the mean over all positions
        kept = (axes.double().T @ channel_mean).square().cumsum(0)[[width - 1 for width in widths]]
        offsets += n_positions * (channel_mean.square().sum() - kept)[:, None] / 2
    # What the reference has left of the mean moves to the offsets.
    means = total.mean(2)  # (R, n)
    means -= means.mean(1, keepdim=True) / 2
    total -= means[:, :, None]
    total -= means[:, None, :]
    return Grams(total, offsets + means)


def _products(block: Tensor) -> Tensor:
    """Return the products (n, n) of the rows of a block (n, features)."""
    if block.device.type == "cpu":  # where numpy takes half of the time: it computes one triangle
        return torch.from_numpy(block.numpy() @ block.numpy().T)
    return block @ block.T
