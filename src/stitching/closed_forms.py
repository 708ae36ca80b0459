"""Direct matching: affine maps between two activations in closed form, each from their moments.

With X the source rows (one a sample and position) and Y the target rows, the paper's direct
matching is least squares, the minimum-norm solution of [X 1] B = Y (section 3 of the paper;
Csiszárik et al. 2021). Least squares shrinks what it makes to the share of the variance that it
explains. `repair` and `covariance` give the variance back, and inflate what they cannot predict:
where nothing is explained, their error on other rows is 2 in variances of the target, and that of
least squares 1.

Each function takes moments and returns a `Matching` for each target; `SOLVERS` lists them.
"""

from collections.abc import Hashable, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.choices.stitching import FORMS
from src.moments import ROUNDING, Moments
from src.stitching.moments import SourceMoments, r2_of

PENALTIES = np.geomspace(1e-6, 10, 20)  # of ridge, in mean variances of the source
EPS, EPS32 = torch.finfo(torch.float64).eps, torch.finfo(torch.float32).eps

Cutoff = (
    str | float
)  # `paper`, `exact`, or relative to the largest singular value; see `relative_cutoff`


class Matching(NamedTuple):
    """An affine map x -> weight @ x + bias, and how it fits the rows that it was matched on."""

    weight: Tensor  # (C2, C1), float64
    bias: Tensor  # (C2,), float64
    error: float  # ‖XW+b−Y‖²/‖Y‖², the paper's
    r2: float  # 1 − ‖XW+b−Y‖²/‖Y−mean‖²; NaN where the target does not vary
    # directions of [X 1] that least squares keeps, or of the centred source that another form uses
    rank: int
    n_samples: int
    truncated: bool = (
        False  # `paper` drops directions that `exact` keeps, and least squares fits visibly worse
    )
    ridge_penalty: float | None = None  # the one that ridge chose


def closed_form(
    form: str, parts: Sequence[SourceMoments], *, rank: int | None = None, cutoff: Cutoff = "paper"
) -> dict[Hashable, Matching]:
    """Return the map of a form of `FORMS` for each target.

    Args:
        parts: over the rows to be matched; for `ridge` two: over those that are fitted, and those on which its
            penalties are judged.
        rank: the source is truncated to its first principal components beforehand; None leaves it whole.
        cutoff: of `pinv` and `repair`, see `relative_cutoff`; the other forms do without.
    Raises:
        ValueError: an activation was not finite; says on which side.
    """
    row, cut = FORMS[form], {"cutoff": cutoff} if FORMS[form].cuts_off else {}
    solve, everything = SOLVERS[form], reduce(SourceMoments.pooled, parts)
    for side, sums in (("source", [everything.source]), ("target", everything.targets.values())):
        if not all(each.scatter.isfinite().all() for each in sums):
            raise ValueError(f"the {side} activations are not finite")
    moments = [everything, *(parts if row.held_out else ())]
    if rank is None:
        return solve(*moments, **cut)
    components = everything.components(rank)
    if not row.along_axes:
        return solve(*(each.truncated(components) for each in moments), **cut)
    matchings = solve(*(each.in_coordinates(components.axes) for each in moments), **cut)
    return {
        name: each._replace(weight=each.weight @ components.axes.T)
        for name, each in matchings.items()
    }


def relative_cutoff(cutoff: Cutoff, n_rows: int, n_columns: int) -> float:
    """Return the singular value of [X 1] below which directions count as zero, relative to the
    largest.

    Args:
        cutoff: `paper` is max(rows, columns)·eps(float32), as in the paper's code: it grows with the rows, so that
            with many of them least squares is truncated. `exact` is columns·eps(float32). Or the value itself; below
            the rounding of float64 it has no effect.
    """
    if cutoff in ("paper", "exact"):
        return (n_columns if cutoff == "exact" else max(n_rows, n_columns)) * EPS32
    if not 0 <= float(cutoff) < 1:
        raise ValueError(f"cutoff {cutoff} is not paper, exact or a number from 0 up to 1")
    return max(float(cutoff), (10 * n_columns * EPS) ** 0.5)


