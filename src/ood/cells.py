"""Cells: the few positions that activations are pooled to before they are compared image by
image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from src.models.heads import has_cls_token
from src.runtime import at_least_single

CELLS = 2  # along each side of a map


def cells(activations: Tensor, *, is_sequence: bool = False) -> Tensor:
    """Pool activations to few positions: (B, positions, C), in single precision or more.

    Maps (B, C, H, W) and patch tokens become a grid of at most 2×2 cells; a CLS token is kept
    beside them, and tokens that form no square, or are the steps of a recurrent layer
    (`is_sequence`), become four stretches. Vectors (B, D) have one position."""
    activations = at_least_single(activations.detach())
    if activations.ndim == 2:
        return activations[:, None]
    if activations.ndim == 4:
        size = [min(CELLS, side) for side in activations.shape[2:]]
        return F.adaptive_avg_pool2d(activations, size).flatten(2).mT
    n_tokens = activations.shape[1]
    n_cls = int(has_cls_token(n_tokens))
    side = math.isqrt(n_tokens - n_cls)
    if is_sequence or side**2 + n_cls != n_tokens:
        return F.adaptive_avg_pool1d(activations.mT, min(CELLS**2, n_tokens)).mT
    patches = activations[:, n_cls:].mT.unflatten(2, (side, side))
    return torch.cat([activations[:, :n_cls], cells(patches)], 1)
