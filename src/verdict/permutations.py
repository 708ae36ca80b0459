"""Permutation tests between two groups of networks, from values of ordered pairs of networks.

A pair belongs to both of its networks, so pairs are not independent and must not be permuted. A
permutation gives the labels of the groups to other networks, and all pairs of a network go with it.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

MAX_EXACT = 10_000  # labelings that are listed; of more, as many are drawn
SEED = 0  # of the draw
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


def permutation_test(values: np.ndarray, in_group: np.ndarray, *, side: str) -> Permuted:
    """Test whether pairs within a group differ from pairs with a network of a second group.

    The null hypothesis: the networks of both groups are exchangeable. The p-value is the share of
    the labelings whose difference of means is at least as large, in either direction. The observed
    labeling is among them, so the test rejects a true null hypothesis with probability of at most
    its level (Phipson and Smyth 2010).

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

    within, across = means(values, labelings)
    mean_within, mean_across = means(values, in_group[None])
    observed = abs(mean_within - mean_across).item()
    rounding = 1e-9 * np.abs(values[~np.eye(n_networks, dtype=bool)]).max()
    n_as_large = int((np.abs(within - across) >= observed - rounding).sum())
    return Permuted(
        mean_within.item(),
        mean_across.item(),
        p_value=n_as_large / len(labelings),
        lowest_p=1 / len(labelings),
        n_labelings=len(labelings),
        is_exact=is_exact,
    )


def means(values: np.ndarray, labelings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (P,) of pairs within the group, and of pairs from it to the second group.

    Args:
        values: (N, N) by first and second network of a pair; the diagonal is ignored.
        labelings: (P, N) bool, whether a network is in the group.
    """
    without_diagonal = values.copy()
    np.fill_diagonal(without_diagonal, 0.0)
    in_group = labelings.astype(np.float64)
    n_in_group = int(labelings[0].sum())
    n_second = labelings.shape[1] - n_in_group
    sums_by_second = in_group @ without_diagonal  # (P, N)
    within = (sums_by_second * in_group).sum(1) / (n_in_group * (n_in_group - 1))
    across = (sums_by_second * (1 - in_group)).sum(1) / (n_in_group * n_second)
    return within, across


def all_labelings(n_networks: int, n_in_group: int) -> np.ndarray:
    """Return all ways (P, N) to label so many of the networks as the group."""
    chosen = list(itertools.combinations(range(n_networks), n_in_group))
    labelings = np.zeros((len(chosen), n_networks), dtype=bool)
    np.put_along_axis(labelings, np.array(chosen), True, axis=1)
    return labelings


def random_labelings(in_group: np.ndarray) -> np.ndarray:
    """Return the observed labeling and random ones, `MAX_EXACT` in all: (P, N)."""
    generator = np.random.default_rng(SEED)
    repeated = np.tile(in_group, (MAX_EXACT - 1, 1))
    return np.concatenate([in_group[None], generator.permuted(repeated, axis=1)])
