"""The measures of two arrays or tensors, for use in Python."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor

from src.core.arguments import real_tensor
from src.core.choices import ALIGNMENTS
from src.core.choices.similarity import N_NEIGHBOURS, PAPER, Measure
from src.core.console import warn
from src.core.errors import UserError, unknown_name
from src.models.stored import StoredActivations
from src.similarity import measures
from src.similarity.comparison import LayerComparison
from src.similarity.measures import load_measures
from src.similarity.samples import Undefined
from src.similarity.sides import Side, take_statistics

NAMES = "the first representation", "the second representation"


def compare(
    activations1: ArrayLike | Tensor,
    activations2: ArrayLike | Tensor,
    metrics: Sequence[str] = PAPER,
    *,
    alignment: str = "auto",
) -> dict[str, float]:
    """Return the similarity of two activations for the same n inputs.

    Measures of Gram matrices take flattened activations. For the other measures, positions of
    feature maps of equal shape and tokens in equal number are the samples. Otherwise averages over
    positions or tokens are the features, as in the paper's code. Warns as the script does, of
    biased values for example.

    Args:
        activations1, activations2: (n, C, H, W), (n, T, D) or (n, D), array or tensor.
        metrics: names in `MEASURES`, or FILE.py:FUNCTION of a user's code, which is run.
        alignment: `auto` or `pool`, see `features.alignment_of`.
    Returns:
        Values by name: `cka`, `cka_debiased` and `mutual_knn` up to 1, higher for more similar;
        `pwcca` (up to 1) and `procrustes` (up to 2) lower.
    Raises:
        UserError: an activation has other axes, a measure or an alignment is unknown, or a user's code fails.
        Undefined: a kind of ValueError: there are too few inputs, or an activation is constant or not finite.
        ValueError: the numbers of inputs differ, or there is one; or an activation has no real numbers.
    """
    if isinstance(metrics, str):
        metrics = [metrics]
    for metric in metrics:
        if not isinstance(metric, str):
            raise UserError(
                f"{metric!r} is no name of a measure; give FILE.py:FUNCTION for code of your own"
            )
    if alignment not in ALIGNMENTS:
        raise unknown_name("alignment", str(alignment), ALIGNMENTS)
    x = _as_floats(activations1, NAMES[0])
    y = _as_floats(activations2, NAMES[1])
    values, warnings = _compared(x, y, load_measures(metrics), alignment)
    for line in warnings:
        warn(line)
    return values


def linear_cka(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> float:
    """Return linear CKA of two representations of the same n samples, (n, ...), in [0, 1] (Kornblith
    et al. 2019, equation 4).

    With more features than samples it is near 1 for all representations; see `debiased_cka`.
    Raises as `compare`, and so do the further measures.
    """
    return _measured("cka", x, y)


def debiased_cka(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> float:
    """Return linear CKA of (n, ...), n of at least 4, by the unbiased estimator of HSIC, at most 1
    (Song et al. 2012).

    For independent representations it is about 0 on average, so it may be negative.
    """
    return _measured("cka_debiased", x, y)


def mutual_knn(x: ArrayLike | Tensor, y: ArrayLike | Tensor, k: int = N_NEIGHBOURS) -> float:
    """Return the mean share of common samples among the k nearest neighbours of each of n samples
    (n, ...), in [0, 1].

    The nearest neighbours have the highest cosines; the representations are not centred (Huh,
    Cheung, Wang and Isola 2024, arXiv 2405.07987, section 3)."""
    function = functools.partial(measures.mutual_knn, k=k)
    return _measured("mutual_knn", x, y, function=function, min_images=k + 1)


def pwcca_distance(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> float:
    """Return the PWCCA distance from (n, features1) to (n, features2), in [0, 1]. It is not
    symmetric: `x` gives the weights.

    Projection-weighted canonical correlation analysis (Morcos et al. 2018, arXiv 1806.05759), in
    the form of the paper's code: the weight of a direction is the sum over the features of `x` of
    their absolute products with the direction. Directions of `x` without a partner in `y` have
    correlation 0 and count in the normalisation. Eigenvalues of a covariance below 1e-10 of the
    largest count as zero."""
    return _measured("pwcca", x, y)


def procrustes_distance(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> float:
    """Return the squared distance after the best rotation R of (n, features1) and (n, features2):
    min ‖X − YR‖², in [0, 2].

    X and Y are centred and scaled to Frobenius norm 1. The narrower array is padded with zero
    features (Ding et al. 2021, arXiv 2108.01661, section 2)."""
    return _measured("procrustes", x, y)


def _measured(name: str, x: ArrayLike | Tensor, y: ArrayLike | Tensor, **changes: Any) -> float:
    """Return a measure of samples × features, flattened and in double precision.

    Args:
        changes: of the row of the measure.
    """
    row = load_measures([name])[name]._replace(**changes)
    values, _ = _compared(_matrix(x, NAMES[0]), _matrix(y, NAMES[1]), {name: row})
    return values[name]


def _matrix(values: ArrayLike | Tensor, name: str) -> Tensor:
    """Return an array or tensor (n, ...) as samples × features in double precision."""
    matrix = _as_floats(values, name).double()
    if matrix.ndim < 2:
        raise ValueError(f"{name} has shape {tuple(matrix.shape)}; give samples × features")
    return matrix.flatten(1)


def _as_floats(values: ArrayLike | Tensor, name: str) -> Tensor:
    """Return an array or tensor as a tensor of floats; integers in double precision."""
    tensor = real_tensor(values, name).detach()
    if tensor.is_floating_point():
        return tensor
    return tensor.double()


def _compared(
    x: Tensor, y: Tensor, metrics: Mapping[str, Measure], alignment: str = "auto"
) -> tuple[dict[str, float], list[str]]:
    """Return the values of two activations by measure, and warnings; an `Undefined` error if one has none."""
    n_samples = len(x)
    if len(y) != n_samples or n_samples < 2:
        raise ValueError(
            f"shapes {tuple(x.shape)} and {tuple(y.shape)}: give (n, C, H, W), (n, T, D) or (n, D), "
            "with the same n of at least 2"
        )
    statistics = take_statistics(
        Side(StoredActivations({NAMES[0]: x}), NAMES[:1]),
        Side(StoredActivations({NAMES[1]: y}), NAMES[1:]),
        batches=(),
        n_images=n_samples,
        metrics=metrics,
        alignment=alignment,
        device=x.device,
    )
    comparison = LayerComparison(statistics)
    ((compared,),) = comparison.results()
    for reason, names in comparison.undefined.items():
        raise Undefined(f"no {', '.join(names)}: {reason}")
    values = {name: similarity.value for name, similarity in compared.values.items()}
    return values, comparison.warnings()
