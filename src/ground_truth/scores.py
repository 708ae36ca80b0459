"""Scores of a similarity measure, against known differences of networks or layers.

It should tell which networks were made in one way, which networks have different outputs, and which
layers are near in depth.

Matrices of similarities are symmetric; higher means more similar. Give the negative of a distance,
and average a directed measure over both directions before. The diagonal is not read."""

import math
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import scipy  # loads a part of it at its first use
from numpy.typing import ArrayLike, NDArray


class GroupScores(NamedTuple):
    """Scores of a measure in telling pairs of networks within groups from pairs across groups.

    Both scores are 1 if the pairs within groups are the most similar ones."""

    # Floats, or arrays (...) of sets of pairs
    auprc: Any  # average precision, in (0, 1]; for the value by chance see `chance_scores`
    conformity: Any  # share of (within, across) in the right order, in [0, 1]; by chance 1/2


class LayerScores(NamedTuple):
    """Scores of a measure in ordering layers by depth.

    Both scores are 1 if similarity falls with distance in depth."""

    conformity: float  # share of triples whose farther layer is not more similar, in [0, 1]
    spearman: float  # correlation of similarity with nearness in depth, in [-1, 1]


def group_scores(similarity: ArrayLike, groups: ArrayLike) -> GroupScores:
    """Score how well a measure tells pairs of networks within groups from pairs across groups.

    For a group, pairs of two of its networks are positive; pairs of a network of the group with a
    network of another group are negative. `auprc` is average precision, Σ (Rₙ − Rₙ₋₁) Pₙ over the
    distinct similarities, as in scikit-learn's `average_precision_score`. `conformity` is the share
    of (positive, negative) whose positive pair is more similar; a tie counts as wrong. Both scores
    are means over groups (Klabunde et al. 2025, section 3).

    Args:
        similarity: (N, N), symmetric, higher is more similar.
        groups: (N,), numbers or names.
    Returns:
        Both scores; NaN if a group lacks positive or negative pairs, or a similarity is NaN.
    Raises:
        ValueError: the matrix is not symmetric, or shapes do not fit.
    """
    similarity = _symmetric(similarity)
    groups = np.asarray(groups)
    if groups.shape != similarity.shape[:1]:
        raise ValueError(f"{groups.shape} groups for a matrix of {len(similarity)} networks")
    first, second = np.triu_indices(len(groups), 1)
    scores = group_scores_of_pairs(similarity[first, second], groups[first], groups[second])
    return GroupScores(float(scores.auprc), float(scores.conformity))


def group_scores_of_pairs(values: NDArray, first: NDArray, second: NDArray) -> GroupScores:
    """Return the group scores of sets of pairs, (...); see `group_scores`.

    A set need not have all pairs of its networks. A set with a similarity of NaN scores NaN.

    Args:
        values: similarities of pairs, (..., P).
        first, second: the groups of both networks of each pair, (..., P).
    """
    # The most similar pairs first
    order = np.argsort(-values, axis=-1, kind="stable")
    values = np.take_along_axis(values, order, -1)
    first = np.take_along_axis(first, order, -1)
    second = np.take_along_axis(second, order, -1)
    last = _last_places_of_ties(values)

    # For each group: how many pairs are at least as similar as each pair
    scores = []
    for group in np.unique(np.concatenate([first, second])):
        is_within = (first == group) & (second == group)
        is_across = (first == group) ^ (second == group)
        n_true = np.take_along_axis(is_within.cumsum(-1), last, -1)  # (..., P)
        n_false = np.take_along_axis(is_across.cumsum(-1), last, -1)
        n_within = is_within.sum(-1)  # (...)
        n_across = is_across.sum(-1)
        n_compared = np.where(n_within * n_across > 0, n_within * n_across, math.nan)
        precisions = is_within * n_true / np.maximum(n_true + n_false, 1)
        n_right = is_within * (n_across[..., None] - n_false)
        auprc = precisions.sum(-1) * n_across / n_compared
        scores.append((auprc, n_right.sum(-1) / n_compared))

    is_nan = np.isnan(values).any(-1)
    auprc, conformity = np.where(is_nan, math.nan, np.mean(scores, axis=0))
    return GroupScores(auprc, conformity)


def _last_places_of_ties(values: NDArray) -> NDArray:
    """Return the last place at which each value (..., P) stands; values are sorted."""
    n_values = values.shape[-1]
    is_last = np.ones_like(values, dtype=bool)
    is_last[..., :-1] = values[..., 1:] != values[..., :-1]
    places = np.where(is_last, np.arange(n_values), n_values)
    return np.minimum.accumulate(places[..., ::-1], axis=-1)[..., ::-1]


