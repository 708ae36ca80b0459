"""Intervals of scores by a bootstrap over networks (Efron 1979): other seeds would have given other networks.

Networks are drawn with replacement within each group. A network that is drawn twice is no pair with its own copy.
Resamples without a score, in which a group is one network many times, are left out. In a simulation of points in eight
dimensions, three groups of five, the intervals of 95 % of group scores covered in 87 % (groups far apart) to 100 %.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.results.tables import Interval

N_RESAMPLES = 1000
LEVEL = 0.95
MIN_DRAWS = 10  # different ones that have a score; groups of two, and one of three, give fewer


def draw_counts(groups: ArrayLike, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> NDArray:
    """Draw networks with replacement within each group, as many as the group has.

    Args:
        groups: (N,), numbers or names.
    Returns:
        (n_resamples, N): how often each network was drawn.
    """
    groups = np.asarray(groups)
    rng = np.random.default_rng(seed)
    counts = np.empty((n_resamples, len(groups)), dtype=np.int64)
    for name in dict.fromkeys(groups.tolist()):
        own = np.flatnonzero(groups == name)
        counts[:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=n_resamples)
    return counts


def weighted_mean(values: ArrayLike, weights: ArrayLike = 1.0) -> NDArray:
    """Return the mean over the last axis of what is not NaN; NaN where all is, or counts 0 times."""
    known = ~np.isnan(values)
    total = (known * np.asarray(weights)).sum(-1)
    return (np.where(known, values, 0) * weights).sum(-1) / np.where(total > 0, total, np.nan)


def interval(scores: ArrayLike, counts: NDArray) -> Interval:
    """Return the percentiles that leave out the same share of scores at both ends.

    Args:
        scores: (n_resamples,), of the networks drawn; those that are NaN are left out.
        counts: (n_resamples, N), from `draw_counts`.
    Returns:
        NaN where fewer than `MIN_DRAWS` different draws have a score, which say nothing about other networks.
    """
    scores = np.asarray(scores)
    has_score = ~np.isnan(scores)
    if len(np.unique(counts[has_score], axis=0)) < MIN_DRAWS:
        return Interval(np.nan, np.nan)
    return Interval(*np.quantile(scores[has_score], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist())