def least_squares(moments: SourceMoments, cutoff: Cutoff = "paper") -> dict[Hashable, Matching]:
    """Return the minimum-norm solution of [X 1] B = Y for each target, its small singular values
    cut off."""
    n_rows, mean = (
        moments.source.n_rows,
        torch.cat([moments.source.mean, moments.source.mean.new_ones(1)]),
    )  # of [X 1]
    gram = n_rows * torch.outer(mean, mean)
    gram[:-1, :-1] += moments.source.scatter  # [X 1]ᵀ[X 1], (C1+1, C1+1)
    squared_sigma, axes = torch.linalg.eigh(gram)
    kept, kept_by_exact = (
        squared_sigma > relative_cutoff(each, n_rows, len(gram)) ** 2 * squared_sigma[-1]
        for each in (cutoff, "exact")
    )
    inverse = torch.where(kept, 1 / squared_sigma, 0)
    drops = cutoff == "paper" and (kept_by_exact & ~kept).any().item()  # a number was asked for
    matchings = {}
    for name, cross in moments.cross.items():
        target, centred = moments.targets[name], axes[:-1].T @ cross
        coordinates = torch.addr(centred, n_rows * (mean @ axes), target.mean)  # of [X 1]ᵀY
        solution = axes @ (inverse[:, None] * coordinates)
        explained = coordinates.square().sum(1) / squared_sigma  # of ‖Y‖², by direction
        residual, least = (
            target.squared_norm - explained[which].sum() for which in (kept, kept_by_exact)
        )
        error, least = _relative(residual, target), _relative(least, target)
        truncated = drops and error - least > max(min(0.01, least / 10), 1e-9)  # less is rounding
        fit = error, r2_of(target, residual), int(kept.sum()), moments.n_samples
        matchings[name] = Matching(solution[:-1].T, solution[-1], *fit, truncated)
    return matchings


def repair(moments: SourceMoments, cutoff: Cutoff = "paper") -> dict[Hashable, Matching]:
    """Return least squares with each output channel rescaled to the mean and standard deviation of
    the target.

    After Jordan et al., REPAIR (ICLR 2023). A channel of which nothing is explained is constant, at
    the target's mean."""
    matchings = {}
    for name, fitted in least_squares(moments, cutoff).items():
        made = (fitted.weight * (fitted.weight @ moments.source.scatter)).sum(
            1
        )  # Σ(ŷ−mean)², (C2,)
        wanted = moments.targets[name].variations
        explained = made > EPS32**2 * wanted  # less is rounding
        scale = torch.where(explained, (wanted / torch.where(explained, made, 1)).sqrt(), 0)
        matching = _about_means(moments, name, scale[:, None] * fitted.weight, fitted.rank)
        matchings[name] = matching._replace(truncated=fitted.truncated)
    return matchings


def covariance(moments: SourceMoments) -> dict[Hashable, Matching]:
    """Return the map of least error among those that give the stitched rows the covariance of the
    target.

    It is W = Σx^(−1/2) U Vᵀ Σy^(1/2) with U S Vᵀ the singular value decomposition of Σx^(−1/2) Σxy
    Σy^(1/2): the orthogonal map of the whitened source to the target in the metric of its
    covariance. Where the source varies in fewer directions than the target, that covariance is
    reached on as many of the target's."""
    variations, axes = _varying_axes(moments.source)
    whitening = axes / variations.sqrt()  # (C1, r)
    matchings = {}
    for name, cross in moments.cross.items():
        target = moments.targets[name]
        target_variations, target_axes = _varying_axes(target)
        root = (
            target_variations.sqrt()[:, None] * target_axes.T
        )  # (q, C2): rootᵀ root = Σ(y−μ)(y−μ)ᵀ
        predicted = whitening.T @ cross  # (r, C2)
        u, vh = _singular_vectors(predicted @ root.T)
        made = u @ (vh @ root)  # (r, C2), from the white coordinates
        residual = target.variations.sum() - 2 * (predicted * made).sum() + made.square().sum()
        matchings[name] = _about_means(
            moments, name, (whitening @ made).T, whitening.shape[1], residual
        )
    return matchings


def orthogonal(moments: SourceMoments) -> dict[Hashable, Matching]:
    """Return the orthogonal map of the centred activations, with a bias, for each target
    (Schönemann 1966).

    It is UVᵀ of the cross-covariance UΣVᵀ. Between unequal widths it has orthonormal rows or
    columns and maximises the trace; only where the target is no narrower than the source has it the
    least error among such maps."""
    matchings = {}
    for name, cross in moments.cross.items():
        u, vh = _singular_vectors(cross)
        matchings[name] = _about_means(moments, name, (u @ vh).T, u.shape[1])
    return matchings


