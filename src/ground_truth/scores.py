"""How well a similarity measure tells networks of one construction, outputs that differ, and layers
by depth.

A matrix of similarities is symmetric and higher where networks or layers are more alike: take the
negative of a distance, and average a directed measure over both directions before. The diagonal is
not read."""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata


class GroupScores(NamedTuple):
    """How well a measure finds the pairs within groups; both are 1 where all of them are the most
    similar ones."""

    auprc: float  # average precision, in (0, 1]; by chance as `chance_scores` says
    # share of (within, across) pairs of pairs in the right order, in [0, 1]; by chance 1/2
    conformity: float


class LayerScores(NamedTuple):
    """How well a measure orders layers by depth; both are 1 where similarity falls with distance in
    depth."""

    conformity: float  # share of triples whose farther layer is not more similar, in [0, 1]
    spearman: float  # of similarity with nearness in depth, in [-1, 1]


def group_scores(similarity: ArrayLike, groups: ArrayLike) -> GroupScores:
    """Score how well a measure tells the pairs of networks within a group from those across groups.

    For each group in turn, pairs of two of its networks are positive, pairs of one of them with a
    network of another group are negative. `auprc` is average precision, Σ (Rₙ − Rₙ₋₁) Pₙ over the
    distinct similarities, as scikit-learn's `average_precision_score`. `conformity` is the share of
    (positive, negative) pairs of which the positive one is more similar; a tie counts as wrong.
    Both are averaged over groups (Klabunde et al. 2025, section 3).

    Args:
        similarity: (N, N), symmetric, higher is more alike.
        groups: (N,), numbers or names.
    Returns:
        NaN for both where a group has no positive or no negative pair, or a similarity of a pair is NaN.
    Raises:
        ValueError: the matrix is not symmetric, or shapes do not fit.
    """
    similarity, groups = _symmetric(similarity), np.asarray(groups)
    if groups.shape != similarity.shape[:1]:
        raise ValueError(f"{groups.shape} groups for a matrix of {len(similarity)} networks")
    first, second = np.triu_indices(len(groups), 1)
    return GroupScores(
        *map(float, group_scores_of_pairs(similarity[first, second], groups[first], groups[second]))
    )


def group_scores_of_pairs(values: NDArray, first: NDArray, second: NDArray) -> GroupScores:
    """Return `group_scores` (...) of sets of pairs: their similarities and the groups of both
    networks, (..., P) each.

    Sets may lack pairs; one with a similarity of NaN has no score.
    """
    order = np.argsort(-values, axis=-1, kind="stable")
    values, first, second = (
        np.take_along_axis(each, order, -1) for each in (values, first, second)
    )
    n_pairs = values.shape[-1]
    # Equal similarities are found together: each place stands for the last one of its value
    changes = np.concatenate(
        [values[..., 1:] != values[..., :-1], np.ones_like(values[..., :1], dtype=bool)], axis=-1
    )
    ends = np.where(changes, np.arange(n_pairs), n_pairs)
    last = np.minimum.accumulate(ends[..., ::-1], axis=-1)[..., ::-1]
    scores = []
    for group in np.unique(np.concatenate([first, second])):
        within, across = (first == group) & (second == group), (first == group) ^ (second == group)
        found, wrong = (np.take_along_axis(each.cumsum(-1), last, -1) for each in (within, across))
        n_within, n_across = within.sum(-1), across.sum(-1)
        n_compared = np.where(n_within * n_across > 0, n_within * n_across, math.nan)
        precision = (within * found / np.maximum(found + wrong, 1)).sum(-1) * n_across / n_compared
        scores.append((precision, (within * (n_across[..., None] - wrong)).sum(-1) / n_compared))
    spoilt = np.where(np.isnan(values).any(-1), math.nan, 0.0)
    return GroupScores(*(np.mean(scores, axis=0) + spoilt))


def chance_scores(groups: ArrayLike) -> GroupScores:
    """Return the expected `group_scores` of a measure that orders all pairs at random, without
    ties.

    Of n pairs, r of them positive, the pair at place i is positive with probability r/n, and then
    an expected share (1 + (i − 1)(r − 1)/(n − 1))/i of the first i pairs is. With three groups of
    five networks that makes 0.22, more than the share of positive pairs, 10/60.

    Args:
        groups: (N,), numbers or names.
    """
    precisions = []
    for size in np.unique(groups, return_counts=True)[1]:
        within, across = math.comb(size, 2), int(size) * (len(groups) - int(size))
        if not within or not across:
            return GroupScores(math.nan, math.nan)
        n, places = within + across, np.arange(1, within + across + 1)
        precisions.append(np.mean((1 + (places - 1) * (within - 1) / (n - 1)) / places))
    return GroupScores(float(np.mean(precisions)), 0.5)


