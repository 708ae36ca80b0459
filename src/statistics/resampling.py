"""The certainty of a score over pairs of networks, as new seeds would give new networks.

Intervals come from leaving out each network and each pair in turn. P-values come from permuting the
networks of a measure."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.core.values import Interval
from src.statistics.intervals import student_half_width
from src.statistics.jackknife import jackknife_variance
from src.statistics.permutation_tests import permutation_p

LEVEL = 0.95
MIN_NETWORKS = 4  # with fewer networks, an interval is NaN

# (measured, truth) -> scores (...). Both arguments are places of pairs, (..., P), in the order of
# `np.triu_indices`. The score compares the measure at `measured` with the truth at `truth`.
ScoreOfPairs = Callable[[NDArray, NDArray], NDArray]


class Estimate(NamedTuple):
    """A score, and its values without each network and without each pair of networks."""

    value: float
    without_network: NDArray  # (N,)
    without_pair: NDArray  # (P,)
    groups: NDArray  # (N,): networks of a group were made alike

    @property
    def freedom(self) -> int:
        """The degrees of freedom of the error."""
        return len(self.groups) - len(np.unique(self.groups))

    def interval(self) -> Interval:
        """Return the interval of 95 % by Student's t; NaN with fewer than four networks."""
        if len(self.groups) < MIN_NETWORKS:
            return Interval(np.nan, np.nan)
        half_width = student_half_width(self.error(), (1 - LEVEL) / 2, freedom=self.freedom)
        return Interval(float(self.value - half_width), float(self.value + half_width))

    def error(self) -> float:
        """Return the standard error.

        The variance is the jackknife's over networks within their groups, less the jackknife's over
        pairs: a pair has two networks, so leaving out networks counts the variation of single pairs
        twice (Aronow, Samii and Assenova 2015). The variance is at least the one over pairs.
        """
        over_networks = 0.0
        for group in np.unique(self.groups):
            over_networks += jackknife_variance(self.without_network[self.groups == group])
        over_pairs = jackknife_variance(self.without_pair)
        return math.sqrt(max(over_networks - over_pairs, over_pairs))

    def minus(self, baseline: "Estimate") -> "Estimate":
        """Return the estimate of the difference from another score of the same networks."""
        return Estimate(
            self.value - baseline.value,
            self.without_network - baseline.without_network,
            self.without_pair - baseline.without_pair,
            self.groups,
        )


def estimate(score: ScoreOfPairs, groups: ArrayLike) -> Estimate:
    """Score all pairs of N networks, and all pairs without each network and without each pair.

    Args:
        groups: (N,), the group of each network.
    """
    groups = np.asarray(groups)
    first, second = np.triu_indices(len(groups), 1)
    pairs = np.arange(len(first))
    without_network = np.array(
        [pairs[(first != network) & (second != network)] for network in range(len(groups))]
    )
    without_pair = np.array([np.delete(pairs, pair) for pair in pairs])
    value, *_ = score(pairs[None], pairs[None])
    return Estimate(
        float(value),
        score(without_network, without_network),
        score(without_pair, without_pair),
        groups,
    )


def permuted_p(score: ScoreOfPairs, n: int, n_permutations: int) -> float:
    """Return the p-value of a score: the share of orders of n networks that score at least as well.

    A random measure has a p-value of at most p with probability p (Mantel 1967). NaN if the score is
    NaN.
    """
    rng = np.random.default_rng(0)
    first, second = np.triu_indices(n, 1)
    pairs = np.arange(len(first))
    place_of_pair = np.zeros((n, n), dtype=int)
    place_of_pair[first, second] = pairs
    place_of_pair[second, first] = pairs
    unpermuted = np.tile(np.arange(n), (n_permutations, 1))
    orders = rng.permuted(unpermuted, axis=1)
    permuted = place_of_pair[orders[:, first], orders[:, second]]  # (n_permutations, P)

    # Few networks have fewer orders than permutations: each is scored once
    orders_of_pairs, places = np.unique(permuted, axis=0, return_inverse=True)
    measured = np.concatenate([pairs[None], orders_of_pairs])
    value, *scores = score(measured, np.broadcast_to(pairs, measured.shape))
    return permutation_p(float(value), np.array(scores)[places.ravel()])
