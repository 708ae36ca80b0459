"""Direct matching: affine maps between two activations in closed form, from their moments.

X has the source rows, one per sample and position, and Y the target rows. The paper's direct
matching is least squares: the minimum-norm solution of [X 1] B = Y (section 3 of the paper;
Csiszárik et al. 2021). Stitched rows then have less variance than the target: the share that least
squares explains. `covariance` restores the variance, also of the part that the source does not
explain. If the source explains nothing, its error on new rows is twice the variance of the target,
and the error of least squares is one variance.

Each function takes moments of a source and its targets, and returns a `Matching` per target.
`SOLVERS` lists the functions. A user's function takes the moments of a source and of one target.
"""

import functools
import inspect
import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from src.choices import STARTS
from src.choices.stitching import OBJECTIVES
from src.core.errors import UserError, unknown_name
from src.core.ownership import call_on_copies
from src.core.user_code import failing_as_user_error, is_user_code, load, title_of
from src.statistics.moments import ROUNDING, Moments
from src.stitching.moments import SourceMoments

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


# A form of `FORMS`, or a user's function of the moments of source and target and of Σ(x−μ₁)(y−μ₂)ᵀ,
# (C1, C2): the function, or its name. It returns the weight (C2, C1) and the bias (C2,)
UserForm = Callable[[Moments, Moments, Tensor], tuple[Tensor, Tensor]]
ClosedForm = str | UserForm
Matchings = dict[Hashable, Matching]  # by target
Roots = dict[Hashable, Tensor]  # (q, C2) by target, with rootᵀ root = Σ(y−mean)(y−mean)ᵀ


def closed_form(
    form: ClosedForm,
    moments: SourceMoments,
    *,
    rank: int | None = None,
    cutoff: Cutoff = "paper",
    roots: Roots | None = None,
) -> Matchings:
    """Return the affine map of a closed form for each target.

    Args:
        moments: of the matched rows.
        rank: fit on the source truncated to its first principal components; None: do not truncate.
        cutoff: of singular values, see `relative_cutoff`. Only `pinv` uses it.
        roots: of the targets' scatters, for `covariance`. What is missing is added: give one
            mapping to all sources of the same targets, and each target is decomposed once.

    Raises:
        ValueError: an activation is not finite. The message says on which side.
        UserError: a user's function fails, or returns no such map.
    """
    solver = solver_of(form)
    if roots is None:
        roots = {}
    available = {"cutoff": cutoff, "roots": roots}
    solve = functools.partial(solver.solve, **{name: available[name] for name in solver.takes})
    _check_finite("source", [moments.source])
    _check_finite("target", list(moments.targets.values()))
    if rank is None:
        return solve(moments)

    components = moments.components(rank)
    if not solver.along_axes:
        return solve(moments.truncated(components))

    # Solve for coordinates along the axes, and compose the map with the projection to the axes
    matchings = {}
    for name, matching in solve(moments.in_coordinates(components.axes)).items():
        matchings[name] = matching._replace(weight=matching.weight @ components.axes.T)
    return matchings


def _check_finite(side: str, sums: Sequence[Moments]) -> None:
    """Raise a ValueError if activations of a side ("source", "target") were not finite."""
    if not all(moments.scatter.isfinite().all() for moments in sums):
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
    if cutoff == "paper":
        return max(n_rows, n_columns) * EPS32
    if cutoff == "exact":
        return n_columns * EPS32
    try:
        share = float(cutoff)
    except (TypeError, ValueError):  # None, or a misspelt name
        share = math.nan
    if not 0 <= share < 1:
        raise ValueError(f"cutoff {cutoff} is not paper, exact or a number from 0 up to 1")
    rounding = (10 * n_columns * EPS) ** 0.5
    return max(share, rounding)


