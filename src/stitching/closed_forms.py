"""Direct matching: affine maps between two activations in closed form, from their moments.

X has the source rows, one per sample and position, and Y the target rows. The paper's direct
matching is least squares: the minimum-norm solution of [X 1] B = Y (section 3 of the paper;
Csiszárik et al. 2021). Stitched rows then have less variance than the target: the share that least
squares explains. `covariance` restores the variance, also of the part that the source does not
explain. If the source explains nothing, its error on new rows is twice the variance of the target,
and the error of least squares is one variance.

Each function takes a `Source`, a `Target`, and Σ(x−μ₁)(y−μ₂)ᵀ, (C1, C2), and returns a `Matching`.
What is decomposed of a source or a target is kept with it, for all pairs that share it. A user's
function takes the moments of both instead.
"""

import functools
import inspect
import math
import pkgutil
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from src.core.choices import STARTS
from src.core.choices.stitching import FORMS, METHODS, ClosedForm
from src.core.errors import UserError, unknown_name
from src.core.ownership import call_on_copies
from src.core.user_code import failing_as_user_error, is_user_code, load, title_of
from src.low_rank import principal_axes
from src.statistics.moments import ROUNDING, Moments

VISIBLE = 0.01  # of R², the mean over channels: about a point of accuracy
EPS = torch.finfo(torch.float64).eps
EPS32 = torch.finfo(torch.float32).eps

# "paper", "exact", or a number relative to the largest singular value; see `relative_cutoff`
Cutoff = str | float


class Matching(NamedTuple):
    """An affine map x -> weight @ x + bias, and how well it fits the matched rows.

    A row is a sample and a position; `n_samples` counts samples. If the source was truncated, the
    errors are those on the truncated source.
    """

    weight: Tensor  # (C2, C1), float64
    bias: Tensor  # (C2,), float64
    error: float  # the paper's relative error, ‖XW+b−Y‖²/‖Y‖²
    r2: float  # 1 − ‖XW+b−Y‖²/‖Y−mean‖²; NaN if the target does not vary
    # The number of directions in use: for least squares of [X 1], else of the centred source
    rank: int
    n_samples: int  # images
    # The cutoff "paper" drops directions that "exact" keeps, and costs more than `VISIBLE` of R²
    truncated: bool = False


class Source:
    """The moments of a source, and its decompositions, each computed at its first use.

    Args:
        moments: of all rows.
        n_samples: the number of images.
        rank: truncate the source to its first principal components; None: do not.
        along_axes: give a truncated source in coordinates along its principal axes, (r,), instead of (C1,).
        cutoff: of the singular values of [X 1], see `relative_cutoff`. Only `pinv` uses it.

    Attributes:
        moments: of the rows as they are matched.
        axes: the principal axes of a truncated source, (C1, r), or None.
        basis: the matrix that the centred rows are multiplied by, (C1, C1) or (C1, r), or None.

    Raises:
        ValueError: the activations are not finite.
    """

    def __init__(
        self,
        moments: Moments,
        n_samples: int,
        *,
        rank: int | None = None,
        along_axes: bool = False,
        cutoff: Cutoff = "paper",
    ):
        _check_finite("source", moments)
        self.n_samples = n_samples
        self.cutoff = cutoff
        self.moments = moments
        self.axes: Tensor | None = None
        self.basis: Tensor | None = None
        if rank is None:
            return
        n_rows, mean, scatter = moments
        axes = principal_axes(scatter, rank)
        basis = axes
        projected_mean = mean @ axes
        if not along_axes:
            basis = axes @ axes.T
            projected_mean = mean @ basis + mean - axes @ (axes.T @ mean)
        self.axes = axes
        self.basis = basis
        self.moments = Moments(n_rows, projected_mean, basis.T @ scatter @ basis)

    @cached_property
    def whitening(self) -> Tensor:
        """The map of the centred source to uncorrelated coordinates of norm 1, (C1, r)."""
        variations, axes = _varying_axes(self.moments)
        return axes / variations.sqrt()

    @cached_property
    def directions(self) -> "_Directions":
        """The directions of [X 1] that least squares uses."""
        return _Directions.of(self, self.cutoff)

    @cached_property
    def exact_directions(self) -> "_Directions":
        """The directions by the cutoff "exact"."""
        return _Directions.of(self, "exact")


class Target:
    """The moments of a target, and the root of its scatter, computed at its first use.

    Raises:
        ValueError: the activations are not finite.
    """

    def __init__(self, moments: Moments):
        _check_finite("target", moments)
        self.moments = moments

    @cached_property
    def root(self) -> Tensor:
        """A root (q, C2) with rootᵀ root = Σ(y−mean)(y−mean)ᵀ."""
        variations, axes = _varying_axes(self.moments)
        return variations.sqrt()[:, None] * axes.T


