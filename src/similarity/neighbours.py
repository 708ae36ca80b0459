"""Mutual nearest neighbours (Huh, Cheung, Wang and Isola 2024, arXiv 2405.07987, section 3)."""

import math

import torch
from torch import Tensor

from src.similarity.cka import cosines
from src.similarity.grams import Grams
from src.similarity.registry import N_NEIGHBOURS
from src.similarity.samples import Undefined, matrices


def mutual_knn(x, y, k: int = N_NEIGHBOURS) -> float:
    """Return the mean share of a sample's k nearest neighbours that are the same in both representations, in [0, 1].

    The nearest neighbours have the highest cosines; the representations are not centred.

    Args:
        x, y: (n, ...) with n above k, array or tensor; each sample is flattened.
        k: number of neighbours.
    Raises:
        ValueError: the shapes do not allow it; `Undefined`, a ValueError: there are too few samples, or one
            representation is constant over them.
    """
    x, y = matrices(x, y, centred=False)
    if not 0 < k < len(x):
        raise Undefined(f"{k} neighbours need at least {k + 1} samples, not {len(x)}")
    marks = [nearest_by_cosine((z @ z.T)[None], k) for z in (x, y)]
    return float(cosines(*marks))


def nearest(grams: Grams) -> Tensor:
    """Mark the nearest neighbours of each sample, whose cosines are the measure `mutual_knn`."""
    return nearest_by_cosine(grams.uncentred, N_NEIGHBOURS)


def nearest_by_cosine(grams: Tensor, k: int) -> Tensor:
    """Mark the k nearest neighbours of each sample: Gram matrices (R, n, n) -> 1 where j is a neighbour of i, else 0.

    The cosine of two such matrices is the share of common neighbours.
    """
    norms = grams.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    norms = torch.where(norms > 0, norms, 1)
    similarity = grams / norms[:, :, None] / norms[:, None, :]
    similarity.diagonal(dim1=1, dim2=2).fill_(-math.inf)  # no sample is its own neighbour
    indices = similarity.topk(k, dim=2).indices
    return torch.zeros_like(similarity).scatter_(2, indices, 1)