class _Directions(NamedTuple):
    """Directions of [X 1] along which its rows are uncorrelated: axesᵀ[X 1]ᵀ[X 1]axes = diag(σ²)."""

    axes: Tensor  # (C1+1, n), in columns
    squared_sigma: Tensor  # (n,), ascending
    kept: Tensor  # (n,): whether the singular value is above the cutoff
    sums: Tensor  # [X 1]ᵀ1 along the directions, (n,)

    @classmethod
    def of(cls, moments: SourceMoments, cutoff: Cutoff) -> "_Directions":
        """Return the directions of a source; see `_scaled_axes` for the cutoff "exact"."""
        n_rows, source_mean, scatter = moments.source
        mean = torch.cat([source_mean, source_mean.new_ones(1)])  # of [X 1], (C1+1,)
        gram = n_rows * torch.outer(mean, mean)  # [X 1]ᵀ[X 1], (C1+1, C1+1)
        gram[:-1, :-1] += scatter
        if cutoff == "exact":
            squared_sigma, axes = _scaled_axes(gram, moments.axes)
        else:
            squared_sigma, axes = torch.linalg.eigh(gram)
        smallest = relative_cutoff(cutoff, n_rows, len(squared_sigma))
        kept = squared_sigma > smallest**2 * squared_sigma[-1]
        return cls(axes, squared_sigma, kept, n_rows * (mean @ axes))

    @property
    def inverse(self) -> Tensor:
        """1/σ² of the kept directions, and 0 of the dropped ones, (n,)."""
        return torch.where(self.kept, 1 / self.squared_sigma, 0)

    def coordinates(self, cross: Tensor, target: Moments) -> Tensor:
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


def least_squares(moments: SourceMoments, cutoff: Cutoff = "paper") -> Matchings:
    """Return the minimum-norm solution of [X 1] B = Y for each target.

    Directions of [X 1] with singular values up to the cutoff are dropped. With the cutoff "exact"
    the columns of [X 1] are scaled to unit norm before: the units of the channels do not matter.
    The norm is then that of the scaled B, which matters where directions are dropped.
    """
    directions = _Directions.of(moments, cutoff)
    rank = int(directions.kept.sum())
    exact = None
    # A user who gives a number knows that it truncates
    if cutoff == "paper" and rank < len(directions.kept):
        exact = _Directions.of(moments, "exact")

    matchings: Matchings = {}
    for name, cross in moments.cross.items():
        target = moments.targets[name]
        coordinates = directions.coordinates(cross, target)
        solution = directions.axes @ (directions.inverse[:, None] * coordinates)  # (C1+1, C2)

        # ‖Y‖² is the sum over the directions of what each explains, plus the residual
        explained = coordinates.square().sum(1) / directions.squared_sigma  # (n,)
        squared_norm = target.squared_norm
        residual = squared_norm - explained[directions.kept].sum()
        r2 = target.r2(residual)
        matchings[name] = Matching(
            solution[:-1].T,
            solution[-1],
            error=_relative(residual, squared_norm),
            r2=r2,
            rank=rank,
            n_samples=moments.n_samples,
            truncated=exact is not None and _lost_r2(directions, exact, cross, target) > VISIBLE,
        )
    return matchings


def _lost_r2(directions: _Directions, exact: _Directions, cross: Tensor, target: Moments) -> float:
    """Return by how much R² of a target's channel is lower than with the cutoff "exact".

    It is the mean over the channels that vary, so it does not depend on the units of the channels.
    """
    explained = directions.inverse @ directions.coordinates(cross, target).square()  # (C2,)
    explained_by_exact = exact.inverse @ exact.coordinates(cross, target).square()
    squared_norms = target.variations + target.n_rows * target.mean.square()
    varies = target.variations > EPS32**2 * squared_norms  # less is rounding
    lost = (explained_by_exact - explained)[varies] / target.variations[varies]
    return lost.sum().item() / max(1, len(lost))


