"""Activations as tensors of at least single precision, and their averages over positions: one vector
an image, or a few cells.

The averages have the precision of the activations: convert half precision before, by
`at_least_single`.
"""

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from src.models.tokens import TokenLayout, layout_or_guess


def at_least_single(values: ArrayLike | Tensor) -> Tensor:
    """Return an array or tensor as a tensor of at least float32 precision, for exact sums."""
    values = torch.as_tensor(values)
    return values.to(torch.promote_types(values.dtype, torch.float32))


def pool(activations: Tensor, layout: TokenLayout | None = None) -> Tensor:
    """Return the features (B, D) that a linear probe reads.

    Args:
        activations: (B, D, H, W), averaged over the positions; (B, T, D), of which the CLS token is
            taken, or the mean over the patches or steps if there is none; or (B, D), which stay.
        layout: of the tokens; None: it is guessed from their number.
    """
    if activations.ndim == 4:
        return activations.mean((2, 3))
    if activations.ndim == 3:
        layout = layout_or_guess(activations, layout)
        if layout.has_cls:
            return activations[:, 0]
        return activations[:, layout.n_prefix :].mean(1)
    return activations


def mean_over_positions(activations: Tensor) -> Tensor:
    """Average activations (B, C, H, W) or (B, T, C) over positions, (B, C).

    All tokens count, unlike in `pool`: a CLS token is one of them. Activations (B, C) stay.
    """
    if activations.ndim == 4:
        return activations.mean((2, 3))
    if activations.ndim == 3:
        return activations.mean(1)
    return activations


def cells(activations: Tensor, layout: TokenLayout | None = None, *, side: int) -> Tensor:
    """Pool activations to a few positions, (B, positions, C).

    Maps (B, C, H, W) become a grid of at most side×side cells. So does the grid of patches in tokens
    (B, T, D); patches and steps that form no grid become at most side² stretches. Prefix tokens, such as a
    CLS token, stay positions of their own in front. Vectors (B, D) have one position. Of volumes
    (B, C, …, H, W), the axes in front of the last two count as channels.

    Args:
        layout: of the tokens; None: it is guessed from their number.
    """
    if activations.ndim == 2:
        return activations[:, None]
    if activations.ndim >= 4:
        activations = activations.flatten(1, -3)  # (B, C, …, H, W) -> (B, channels, H, W)
        height, width = activations.shape[2:]
        size = (min(side, height), min(side, width))
        return F.adaptive_avg_pool2d(activations, size).flatten(2).mT

    layout = layout_or_guess(activations, layout)
    prefix = activations[:, : layout.n_prefix]
    patches = activations[:, layout.n_prefix :].mT  # (B, D, T)
    if layout.grid is None:
        n_stretches = min(side**2, patches.shape[2])
        pooled = F.adaptive_avg_pool1d(patches, n_stretches).mT
    else:
        pooled = cells(patches.unflatten(2, layout.grid), side=side)
    return torch.cat([prefix, pooled], 1)
