"""Direct matching: the stitching layer as least-squares solution between two activations, without training.

With X the source rows (one a sample and position) and Y the target rows, direct matching is the minimum-norm
solution of [X 1] B = Y (section 3 of the paper; Csiszárik et al. 2021). As in the paper's code, singular values
of [X 1] below max(rows, columns)·eps(float32)·σ_max count as zero: with many rows it is a truncated solution.

Only sums over rows are kept, so many samples need no more memory than few, and all targets of a source share
one eigen-decomposition. An upsampled source is never laid out: for X = R Z, with R resizing the positions,
XᵀX = Zᵀ(RᵀR)Z and XᵀY = Zᵀ(RᵀY).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from src.datasets.base import BaseImageSet
from src.low_rank import as_rows, principal_axes
from src.report import warn
from src.stitching.layers import resize


class Matching(NamedTuple):
    """An affine map x -> weight @ x + bias, and its error ‖XW+b−Y‖²/‖Y‖² on the rows it was fitted to."""

    weight: Tensor  # (C2, C1), float64
    bias: Tensor  # (C2,), float64
    error: float


def direct_matching(source: Tensor, target: Tensor) -> Matching:
    """Match two activations of the same samples and positions.

    Args:
        source: (B, C1, H, W), (B, T, C1) or (B, C1).
        target: (B, C2, H, W), (B, T, C2) or (B, C2), with the positions of `source`.
    Raises:
        ValueError: the positions differ, or an activation is not finite.
    """
    sums = LeastSquares()
    sums.add(source, {"target": target})
    return sums.solve()["target"]


def matching_samples(train_set: BaseImageSet, n: int, *, seed: int) -> Tensor:
    """Which training images to match on: the first n of one shuffled pass; warns if there are fewer."""
    samples = train_set.permutation(seed)[:n]
    if len(samples) < n:
        warn(f"-pinv-samples {n}: there are only {len(samples)} training images")
    return samples


class LeastSquares:
    """Sums over the rows of one source and of any number of targets, in float64.

    Args:
        size: the (H, W) that the source's feature maps are resized to first; None leaves them as they are.
        mode: `bilinear` or `nearest`.
    """

    def __init__(self, size: tuple[int, int] | None = None, mode: str = "bilinear"):
        self.size, self.mode = size, mode
        self.n_rows = 0
        self.gram: Tensor | float = 0.0  # [X 1]ᵀ[X 1], (C1+1, C1+1)
        self.cross: dict[str, Tensor] = {}  # [X 1]ᵀY, (C1+1, C2)
        self.squared_norm: dict[str, Tensor] = {}  # ‖Y‖²

    def add(self, source: Tensor, targets: Mapping[str, Tensor]) -> None:
        """Add one batch: the source, not resized yet, and the targets that it is to be matched with."""
        augmented = _with_ones(source.double())
        upsampling = None
        if self.size is not None:
            if self.size[0] >= source.shape[2] and self.size[1] >= source.shape[3]:
                upsampling = _Upsampling(source.shape[2:], self.size, self.mode, source.device)
            else:
                augmented = resize(augmented, self.size, self.mode)
        rows = as_rows(augmented)
        weighted = rows if upsampling is None else as_rows(upsampling.gram(augmented))
        n_rows = len(rows) if upsampling is None else len(source) * self.size[0] * self.size[1]
        self.n_rows += n_rows
        self.gram = self.gram + rows.T @ weighted
        for name, target in targets.items():
            target = target.double()
            n_target_rows = target.numel() // (target.shape[1] if target.ndim == 4 else target.shape[-1])
            if n_target_rows != n_rows:
                raise ValueError(f"the source has {n_rows} positions, the target {n_target_rows}")
            self.squared_norm[name] = self.squared_norm.get(name, 0.0) + torch.linalg.vector_norm(target).square()
            adjoint = target if upsampling is None else upsampling.adjoint(target)
            self.cross[name] = self.cross.get(name, 0.0) + rows.T @ as_rows(adjoint)

    def solve(self, *, rank: int | None = None) -> dict[str, Matching]:
        """The matchings, by target.

        Args:
            rank: the source is truncated to its first principal components beforehand; None leaves it whole.
        Raises:
            ValueError: an activation was not finite.
        """
        truncation = None if rank is None else self._truncation(rank)
        gram = self.gram if truncation is None else truncation.T @ self.gram @ truncation
        if not torch.isfinite(gram).all():
            raise ValueError("the source activations are not finite")
        squared_sigma, axes = torch.linalg.eigh(gram)
        cutoff = max(self.n_rows, len(gram)) * torch.finfo(torch.float32).eps
        kept = squared_sigma > cutoff**2 * squared_sigma[-1]
        axes, squared_sigma = axes[:, kept], squared_sigma[kept]
        matchings = {}
        for name, cross in self.cross.items():
            coordinates = axes.T @ (cross if truncation is None else truncation.T @ cross)
            scaled = coordinates / squared_sigma[:, None]
            solution = axes @ scaled  # (C1+1, C2)
            matched = (coordinates * scaled).sum()  # ‖[X 1] B‖², the part of ‖Y‖² that the solution explains
            matchings[name] = Matching(solution[:-1].T, solution[-1], self._error(name, matched))
        return matchings

    def _error(self, name: str, matched: Tensor) -> float:
        norm = self.squared_norm[name]
        if not torch.isfinite(norm):
            raise ValueError("the target activations are not finite")
        if norm == 0:
            return 0.0  # a target of zeros is met exactly
        return max(0.0, 1 - (matched / norm).item())  # rounding may take an exact match below zero

    def _truncation(self, rank: int) -> Tensor:
        """T with [X' 1] = [X 1] T, where X' is X truncated to `rank` principal components around its mean."""
        mean = self.gram[-1, :-1] / self.n_rows
        axes = principal_axes(self.gram[:-1, :-1] - self.n_rows * torch.outer(mean, mean), rank)
        truncation = torch.eye(len(self.gram), dtype=self.gram.dtype, device=self.gram.device)
        truncation[:-1, :-1] = axes @ axes.T
        truncation[-1, :-1] = mean - axes @ (axes.T @ mean)
        return truncation


class _Upsampling:
    """The resize R of feature maps as a matrix for each direction, and what follows from it without applying R."""

    def __init__(self, source: torch.Size, target: tuple[int, int], mode: str, device: torch.device):
        self.vertical, self.horizontal = (  # (H2, H1), (W2, W1)
            _resize_matrix(n_in, n_out, mode).to(device) for n_in, n_out in zip(source, target, strict=True)
        )

    def gram(self, maps: Tensor) -> Tensor:
        """RᵀR applied to maps of the source's size."""
        return self.vertical.T @ self.vertical @ maps @ (self.horizontal.T @ self.horizontal)

    def adjoint(self, maps: Tensor) -> Tensor:
        """Rᵀ applied to maps of the target's size."""
        return self.vertical.T @ maps @ self.horizontal


def _resize_matrix(n_in: int, n_out: int, mode: str) -> Tensor:
    """The matrix (n_out, n_in) that resizes a line of n_in pixels to n_out, read off the resize of unit lines."""
    lines = torch.eye(n_in, dtype=torch.float64)[:, None, :]  # (n_in, 1, n_in)
    if mode == "nearest":
        return F.interpolate(lines, size=n_out, mode="nearest")[:, 0].T
    return F.interpolate(lines, size=n_out, mode="linear", align_corners=False)[:, 0].T


def _with_ones(activations: Tensor) -> Tensor:
    """Append a feature that is 1 everywhere."""
    dim = 1 if activations.ndim == 4 else -1
    return torch.cat([activations, torch.ones_like(activations.narrow(dim, 0, 1))], dim=dim)
