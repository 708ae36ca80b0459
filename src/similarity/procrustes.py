"""Orthogonal Procrustes distance (Ding et al. 2021, arXiv 2108.01661, section 2)."""

import torch

from src.similarity.samples import SamplesPair, samples_pair


def procrustes_distance(x, y) -> float:
    """Squared distance of two representations after the best rotation: min ‖X − YR‖² with R orthogonal, in [0, 2].

    X and Y are centred and scaled to Frobenius norm 1; the narrower one is padded with zero features.

    Args:
        x, y: (samples, features1) and (samples, features2), array or tensor.
    Raises:
        ValueError: the shapes do not allow it; `Undefined`, a ValueError: one is constant over the samples.
    """
    return procrustes_at(samples_pair(x, y), None, None)


def procrustes_at(pair: SamplesPair, rank1: int | None, rank2: int | None) -> float:
    """Return `procrustes_distance` at two ranks: 2 − 2‖Z₁ᵀZ₂‖\\*/(‖Z₁‖‖Z₂‖), with ‖·‖\\* the sum of singular values."""
    norms = pair.first.basis(rank1).norm * pair.second.basis(rank2).norm
    nuclear = float(torch.linalg.svdvals(pair.block(rank1, rank2)).sum())
    return max(0.0, 2 - 2 * nuclear / norms)
