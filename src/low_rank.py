"""Truncation of activations to their first principal components (the paper's sensitivity test)."""

from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from src.core.activations import map_positions, shape_of
from src.statistics.moments import Rows


def principal_axes(covariance: Tensor, rank: int) -> Tensor:
    """Return the first principal axes of a covariance matrix: (C, C) -> (C, min(rank, C)).

    The axis of the largest variance is the last column.
    """
    n_axes = min(rank, len(covariance))
    return torch.linalg.eigh(covariance).eigenvectors[:, -n_axes:]


class Components(NamedTuple):
    """Mean and principal axes of the positions of an activation, in float64."""

    mean: Tensor  # (C,)
    axes: Tensor  # (C, r), orthonormal, the largest variance first


def principal_components(activations: Tensor, rank: int) -> Components:
    """Return the mean (C,) and the first principal axes (C, r) of activations, in float64.

    Positions are the samples, channels the features. r is `rank`, or less if there are fewer
    features or fewer directions with variance.

    Args:
        activations: (B, C, H, W), (B, T, C) or (B, C).
    Raises:
        ValueError: the activations are not finite.
    """
    mean, rows = Rows.of(activations)
    if not mean.isfinite().all():
        raise ValueError("activations are not finite")
    n_rows, n_features = rows.shape
    if n_rows >= n_features:
        axes = principal_axes(rows.T @ rows, rank)
        return Components(mean, axes.flip(1))

    # Fewer samples than features: the eigenvectors u of the smaller Gram matrix XXᵀ give the axes
    # Xᵀu/σ.
    variances, vectors = torch.linalg.eigh(rows @ rows.T)
    variances = variances[-rank:]
    vectors = vectors[:, -rank:]
    rounding = variances[-1] * n_features * torch.finfo(variances.dtype).eps
    varies = variances > rounding
    axes = rows.T @ (vectors[:, varies] / variances[varies].sqrt())
    return Components(mean, axes.flip(1))


def low_rank_approx(activations: ArrayLike | Tensor, rank: int | None) -> Tensor:
    """Project activations on their first principal components around the mean; keep the shape.

    Positions are the samples, channels the features. As in the paper's code, mean and components
    are computed from this batch. Gradients pass through the projection, which is treated as a
    constant.

    Args:
        activations: (B, C, H, W), (B, T, C) or (B, C), tensor or array.
        rank: number of components. With None, or a rank of at least C, nothing changes.
    Returns:
        The best approximation of that rank around the mean (Eckart and Young 1936).
    Raises:
        ValueError: the rank is below 1, or the activations are not finite.
    """
    activations = torch.as_tensor(activations)
    if rank is None:
        return activations
    if rank < 1:
        raise ValueError(f"rank {rank} is not positive")
    shape = shape_of(activations)
    if rank >= shape.n_channels:
        return activations

    components = principal_components(activations, rank)
    projection = (components.axes @ components.axes.T).to(activations)  # (C, C)
    mean = shape.everywhere(components.mean.to(activations)[None])
    return map_positions(activations - mean, projection) + mean
