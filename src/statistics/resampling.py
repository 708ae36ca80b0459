"""The certainty of a score over pairs of networks, as new seeds would give new networks.

Intervals come from leaving out each network and each pair in turn. P-values come from permuting the
networks of a measure."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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

    def interval(self) -> Interval:
        """Return the interval of 95 % by Student's t; NaN with fewer than four networks.

        The variance is the jackknife's over networks, less the jackknife's over pairs: a pair has two
        networks, so leaving out networks counts the variation of single pairs twice (Aronow, Samii and
        Assenova 2015). The variance is at least the one over pairs.
        """
        n_networks = len(self.without_network)
        if n_networks < MIN_NETWORKS:
            return Interval(np.nan, np.nan)
        over_pairs = jackknife_variance(self.without_pair)
        over_networks = jackknife_variance(self.without_network) - over_pairs
        error = math.sqrt(max(over_networks, over_pairs))
        half_width = student_half_width(error, (1 - LEVEL) / 2, freedom=n_networks - 1)
        return Interval(float(self.value - half_width), float(self.value + half_width))


def estimate(score: ScoreOfPairs, n: int) -> Estimate:
    """Score all pairs of n networks, and all pairs without each network and without each pair."""
    pairs = np.arange(math.comb(n, 2))
    ends = np.stack(np.triu_indices(n, 1))  # (2, P)
    without_network = np.array([pairs[(ends != network).all(axis=0)] for network in range(n)])
    without_pair = np.array([np.delete(pairs, pair) for pair in pairs])
    (value,) = score(pairs[None], pairs[None])
    return Estimate(
        float(value), score(without_network, without_network), score(without_pair, without_pair)
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
    place_of_pair += place_of_pair.T
    orders = rng.permuted(np.tile(np.arange(n), (n_permutations, 1)), axis=1)
    permuted = place_of_pair[orders[:, first], orders[:, second]]  # (n_permutations, P)

    # Few networks have fewer orders than permutations: each is scored once
    orders_of_pairs, places = np.unique(permuted, axis=0, return_inverse=True)
    measured = np.concatenate([pairs[None], orders_of_pairs])
    value, *scores = score(measured, np.broadcast_to(pairs, measured.shape))
    return permutation_p(float(value), np.array(scores)[places.ravel()])
