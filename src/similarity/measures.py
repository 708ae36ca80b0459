"""The measures of similarity, each defined once. `src.core.choices.similarity` has a row for each.

A measure of Gram matrices turns the Gram matrices of one layer into other matrices, and its value is
the cosine between such matrices of two layers. A measure of samples takes the second moments of two
layers over the same samples, a `SamplesPair`. A measure that needs the activations themselves fits
neither: give it as a user's function."""

import functools
import math
import pkgutil
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from src.core.choices.similarity import MEASURES, N_NEIGHBOURS, Measure, measure_of
from src.core.errors import UserError, unknown_name
from src.core.ownership import call_on_copies
from src.core.user_code import CODE, by_title, failing_as_user_error, is_user_code, load
from src.similarity.grams import Grams
from src.similarity.samples import SamplesPair


def cka(grams: Grams) -> Tensor:
    """Return centred Gram matrices (R, n, n): their cosine is linear CKA (Kornblith et al. 2019,
    equation 4)."""
    return grams.centred


def cka_debiased(grams: Grams) -> Tensor:
    """Return Gram matrices (R, n, n) that are centred without their diagonals, which become 0: CKA
    by unbiased HSIC.

    Inner products of such matrices are n(n − 3) times the unbiased HSIC of Song et al. 2012
    (Székely and Rizzo 2014, definition 2)."""
    matrices = grams.centred.clone()
    n = matrices.shape[-1]
    diagonal = matrices.diagonal(dim1=1, dim2=2)
    diagonal.zero_()
    sums = matrices.sum(2) / (n - 2)  # (R, n)
    matrices -= sums[:, :, None]
    matrices -= sums[:, None, :]
    matrices += (sums.sum(1) / (n - 1))[:, None, None]
    diagonal.zero_()
    return matrices


def mutual_knn(grams: Grams, k: int = N_NEIGHBOURS) -> Tensor:
    """Return matrices (R, n, n): 1 where j is among the k nearest neighbours of i, else 0 (Huh et
    al. 2024, section 3).

    The nearest neighbours have the highest cosines of activations, which are not centred. The cosine
    of two such matrices is the share of common neighbours."""
    uncentred = grams.uncentred
    norms = uncentred.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    norms = torch.where(norms > 0, norms, 1)
    similarity = uncentred / norms[:, :, None] / norms[:, None, :]
    similarity.diagonal(dim1=1, dim2=2).fill_(-math.inf)  # no sample is its own neighbour
    indices = similarity.topk(k, dim=2).indices
    return torch.zeros_like(similarity).scatter_(2, indices, 1)


def procrustes(pair: SamplesPair) -> float:
    """Return 2 − 2‖Z₁ᵀZ₂‖\\*/(‖Z₁‖‖Z₂‖), with ‖·‖\\* the sum of singular values (Ding et al. 2021,
    section 2)."""
    nuclear = float(torch.linalg.svdvals(pair.cross).sum())
    return max(0.0, 2 - 2 * nuclear / (pair.first.norm * pair.second.norm))


def pwcca(pair: SamplesPair) -> float:
    """Return the PWCCA distance of the paper's code: 1 − Σ wρ / Σ w over all directions, with and
    without a partner."""
    correlations, weights = pair.canonical()
    return max(0.0, float(1 - weights @ correlations / weights.sum()))


def load_measures(names: Sequence[str]) -> dict[str, Measure]:
    """Return the rows of measures with their functions, by column; runs a user's code.

    Args:
        names: in `MEASURES`, or FILE.py:FUNCTION, whose column is FUNCTION.
    Raises:
        UserError: a name is unknown, the code fails, or two measures have one column.
    """
    measures = {}
    for column, name in by_title(names, taken=MEASURES, noun="measure").items():
        row = measure_of(column)
        if is_user_code(name):
            function = load(name)
            row = row._replace(
                function=functools.partial(_value_of, name, function),
                is_symmetric=getattr(function, "symmetric", True),
            )
        elif name in MEASURES:
            row = row._replace(function=pkgutil.resolve_name(row.function))
        else:
            raise unknown_name("measure", name, [*MEASURES, CODE])
        measures[column] = row
    return measures


def _value_of(name: str, function: Callable, x: Tensor, y: Tensor) -> float:
    """Return the value of a user's function of activations (N, ...) of two layers; it may be NaN.

    Raises:
        UserError: the function fails, or returns no number.
    """
    with failing_as_user_error(name):
        returned = call_on_copies(function, x, y)
    try:
        return float(returned)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's of a tensor
        shape = getattr(returned, "shape", None)
        kind = type(returned).__name__
        title = f"a {kind}" if shape is None else f"a {kind} of shape {tuple(shape)}"
        raise UserError(
            f"{name} returns {title} instead of a number; let it return a float"
        ) from error
