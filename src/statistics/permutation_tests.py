"""P-values from permutations, and the test between two groups of networks, from values of ordered
pairs of networks.

A pair belongs to both of its networks, so pairs are not independent and must not be permuted. A
permutation gives the labels of the groups to other networks, and all pairs of a network go with it.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
import scipy  # loads a part of it at its first use
from numpy.typing import ArrayLike

MAX_EXACT = 10_000  # labelings that are listed; of more, as many are drawn
SEED = 0  # of the draw
ROUNDING = 1e-9  # differences below this share of the largest value count as 0
TIE = 1e-12  # values this near to each other count as equal
TIE_OF_P = 1e-6  # likewise p-values of Welch's test, relatively
FRONT = "front"
END = "end"


class Permuted(NamedTuple):
    """The result of a permutation test."""

    mean_within: float
    mean_across: float
    p_value: float  # two-sided
    lowest_p: float  # the smallest p-value that so many labelings allow
    n_labelings: int
    is_exact: bool  # all labelings were taken, not a random sample

    @property
    def difference(self) -> float:
        """The mean within the group less the mean across."""
        return self.mean_within - self.mean_across


def permutation_p(value: float, permuted: ArrayLike) -> float:
    """Return the p-value of a value: the share of permutations with a value at least as high.

    The actual order counts as one of the permutations. So the p-value is at most p with a probability
    of at most p if all orders are exchangeable (Phipson and Smyth 2010).

    Args:
        permuted: values (N,) under random permutations.
    Returns:
        In [1/(1 + N), 1]; NaN for NaN.
    """
    if math.isnan(value):
        return math.nan
    permuted = np.asarray(permuted)
    n_as_high = int((permuted >= value - TIE).sum())
    return (1 + n_as_high) / (1 + len(permuted))


def permutation_test(values: np.ndarray, in_group: np.ndarray, *, side: str) -> Permuted:
    """Test whether pairs within a group differ from pairs with a network of a second group.

    The difference is one of the effects of networks on one side of a pair (see `effects`). A
    labeling counts by the p-value of Welch's test of these effects. Unlike the difference itself,
    this is comparable between labelings where groups differ in size and in spread (Janssen 1997 on
    studentised permutation tests; Beran 1988 on p-values as statistics). Of labelings whose effects
    have no spread, as shares of 0 and 1 may have none, the larger difference counts more.

    The p-value is the share of the labelings that count at least as much as the observed one, in
    either direction. The observed labeling is among them. So the test rejects with probability of
    at most its level if the networks of both groups are exchangeable (Phipson and Smyth 2010), and
    about so often if only their mean effects are equal.

    Args:
        values: (N, N) by front and end network; the diagonal is ignored.
        in_group: (N,) bool, at least two networks of the group and one of the second group.
        side: the place of the second group's network in a pair across: FRONT or END.
    """
    n_networks = len(in_group)
    n_in_group = int(in_group.sum())
    if side == FRONT:
        values = values.T
    is_exact = math.comb(n_networks, n_in_group) <= MAX_EXACT
    if is_exact:
        labelings = all_labelings(n_networks, n_in_group)
    else:
        labelings = random_labelings(in_group)

    is_pair = ~np.eye(n_networks, dtype=bool)
    rounding = ROUNDING * np.abs(values[is_pair]).max()
    effects_of_labelings = effects(values, labelings)
    p_values = welch_p(effects_of_labelings, labelings, rounding)
    observed = (labelings == in_group).all(axis=1).argmax()
    counts = p_values <= p_values[observed] * (1 + TIE_OF_P)
    if p_values[observed] == 0:  # without any spread, a labeling counts by its difference
        differences = np.abs(_differences(effects_of_labelings, labelings))
        counts &= differences >= differences[observed] - rounding
    return Permuted(
        mean_within=values[is_pair & np.outer(in_group, in_group)].mean().item(),
        mean_across=values[np.outer(in_group, ~in_group)].mean().item(),
        p_value=counts.sum().item() / len(labelings),
        lowest_p=1 / len(labelings),
        n_labelings=len(labelings),
        is_exact=is_exact,
    )


def effects(values: np.ndarray, labelings: np.ndarray) -> np.ndarray:
    """Return the effects (P, N) of networks in the second place of a pair.

    They are the β of the least-squares fit of α_i + β_j to the values of pairs (i, j) of a network
    i of the group and another network j of either group, with α of mean 0. So the quality of a
    network in the first place has no influence. The mean β of the group less that of the second
    group is the mean within less the mean across.

    Args:
        values: (N, N) by first and second network of a pair; the diagonal is ignored.
        labelings: (P, N) bool, whether a network is in the group; at least two are.
    """
    n_networks = labelings.shape[1]
    n_in_group = int(labelings[0].sum())
    without_diagonal = values.copy()
    np.fill_diagonal(without_diagonal, 0.0)
    sums_by_first = without_diagonal.sum(1)  # (N,)
    sums_by_second = labelings.astype(np.float64) @ without_diagonal  # (P, N)

    # The normal equations, solved for α of the group's networks
    alpha = sums_by_first + sums_by_second / (n_in_group - 1)
    alpha -= _means(alpha, labelings)[:, None]
    alpha /= n_networks - 1 - 1 / (n_in_group - 1)
    return np.where(
        labelings, (sums_by_second + alpha) / (n_in_group - 1), sums_by_second / n_in_group
    )


def welch_p(samples: np.ndarray, labelings: np.ndarray, rounding: float = 0.0) -> np.ndarray:
    """Return the two-sided p-values (P,) of Welch's test (1947) of two groups.

    A second group of one member shows no spread; it is given that of the group. Where neither group
    has any, p is 0 for different means and 1 for equal ones.

    Args:
        samples: (P, N).
        labelings: (P, N) bool, whether a sample is in the group; at least two are.
        rounding: smaller differences of means, and smaller standard deviations, count as 0.
    """
    n_in_group = int(labelings[0].sum())
    n_second = labelings.shape[1] - n_in_group
    difference = np.abs(_differences(samples, labelings))
    variance = _variances(samples, labelings, rounding)
    error = variance / n_in_group  # squared standard error of the mean
    if n_second == 1:
        error_of_both = error + variance
        freedom = np.full(len(samples), n_in_group - 1.0)
    else:
        error_of_second = _variances(samples, ~labelings, rounding) / n_second
        error_of_both = error + error_of_second
        parts = error**2 / (n_in_group - 1) + error_of_second**2 / (n_second - 1)
        freedom = error_of_both**2 / np.where(parts > 0, parts, 1.0)

    has_spread = error_of_both > 0
    t = difference / np.sqrt(np.where(has_spread, error_of_both, 1.0))
    without_spread = np.where(difference > rounding, 0.0, 1.0)
    return np.where(has_spread, 2 * scipy.special.stdtr(freedom, -t), without_spread)


def _differences(samples: np.ndarray, labelings: np.ndarray) -> np.ndarray:
    """Return the mean (P,) of the group less that of the second group, of samples (P, N)."""
    return _means(samples, labelings) - _means(samples, ~labelings)


def _means(samples: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the mean (P,) of the chosen samples of each row, both (P, N)."""
    return np.where(chosen, samples, 0.0).sum(1) / chosen.sum(1)


def _variances(samples: np.ndarray, chosen: np.ndarray, rounding: float) -> np.ndarray:
    """Return unbiased variances (P,) of chosen samples (P, N); 0 where differences are due to rounding."""
    deviations = samples - _means(samples, chosen)[:, None]
    variances = np.where(chosen, deviations**2, 0.0).sum(1) / (chosen.sum(1) - 1)
    return np.where(variances > rounding**2, variances, 0.0)


def all_labelings(n_networks: int, n_in_group: int) -> np.ndarray:
    """Return all ways (P, N) to label `n_in_group` of N networks as the group."""
    chosen = list(itertools.combinations(range(n_networks), n_in_group))
    labelings = np.zeros((len(chosen), n_networks), dtype=bool)
    np.put_along_axis(labelings, np.array(chosen), True, axis=1)
    return labelings


def random_labelings(in_group: np.ndarray) -> np.ndarray:
    """Return the observed labeling and random ones, `MAX_EXACT` in all: (P, N)."""
    generator = np.random.default_rng(SEED)
    repeated = np.tile(in_group, (MAX_EXACT - 1, 1))
    return np.concatenate([in_group[None], generator.permuted(repeated, axis=1)])
