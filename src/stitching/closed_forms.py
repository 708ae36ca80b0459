"""Closed forms beside the least squares of direct matching, from the same sums: an orthogonal map, and ridge."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.stitching.matching import LeastSquares, Matching

PENALTIES = np.geomspace(1e-6, 10, 20)  # of ridge, in mean variances of the source


class Fit(NamedTuple):
    """A map, and the penalty on ‖W‖² that was chosen for it if it is that of ridge."""

    matching: Matching
    ridge_penalty: float | None = None


def closed_form(form: str, sums: LeastSquares, held_out: LeastSquares, *, rank: int | None = None) -> dict[str, Fit]:
    """Return the map of the form `pinv` (least squares), `ortho` or `ridge` for each target.

    Args:
        sums: over the rows to be matched.
        held_out: for `ridge`, sums over more rows, which judge its penalties.
        rank: the source is reduced to its first principal components beforehand; None leaves it whole.
    Raises:
        ValueError: an activation was not finite.
    """
    if form == "ridge":
        return ridge(sums, held_out, rank=rank)
    matchings = orthogonal(sums, rank=rank) if form == "ortho" else sums.solve(rank=rank)
    return {name: Fit(matching) for name, matching in matchings.items()}


def orthogonal(sums: LeastSquares, *, rank: int | None = None) -> dict[str, Matching]:
    """Return the orthogonal map of the centred activations, with a bias, for each target (Schönemann 1966).

    It is UVᵀ of the cross-covariance UΣVᵀ. Between unequal widths it has orthonormal rows or columns and maximises the
    trace; only where the target is no narrower than the source has it the least error among such maps.

    Args, Raises: as for `closed_form`.
    """
    reduction = _reduction(sums, rank)
    sums = sums.transformed(reduction)
    matchings = {}
    for name in sums.cross:
        u, _, vh = torch.linalg.svd(_cross_about(sums, name, _means(sums, name)), full_matrices=False)
        matchings[name] = _matching(sums, name, u @ vh, reduction)
    return matchings


def ridge(fitted: LeastSquares, held_out: LeastSquares, *, rank: int | None = None) -> dict[str, Fit]:
    """Return the map that minimises ‖XW+b−Y‖² + penalty·‖W‖² over all rows, for each target.

    The penalty is one of `PENALTIES` times the mean variance of the source: the one whose map, fitted to the first
    samples, has the least squared error on the others.

    Args, Raises: as for `closed_form`; the principal components are those of all rows.
    """
    everything = fitted + held_out
    width, reduction = len(everything.gram) - 1, _reduction(everything, rank)
    everything, fitted, held_out = (sums.transformed(reduction) for sums in (everything, fitted, held_out))
    gram = _gram_about(everything, _source_mean(everything))
    penalties = gram.trace() / everything.n_rows / width * torch.from_numpy(PENALTIES).to(gram)
    spectrum, trial = torch.linalg.eigh(gram), _Trial(fitted, held_out, penalties)
    matchings = {}
    for name in everything.cross:
        penalty = penalties[trial.errors(name).argmin()]
        coordinates = spectrum.eigenvectors.T @ _cross_about(everything, name, _means(everything, name))
        weight = spectrum.eigenvectors @ (_shrinkage(spectrum.eigenvalues, penalty)[:, None] * coordinates)
        matchings[name] = Fit(_matching(everything, name, weight, reduction), penalty.item())
    return matchings


class _Trial:
    """What each penalty gives on samples that it is not fitted to."""

    def __init__(self, fitted: LeastSquares, held_out: LeastSquares, penalties: Tensor):
        self.fitted, self.held_out = fitted, held_out
        mean = _source_mean(fitted)
        variances, self.axes = torch.linalg.eigh(_gram_about(fitted, mean))
        self.shrinkage = _shrinkage(variances, penalties[:, None])  # (20, C1)
        self.gram = self.axes.T @ _gram_about(held_out, mean) @ self.axes

    def errors(self, name: str) -> Tensor:
        """‖XW+b−Y‖² over the held-out rows of a target, for each penalty, (20,)."""
        means = _means(self.fitted, name)
        coordinates = self.axes.T @ _cross_about(self.fitted, name, means)  # times the shrinkage: W along the axes
        cross = self.axes.T @ _cross_about(self.held_out, name, means)
        explained = self.shrinkage @ (coordinates * cross).sum(1)  # ⟨W, C⟩
        squared = ((self.shrinkage @ (self.gram * (coordinates @ coordinates.T))) * self.shrinkage).sum(1)  # ⟨W, GW⟩
        return squared - 2 * explained  # and ‖Y‖², which is the same for all


def _reduction(sums: LeastSquares, rank: int | None) -> Tensor | None:
    """T (C1+1, rank+1) with [Z 1] = [X 1] T, where Z are principal components of X; None leaves X whole."""
    if rank is None:
        return None
    mean, axes = sums.components(rank)
    constant = torch.zeros(len(sums.gram), 1).to(axes)
    constant[-1] = 1
    return torch.cat([torch.cat([axes, -(mean @ axes)[None]]), constant], dim=1)


def _shrinkage(variances: Tensor, penalties: Tensor) -> Tensor:
    """1 / (variance + penalty), and 0 in directions that do not vary, up to rounding."""
    varies = variances > variances[-1] * len(variances) * torch.finfo(variances.dtype).eps
    return torch.where(varies, 1 / torch.where(varies, variances + penalties, 1), 0)


def _source_mean(sums: LeastSquares) -> Tensor:
    return sums.gram[-1, :-1] / sums.n_rows  # (C1,)


def _means(sums: LeastSquares, name: str) -> tuple[Tensor, Tensor]:
    return _source_mean(sums), sums.cross[name][-1] / sums.n_rows  # (C1,), (C2,)


def _gram_about(sums: LeastSquares, mean: Tensor) -> Tensor:
    """(X−μ)ᵀ(X−μ), (C1, C1)."""
    mixed = torch.outer(mean, sums.gram[-1, :-1])
    return sums.gram[:-1, :-1] - mixed - mixed.T + sums.n_rows * torch.outer(mean, mean)


def _cross_about(sums: LeastSquares, name: str, means: tuple[Tensor, Tensor]) -> Tensor:
    """(X−μ)ᵀ(Y−ν), (C1, C2)."""
    (source, target), cross = means, sums.cross[name]
    return cross[:-1] - torch.outer(source, cross[-1] - sums.n_rows * target) - torch.outer(sums.gram[-1, :-1], target)


def _matching(sums: LeastSquares, name: str, weight: Tensor, reduction: Tensor | None) -> Matching:
    """Complete a map (C1, C2) of the centred, reduced source to a matching, with its bias and its error."""
    source, target = _means(sums, name)
    solution, cross = torch.cat([weight, (target - source @ weight)[None]]), sums.cross[name]  # (C1+1, C2)
    residual = sums.squared_norm[name] - 2 * (solution * cross).sum() + (solution * (sums.gram @ solution)).sum()
    whole = solution if reduction is None else reduction @ solution
    return Matching(whole[:-1].T, whole[-1], sums.relative(name, residual))