def covariance(moments: SourceMoments, roots: Roots) -> Matchings:
    """Return the map of least error that gives stitched rows the target's covariance, per target.

    With Σx^(−1/2) Σxy Σy^(1/2) = U S Vᵀ it is W = Σx^(−1/2) U Vᵀ Σy^(1/2): an orthogonal map of the
    whitened source, chosen in the metric of the target's covariance. A source that varies in r
    directions, fewer than the target, gives the target's covariance in r directions only.
    """
    variations, axes = _varying_axes(moments.source)
    whitening = axes / variations.sqrt()  # (C1, r)
    matchings = {}
    for name, cross in moments.cross.items():
        target = moments.targets[name]
        if name not in roots:
            target_variations, target_axes = _varying_axes(target)
            roots[name] = target_variations.sqrt()[:, None] * target_axes.T
        root = roots[name]
        predicted = whitening.T @ cross  # (r, C2)
        u, vh = _singular_vectors(predicted @ root.T)
        mapped = u @ (vh @ root)  # the map of whitened coordinates, (r, C2)
        residual = target.variations.sum() - 2 * (predicted * mapped).sum() + mapped.square().sum()
        weight = (whitening @ mapped).T
        matchings[name] = _about_means(moments, name, weight, whitening.shape[1], residual)
    return matchings


def orthogonal(moments: SourceMoments) -> Matchings:
    """Return the orthogonal map of centred activations, with a bias, for each target.

    It is W = UVᵀ for the cross-covariance UΣVᵀ (Schönemann 1966); it does not scale. Between
    unequal widths it has orthonormal rows or columns, and maximises the trace of Wᵀ UΣVᵀ. It then
    has the least error of all such maps only if the target is the wider side.
    """
    matchings = {}
    for name, cross in moments.cross.items():
        u, vh = _singular_vectors(cross)
        matchings[name] = _about_means(moments, name, (u @ vh).T, u.shape[1])
    return matchings


