"""Projection-weighted canonical correlation analysis (Morcos et al. 2018, arXiv 1806.05759), with unique directions.

The canonical directions of A (n, features1) and B (n, features2) are the left singular vectors of Q_Aᵀ Q_B, the
correlations its singular values. Q_A and Q_B are orthonormal bases of the centred samples within their numerical rank.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from src.similarity.samples import SamplesPair, samples_pair

TIE = 1e-6  # canonical correlations this near to each other count as equal


class Canonical(NamedTuple):
    """The canonical directions of the first representation, one for each of its dimensions."""

    correlations: Tensor  # (k1,) in [0, 1], descending; 0 for directions without a partner
    weights: Tensor  # (k1,): sums over the features of their absolute products with each direction
    n_shared: int  # number of directions with a partner, which come first


def distance(canonical: Canonical) -> float:
    """PWCCA distance of the paper's code: 1 − Σ wρ / Σ w over all directions, also those without a partner."""
    return max(0.0, float(1 - canonical.weights @ canonical.correlations / canonical.weights.sum()))


def distance_morcos(canonical: Canonical) -> float:
    """PWCCA distance over the directions that have partners (Morcos et al. 2018, section 2.2)."""
    shared = canonical.weights[: canonical.n_shared]
    return max(0.0, float(1 - shared @ canonical.correlations[: canonical.n_shared] / shared.sum()))


def pwcca_distance(x, y) -> float:
    """PWCCA distance from one representation to another, in [0, 1]; not symmetric, as `x` gives the weights.

    Whitening is restricted to the numerical rank: eigenvalues of the covariance below 1e-10 of the largest count as
    zero. The weight of a direction is the sum over the features of `x` of its absolute products with them. Directions
    of `x` without a partner in `y` have correlation 0 and count in the normalisation.

    Correlations that differ by at most 1e-6 count as equal, and so do all directions without a partner. The directions
    of such a group are the principal axes of `x` within it. The value is then unique: it does not depend on the order
    of samples, nor on perturbations much smaller than the gaps between correlations. It is not determined where
    correlations are about 1e-6 apart, or where principal axes of a group have equal variances.

    Args:
        x, y: (samples, features1) and (samples, features2), array or tensor.
    Raises:
        ValueError: the shapes do not allow it; `Undefined`, a ValueError: one is constant over the samples.
    """
    return distance(canonical_at(samples_pair(x, y), None, None))


def canonical_at(pair: SamplesPair, rank1: int | None, rank2: int | None) -> Canonical:
    """Return the canonical directions at two ranks (None: full rank)."""
    first, second = pair.first.basis(rank1), pair.second.basis(rank2)
    overlap = first.whitening.T @ pair.block(rank1, rank2) @ second.whitening  # (k1, k2), Q₁ᵀQ₂
    n_directions, n_shared = len(overlap), min(overlap.shape)
    # All k1 left singular vectors are needed; the right ones never are.
    directions, cosines, _ = torch.linalg.svd(overlap, full_matrices=n_directions > n_shared)
    correlations = torch.zeros(n_directions, dtype=cosines.dtype)
    correlations[:n_shared] = cosines.clamp(max=1)  # rounding
    coordinates = directions.T @ first.factor  # (k1, features1): the products of directions and features
    start = 0
    for size in _ties(correlations):
        group = slice(start, start + size)
        if size > 1:
            _, axes = torch.linalg.eigh(coordinates[group] @ coordinates[group].T)  # the largest variance last
            coordinates[group] = axes.flip(1).T @ coordinates[group]
            correlations[group] = correlations[group].mean()
        start += size
    return Canonical(correlations, coordinates.abs().sum(1), n_shared)


def _ties(correlations: Tensor) -> list[int]:
    """Return the sizes of the groups of equal values in descending correlations (k,)."""
    ends = (correlations[:-1] - correlations[1:] > TIE).nonzero().flatten() + 1
    bounds = torch.cat([torch.zeros(1, dtype=ends.dtype), ends, torch.tensor([len(correlations)])])
    return bounds.diff().tolist()
