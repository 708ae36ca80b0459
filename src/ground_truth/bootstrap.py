"""Intervals of scores by a bootstrap over networks (Efron 1979): other seeds would have given other networks.

Networks are drawn with replacement within each group. A network that is drawn twice is no pair with its own copy.
Resamples without a score, in which a group is one network many times, are left out. In a simulation of points in eight
dimensions, three groups of five, the intervals of 95 % of group scores covered in 87 % (groups far apart) to 100 %.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.ground_truth.scores import group_scores, layer_scores, output_correlation
from src.results.rows import Interval

N_RESAMPLES = 1000
LEVEL = 0.95


def resamples(groups: ArrayLike, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Iterator[NDArray]:
    """Draw networks with replacement within each group, as many as the group has.

    Args:
        groups: (N,), numbers or names.
    Yields:
        Indices (N,): the i-th is of the group of network i.
    """
    groups = np.asarray(groups)
    members = [np.flatnonzero(groups == name) for name in dict.fromkeys(groups.tolist())]
    rng = np.random.default_rng(seed)
    for _ in range(n_resamples):
        drawn = np.empty(len(groups), dtype=np.intp)
        for own in members:
            drawn[own] = rng.choice(own, size=len(own))
        yield drawn


def group_score_intervals(
    similarity: ArrayLike, groups: ArrayLike, *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> tuple[Interval, Interval]:
    """Return the intervals of 95 % of both of `group_scores`; arguments and errors are its own."""
    similarity, groups = np.asarray(similarity), np.asarray(groups)
    draws = resamples(groups, n_resamples=n_resamples, seed=seed)
    scores = [group_scores(_pairs(similarity, drawn), groups, networks=drawn) for drawn in draws]
    auprc, conformity = map(interval, zip(*scores, strict=True))
    return auprc, conformity


def output_correlation_interval(
    similarity: ArrayLike,
    difference: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the interval of 95 % of `output_correlation`; arguments and errors are its own.

    Args:
        groups: (N,), within which networks are drawn; by default they are one group.
    """
    similarity, difference = np.asarray(similarity), np.asarray(difference)
    groups = np.zeros(len(similarity)) if groups is None else groups
    draws = resamples(groups, n_resamples=n_resamples, seed=seed)
    return interval(
        output_correlation(_pairs(similarity, drawn), _pairs(difference, drawn), networks=drawn) for drawn in draws
    )


def layer_score_intervals(
    similarities: Sequence[ArrayLike], *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> tuple[Interval, Interval]:
    """Return the intervals of 95 % of the means of both of `layer_scores` over networks.

    Args:
        similarities: (N, L, L), the layers of each network.
    """
    scores = np.array([layer_scores(of_network) for of_network in similarities])
    draws = resamples(np.zeros(len(scores)), n_resamples=n_resamples, seed=seed)
    means = np.array([scores[drawn].mean(0) for drawn in draws])
    conformity, spearman = map(interval, means.T)
    return conformity, spearman


def _pairs(matrix: NDArray, drawn: NDArray) -> NDArray:
    return matrix[np.ix_(drawn, drawn)]


def interval(scores: Iterable[float]) -> Interval:
    """Return the percentiles that leave out the same share at both ends, without those that are NaN; NaN of none."""
    values = np.array(list(scores))
    values = values[~np.isnan(values)]
    if not values.size:
        return Interval(np.nan, np.nan)
    return Interval(*np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist())
