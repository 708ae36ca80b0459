"""The tests of the study (misc/docs/study.md): values of pairs of networks in, differences of groups out.

Values are symmetric matrices (N, N) by network; the diagonal is ignored, NaN stands for a pair without a value. Labels
(N,) say which networks are robust."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from src.statistics.jackknife import jackknife_variance
from src.statistics.permutations import (
    END,
    MAX_EXACT,
    ROUNDING,
    TIE,
    TIE_OF_P,
    all_labelings,
    permutation_test,
    random_labelings,
    welch_p,
)

LEVEL = 0.05
NAMEABLE = 0.05  # a smaller difference is not worth naming


class Means(NamedTuple):
    """Means over pairs of networks; NaN without such a pair."""

    robust: float  # of two robust networks
    standard: float
    across: float

    @property
    def more_alike(self) -> float:
        """The difference of H1: robust networks are more alike than standard ones."""
        return self.robust - self.standard

    @property
    def shared(self) -> float:
        """The difference of H2: robust networks share properties that standard networks lack."""
        return self.robust - self.across


class Difference(NamedTuple):
    """A difference of means, its interval of 95 %, and its p-value; NaN: not defined."""

    value: float
    low: float = math.nan
    high: float = math.nan
    p_value: float = math.nan


Statistic = Callable[[np.ndarray, np.ndarray], float]  # of values and labels


def means_of_groups(values: np.ndarray, is_robust: np.ndarray) -> Means:
    """Return the means over pairs of two robust networks, of two standard ones, and of one of each."""
    first, second = np.triu_indices(len(values), 1)
    n_robust = is_robust[first].astype(int) + is_robust[second]
    of_pairs = values[first, second]
    means = {}
    for n in (2, 0, 1):
        chosen = of_pairs[(n_robust == n) & ~np.isnan(of_pairs)]
        means[n] = float(chosen.mean()) if len(chosen) else math.nan
    return Means(means[2], means[0], means[1])


def more_alike(values: np.ndarray, is_robust: np.ndarray) -> float:
    """Return the difference of H1."""
    return means_of_groups(values, is_robust).more_alike


def shared(values: np.ndarray, is_robust: np.ndarray) -> float:
    """Return the difference of H2."""
    return means_of_groups(values, is_robust).shared


def difference_of_h1(values: np.ndarray, is_robust: np.ndarray) -> Difference:
    """Return the difference of H1, with its test: see `more_alike_p`."""
    p_value = more_alike_p(values, is_robust)
    return with_interval(more_alike, values, is_robust, p_value)


def difference_of_h2(values: np.ndarray, is_robust: np.ndarray) -> Difference:
    """Return the difference of H2, with the suite's test of two groups."""
    p_value = math.nan
    if is_complete(values) and is_robust.sum() > 1:
        p_value = permutation_test(values, is_robust, side=END).p_value
    return with_interval(shared, values, is_robust, p_value)


def is_complete(values: np.ndarray) -> bool:
    """Return whether all pairs of networks have a value."""
    return not np.isnan(values[~np.eye(len(values), dtype=bool)]).any()


def more_alike_p(values: np.ndarray, is_robust: np.ndarray) -> float:
    """Return the p-value of H1, two-sided, by permutations of the networks.

    The value of a network is its mean over the pairs with its own group. A labeling counts by the
    p-value of Welch's test of these, as in `src.statistics.permutations`.

    Returns:
        NaN if a pair has no value, or a group has one network.
    """
    n_robust = int(is_robust.sum())
    if not is_complete(values) or min(n_robust, len(values) - n_robust) < 2:
        return math.nan
    rounding = ROUNDING * np.abs(values[~np.eye(len(values), dtype=bool)]).max()
    labelings = labelings_of(is_robust)
    of_labelings = welch_p(means_with_own(values, labelings), labelings, rounding)
    observed = welch_p(means_with_own(values, is_robust[None]), is_robust[None], rounding).item()
    return float((of_labelings <= observed * (1 + TIE_OF_P)).mean())


def labelings_of(is_robust: np.ndarray) -> np.ndarray:
    """Return all ways (P, N) to call so many networks robust; of too many, a random sample."""
    n_robust = int(is_robust.sum())
    if math.comb(len(is_robust), n_robust) <= MAX_EXACT:
        return all_labelings(len(is_robust), n_robust)
    return random_labelings(is_robust)


