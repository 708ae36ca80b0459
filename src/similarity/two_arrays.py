"""The measures of two arrays or tensors, for use in Python.

All raise a ValueError where the shapes do not allow it, and `Undefined`, which is one, where there
are too few samples, or a representation is constant over them or not finite."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from src.choices.similarity import MEASURES, N_NEIGHBOURS, PAPER
from src.console import warn
from src.moments import ROUNDING
from src.similarity import measures
from src.similarity.comparison import Advice, Comparison
from src.similarity.grams import Grams
from src.similarity.passes import Side, take_statistics
from src.similarity.samples import Samples, SamplesPair, Undefined
from src.similarity.stored import StoredActivations

ADVICE = Advice(
    unbiased='metrics=["cka_debiased"]', n_images="more of them", pooled='alignment="pool"'
)
NAMES = "the first representation", "the second representation"


def linear_cka(x, y) -> float:
    """Linear CKA of two representations of the same n samples, (n, ...), in [0, 1] (Kornblith et
    al. 2019, equation 4).

    With more features than samples it is near 1 for all representations; see `debiased_cka`.
    """
    x, y = _matrices(x, y)
    if len(x) < max(x.shape[1], y.shape[1]):
        return _of_grams(measures.cka, x, y, at_least=2)
    x, y = x - x.mean(0), y - y.mean(0)  # many samples: the same by products of features
    return float((x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


def debiased_cka(x, y) -> float:
    """Linear CKA of (n, ...), n of at least 4, by the unbiased estimator of HSIC, at most 1 (Song
    et al. 2012).

    For independent representations it is about 0 on average, so it may be negative.
    """
    return _of_grams(measures.cka_debiased, x, y, at_least=MEASURES["cka_debiased"].min_images)


def mutual_knn(x, y, k: int = N_NEIGHBOURS) -> float:
    """Return the mean share of common ones among the k nearest neighbours of each of n samples (n,
    ...), in [0, 1].

    The nearest neighbours have the highest cosines; the representations are not centred (Huh,
    Cheung, Wang and Isola 2024, arXiv 2405.07987, section 3)."""
    return _of_grams(lambda grams: measures.mutual_knn(grams, k), x, y, at_least=k + 1)


def pwcca_distance(x, y) -> float:
    """PWCCA distance from (n, features1) to (n, features2), in [0, 1]; not symmetric, as `x` gives
    the weights.

    Projection-weighted canonical correlation analysis (Morcos et al. 2018, arXiv 1806.05759), in
    the form of the paper's code: the weight of a direction is the sum over the features of `x` of
    its absolute products with them, and directions of `x` without a partner in `y` have correlation
    0 and count in the normalisation. Eigenvalues of a covariance below 1e-10 of the largest count
    as zero."""
    return measures.pwcca(samples_pair(x, y))


def procrustes_distance(x, y) -> float:
    """Squared distance after the best rotation R of (n, features1) and (n, features2): min ‖X −
    YR‖², in [0, 2].

    X and Y are centred and scaled to Frobenius norm 1; the narrower one is padded with zero
    features (Ding et al. 2021, arXiv 2108.01661, section 2)."""
    return measures.procrustes(samples_pair(x, y))


def compare(
    activations1, activations2, metrics: Sequence[str] = PAPER, *, alignment: str = "auto"
) -> dict[str, float]:
    """Return the similarity of two activations for the same n inputs.

    Measures of Gram matrices take each flattened. For the others, positions of feature maps of
    equal shape and tokens in equal number are the samples, and otherwise averages over positions or
    tokens are the features, as in the paper's code. Warns as the script does, of biased values for
    example.

    Args:
        activations1, activations2: (n, C, H, W), (n, T, D) or (n, D), array or tensor.
        metrics: names in `MEASURES`.
        alignment: `auto`, `pool` or `positions`, see `features.alignment_of`.
    Returns:
        By name, also of what costs nothing beside them: `cka`, `cka_debiased` and `mutual_knn` up to 1, higher for
        more similar; `pwcca`, `pwcca_morcos` (up to 1) and `procrustes` (up to 2) lower.
    Raises:
        UserError: a measure is unknown.
    """
    both = [torch.as_tensor(activations).detach() for activations in (activations1, activations2)]
    both = [
        activations if activations.is_floating_point() else activations.double()
        for activations in both
    ]
    n = len(both[0])
    if len(both[1]) != n or n < 2 or not all(2 <= x.ndim <= 4 for x in both):
        shapes = " and ".join(str(tuple(activations.shape)) for activations in both)
        raise ValueError(
            f"shapes {shapes}: give (n, C, H, W), (n, T, D) or (n, D), with the same n of at least 2"
        )
    sides = [
        Side(StoredActivations({name: activations}), [name])
        for name, activations in zip(NAMES, both, strict=True)
    ]
    batches = ((places, None) for places in torch.arange(n).split(64))
    options = {"n_images": n, "metrics": metrics, "alignment": alignment, "device": both[0].device}
    comparison = Comparison(take_statistics(*sides, batches, **options), advice=ADVICE)
    ((row,),) = comparison.rows()
    for reason, lacking in comparison.undefined.items():
        raise Undefined(f"no {', '.join(lacking)}: {reason}")
    for line in comparison.warnings():
        warn(line)
    return row.values


def samples_pair(x, y) -> SamplesPair:
    """Express arrays (n, features1) and (n, features2) by their own principal axes."""
    factors = [torch.linalg.svd(z - z.mean(0), full_matrices=False) for z in _matrices(x, y)]
    first, second = (
        Samples(name, axes.T, deviations.square(), scale=0.0).basis(len(axes))
        for name, (_, deviations, axes) in zip(NAMES, factors, strict=True)
    )
    (basis1, deviations1, _), (basis2, deviations2, _) = factors
    return SamplesPair(first, second, deviations1[:, None] * (basis1.T @ basis2) * deviations2)


def _of_grams(measure: Callable[[Grams], Tensor], x, y, *, at_least: int) -> float:
    matrices = []
    for z in _matrices(x, y):
        if len(z) < at_least:
            raise Undefined(f"this measure needs at least {at_least} samples, not {len(z)}")
        mean = z.mean(0)
        centred = z - mean
        grams = Grams((centred @ centred.T)[None], (centred @ mean + mean.square().sum() / 2)[None])
        matrices.append(measure(grams))
    return float(measures.cosines(*matrices))


def _matrices(x, y) -> list[Tensor]:
    """Convert two arrays or tensors (n, ...) to samples × features in double precision."""
    both = [torch.as_tensor(z).detach().double() for z in (x, y)]
    for name, z in zip(NAMES, both, strict=True):
        if z.ndim < 2 or len(z) < 2:
            raise ValueError(
                f"{name} has shape {tuple(z.shape)}; give at least two samples × features"
            )
        if not z.isfinite().all():
            raise Undefined(f"{name} has values that are not finite")
        if (z - z.mean(0)).square().sum() <= ROUNDING * z.square().sum():
            raise Undefined(f"{name} is constant over the samples")
    if len(both[0]) != len(both[1]):
        raise ValueError(f"{len(both[0])} samples cannot be compared with {len(both[1])}")
    return [z.flatten(1) for z in both]
