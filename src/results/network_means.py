"""Means over pairs of networks, with intervals over networks."""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Any, TypeVar

import numpy as np

from src.core.grouping import grouped
from src.results.measurements import Measurement, TrainingRuns
from src.results.quantities import QUANTITIES
from src.statistics.resampling import Estimate
from src.verdict import VERDICTS

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class MeanRow:
    """A mean over pairs of networks: a row of curves over depth, of groups of networks, and of the
    shares of best matches. None: does not apply.

    Pairs of layers are averaged first. The interval is of 95 % over networks, and NaN of few. A
    network at several epochs is one network."""

    method: str  # of stitching, or "similarity"
    dataset: str | None = None
    quantity: str  # of stitches, a measure of similarity, or a verdict whose share is meant
    networks: str = ""  # front group → end group; empty where there is a single pair of groups
    # The name of both layers, empty where networks have different layers; of groups, the pairs of layers
    # in words; of best matches, what is asked
    layers: str = ""
    relative_depth: float | None = None  # of the layers
    value: float
    low: float
    high: float
    lowest: float  # of the pairs of networks
    highest: float
    n_networks: int
    n_pairs: int
    # Pairs of layers with a value, in the mean over pairs of networks; of best matches, layers that a layer
    # was compared with
    n_layers: float | None = None
    pairs_of_layers: str | None = None  # with their relative depths
    # Of shares of best matches
    chance: float | None = None  # the share of a random layer
    place: float | None = None  # the mean place of the corresponding layer, of `n_layers`


def averaged(
    rows: Iterable[Measurement], key: Callable[[Measurement], Hashable]
) -> list[Measurement]:
    """Return the first row of each key with the mean of the values; NaN is left out, and so are
    keys without a value."""
    defined = [row for row in rows if not math.isnan(row.value)]
    return [
        of_key[0]._replace(value=fmean(row.value for row in of_key), low=None, high=None)
        for of_key in grouped(defined, key).values()
    ]


def means_by(rows: Iterable[Measurement], key: Callable[[Measurement], Key]) -> dict[Key, float]:
    """Return the mean of the values with a key; see `averaged`."""
    return {key(row): row.value for row in averaged(rows, key)}


def possible_values(quantity: str) -> tuple[float, float]:
    """Return the lowest and the highest value of a quantity; the shares of verdicts are in [0,
    1]."""
    if quantity in VERDICTS:
        return 0, 1
    if quantity in QUANTITIES:
        return QUANTITIES[quantity].possible
    return -math.inf, math.inf


def mean_over_networks(
    rows: Sequence[Measurement],
    *,
    possible: tuple[float, float] | None = None,
    training_runs_of: Callable[[Measurement], TrainingRuns] = lambda row: row.training_runs,
    **columns: Any,
) -> MeanRow:
    """Return the mean over pairs of networks of rows of one method and quantity.

    A pair of networks counts by the mean of its rows, and a network at several epochs as one network.

    Args:
        rows: at least one has a value.
        possible: the lowest and the highest value, which the interval does not go beyond; default:
            those of the quantity.
        training_runs_of: returns the training runs of both networks.
        columns: the further columns of the row.
    """
    first = rows[0]
    of_pair = means_by(rows, training_runs_of)
    values = np.array(list(of_pair.values()))
    networks = dict.fromkeys(chain.from_iterable(of_pair))
    is_in_pair = np.array([[network in pair for pair in of_pair] for network in networks])
    estimate = Estimate(
        float(values.mean()),
        without_network=_means_of_kept(values, ~is_in_pair),
        without_pair=_means_of_kept(values, ~np.eye(len(values), dtype=bool)),
    )
    low, high = np.clip(estimate.interval(), *(possible or possible_values(first.quantity)))
    return MeanRow(
        method=first.method,
        quantity=first.quantity,
        value=estimate.value,
        low=float(low),
        high=float(high),
        lowest=float(values.min()),
        highest=float(values.max()),
        n_networks=len(networks),
        n_pairs=len(values),
        **columns,
    )


def _means_of_kept(values: np.ndarray, is_kept: np.ndarray) -> np.ndarray:
    """Return the mean (N,) of the kept values of each row of `is_kept` (N, pairs); NaN of none."""
    means = np.full(len(is_kept), np.nan)
    for row, kept in enumerate(is_kept):
        if kept.any():
            means[row] = values[kept].mean()
    return means
