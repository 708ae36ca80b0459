"""Classical multidimensional scaling: a map of networks."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def classical_scaling(distances: ArrayLike, *, n_dimensions: int = 2) -> NDArray:
    """Place N points so that their distances are near the given ones (Torgerson 1952).

    The points are the leading eigenvectors of −½ J D² J, J = I − 11ᵀ/N, times the roots of their eigenvalues; those of
    negative eigenvalues, which distances of no Euclidean space have, are 0.

    Args:
        distances: (N, N), symmetric, 0 on the diagonal.
    Returns:
        (N, n_dimensions), centred.
    Raises:
        ValueError: a distance is not finite, or the matrix is not symmetric.
    """
    distances = np.asarray(distances, dtype=np.float64)
    if not np.isfinite(distances).all() or not np.allclose(distances, distances.T):
        raise ValueError("a map needs finite distances of all pairs, alike in both directions")
    squares = distances**2
    centred = -0.5 * (squares - squares.mean(0) - squares.mean(1)[:, None] + squares.mean())
    eigenvalues, vectors = np.linalg.eigh(centred)
    leading = np.argsort(eigenvalues)[::-1][:n_dimensions]
    return vectors[:, leading] * np.sqrt(np.maximum(eigenvalues[leading], 0))
