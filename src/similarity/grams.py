"""Gram matrices of whole layers: products of the flattened activations of n images, at several
ranks.

In coordinates of the principal axes of the channels, a rank adds the Gram matrix of its further axes
to that of the rank before it. Blocks of features are multiplied in the precision of the activations
and added up in float64. A reference near the mean is subtracted from the activations, and the rest
of the mean from the products."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from src.ground.runtime import full_precision
from src.models.activations import at_least_single

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


def reference_of(activations: Tensor) -> Tensor:
    """Return the mean (positions, C) of some activations (B, positions, C), at least in float32.

    Activations less this reference are near 0, so that their products lose no digits. Equal
    activations become 0.
    """
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
        reference: (positions, C), near the mean of all images, as from `reference_of`.
        axes: (C, C), the principal axes in columns; may be None where `widths` is [C].
        widths: the ranks: numbers of axes that are kept, ascending, at most C.
        device: of the computation and the result.
    """
    n_images, n_positions, n_channels = activations.shape
    n_ranks = len(widths)
    sums = _GramSums(
        products=_zeros(n_ranks, n_images, n_images, device=device),
        offsets=_zeros(n_ranks, n_images, device=device),
        squares=_zeros(n_ranks, device=device),
    )
    channel_mean = _zeros(n_channels, device=device)
    if axes is not None:
        axes = axes[:, : widths[-1]].to(device, activations.dtype)

    # Blocks of positions; on the CPU a block is a view
    step = max(1, BLOCK_VALUES // (n_images * n_channels))
    with full_precision(device):
        for start in range(0, n_positions, step):
            part = activations[:, start : start + step].to(device)  # (n, positions, C)
            shift = reference[start : start + step].to(device)  # (positions, C)
            if axes is not None:
                channel_mean += (part.mean(0) + shift).double().sum(0) / n_positions
                part = part @ axes  # (n, positions, widths[-1])
                shift = shift @ axes  # (positions, widths[-1])
            sums.add(part, shift, widths)

    # From single axes to ranks
    centred = sums.products.cumsum_(0)
    offsets = sums.offsets.cumsum_(0) + sums.squares.cumsum_(0)[:, None] / 2
    if axes is not None:  # truncation keeps the mean over all positions
        last_axes = [width - 1 for width in widths]
        kept = (axes.double().T @ channel_mean).square().cumsum(0)[last_axes]
        offsets += n_positions * (channel_mean.square().sum() - kept)[:, None] / 2

    # The rest of the mean, which the reference has left, moves to the offsets
    means = centred.mean(2)  # (R, n)
    means -= means.mean(1, keepdim=True) / 2
    centred -= means[:, :, None]
    centred -= means[:, None, :]
    return Grams(centred, offsets + means)


class _GramSums(NamedTuple):
    """Sums over blocks of positions, of the axes that each rank adds to the rank before it."""

    products: Tensor  # (R, n, n), of activations less the reference
    offsets: Tensor  # (R, n), products of these activations and the reference
    squares: Tensor  # (R,), squared norms of the reference

    def add(self, part: Tensor, shift: Tensor, widths: Sequence[int]) -> None:
        """Add a block of positions.

        Args:
            part: (n, positions, axes), less the reference.
            shift: (positions, axes), the reference.
            widths: as for `gram_matrices`.
        """
        for place, (low, high) in enumerate(pairwise([0, *widths])):
            block = part[..., low:high].flatten(1)
            block_shift = shift[..., low:high].flatten()
            self.products[place] += _products(block)
            self.offsets[place] += block @ block_shift
            self.squares[place] += block_shift.double().square().sum()


def _zeros(*shape: int, device: torch.device | str) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64, device=device)


def _products(block: Tensor) -> Tensor:
    """Return the products (n, n) of the rows of a block (n, features)."""
    if block.device.type == "cpu":  # numpy computes one triangle, in half of the time
        return torch.from_numpy(block.numpy() @ block.numpy().T)
    return block @ block.T