def output_correlation(similarity: ArrayLike, difference: ArrayLike) -> float:
    """Return Spearman's correlation of similarity with the difference of outputs, over all pairs of
    networks.

    Equal values get the mean of their ranks. A good measure is low where outputs differ: its
    correlation is negative, -1 at best. The negative of it is a score.

    Args:
        similarity: (N, N), symmetric, higher is more alike.
        difference: (N, N), symmetric, higher where outputs differ more (see `output_differences`).
    Returns:
        In [-1, 1]; NaN where one side is constant or has a NaN.
    Raises:
        ValueError: a matrix is not symmetric, or the shapes differ.
    """
    similarity = _symmetric(similarity)
    difference = _symmetric(difference)
    if similarity.shape != difference.shape:
        raise ValueError(
            f"{similarity.shape} similarities and {difference.shape} differences: give both of the "
            "same networks"
        )
    pairs = np.triu_indices(len(similarity), 1)
    return float(_spearman(similarity[pairs], difference[pairs]))


def rank_correlation(x: NDArray, y: NDArray, given: NDArray | None = None) -> NDArray:
    """Return Spearman's correlation (...) of values (..., P), or the partial correlation.

    Args:
        given: (..., P), a variable whose part in `x` and in `y` is taken out; the correlation is 0
            where that leaves nothing.
    """
    of_both = _spearman(x, y)
    if given is None:
        return of_both
    of_x, of_y = _spearman(x, given), _spearman(y, given)
    left = np.sqrt(np.maximum((1 - of_x**2) * (1 - of_y**2), 0))
    return np.where(left < 1e-9, 0.0 * of_both, (of_both - of_x * of_y) / np.maximum(left, 1e-9))


def layer_scores(similarity: ArrayLike) -> LayerScores:
    """Score how well a measure orders the layers of a network by depth.

    For layers i < j < k, k is farther from i than j is, and i is farther from k than j is: two
    triples. `conformity` is the share of triples whose farther layer is not more similar, so that a
    tie is right. `spearman` is the negative of Spearman's correlation of similarity with distance
    in depth, k − i, over all pairs of layers.

    Args:
        similarity: (L, L), symmetric, layers in the order of depth, higher is more alike.
    Returns:
        NaN for both where there are fewer than 3 layers or a similarity is NaN; for `spearman` where all are equal.
    Raises:
        ValueError: the matrix is not symmetric.
    """
    similarity = _symmetric(similarity)
    above = np.triu_indices(len(similarity), 1)
    if len(similarity) < 3 or np.isnan(similarity[above]).any():
        return LayerScores(math.nan, math.nan)
    i, j, k = np.array(list(combinations(range(len(similarity)), 3))).T
    right = np.concatenate(
        [similarity[i, j] >= similarity[i, k], similarity[j, k] >= similarity[i, k]]
    )
    return LayerScores(
        float(right.mean()), float(_spearman(similarity[above], above[0] - above[1]))
    )


def _symmetric(matrix: ArrayLike) -> NDArray:
    """Return a matrix in double precision; raises ValueError where it is not symmetric, up to
    rounding of float32."""
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) != matrix.shape[1]:
        raise ValueError(f"a matrix of pairs is square, not {matrix.shape}")
    finite = np.abs(matrix[np.isfinite(matrix)])
    if not np.allclose(matrix, matrix.T, rtol=0, atol=1e-6 * finite.max(initial=0), equal_nan=True):
        raise ValueError(
            "the matrix is not symmetric: average a directed measure over both directions"
        )
    return matrix


def _spearman(x: NDArray, y: NDArray) -> NDArray:
    """Return Spearman's correlation (...) over the last axis; NaN where a side is constant, short
    or has a NaN."""
    if x.shape[-1] < 2:
        return np.full(np.broadcast_shapes(x.shape, y.shape)[:-1], math.nan)
    of_x, of_y = (
        ranks - ranks.mean(-1, keepdims=True)
        for ranks in (rankdata(x, axis=-1), rankdata(y, axis=-1))
    )
    scale = np.sqrt((of_x**2).sum(-1) * (of_y**2).sum(-1))
    return (of_x * of_y).sum(-1) / np.where(scale > 0, scale, math.nan)
