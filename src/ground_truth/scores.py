"""How well a similarity measure tells networks of one construction, outputs that differ, and layers by depth.

A matrix of similarities is symmetric and higher where networks or layers are more alike: take the negative of a
distance, and average a directed measure over both directions before. The diagonal is not read.
"""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class GroupScores(NamedTuple):
    """How well a measure finds the pairs within groups; both are 1 where all of them are the most similar ones."""

    auprc: float  # average precision, in (0, 1]; by chance as `chance_scores` says
    conformity: float  # share of (within, across) pairs of pairs in the right order, in [0, 1]; by chance 1/2


class LayerScores(NamedTuple):
    """How well a measure orders layers by depth; both are 1 where similarity falls with distance in depth."""

    conformity: float  # share of triples whose farther layer is not more similar, in [0, 1]
    spearman: float  # of similarity with nearness in depth, in [-1, 1]


def group_scores(similarity: ArrayLike, groups: ArrayLike, *, counts: ArrayLike | None = None) -> GroupScores:
    """Score how well a measure tells the pairs of networks within a group from those across groups.

    For each group in turn, pairs of two of its networks are positive, pairs of one of them with a network of another
    group are negative. `auprc` is average precision, Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct similarities, as
    scikit-learn's `average_precision_score`. `conformity` is the share of (positive, negative) pairs of which the
    positive one is more similar; a tie counts as wrong. Both are averaged over groups (Klabunde et al. 2025,
    section 3).

    Args:
        similarity: (N, N), symmetric, higher is more alike.
        groups: (N,), numbers or names.
        counts: (..., N), how often each network counts, such as `draw_counts` gives; by default once.
    Returns:
        (...) each; NaN for both where a group has no positive or no negative pair, or a similarity of a pair is NaN.
    Raises:
        ValueError: the matrix is not symmetric, or shapes do not fit.
    """
    similarity = _symmetric(similarity)
    members, weights = _indicators(_per_network(groups, similarity)), _weights(similarity, counts)
    scores = [_tell_apart(similarity, weights, *_pairs_of_group(of_group)) for of_group in members]
    return GroupScores(*np.mean(scores, axis=0))


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


def output_correlation(similarity: ArrayLike, difference: ArrayLike, *, counts: ArrayLike | None = None) -> NDArray:
    """Return Spearman's correlation, over all pairs of networks, of similarity with the difference of outputs.

    Equal values get the mean of their ranks. A good measure is low where outputs differ: its correlation is negative,
    -1 at best. The negative of it is a score.

    Args:
        similarity: (N, N), symmetric, higher is more alike.
        difference: (N, N), symmetric, higher where outputs differ more (see `output_differences`).
        counts: (..., N), as in `group_scores`.
    Returns:
        (...), in [-1, 1]; NaN where one side is constant or has a NaN.
    Raises:
        ValueError: a matrix is not symmetric, or shapes do not fit.
    """
    similarity, difference = _symmetric(similarity), _symmetric(difference)
    if similarity.shape != difference.shape:
        raise ValueError(f"similarities {similarity.shape} and differences {difference.shape} of other networks")
    pairs = np.triu_indices(len(similarity), 1)
    return _spearman(similarity[pairs], difference[pairs], _weights(similarity, counts)[(..., *pairs)])


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
    return LayerScores(float(right.mean()), float(_spearman(similarity[above], above[0] - above[1])))


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


def _weights(matrix: NDArray, counts: ArrayLike | None) -> NDArray:
    """Return how often each pair of networks counts (..., N, N); a network that counts twice is no pair with itself."""
    counts = np.ones(len(matrix)) if counts is None else np.asarray(counts, dtype=np.float64)
    if counts.shape[-1:] != matrix.shape[:1]:
        raise ValueError(f"{counts.shape} counts for a matrix of {len(matrix)} networks")
    return counts[..., :, None] * counts[..., None, :]


def _indicators(groups: NDArray) -> NDArray:
    """Mark the members of each group: (number of groups, N)."""
    return np.unique(groups)[:, None] == groups


def _pairs_of_group(members: NDArray) -> tuple[NDArray, NDArray]:
    """Mark the pairs within a group, above the diagonal, and those of a member with another network: (N, N) each."""
    return np.triu(np.outer(members, members), 1), np.outer(members, ~members)


def _tell_apart(similarity: NDArray, weights: NDArray, within: NDArray, across: NDArray) -> tuple[NDArray, NDArray]:
    """Return average precision and conformity rate (...) of the pairs marked; NaN where one kind is empty."""
    positive, negative = similarity[within], similarity[across]
    n_positive, n_negative = weights[..., within], weights[..., across]
    if np.isnan(positive).any() or np.isnan(negative).any():
        return (np.full(weights.shape[:-2], math.nan),) * 2
    total_positive, total_negative = n_positive.sum(-1), n_negative.sum(-1)
    # For each positive pair: how many of either kind are less similar, and how many are not
    below_positive, _ = _counts_below(positive, n_positive, positive)
    below_negative, _ = _counts_below(negative, n_negative, positive)
    found_positive = total_positive[..., None] - below_positive
    found = found_positive + total_negative[..., None] - below_negative
    precision = found_positive / np.maximum(found, 1)  # 0/0 is of a pair that does not count
    n_compared = np.where(total_positive * total_negative > 0, total_positive * total_negative, math.nan)
    auprc = (n_positive * precision).sum(-1) * total_negative / n_compared
    return auprc, (n_positive * below_negative).sum(-1) / n_compared


def _counts_below(values: NDArray, weights: NDArray, than: NDArray) -> tuple[NDArray, NDArray]:
    """Sum the weights (..., n) of the values (n,) below each of `than` (m,), and of those not above it."""
    order = np.argsort(values)
    sums = np.concatenate([np.zeros((*weights.shape[:-1], 1)), weights[..., order].cumsum(-1)], axis=-1)
    below, not_above = (np.searchsorted(values[order], than, side=side) for side in ("left", "right"))
    return sums[..., below], sums[..., not_above]


def _spearman(x: NDArray, y: NDArray, weights: NDArray | None = None) -> NDArray:
    """Return Spearman's rank correlation (...) of values (n,) that count so often (..., n); NaN as its callers say."""
    weights = np.ones(len(x)) if weights is None else weights
    if len(x) < 2 or np.isnan(x).any() or np.isnan(y).any():
        return np.full(weights.shape[:-1], math.nan)
    n = np.maximum(weights.sum(-1, keepdims=True), 1)
    deviations = []
    for values in (x, y):
        ranks = sum(_counts_below(values, weights, values)) / 2  # the mean rank of equal values, but for a constant
        deviations.append(ranks - (weights * ranks).sum(-1, keepdims=True) / n)
    of_x, of_y = deviations
    covariance, *variances = ((weights * one * two).sum(-1) for one, two in ((of_x, of_y), (of_x, of_x), (of_y, of_y)))
    scale = np.sqrt(variances[0] * variances[1])
    return covariance / np.where(scale > 0, scale, math.nan)
