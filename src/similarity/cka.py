"""Linear centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414, equation 4), at any rank.

With the principal axes of the channels as coordinates, the Gram matrix of the first r of them is the sum of their
own ones: each rank needs only the increment of its block, and all pairs of ranks are one matrix product.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from src.similarity.samples import matrices

CHUNK = 2**22  # values that are worked on at once, 32 MiB


def linear_cka(x, y) -> float:
    """Linear CKA of two representations of the same n samples, in [0, 1].

    Args:
        x, y: (n, ...), array or tensor; each sample is flattened.
    Raises:
        ValueError: the shapes do not allow it; `Undefined`, a ValueError: one is constant over the samples.
    """
    x, y = matrices(x, y)
    if len(x) < max(x.shape[1], y.shape[1]):
        return float(alignments((x @ x.T)[None], (y @ y.T)[None]))
    return float((x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


def alignments(grams1: Tensor, grams2: Tensor) -> Tensor:
    """CKA (R1, R2) of centred Gram matrices (R1, n, n) and (R2, n, n)."""
    first, second = grams1.flatten(1), grams2.flatten(1)
    return (first @ second.T) / (first.norm(dim=1)[:, None] * second.norm(dim=1))


def centred_grams(activations: Tensor, axes: Tensor, widths: Sequence[int], *, device: torch.device | str) -> Tensor:
    """The centred Gram matrices (len(widths), n, n) of a layer whose positions are projected to few coordinates.

    Args:
        activations: (n, positions, C).
        axes: (C, C), the coordinates in columns, in double precision.
        widths: how many coordinates are kept, in ascending order, at most C.
        device: where they are computed and stay.
    """
    n, n_positions, n_channels = activations.shape
    grams = torch.zeros(len(widths), n, n, dtype=torch.float64, device=device)
    axes = axes[:, : widths[-1]].to(device)
    whole = list(widths) == [n_channels]  # any coordinates will do
    step = max(1, CHUNK // (n * n_channels))
    for start in range(0, n_positions, step):
        part = activations[:, start : start + step].to(device, torch.float64)
        part = part - part.mean(0)
        if not whole:
            part = part @ axes  # (n, positions, widths[-1])
        for gram, (low, high) in zip(grams, pairwise([0, *widths]), strict=True):
            block = part[..., low:high].flatten(1)
            gram.addmm_(block, block.T)
    return grams.cumsum_(0)
