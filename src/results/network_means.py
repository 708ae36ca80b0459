"""Means over pairs of networks, with intervals over networks."""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import NamedTuple, TypeVar

import numpy as np

from src.ground.grouping import grouped
from src.results.measurements import Measurement
from src.results.quantities import QUANTITIES
from src.statistics.resampling import Estimate
from src.verdict import VERDICTS

Key = TypeVar("Key", bound=Hashable)
Network = TypeVar("Network", bound=Hashable)  # a training of a network, or its name


@dataclass(frozen=True, kw_only=True)
class MeanRow:
    """A mean over pairs of networks: a row of curves over depth, of groups of networks, and of the
    shares of best matches. What does not apply is None.

    Pairs of layers are averaged first. The interval is of 95 % over networks, and NaN of few. A
    network at several epochs is one network."""

    method: str  # of stitching, or "similarity"
    dataset: str | None = None
    quantity: str  # of stitches, a measure of similarity, or a verdict whose share is meant
    networks: str  # front group → end group; empty where there is a single pair of groups
    # The name of both layers, empty where networks have different layers; of groups, the pairs of layers
    # in words; of best matches, what is asked
    layers: str
    relative_depth: float | None = None  # of the layers
    value: float
    low: float
    high: float
    lowest: float  # of the pairs of networks
    highest: float
    n_networks: int
    n_pairs: int
    # Pairs of layers of a pair of networks, at most; of best matches, that a layer was compared with
    n_layers: float | None = None
    pairs_of_layers: str | None = None  # with their relative depths
    # Of shares of best matches
    chance: float | None = None  # the share of a random layer
    place: float | None = None  # the mean place of the corresponding layer, of `n_layers`


class MeanOverPairs(NamedTuple):
    """A mean over pairs of networks; its interval of 95 % is over networks, and NaN of few."""

    value: float
    low: float
    high: float
    lowest: float
    highest: float
    n_networks: int
    n_pairs: int


def means_by(rows: Iterable[Measurement], key: Callable[[Measurement], Key]) -> dict[Key, float]:
    """Return the mean of the values with a key; NaN is left out, and so are keys without a value."""
    defined = [row for row in rows if not math.isnan(row.value)]
    return {
        name: fmean(row.value for row in of_key) for name, of_key in grouped(defined, key).items()
    }


def possible_values(quantity: str) -> tuple[float, float]:
    """Return the lowest and the highest value of a quantity; the shares of verdicts are in [0, 1]."""
    if quantity in VERDICTS:
        return 0, 1
    if quantity in QUANTITIES:
        return QUANTITIES[quantity].possible
    return -math.inf, math.inf


def mean_over_pairs(
    values: Mapping[tuple[Network, Network], float],
    possible: tuple[float, float] = (-math.inf, math.inf),
) -> MeanOverPairs:
    """Return the mean of the values of pairs of networks.

    Args:
        values: by pair of trainings, as a network at several epochs is one network; not empty.
        possible: the lowest and the highest value, which the interval does not go beyond.
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
    low, high = np.clip(estimate.interval(), *possible).tolist()
    ends = (float(of_pairs.min()), float(of_pairs.max()))
    return MeanOverPairs(estimate.value, low, high, *ends, len(networks), len(of_pairs))


def _means_of_kept(values: np.ndarray, is_kept: np.ndarray) -> np.ndarray:
    """Return the mean (N,) of the kept values of each row of `is_kept` (N, pairs); NaN of none."""
    means = np.full(len(is_kept), np.nan)
    for row, kept in enumerate(is_kept):
        if kept.any():
            means[row] = values[kept].mean()
    return means
