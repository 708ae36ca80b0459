"""Pooling of activations to a few positions, before images are compared."""

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from src.ground.runtime import at_least_single
from src.models.tokens import TokenLayout, layout_or_guess

CELLS = 2  # along each side of a map


def cells(activations: ArrayLike | Tensor, layout: TokenLayout | None = None) -> Tensor:
    """Pool activations to a few positions, (B, positions, C), in float32 or float64.

    Maps (B, C, H, W) become a grid of at most 2×2 cells. So does the grid of patches in tokens
    (B, T, D); patches and steps that form no grid become four stretches. Prefix tokens, such as a
    CLS token, stay positions of their own in front. Vectors (B, D) have one position. Of volumes
    (B, C, …, H, W), the axes in front of the last two count as channels.

    Args:
        layout: of the tokens; None: it is guessed from their number.
    """
    activations = at_least_single(activations).detach()
    if activations.ndim == 2:
        return activations[:, None]
    if activations.ndim >= 4:
        activations = activations.flatten(1, -3)  # (B, C, …, H, W) -> (B, channels, H, W)
        height, width = activations.shape[2:]
        size = (min(CELLS, height), min(CELLS, width))
        return F.adaptive_avg_pool2d(activations, size).flatten(2).mT

    layout = layout_or_guess(activations, layout)
    prefix = activations[:, : layout.n_prefix]
    patches = activations[:, layout.n_prefix :].mT  # (B, D, T)
    if layout.grid is None:
        n_stretches = min(CELLS**2, patches.shape[2])
        pooled = F.adaptive_avg_pool1d(patches, n_stretches).mT
    else:
        pooled = cells(patches.unflatten(2, layout.grid))
    return torch.cat([prefix, pooled], 1)