def chance_scores(groups: ArrayLike) -> GroupScores:
    """Return the expected `group_scores` of a measure that orders all pairs at random.

    Of n pairs, r of them positive, the pair at place i is positive with probability r/n. Then a
    share (1 + (i − 1)(r − 1)/(n − 1))/i of the first i pairs is expected to be positive. Three
    groups of five networks have 0.22: more than the share of positive pairs, 10/60.

    Args:
        groups: (N,), numbers or names.
    """
    sizes = np.unique(groups, return_counts=True)[1].tolist()
    precisions = []
    for size in sizes:
        n_within = math.comb(size, 2)
        n_across = size * (sum(sizes) - size)
        if n_within == 0 or n_across == 0:
            return GroupScores(math.nan, math.nan)
        n_pairs = n_within + n_across
        places = np.arange(1, n_pairs + 1)
        expected = (1 + (places - 1) * (n_within - 1) / (n_pairs - 1)) / places
        precisions.append(np.mean(expected))
    return GroupScores(float(np.mean(precisions)), 0.5)


def output_correlation(similarity: ArrayLike, difference: ArrayLike) -> float:
    """Return Spearman's correlation of similarities and differences of outputs, over all pairs.

    Equal values get the mean of their ranks. A good measure is low where outputs differ: its
    correlation is negative, -1 at best.

    Args:
        similarity: (N, N), symmetric, higher is more similar.
        difference: (N, N), symmetric, higher where outputs differ more (see `output_differences`).
    Returns:
        In [-1, 1]; NaN if a matrix is constant or has a NaN.
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


def rank_correlation(x: NDArray, y: NDArray, control: NDArray | None = None) -> NDArray:
    """Return Spearman's correlation of values (..., P), or the partial correlation, (...).

    Args:
        control: (..., P), a variable whose part in `x` and in `y` is taken out. The correlation is
            0 if nothing is left of `x` or `y`.
    """
    x_with_y = _spearman(x, y)
    if control is None:
        return x_with_y
    x_with_control = _spearman(x, control)
    y_with_control = _spearman(y, control)
    unexplained = np.sqrt(np.maximum((1 - x_with_control**2) * (1 - y_with_control**2), 0))
    partial = (x_with_y - x_with_control * y_with_control) / np.maximum(unexplained, 1e-9)
    return np.where(unexplained < 1e-9, 0.0 * x_with_y, partial)  # 0 times NaN is NaN


def layer_scores(similarity: ArrayLike) -> LayerScores:
    """Score how well a measure orders the layers of a network by depth.

    Layers i < j < k give two triples: k is farther from i than j is, and i is farther from k than j
    is. `conformity` is the share of triples whose farther layer is not more similar; a tie counts
    as right. `spearman` is Spearman's correlation of similarity with nearness in depth, i − k, over
    all pairs of layers.

    Args:
        similarity: (L, L), symmetric, layers in the order of depth, higher is more similar.
    Returns:
        Both scores; NaN with fewer than 3 layers or if a similarity is NaN. If all similarities are
        equal, only `spearman` is NaN.
    Raises:
        ValueError: the matrix is not symmetric.
    """
    similarity = _symmetric(similarity)
    first, second = np.triu_indices(len(similarity), 1)
    values = similarity[first, second]
    if len(similarity) < 3 or np.isnan(values).any():
        return LayerScores(math.nan, math.nan)
    i, j, k = np.array(list(combinations(range(len(similarity)), 3))).T
    is_right = np.concatenate(
        [similarity[i, j] >= similarity[i, k], similarity[j, k] >= similarity[i, k]]
    )
    spearman = _spearman(values, first - second)
    return LayerScores(float(is_right.mean()), float(spearman))


def _symmetric(values: ArrayLike) -> NDArray:
    """Return a matrix in float64; a ValueError if it is not square, or not symmetric up to rounding."""
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) != matrix.shape[1]:
        raise ValueError(f"a matrix of pairs is square, not {matrix.shape}")
    largest = np.abs(matrix[np.isfinite(matrix)]).max(initial=0)
    if not np.allclose(matrix, matrix.T, rtol=0, atol=1e-6 * largest, equal_nan=True):
        raise ValueError(
            "the matrix is not symmetric: average a directed measure over both directions"
        )
    return matrix


def _spearman(x: NDArray, y: NDArray) -> NDArray:
    """Return Spearman's correlation over the last axis of (..., P), (...); NaN if it is not defined."""
    if x.shape[-1] < 2:
        return np.full(np.broadcast_shapes(x.shape, y.shape)[:-1], math.nan)
    x_ranks = _centred_ranks(x)
    y_ranks = _centred_ranks(y)
    scale = np.sqrt((x_ranks**2).sum(-1) * (y_ranks**2).sum(-1))
    return (x_ranks * y_ranks).sum(-1) / np.where(scale > 0, scale, math.nan)


def _centred_ranks(values: NDArray) -> NDArray:
    """Return the ranks along the last axis, less their mean."""
    ranks = scipy.stats.rankdata(values, axis=-1)
    return ranks - ranks.mean(-1, keepdims=True)