def means_with_own(values: np.ndarray, labelings: np.ndarray) -> np.ndarray:
    """Return the mean (P, N) of each network over the pairs with its own group, by labeling."""
    without_diagonal = values.copy()
    np.fill_diagonal(without_diagonal, 0.0)
    in_group = labelings.astype(np.float64)
    n_in_group = in_group.sum(1, keepdims=True)
    with_group = in_group @ without_diagonal / (n_in_group - 1)
    with_others = (1 - in_group) @ without_diagonal / (labelings.shape[1] - n_in_group - 1)
    return np.where(labelings, with_group, with_others)


def with_interval(
    statistic: Statistic, values: np.ndarray, is_robust: np.ndarray, p_value: float = math.nan
) -> Difference:
    """Return a statistic with its interval, by the jackknife over networks and Student's t."""
    value = statistic(values, is_robust)
    without_network = []
    for i in range(len(values)):
        kept = np.arange(len(values)) != i
        without_network.append(statistic(values[np.ix_(kept, kept)], is_robust[kept]))
    error = math.sqrt(jackknife_variance(without_network))
    half_width = float(student.ppf(0.975, len(values) - 1)) * error
    return Difference(value, value - half_width, value + half_width, p_value)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values (n,) adjusted for the family-wise error (Holm 1979); NaN is no test."""
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(len(values), np.nan)
    tests = np.flatnonzero(~np.isnan(values))
    order = tests[np.argsort(values[tests])]
    scaled = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.maximum.accumulate(scaled).clip(max=1)
    return adjusted


def reading(tested: Difference, adjusted_p: float, raw_value: float) -> str:
    """Return the reading of a hypothesis by a measure, by the rules of the plan.

    Args:
        tested: the difference of the excess.
        raw_value: the difference of the raw values.
    """
    if tested.value * raw_value < 0:
        return "open"
    if adjusted_p < LEVEL:
        return "supports" if tested.value > 0 else "contradicts"
    if -NAMEABLE < tested.low and tested.high < NAMEABLE:
        return "no difference worth naming"
    return "open"


def answer(readings: Sequence[str]) -> str:
    """Return the answer to a hypothesis from the readings of five measures, by the rules of the plan."""
    n_support = readings.count("supports")
    n_contradict = readings.count("contradicts")
    if n_support and n_contradict:
        return "it depends on the measure"
    if n_support >= 4:
        return "it holds"
    if n_support:
        return "it holds in part"
    if n_contradict or readings.count("no difference worth naming") == len(readings):
        return "it is refuted"
    return "these networks do not tell"


def adjusted_h1(
    values: np.ndarray, is_robust: np.ndarray, covariates: Sequence[np.ndarray]
) -> Difference:
    """Return the difference of H1 beside covariates of pairs, and its p-value.

    Least squares fit the values of pairs by a constant, two group terms (both robust, both standard)
    and the covariates. The difference is that of the coefficients of the group terms. A labeling
    counts by the difference divided by its standard error.

    Args:
        covariates: matrices (N, N) by network.
    Returns:
        NaN where there are no more pairs than coefficients, or a value is missing.
    """
    first, second = np.triu_indices(len(values), 1)
    further = np.stack([covariate[first, second] for covariate in covariates], axis=1)
    of_pairs = values[first, second]
    has_values = np.isfinite(of_pairs).all() and np.isfinite(further).all()
    if not has_values or len(of_pairs) <= 3 + further.shape[1]:
        return Difference(math.nan)
    fits = []
    for labels in (is_robust, *labelings_of(is_robust)):
        fits.append(_fit(of_pairs, labels[first], labels[second], further))
    (value, observed), *permuted = fits
    n_as_high = sum(abs(t) >= abs(observed) - TIE for _, t in permuted)
    return Difference(value, p_value=n_as_high / len(permuted))


def _fit(
    of_pairs: np.ndarray, first: np.ndarray, second: np.ndarray, further: np.ndarray
) -> tuple[float, float]:
    """Return the difference of the coefficients of the group terms, and its t."""
    design = np.column_stack([np.ones(len(of_pairs)), first & second, ~first & ~second, further])
    contrast = np.zeros(design.shape[1])
    contrast[1:3] = 1, -1
    inverse = np.linalg.pinv(design.T @ design)
    coefficients = inverse @ (design.T @ of_pairs)
    residuals = of_pairs - design @ coefficients
    freedom = len(of_pairs) - design.shape[1]
    variance = float(residuals @ residuals) / freedom * float(contrast @ inverse @ contrast)
    value = float(contrast @ coefficients)
    return value, value / math.sqrt(variance) if variance > 0 else 0.0
