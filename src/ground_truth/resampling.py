"""How sure a score over pairs of networks is: other seeds would have given other networks.

Intervals come from leaving out each network and each pair in turn, p-values from permuting the
networks of a measure."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from src.results.tables import Interval

LEVEL = 0.95
N_PERMUTATIONS = 199
MIN_NETWORKS = 4  # fewer have no interval

# (measured, known) -> (...): the scores of pairs (..., P), by their places among all pairs in the
# order of `np.triu_indices`: where the measure is taken, and where the truth is.
ScoreOfPairs = Callable[[NDArray, NDArray], NDArray]


class Estimate(NamedTuple):
    """A score, and what it is without each network and without each pair."""

    value: float
    without_network: NDArray  # (N,)
    without_pair: NDArray  # (P,)
    groups: NDArray  # (N,): the networks of a group were made alike

    def interval(self) -> Interval:
        """Return the interval of 95 % by Student's t, NaN of fewer than four networks.

        The variance is the jackknife's over networks within their groups, less that over pairs:
        each pair has two networks, so that what is a pair's own counts twice (Aronow, Samii and
        Assenova 2015, for pairs that share members). It is at least that over pairs."""
        if len(self.groups) < MIN_NETWORKS:
            return Interval(np.nan, np.nan)
        same = [self.without_network[self.groups == group] for group in np.unique(self.groups)]
        over_networks, over_pairs = sum(map(_jackknife, same)), _jackknife(self.without_pair)
        df = len(self.groups) - len(same)
        half = student.ppf((1 + LEVEL) / 2, df) * np.sqrt(
            max(over_networks - over_pairs, over_pairs)
        )
        return Interval(float(self.value - half), float(self.value + half))

    def minus(self, other: "Estimate") -> "Estimate":
        """Return the difference of two scores of the same networks."""
        return Estimate(
            *(one - two for one, two in zip(self[:3], other[:3], strict=True)), self.groups
        )


def estimate(score: ScoreOfPairs, groups: ArrayLike) -> Estimate:
    """Score all pairs of N networks, of these groups (N,), and all but those of each network, and
    all but each pair."""
    groups = np.asarray(groups)
    first, second = np.triu_indices(len(groups), 1)
    pairs = np.arange(len(first))
    of_networks = np.array([pairs[(first != i) & (second != i)] for i in range(len(groups))])
    of_pairs = np.array([np.delete(pairs, pair) for pair in pairs])
    value, *_ = score(pairs[None], pairs[None])
    return Estimate(
        float(value), score(of_networks, of_networks), score(of_pairs, of_pairs), groups
    )


def permuted_p(score: ScoreOfPairs, n: int) -> float:
    """Return the share of orders of n networks in which a measure scores as well, the given one
    included.

    A random measure has a p-value of at most p with probability p (Mantel 1967).
    """
    rng, (first, second) = np.random.default_rng(0), np.triu_indices(n, 1)
    place = np.zeros((n, n), dtype=int)
    place[first, second] = place[second, first] = np.arange(len(first))
    orders = rng.permuted(np.tile(np.arange(n), (N_PERMUTATIONS, 1)), axis=1)
    measured = place[orders[:, first], orders[:, second]]
    known = np.broadcast_to(np.arange(len(first)), measured.shape)
    value, *others = score(
        np.concatenate([known[:1], measured]), np.concatenate([known[:1], known])
    )
    return (
        float("nan")
        if np.isnan(value)
        else float(1 + (np.array(others) >= value - 1e-12).sum()) / (1 + len(others))
    )


def _jackknife(values: NDArray) -> float:
    """Return the jackknife's variance of a score from its values without each of n parts (Efron and
    Stein 1981)."""
    n = len(values)
    return float((n - 1) / n * ((values - values.mean()) ** 2).sum())
