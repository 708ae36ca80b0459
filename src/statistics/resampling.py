"""Intervals of a mean over pairs of networks, for which the networks are the sample.

Intervals come from leaving out each network and each pair in turn."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.statistics.intervals import student_half_width
from src.statistics.jackknife import jackknife_variance
from src.values import Interval

LEVEL = 0.95
MIN_NETWORKS = 4  # with fewer networks, an interval is NaN


class Estimate(NamedTuple):
    """A value, and what it is without each network and without each pair of networks."""

    value: float
    without_network: NDArray  # (N,)
    without_pair: NDArray  # (P,)

    def interval(self) -> Interval:
        """Return the interval of 95 % by Student's t; NaN with fewer than four networks."""
        n_networks = len(self.without_network)
        if n_networks < MIN_NETWORKS:
            return Interval(np.nan, np.nan)
        half_width = student_half_width(self.error(), (1 - LEVEL) / 2, freedom=n_networks - 1)
        return Interval(float(self.value - half_width), float(self.value + half_width))

    def error(self) -> float:
        """Return the standard error.

        The variance is the jackknife's over networks, less the jackknife's over pairs: a pair has two
        networks, so leaving out networks counts the variation of single pairs twice (Aronow, Samii and
        Assenova 2015). The variance is at least the one over pairs.
        """
        over_networks = jackknife_variance(self.without_network)
        over_pairs = jackknife_variance(self.without_pair)
        return math.sqrt(max(over_networks - over_pairs, over_pairs))
