"""How well a similarity measure tells networks of one construction, outputs that differ, and layers by depth.

A matrix of similarities is symmetric and higher where networks or layers are more alike: take the negative of a
distance, and average a directed measure over both directions before. The diagonal is not read.
"""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata


class GroupScores(NamedTuple):
    """How well a measure finds the pairs within groups; both are 1 where all of them are the most similar ones."""

    auprc: float  # average precision, in (0, 1]; by chance as `chance_scores` says
    conformity: float  # share of (within, across) pairs of pairs in the right order, in [0, 1]; by chance 1/2


class LayerScores(NamedTuple):
    """How well a measure orders layers by depth; both are 1 where similarity falls with distance in depth."""

    conformity: float  # share of triples whose farther layer is not more similar, in [0, 1]
    spearman: float  # of similarity with nearness in depth, in [-1, 1]


def group_scores(similarity: ArrayLike, groups: ArrayLike, *, networks: ArrayLike | None = None) -> GroupScores:
    """Score how well a measure tells the pairs of networks within a group from those across groups.

    For each group in turn, pairs of two of its networks are positive, pairs of one of them with a network of another
    group are negative. `auprc` is average precision, Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct similarities, as
    scikit-learn's `average_precision_score`. `conformity` is the share of (positive, negative) pairs of which the
    positive one is more similar; a tie counts as wrong. Both are averaged over groups (Klabunde et al. 2025,
    section 3).

    Args:
        similarity: (N, N), symmetric, higher is more alike.
        groups: (N,), numbers or names.
        networks: (N,), which network each row is of; pairs of a network with itself are left out. By default all
            rows are of different networks; a bootstrap repeats some.
    Returns:
        NaN for both where a group has no positive or no negative pair, or a similarity of a pair is NaN.
    Raises:
        ValueError: the matrix is not symmetric, or shapes do not fit.
    """
    similarity = _symmetric(similarity)
    members, compared = _per_network(groups, similarity), _compared(similarity, networks)
    scores = [
        _tell_apart(similarity[within & compared], similarity[across & compared])
        for within, across in map(_pairs_of_group, _indicators(members))
    ]
    return GroupScores(*np.mean(scores, axis=0).tolist())


def chance_scores(groups: ArrayLike) -> GroupScores:
    """Return the expected `group_scores` of a measure that orders all pairs at random, without ties.

    Of n pairs, r of them positive, the pair at place i is positive with probability r/n, and then an expected share
    (1 + (i − 1)(r − 1)/(n − 1))/i of the first i pairs is. With three groups of five networks that makes 0.22, more
    than the share of positive pairs, 10/60.

    Args:
        groups: (N,), numbers or names.
    """
    precisions = []
    for members in _indicators(np.asarray(groups)):
        within, across = (int(marked.sum()) for marked in _pairs_of_group(members))
        if not within or not across:
            return GroupScores(math.nan, math.nan)
        n, places = within + across, np.arange(1, within + across + 1)
        precisions.append(np.mean((1 + (places - 1) * (within - 1) / (n - 1)) / places))
    return GroupScores(float(np.mean(precisions)), 0.5)


def output_correlation(similarity: ArrayLike, difference: ArrayLike, *, networks: ArrayLike | None = None) -> float:
    """Return Spearman's correlation, over all pairs of networks, of similarity with the difference of outputs.

    Equal values get the mean of their ranks. A good measure is low where outputs differ: its correlation is negative,
    -1 at best. The negative of it is a score.

    Args:
        similarity: (N, N), symmetric, higher is more alike.
        difference: (N, N), symmetric, higher where outputs differ more (see `output_differences`).
        networks: as in `group_scores`.
    Returns:
        In [-1, 1]; NaN where one side is constant or has a NaN.
    Raises:
        ValueError: a matrix is not symmetric, or shapes do not fit.
    """
    similarity, difference = _symmetric(similarity), _symmetric(difference)
    if similarity.shape != difference.shape:
        raise ValueError(f"similarities {similarity.shape} and differences {difference.shape} of other networks")
    pairs = np.triu(_compared(similarity, networks), 1)
    return _spearman(similarity[pairs], difference[pairs])


def layer_scores(similarity: ArrayLike) -> LayerScores:
    """Score how well a measure orders the layers of a network by depth.

    For layers i < j < k, k is farther from i than j is, and i is farther from k than j is: two triples. `conformity`
    is the share of triples whose farther layer is not more similar, so that a tie is right. `spearman` is the negative
    of Spearman's correlation of similarity with distance in depth, k − i, over all pairs of layers.

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
    right = np.concatenate([similarity[i, j] >= similarity[i, k], similarity[j, k] >= similarity[i, k]])
    return LayerScores(float(right.mean()), _spearman(similarity[above], above[0] - above[1]))


def _symmetric(matrix: ArrayLike) -> NDArray:
    """Return a matrix in double precision; raises ValueError where it is not symmetric, up to rounding of float32."""
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) != matrix.shape[1]:
        raise ValueError(f"a matrix of pairs is square, not {matrix.shape}")
    finite = np.abs(matrix[np.isfinite(matrix)])
    if not np.allclose(matrix, matrix.T, rtol=0, atol=1e-6 * finite.max(initial=0), equal_nan=True):
        raise ValueError("the matrix is not symmetric: average a directed measure over both directions")
    return matrix


def _per_network(values: ArrayLike, matrix: NDArray) -> NDArray:
    values = np.asarray(values)
    if values.shape != matrix.shape[:1]:
        raise ValueError(f"{values.shape} values for a matrix of {len(matrix)} networks")
    return values


def _compared(matrix: NDArray, networks: ArrayLike | None) -> NDArray:
    """Mark the pairs (N, N) of two different networks."""
    of_row = np.arange(len(matrix)) if networks is None else _per_network(networks, matrix)
    return of_row[:, None] != of_row


def _indicators(groups: NDArray) -> NDArray:
    """Mark the members of each group: (number of groups, N)."""
    return np.unique(groups)[:, None] == groups


def _pairs_of_group(members: NDArray) -> tuple[NDArray, NDArray]:
    """Mark the pairs within a group, above the diagonal, and those of a member with another network: (N, N) each."""
    return np.triu(np.outer(members, members), 1), np.outer(members, ~members)


def _tell_apart(within: NDArray, across: NDArray) -> tuple[float, float]:
    """Return average precision and conformity rate of positive and negative similarities; NaN where one is empty."""
    if not within.size or not across.size or np.isnan(within).any() or np.isnan(across).any():
        return math.nan, math.nan
    within, across = np.sort(within), np.sort(across)
    # For each positive similarity: how many of either kind are at least as similar
    n_within = len(within) - np.searchsorted(within, within, side="left")
    n_across = len(across) - np.searchsorted(across, within, side="left")
    n_below = np.searchsorted(across, within, side="left")
    return float(np.mean(n_within / (n_within + n_across))), float(np.mean(n_below / len(across)))


def _spearman(x: NDArray, y: NDArray) -> float:
    """Return Spearman's rank correlation; NaN where one side is constant or has a NaN."""
    if len(x) < 2 or any(np.isnan(side).any() or (side == side[0]).all() for side in (x, y)):
        return math.nan
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
