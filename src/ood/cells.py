"""Cells: the few positions that an activation is pooled to, before images are compared."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from src.models.heads import has_cls_token
from src.runtime import at_least_single

CELLS = 2  # along each side of a map


def cells(activations: Tensor, *, is_sequence: bool = False) -> Tensor:
    """Pool activations to a few positions, (B, positions, C), in float32 or float64.

    Maps (B, C, H, W) become a grid of at most 2×2 cells. So do the patch tokens of (B, T, D); a CLS
    token stays a position of its own in front of the grid. Tokens that form no square are pooled to
    four stretches along the sequence. Vectors (B, D) have one position.

    Args:
        is_sequence: the tokens are the steps of a recurrent layer, which never form a grid.
    """
    activations = at_least_single(activations.detach())
    if activations.ndim == 2:
        return activations[:, None]
    if activations.ndim == 4:
        height, width = activations.shape[2:]
        size = (min(CELLS, height), min(CELLS, width))
        return F.adaptive_avg_pool2d(activations, size).flatten(2).mT

    n_tokens = activations.shape[1]
    n_cls = int(has_cls_token(n_tokens))
    side = math.isqrt(n_tokens - n_cls)
    if is_sequence or side**2 + n_cls != n_tokens:
        n_stretches = min(CELLS**2, n_tokens)
        return F.adaptive_avg_pool1d(activations.mT, n_stretches).mT
    patches = activations[:, n_cls:].mT.unflatten(2, (side, side))  # (B, D, side, side)
    return torch.cat([activations[:, :n_cls], cells(patches)], 1)
