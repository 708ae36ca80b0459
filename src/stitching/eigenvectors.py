"""Eigenvectors of symmetric matrices, kept for further matrices of the same content."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

# Returns eigenvalues (n,), ascending, and eigenvectors (n, n) in columns, as `torch.linalg.eigh`
Eigh = Callable[[Tensor], tuple[Tensor, Tensor]]


class KeptEigenvectors:
    """Decomposes symmetric matrices as `torch.linalg.eigh` does, and equal ones once.

    The layers of a network have the same second moments in all pairs with networks that are matched
    on the same images. The content of a matrix is its key, so the results are exactly those of a
    decomposition of its own.

    Args:
        max_bytes: memory for all eigenvectors; beyond it, the least recently used ones are dropped.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        # By SHA-256 of the matrix and by device, the least recently used ones first
        self._kept: dict[tuple[bytes, str], tuple[Tensor, Tensor]] = {}

    def __call__(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return eigenvalues and eigenvectors of a symmetric matrix (n, n)."""
        content = matrix.cpu().contiguous().numpy()
        key = (hashlib.sha256(content.data).digest(), str(matrix.device))
        if key in self._kept:
            decomposition = self._kept.pop(key)
        else:
            values, vectors = torch.linalg.eigh(matrix)
            decomposition = (values, vectors)
        self._kept[key] = decomposition
        while sum(vectors.nbytes for _, vectors in self._kept.values()) > self.max_bytes:
            self._kept.pop(next(iter(self._kept)))
        return decomposition