def _singular_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return U and Vᵀ of the singular value decomposition U S Vᵀ.

    It is computed on the CPU: a GPU is not faster for some hundred rows.
    """
    u, _, vh = torch.linalg.svd(matrix.cpu(), full_matrices=False)
    return u.to(matrix.device), vh.to(matrix.device)


class Solver(NamedTuple):
    """The function of a closed form, and its needs."""

    solve: Callable[..., Matchings]
    takes: tuple[str, ...] = ()  # further arguments of `closed_form`
    along_axes: bool = False  # a source of low rank is given along its principal axes
    target_scatter: bool = False  # the covariance of the target, not only the variances


SOLVERS = {
    "pinv": Solver(least_squares, ("cutoff",)),
    "covariance": Solver(covariance, ("roots",), target_scatter=True),
    "ortho": Solver(orthogonal, along_axes=True),
}


def solver_of(form: ClosedForm) -> Solver:
    """Return the function of a closed form of the suite or of a user, and its needs.

    Raises:
        UserError: there is no such form, the user's code fails, or the function has the name of a form
            or takes other arguments.
    """
    if isinstance(form, str) and form in SOLVERS:
        return SOLVERS[form]
    if isinstance(form, str) and not is_user_code(form):
        raise unknown_name("closed form", form, SOLVERS)
    name = name_of(form)
    if title_of(name) in (*SOLVERS, *STARTS, *OBJECTIVES):
        raise UserError(
            f"{name}: {title_of(name)} is the name of a closed form of the suite, or of another method; rename "
            "the function"
        )
    function = load(form) if isinstance(form, str) else form
    try:
        inspect.signature(function).bind("source", "target", "cross")
    except (TypeError, ValueError):  # other arguments, or none that can be known, as of a type
        raise UserError(
            f"{name} is no closed form, which takes the moments of source and target and their cross moments, as in "
            f"def {title_of(name)}(source, target, cross); for an objective give epochs, such as {name}:10"
        ) from None
    return Solver(functools.partial(_by_user, name, function), target_scatter=True)


def name_of(form: ClosedForm) -> str:
    """Return the name of a closed form, also of a function."""
    if isinstance(form, str):
        return form
    return getattr(form, "__name__", type(form).__name__)


def _by_user(name: str, function: UserForm, moments: SourceMoments) -> Matchings:
    """Return the map that a user's function gives for each target.

    Raises:
        UserError: the function fails, or returns no finite weight and bias of the right shapes.
    """
    errors: Callable[[], AbstractContextManager[None]] = nullcontext
    if is_user_code(name):  # the errors of a function in a notebook show their own lines
        errors = functools.partial(failing_as_user_error, name)
    matchings = {}
    for target_name, cross in moments.cross.items():
        target = moments.targets[target_name]
        needed = (tuple(cross.T.shape), tuple(target.mean.shape))
        with errors():
            returned = call_on_copies(function, moments.source, target, cross)
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            what = type(returned).__name__
            if isinstance(returned, tuple | list):
                what = f"{what} of {len(returned)}"
            raise UserError(
                f"{name} returns a {what}; let it return two tensors, a weight {needed[0]} and a bias {needed[1]}"
            )
        try:
            weight, bias = map(torch.as_tensor, returned)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{name} returns no numbers ({error}); let it return two tensors, a weight {needed[0]} and a bias "
                f"{needed[1]}"
            ) from error
        shapes = (tuple(weight.shape), tuple(bias.shape))
        are_real = not (weight.is_complex() or bias.is_complex())
        if (
            shapes != needed
            or not are_real
            or not (weight.isfinite().all() and bias.isfinite().all())
        ):
            raise UserError(
                f"{name} returns a weight {shapes[0]} and a bias {shapes[1]}; let it return "
                f"finite numbers that are real, a weight {needed[0]} and a bias {needed[1]}"
            )
        weight = weight.to(cross)
        rank = int(torch.linalg.matrix_rank(weight))
        matchings[target_name] = _with_errors(moments, target_name, weight, bias.to(cross), rank)
    return matchings


def _varying_axes(moments: Moments) -> tuple[Tensor, Tensor]:
    """Return Σ(x−mean)² along the principal axes, (r,), and the axes, (C, r).

    Axes along which rows vary by no more than the rounding of float64 are left out.
    """
    variations, axes = torch.linalg.eigh(moments.scatter)
    rounding = 10 * len(variations) * EPS * variations[-1]
    rounding_of_mean = ROUNDING * moments.n_rows * moments.mean.square().sum()
    varies = variations > torch.maximum(rounding, rounding_of_mean)
    return variations[varies], axes[:, varies]


def _about_means(
    moments: SourceMoments,
    name: Hashable,
    weight: Tensor,
    rank: int,
    squared_residual: Tensor | None = None,
) -> Matching:
    """Complete a map of centred activations to a matching: add the bias and the errors.

    Args:
        name: of the target.
        weight: (C2, C1).
        squared_residual: ‖XW+b−Y‖² if it is computed already.
    """
    bias = moments.targets[name].mean - weight @ moments.source.mean
    return _with_errors(moments, name, weight, bias, rank, squared_residual)


def _with_errors(
    moments: SourceMoments,
    name: Hashable,
    weight: Tensor,
    bias: Tensor,
    rank: int,
    squared_residual: Tensor | None = None,
) -> Matching:
    """Return a map as a matching, with its errors; arguments as for `_about_means`."""
    target = moments.targets[name]
    if squared_residual is None:
        squared_residual = moments.squared_residual(name, weight, bias)
    return Matching(
        weight,
        bias,
        error=_relative(squared_residual, target.squared_norm),
        r2=target.r2(squared_residual),
        rank=rank,
        n_samples=moments.n_samples,
    )


def _relative(squared_residual: Tensor, squared_norm: Tensor) -> float:
    """Return ‖residual‖²/‖Y‖²; 0 for a target of zeros."""
    if squared_norm == 0:
        return 0.0
    return max(0.0, (squared_residual / squared_norm).item())  # rounding may make it negative
