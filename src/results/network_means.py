"""Means over pairs of networks, with intervals over networks."""

from collections.abc import Hashable, Mapping
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np

from src.statistics.resampling import Estimate

Network = TypeVar("Network", bound=Hashable)  # a training of a network, or its name


class MeanOverPairs(NamedTuple):
    """A mean over pairs of networks; its interval of 95 % is over networks, and NaN of few."""

    value: float
    low: float
    high: float
    n_networks: int
    n_pairs: int

    def within(self, lowest: float, highest: float) -> "MeanOverPairs":
        """Return the mean with an interval of possible values."""
        low, high = (float(np.clip(limit, lowest, highest)) for limit in (self.low, self.high))
        return self._replace(low=low, high=high)


def mean_over_pairs(values: Mapping[tuple[Network, Network], float]) -> MeanOverPairs:
    """Return the mean of the values of pairs of networks.

    Args:
        values: by pair of trainings, as a network at several epochs is one network; not empty.
    """
    of_pairs = np.array(list(values.values()))
    networks = dict.fromkeys(chain.from_iterable(values))
    is_in_pair = np.array([[network in pair for pair in values] for network in networks])
    estimate = Estimate(
        float(of_pairs.mean()),
        without_network=_means_of_kept(of_pairs, ~is_in_pair),
        without_pair=_means_of_kept(of_pairs, ~np.eye(len(of_pairs), dtype=bool)),
        groups=np.zeros(len(networks)),
    )
    return MeanOverPairs(estimate.value, *estimate.interval(), len(networks), len(of_pairs))


def _means_of_kept(values: np.ndarray, is_kept: np.ndarray) -> np.ndarray:
    """Return the mean (N,) of the kept values of each row of `is_kept` (N, pairs); NaN of none."""
    means = np.full(len(is_kept), np.nan)
    for row, kept in enumerate(is_kept):
        if kept.any():
            means[row] = values[kept].mean()
    return means