def _check_finite(side: str, moments: Moments) -> None:
    """Raise a ValueError if activations of a side ("source", "target") were not finite."""
    if not moments.scatter.isfinite().all():
        raise ValueError(f"the {side} activations are not finite")


def relative_cutoff(cutoff: Cutoff, n_rows: int, n_columns: int) -> float:
    """Return the singular value of [X 1] below which a direction counts as zero.

    The value is relative to the largest singular value.

    Args:
        cutoff: "paper" is max(rows, columns)·eps(float32), as in the paper's code. It grows with
            the rows, so that many rows truncate least squares. "exact" is columns·eps(float32), of
            columns of unit norm: it depends neither on the number of rows nor on the units of the
            channels. A number is the value itself, but at least the rounding of float64.
        n_rows: of X.
        n_columns: of [X 1].
    Raises:
        ValueError: a number below 0, or of at least 1.
    """
    named = {"paper": max(n_rows, n_columns) * EPS32, "exact": n_columns * EPS32}
    if cutoff in named:
        return named[cutoff]
    try:
        share = float(cutoff)
    except (TypeError, ValueError):  # None, or a misspelt name
        share = math.nan
    if not 0 <= share < 1:
        raise ValueError(f"cutoff {cutoff} is not paper, exact or a number from 0 up to 1")
    return max(share, (10 * n_columns * EPS) ** 0.5)


class _Directions(NamedTuple):
    """Directions of [X 1] along which its rows are uncorrelated: axesᵀ[X 1]ᵀ[X 1]axes = diag(σ²)."""

    axes: Tensor  # (C1+1, n), in columns
    squared_sigma: Tensor  # (n,), ascending
    kept: Tensor  # (n,): whether the singular value is above the cutoff
    sums: Tensor  # [X 1]ᵀ1 along the directions, (n,)

    @classmethod
    def of(cls, source: Source, cutoff: Cutoff) -> "_Directions":
        """Return the directions of a source; see `_scaled_axes` for the cutoff "exact"."""
        n_rows, source_mean, scatter = source.moments
        mean = torch.cat([source_mean, source_mean.new_ones(1)])  # of [X 1], (C1+1,)
        gram = n_rows * torch.outer(mean, mean)  # [X 1]ᵀ[X 1], (C1+1, C1+1)
        gram[:-1, :-1] += scatter
        if cutoff == "exact":
            squared_sigma, axes = _scaled_axes(gram, source.axes)
        else:
            squared_sigma, axes = torch.linalg.eigh(gram)
        smallest = relative_cutoff(cutoff, n_rows, len(squared_sigma))
        kept = squared_sigma > smallest**2 * squared_sigma[-1]
        return cls(axes, squared_sigma, kept, n_rows * (mean @ axes))

    @property
    def rank(self) -> int:
        """The number of kept directions."""
        return int(self.kept.sum())

    @property
    def inverse(self) -> Tensor:
        """1/σ² of the kept directions, and 0 of the dropped ones, (n,)."""
        return torch.where(self.kept, 1 / self.squared_sigma, 0)

    def coordinates(self, target: Moments, cross: Tensor) -> Tensor:
        """Return [X 1]ᵀY along the directions, (n, C2)."""
        return torch.addr(self.axes[:-1].T @ cross, self.sums, target.mean)


