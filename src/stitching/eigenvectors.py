"""Eigenvectors of symmetric matrices, kept for further matrices of the same content."""

import functools
import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from src.ground.cache import Cache
from src.ground.tensors import bytes_of

# Returns eigenvalues (n,), ascending, and eigenvectors (n, n) in columns, as `torch.linalg.eigh`
Eigh = Callable[[Tensor], tuple[Tensor, Tensor]]


def eigh_with(cache: Cache | None) -> Eigh:
    """Return `torch.linalg.eigh`, or the same with results that are kept in a cache.

    The layers of a network have the same second moments in all pairs with networks that are matched
    on the same images.
    """
    if cache is None:
        return torch.linalg.eigh
    return functools.partial(_kept_eigh, cache)


def _kept_eigh(cache: Cache, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors of a symmetric matrix (n, n)."""
    key = ("eigenvectors", hashlib.sha256(bytes_of(matrix)).digest(), str(matrix.device))
    decomposition = cache.get(key)
    if decomposition is None:
        values, vectors = torch.linalg.eigh(matrix)
        decomposition = (values, vectors)
        cache.keep(key, decomposition, values.nbytes + vectors.nbytes)
    return decomposition
