"""The measures of two arrays or tensors, for use in Python.

All raise a ValueError where the shapes do not allow a measure. They raise `Undefined`, a kind of
ValueError, where there are too few samples, or a representation is constant or not finite."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from src.choices import ALIGNMENTS
from src.choices.similarity import MEASURES, N_NEIGHBOURS, PAPER
from src.core.arguments import real_tensor
from src.core.console import warn
from src.core.errors import UserError, unknown_name
from src.similarity import measures
from src.similarity.comparison import Advice, Comparison
from src.similarity.grams import Grams, gram_matrices
from src.similarity.passes import Side, StoredActivations, take_statistics
from src.similarity.samples import Samples, SamplesPair, Undefined
from src.statistics.moments import ROUNDING

ADVICE = Advice(
    unbiased='metrics=["cka_debiased"]', n_images="more of them", pooled='alignment="pool"'
)
NAMES = "the first representation", "the second representation"


def linear_cka(x, y) -> float:
    """Return linear CKA of two representations of the same n samples, (n, ...), in [0, 1] (Kornblith
    et al. 2019, equation 4).

    With more features than samples it is near 1 for all representations; see `debiased_cka`.
    """
    x, y = _matrices(x, y)
    widths = [x.shape[1], y.shape[1]]
    both = torch.cat([x - x.mean(0), y - y.mean(0)], dim=1)
    if len(both) > sum(widths):  # fewer rows with the same products of features have the same CKA
        both = torch.linalg.qr(both, mode="r").R
    matrices = [(part @ part.T)[None] for part in both.split(widths, dim=1)]
    return float(measures.cosines(*matrices))


def debiased_cka(x, y) -> float:
    """Return linear CKA of (n, ...), n of at least 4, by the unbiased estimator of HSIC, at most 1
    (Song et al. 2012).

    For independent representations it is about 0 on average, so it may be negative.
    """
    return _of_grams(measures.cka_debiased, x, y, at_least=MEASURES["cka_debiased"].min_images)


def mutual_knn(x, y, k: int = N_NEIGHBOURS) -> float:
    """Return the mean share of common samples among the k nearest neighbours of each of n samples
    (n, ...), in [0, 1].

    The nearest neighbours have the highest cosines; the representations are not centred (Huh,
    Cheung, Wang and Isola 2024, arXiv 2405.07987, section 3)."""

    def neighbours(grams: Grams) -> Tensor:
        return measures.mutual_knn(grams, k)

    return _of_grams(neighbours, x, y, at_least=k + 1)


def pwcca_distance(x, y) -> float:
    """Return the PWCCA distance from (n, features1) to (n, features2), in [0, 1]. It is not
    symmetric: `x` gives the weights.

    Projection-weighted canonical correlation analysis (Morcos et al. 2018, arXiv 1806.05759), in
    the form of the paper's code: the weight of a direction is the sum over the features of `x` of
    their absolute products with the direction. Directions of `x` without a partner in `y` have
    correlation 0 and count in the normalisation. Eigenvalues of a covariance below 1e-10 of the
    largest count as zero."""
    return measures.pwcca(samples_pair(x, y))


def procrustes_distance(x, y) -> float:
    """Return the squared distance after the best rotation R of (n, features1) and (n, features2):
    min ‖X − YR‖², in [0, 2].

    X and Y are centred and scaled to Frobenius norm 1. The narrower array is padded with zero
    features (Ding et al. 2021, arXiv 2108.01661, section 2)."""
    return measures.procrustes(samples_pair(x, y))


def compare(
    activations1, activations2, metrics: Sequence[str] = PAPER, *, alignment: str = "auto"
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
        ValueError: the numbers of inputs differ, or there is one; or an activation has no real numbers.
    """
    if isinstance(metrics, str):
        metrics = [metrics]
    functions = [metric for metric in metrics if not isinstance(metric, str)]
    if functions:
        raise UserError(
            f"{functions[0]!r} is no name of a measure; give FILE.py:FUNCTION for code of your own"
        )
    if alignment not in ALIGNMENTS:
        raise unknown_name("alignment", str(alignment), ALIGNMENTS)
    x = _as_floats(activations1, NAMES[0])
    y = _as_floats(activations2, NAMES[1])
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
    comparison = Comparison(statistics, advice=ADVICE)
    ((compared,),) = comparison.results()
    for reason, names in comparison.undefined.items():
        raise Undefined(f"no {', '.join(names)}: {reason}")
    for line in comparison.warnings():
        warn(line)
    return {name: similarity.value for name, similarity in compared.values.items()}


def _as_floats(activations, name: str) -> Tensor:
    """Return an array or tensor as a tensor of floats; integers in double precision."""
    tensor = real_tensor(activations, name).detach()
    if tensor.is_floating_point():
        return tensor
    return tensor.double()


def samples_pair(x, y) -> SamplesPair:
    """Return arrays (n, features1) and (n, features2) in coordinates of their principal axes."""
    x, y = _matrices(x, y)
    basis1, deviations1, axes1 = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    basis2, deviations2, axes2 = torch.linalg.svd(y - y.mean(0), full_matrices=False)
    first = Samples(NAMES[0], axes1.T, deviations1.square(), scale=0.0).basis(len(axes1))
    second = Samples(NAMES[1], axes2.T, deviations2.square(), scale=0.0).basis(len(axes2))
    cross = deviations1[:, None] * (basis1.T @ basis2) * deviations2
    return SamplesPair(first, second, cross)


def _of_grams(measure: Callable[[Grams], Tensor], x, y, *, at_least: int) -> float:
    """Return a measure of the Gram matrices of two arrays.

    Raises:
        Undefined: there are fewer samples than `at_least`.
    """
    matrices = []
    for array in _matrices(x, y):
        if len(array) < at_least:
            raise Undefined(f"this measure needs at least {at_least} samples, not {len(array)}")
        matrices.append(measure(gram_matrices(array)))
    return float(measures.cosines(*matrices))


def _matrices(x, y) -> list[Tensor]:
    """Return two arrays or tensors (n, ...) as samples × features in double precision.

    Raises:
        ValueError: the numbers of samples differ, or a shape has no features.
        Undefined: values are not finite, or constant over the samples.
    """
    matrices = []
    for name, array in zip(NAMES, (x, y), strict=True):
        matrix = real_tensor(array, name).detach().double()
        if matrix.ndim < 2 or len(matrix) < 2:
            raise ValueError(
                f"{name} has shape {tuple(matrix.shape)}; give at least two samples × features"
            )
        if not matrix.isfinite().all():
            raise Undefined(f"{name} has values that are not finite")
        if (matrix - matrix.mean(0)).square().sum() <= ROUNDING * matrix.square().sum():
            raise Undefined(f"{name} is constant over the samples")
        matrices.append(matrix.flatten(1))
    if len(matrices[0]) != len(matrices[1]):
        raise ValueError(f"{len(matrices[0])} samples cannot be compared with {len(matrices[1])}")
    return matrices
