"""Direct matching: the stitching layer as least-squares solution between two activations, without training.

With X the source rows (one a sample and position) and Y the target rows, direct matching is the minimum-norm
solution of [X 1] B = Y (section 3 of the paper; Csiszárik et al. 2021). As in the paper's code, singular values
of [X 1] below max(rows, columns)·eps(float32)·σ_max count as zero: with many rows it is a truncated solution.

Maps with other constraints that follow from the same sums are in `closed_forms`.

Only sums over rows are kept, so many samples need no more memory than few, and all targets of a source share
one eigen-decomposition. An upsampled source is never laid out: for X = R Z, with R resizing the positions,
XᵀX = Zᵀ(RᵀR)Z and XᵀY = Zᵀ(RᵀY).
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from src.console import warn
from src.datasets.base import BaseImageSet
from src.errors import UserError
from src.low_rank import Components, as_rows, principal_axes
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
    """Choose the training images to match on: the first n of one shuffled pass; warn if there are fewer."""
    samples = train_set.permutation(seed)[:n]
    if len(samples) < n:
        warn(f"-pinv-samples {n}: there are only {len(samples)} training images")
    return samples


def split_last_fifth(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Split samples (n,) into those that the penalties of ridge are tried on and the last fifth, which judges them.

    Raises:
        UserError: there are fewer than two.
    """
    if len(samples) < 2:
        raise UserError(f"-i ridge needs at least two samples, not {len(samples)}; raise -pinv-samples")
    n_held_out = max(1, len(samples) // 5)
    return samples[:-n_held_out], samples[-n_held_out:]


def matching_batches(
    train_set: BaseImageSet, n: int, batch_size: int, *, seed: int, hold_out: bool = False
) -> list[Iterable[tuple[Tensor, Tensor]]]:
    """Batches of the n training images to match on, not augmented; with `hold_out` those of the last fifth apart.

    Raises:
        UserError: as for `split_last_fifth`.
    """
    samples = matching_samples(train_set, n, seed=seed)
    parts = split_last_fifth(samples) if hold_out else [samples]
    return [train_set.batches(batch_size, indices=part) for part in parts]


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
        """Return the matchings, by target.

        Args:
            rank: the source is truncated to its first principal components beforehand; None leaves it whole.
        Raises:
            ValueError: an activation was not finite.
        """
        sums = self.transformed(self.truncation(rank))
        squared_sigma, axes = torch.linalg.eigh(sums.gram)
        cutoff = max(self.n_rows, len(sums.gram)) * torch.finfo(torch.float32).eps
        kept = squared_sigma > cutoff**2 * squared_sigma[-1]
        axes, squared_sigma = axes[:, kept], squared_sigma[kept]
        matchings = {}
        for name, cross in sums.cross.items():
            coordinates = axes.T @ cross
            scaled = coordinates / squared_sigma[:, None]
            solution = axes @ scaled  # (C1+1, C2)
            matched = (coordinates * scaled).sum()  # ‖[X 1] B‖², the part of ‖Y‖² that the solution explains
            error = self.relative(name, self.squared_norm[name] - matched)
            matchings[name] = Matching(solution[:-1].T, solution[-1], error)
        return matchings

    def relative(self, name: str, squared_residual: Tensor) -> float:
        """Return the error ‖residual‖²/‖Y‖² of a matching; 0 for a target of zeros."""
        norm = self.squared_norm[name]
        return 0.0 if norm == 0 else max(0.0, (squared_residual / norm).item())  # rounding may take it below zero

    def transformed(self, map: Tensor | None) -> "LeastSquares":
        """Return the sums that [X 1] times a map (C1+1, …) would have given; None is the identity.

        Raises:
            ValueError: an activation was not finite.
        """
        if not torch.isfinite(self.gram).all():
            raise ValueError("the source activations are not finite")
        if not all(torch.isfinite(norm) for norm in self.squared_norm.values()):
            raise ValueError("the target activations are not finite")
        if map is None:
            return self
        sums = LeastSquares()
        sums.n_rows, sums.squared_norm = self.n_rows, self.squared_norm
        sums.gram = map.T @ self.gram @ map
        sums.cross = {name: map.T @ cross for name, cross in self.cross.items()}
        return sums

    def __add__(self, other: "LeastSquares") -> "LeastSquares":
        """Return the sums over the rows of both, which have the same targets."""
        sums = LeastSquares()
        sums.n_rows, sums.gram = self.n_rows + other.n_rows, self.gram + other.gram
        sums.cross = {name: cross + other.cross[name] for name, cross in self.cross.items()}
        sums.squared_norm = {name: norm + other.squared_norm[name] for name, norm in self.squared_norm.items()}
        return sums

    def components(self, rank: int) -> Components:
        """Return the mean of the source and its first `rank` principal axes."""
        mean = self.gram[-1, :-1] / self.n_rows
        return Components(mean, principal_axes(self.gram[:-1, :-1] - self.n_rows * torch.outer(mean, mean), rank))

    def truncation(self, rank: int | None) -> Tensor | None:
        """T with [X' 1] = [X 1] T, where X' is X truncated to `rank` principal components around its mean.

        A rank of None leaves X whole, and gives None.
        """
        if rank is None:
            return None
        mean, axes = self.components(rank)
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
    """Return the matrix (n_out, n_in) that resizes a line of n_in pixels to n_out, from the resize of unit lines."""
    lines = torch.eye(n_in, dtype=torch.float64)[:, None, :]  # (n_in, 1, n_in)
    if mode == "nearest":
        return F.interpolate(lines, size=n_out, mode="nearest")[:, 0].T
    return F.interpolate(lines, size=n_out, mode="linear", align_corners=False)[:, 0].T


def _with_ones(activations: Tensor) -> Tensor:
    """Append a feature that is 1 everywhere."""
    dim = 1 if activations.ndim == 4 else -1
    return torch.cat([activations, torch.ones_like(activations.narrow(dim, 0, 1))], dim=dim)