def _singular_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return U and Vᵀ of a singular value decomposition, made on the CPU: of few hundred rows, not
    faster on a GPU."""
    u, _, vh = torch.linalg.svd(matrix.cpu(), full_matrices=False)
    return u.to(matrix.device), vh.to(matrix.device)


def ridge(
    everything: SourceMoments, fitted: SourceMoments, held_out: SourceMoments
) -> dict[Hashable, Matching]:
    """Return the map that minimises ‖XW+b−Y‖² + penalty·‖W‖² over all rows, for each target.

    The penalty is one of `PENALTIES` times the mean variance of the source: the one whose map,
    fitted to the first samples, has the least squared error on the others."""
    n_rows, _, scatter = everything.source
    penalties = scatter.trace() / n_rows / len(scatter) * torch.from_numpy(PENALTIES).to(scatter)
    variations, axes = _varying_axes(everything.source)
    errors = _held_out_errors(fitted, held_out, penalties)
    matchings = {}
    for name, cross in everything.cross.items():
        penalty = penalties[errors[name].argmin()]
        weight = axes / (variations + penalty) @ (axes.T @ cross)
        matching = _about_means(everything, name, weight.T, len(variations))
        matchings[name] = matching._replace(ridge_penalty=penalty.item())
    return matchings


SOLVERS = {
    "pinv": least_squares,
    "repair": repair,
    "covariance": covariance,
    "ortho": orthogonal,
    "ridge": ridge,
}


def _held_out_errors(
    fitted: SourceMoments, held_out: SourceMoments, penalties: Tensor
) -> dict[Hashable, Tensor]:
    """‖XW+b−Y‖² − ‖Y‖² over the held-out rows of each target, for the fit with each of the
    penalties, (20,)."""
    variations, axes = _varying_axes(fitted.source)
    shrinkage = 1 / (variations + penalties[:, None])  # (20, r)
    n_rows, mean, scatter = held_out.source
    step = mean - fitted.source.mean
    gram = (
        axes.T @ (scatter + n_rows * torch.outer(step, step)) @ axes
    )  # of the held-out x−m, m as fitted
    errors = {}
    for name, cross in held_out.cross.items():
        coordinates = axes.T @ fitted.cross[name]  # times the shrinkage: W along the axes
        target_step = held_out.targets[name].mean - fitted.targets[name].mean
        cross = axes.T @ (cross + n_rows * torch.outer(step, target_step))
        explained = shrinkage @ (coordinates * cross).sum(1)  # ⟨W, C⟩
        squared = ((shrinkage @ (gram * (coordinates @ coordinates.T))) * shrinkage).sum(
            1
        )  # ⟨W, GW⟩
        errors[name] = squared - 2 * explained
    return errors


def _varying_axes(moments: Moments) -> tuple[Tensor, Tensor]:
    """Return the principal axes (C, r) along which rows vary by more than rounding in float64, and
    how much, (r,)."""
    variations, axes = torch.linalg.eigh(moments.scatter)
    rounding = 10 * len(variations) * EPS * variations[-1]
    varies = variations > torch.maximum(
        rounding, ROUNDING * moments.n_rows * moments.mean.square().sum()
    )
    return variations[varies], axes[:, varies]


def _about_means(
    moments: SourceMoments,
    name: Hashable,
    weight: Tensor,
    rank: int,
    residual: Tensor | None = None,
) -> Matching:
    """Complete a map (C2, C1) of the centred activations, and its ‖residual‖² if it is known, to a
    matching."""
    target = moments.targets[name]
    bias = target.mean - weight @ moments.source.mean
    residual = moments.squared_residual(name, weight, bias) if residual is None else residual
    return Matching(
        weight, bias, _relative(residual, target), r2_of(target, residual), rank, moments.n_samples
    )


def _relative(squared_residual: Tensor, target: Moments) -> float:
    """‖residual‖²/‖Y‖²; 0 for a target of zeros."""
    norm = target.squared_norm
    return (
        0.0 if norm == 0 else max(0.0, (squared_residual / norm).item())
    )  # rounding may take it below zero