def _scaled_axes(gram: Tensor, principal: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return σ² in ascending order, (n,), and the directions, (C1+1, n), of columns of unit norm.

    If the source was truncated to principal axes, the columns are the coordinates along the axes:
    off the axes lies rounding, which the unit norm would raise.

    Args:
        gram: [X 1]ᵀ[X 1], (C1+1, C1+1).
        principal: the principal axes, (C1, n-1), or None.
    """
    columns = torch.eye(len(gram)).to(gram)
    if principal is not None:
        columns = torch.block_diag(principal, columns[-1:, -1:])
        gram = columns.T @ gram @ columns
    norms = gram.diagonal().sqrt()
    scale = torch.where(norms > 0, 1 / norms, 1)  # a dead channel has no norm
    squared_sigma, vectors = torch.linalg.eigh(scale[:, None] * gram * scale)
    return squared_sigma, columns @ (scale[:, None] * vectors)


def least_squares(source: Source, target: Target, cross: Tensor) -> Matching:
    """Return the minimum-norm solution of [X 1] B = Y.

    Directions of [X 1] with singular values up to the cutoff are dropped. With the cutoff "exact"
    the columns of [X 1] are scaled to unit norm before: the units of the channels do not matter.
    The norm is then that of the scaled B, which matters where directions are dropped.
    """
    directions = source.directions
    coordinates = directions.coordinates(target.moments, cross)
    solution = directions.axes @ (directions.inverse[:, None] * coordinates)  # (C1+1, C2)

    # ‖Y‖² is the sum over the directions of what each explains, plus the residual
    explained = coordinates.square().sum(1) / directions.squared_sigma  # (n,)
    residual = target.moments.squared_norm - explained[directions.kept].sum()
    matching = _matching(
        source, target, solution[:-1].T, solution[-1], residual, rank=directions.rank
    )
    return matching._replace(truncated=_is_truncated(source, target, cross))


def _is_truncated(source: Source, target: Target, cross: Tensor) -> bool:
    """Return whether the cutoff "paper" costs more than `VISIBLE` of R², the mean over the target's
    channels that vary. So it does not depend on the units of the channels."""
    directions = source.directions
    # A user who gives a number knows that it truncates
    if source.cutoff != "paper" or directions.rank == len(directions.kept):
        return False
    exact = source.exact_directions
    moments = target.moments
    explained = directions.inverse @ directions.coordinates(moments, cross).square()  # (C2,)
    explained_by_exact = exact.inverse @ exact.coordinates(moments, cross).square()
    squared_norms = moments.variations + moments.n_rows * moments.mean.square()
    varies = moments.variations > EPS32**2 * squared_norms  # less is rounding
    lost = (explained_by_exact - explained)[varies] / moments.variations[varies]
    return lost.sum().item() / max(1, len(lost)) > VISIBLE


def covariance(source: Source, target: Target, cross: Tensor) -> Matching:
    """Return the map of least error that gives stitched rows the target's covariance.

    With Σx^(−1/2) Σxy Σy^(1/2) = U S Vᵀ it is W = Σx^(−1/2) U Vᵀ Σy^(1/2): an orthogonal map of the
    whitened source, chosen in the metric of the target's covariance. A source that varies in r
    directions, fewer than the target, gives the target's covariance in r directions only.
    """
    predicted = source.whitening.T @ cross  # (r, C2)
    u, vh = _singular_vectors(predicted @ target.root.T)
    mapped = u @ (vh @ target.root)  # the map of whitened coordinates, (r, C2)
    variation = target.moments.variations.sum()
    residual = variation - 2 * (predicted * mapped).sum() + mapped.square().sum()
    weight = (source.whitening @ mapped).T
    bias = _bias(source, target, weight)
    return _matching(source, target, weight, bias, residual, rank=len(predicted))


def orthogonal(source: Source, target: Target, cross: Tensor) -> Matching:
    """Return the orthogonal map of centred activations, with a bias.

    It is W = UVᵀ for the cross-covariance UΣVᵀ (Schönemann 1966); it does not scale. Between
    unequal widths it has orthonormal rows or columns, and maximises the trace of Wᵀ UΣVᵀ. It then
    has the least error of all such maps only if the target is the wider side.
    """
    u, vh = _singular_vectors(cross)
    weight = (u @ vh).T
    bias = _bias(source, target, weight)
    residual = _squared_residual(source, target, cross, weight, bias)
    return _matching(source, target, weight, bias, residual, rank=u.shape[1])


def _singular_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return U and Vᵀ of the singular value decomposition U S Vᵀ.

    It is computed on the CPU: a GPU is not faster for some hundred rows.
    """
    u, _, vh = torch.linalg.svd(matrix.cpu(), full_matrices=False)
    return u.to(matrix.device), vh.to(matrix.device)


def _varying_axes(moments: Moments) -> tuple[Tensor, Tensor]:
    """Return Σ(x−mean)² along the principal axes, (r,), and the axes, (C, r).

    Axes along which rows vary by no more than the rounding of float64 are left out.
    """
    variations, axes = torch.linalg.eigh(moments.scatter)
    rounding = 10 * len(variations) * EPS * variations[-1]
    rounding_of_mean = ROUNDING * moments.n_rows * moments.mean.square().sum()
    varies = variations > torch.maximum(rounding, rounding_of_mean)
    return variations[varies], axes[:, varies]


def _bias(source: Source, target: Target, weight: Tensor) -> Tensor:
    """Return the bias (C2,) that maps the mean of the source to the mean of the target."""
    return target.moments.mean - weight @ source.moments.mean


def _squared_residual(
    source: Source, target: Target, cross: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """Return ‖XW+b−Y‖² of a map given as weight (C2, C1) and bias (C2,)."""
    offset = _bias(source, target, weight) - bias
    squared = (weight * (weight @ source.moments.scatter)).sum()
    within = target.moments.variations.sum() - 2 * (weight.T * cross).sum() + squared
    return within + source.moments.n_rows * offset.square().sum()


def _matching(
    source: Source,
    target: Target,
    weight: Tensor,
    bias: Tensor,
    squared_residual: Tensor,
    *,
    rank: int,
) -> Matching:
    """Return a map as a matching, with its errors from ‖XW+b−Y‖²."""
    error = 0.0  # of a target of zeros
    if target.moments.squared_norm != 0:  # rounding may make the residual negative
        error = max(0.0, (squared_residual / target.moments.squared_norm).item())
    return Matching(
        weight,
        bias,
        error=error,
        r2=target.moments.r2(squared_residual),
        rank=rank,
        n_samples=source.n_samples,
    )


# ---- The closed form that a caller names


# The moments of source and target and Σ(x−μ₁)(y−μ₂)ᵀ, (C1, C2) -> the weight (C2, C1) and the bias (C2,)
UserSolver = Callable[[Moments, Moments, Tensor], tuple[Tensor, Tensor]]
# A form of `FORMS`, or a user's function: the function, or its name
AnySolver = str | UserSolver


def solve(form: ClosedForm, source: Source, target: Target, cross: Tensor) -> Matching:
    """Return the affine map between a source and a target.

    Args:
        form: as from `solver_of`.
        source: maybe truncated, `along_axes` if the form is.
        cross: Σ(x−μ₁)(y−μ₂)ᵀ of the source that is not truncated, (C1, C2).
    Raises:
        UserError: a user's function fails, or returns no such map.
    """
    if source.basis is None:
        return form.solver(source, target, cross)
    matching = form.solver(source, target, source.basis.T @ cross)
    if form.along_axes:  # compose the map with the projection to the axes
        matching = matching._replace(weight=matching.weight @ source.basis.T)
    return matching


def solver_of(form: AnySolver) -> ClosedForm:
    """Return the row of a closed form of the suite or of a user, with its function.

    Raises:
        UserError: there is no such form, the user's code fails, or the function has the name of a form
            or takes other arguments.
    """
    if isinstance(form, str) and form in FORMS:
        return FORMS[form]._replace(solver=pkgutil.resolve_name(FORMS[form].solver))
    if isinstance(form, str) and not is_user_code(form):
        raise unknown_name("closed-form solver", form, FORMS)
    name = solver_name(form)
    if title_of(name) in (*METHODS, *STARTS):
        raise UserError(
            f"{name}: {title_of(name)} is the name of a closed-form solver of the suite, or of another method; "
            "rename the function"
        )
    function = load(form) if isinstance(form, str) else form
    try:
        inspect.signature(function).bind("source", "target", "cross")
    except (TypeError, ValueError):  # other arguments, or none that can be known, as of a type
        raise UserError(
            f"{name} is not a closed-form solver, which takes the moments of source and target and their cross "
            f"moments, as in def {title_of(name)}(source, target, cross); for an objective give epochs, such "
            f"as {name}:10"
        ) from None
    return ClosedForm(name, functools.partial(_by_user, name, function), needs_covariance=True)


def solver_name(form: AnySolver) -> str:
    """Return the name of a closed form, also of a function."""
    if isinstance(form, str):
        return form
    return getattr(form, "__name__", type(form).__name__)


def _by_user(
    name: str, function: UserSolver, source: Source, target: Target, cross: Tensor
) -> Matching:
    """Return the map that a user's function gives.

    Raises:
        UserError: the function fails, or returns no finite weight and bias of the right shapes.
    """
    # The errors of a function in a notebook show their own lines
    errors = failing_as_user_error(name) if is_user_code(name) else nullcontext()
    with errors:
        returned = call_on_copies(function, source.moments, target.moments, cross)
    needed = f"a weight {tuple(cross.T.shape)} and a bias {tuple(target.moments.mean.shape)}"
    try:
        weight, bias = map(torch.as_tensor, returned)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{name} returns a {type(returned).__name__} ({error}); let it return two tensors, {needed}"
        ) from error
    fits = weight.shape == cross.T.shape and bias.shape == target.moments.mean.shape
    are_real = not (weight.is_complex() or bias.is_complex())
    if not fits or not are_real or not (weight.isfinite().all() and bias.isfinite().all()):
        raise UserError(
            f"{name} returns a weight {tuple(weight.shape)} and a bias {tuple(bias.shape)}; let it return finite "
            f"numbers that are real, {needed}"
        )
    weight = weight.to(cross)
    bias = bias.to(cross)
    residual = _squared_residual(source, target, cross, weight, bias)
    rank = int(torch.linalg.matrix_rank(weight))
    return _matching(source, target, weight, bias, residual, rank=rank)
