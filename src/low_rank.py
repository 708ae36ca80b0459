"""Truncation of a representation to its first principal components (the sensitivity test of the
paper)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.moments import Rows


def descending(ranks: Sequence[int] | None) -> list[int | None]:
    """Sort the distinct ranks of an option in descending order; 0 or an empty list stands for full
    rank, None.

    Example: [4, 0, 64, 4] -> [None, 64, 4].
    """
    distinct = set(ranks or [0])
    return [None] * (0 in distinct) + sorted(distinct - {0}, reverse=True)


def principal_axes(covariance: Tensor, rank: int) -> Tensor:
    """Return the first `rank` principal axes of a covariance (C, C): (C, min(rank, C)), the largest
    variance last."""
    return torch.linalg.eigh(covariance).eigenvectors[:, -min(rank, len(covariance)) :]


class Components(NamedTuple):
    """Mean and principal axes of the positions of an activation, in float64."""

    mean: Tensor  # (C,)
    axes: Tensor  # (C, r), orthonormal, the largest variance first


def principal_components(activations: Tensor, rank: int) -> Components:
    """Return the mean and the first `rank` principal axes of an activation, whose positions are the
    samples.

    Args:
        activations: (B, C, H, W), (B, T, D) or (B, D).
    Returns:
        At most as many axes as there are features, or directions in which the positions vary.
    Raises:
        ValueError: the activations are not finite.
    """
    mean, rows = Rows.of(activations)
    if not mean.isfinite().all():
        raise ValueError("activations are not finite")
    n_rows, n_features = rows.shape
    if n_rows >= n_features:
        return Components(mean, principal_axes(rows.T @ rows, rank).flip(1))
    # Fewer samples than features: the axes are X'u/σ for the eigenvectors u of the smaller Gram
    # matrix XX'.
    variances, vectors = torch.linalg.eigh(rows @ rows.T)
    variances, vectors = variances[-rank:], vectors[:, -rank:]
    real = (
        variances > variances[-1] * n_features * torch.finfo(variances.dtype).eps
    )  # smaller ones are rounding
    axes = rows.T @ (vectors[:, real] / variances[real].sqrt())
    return Components(mean, axes.flip(1))


def low_rank_approx(activations: Tensor, rank: int | None) -> Tensor:
    """Keep the mean and the first `rank` principal components of the given activations.

    Positions are the samples, channels the features. As in the paper's code, mean and components
    are those of this batch alone. Gradients pass through the projection, which is treated as a
    constant.

    Args:
        activations: (B, C, H, W), (B, T, D) or (B, D).
        rank: number of components; None, or at least the number of features: nothing changes.
    Returns:
        The best approximation of that rank around the mean (Eckart and Young 1936), of the same shape.
    Raises:
        ValueError: the rank is below 1, or the activations are not finite.
    """
    if rank is not None and rank < 1:
        raise ValueError(f"rank {rank} is not positive")
    n_features = activations.shape[1] if activations.ndim == 4 else activations.shape[-1]
    if rank is None or rank >= n_features:
        return activations
    mean, axes = principal_components(activations, rank)
    projection, mean = (axes @ axes.T).to(activations), mean.to(activations)  # (C, C), (C,)
    if activations.ndim == 4:
        mean = mean[:, None, None]
        return torch.nn.functional.conv2d(activations - mean, projection[:, :, None, None]) + mean
    return torch.nn.functional.linear(activations - mean, projection) + mean
