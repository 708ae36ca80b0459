"""Score tests and intervals of shares, of their differences and ratios, over test images and over repetitions.

A test at a limit takes the variance that the images would have there, not the one that was seen: where few images
disagree, the latter is nearly 0. The variance over repetitions, which are pairs of networks, or the seeds of one pair,
is moderated by that of the other pairs of layers.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtr

ALPHA = 0.025  # of a test in one direction; an interval of 95 % has two
PRIOR_DF = 4.0  # of the variance over repetitions that the other pairs of layers have
LARGEST = 1e6  # a ratio whose interval reaches it has no such end

Runs = Sequence[np.ndarray]  # of each pair of networks: (runs, N), one value an image


class Repetitions(NamedTuple):
    """The variance over repetitions, and its degrees of freedom."""

    n: int = 1
    variance: float = 0.0
    df: float = 0.0

    @classmethod
    def of(cls, values: Runs) -> "Repetitions":
        """Take pairs of networks as repetitions, or the runs of a single pair."""
        means = [of_networks.mean() for of_networks in values] if len(values) > 1 else values[0].mean(1)
        return cls.of_means(means)

    @classmethod
    def of_means(cls, means: Sequence[float]) -> "Repetitions":
        """Take the mean of each repetition."""
        n = len(means)
        return cls(n, float(np.var(means, ddof=1)) if n > 1 else 0.0, n - 1)


class Evidence(NamedTuple):
    """A mean over images, or the ratio of two, with what tests of its value need."""

    top: float
    bottom: float = 1.0
    n_images: int = 0  # 0: the images are not known
    variance_at: Callable[[float], float] = lambda limit: 0.0  # of top − limit · bottom, over images
    bounds: tuple[float, float] = (-1.0, 1.0)  # of the value
    repetitions: Repetitions = Repetitions()

    @property
    def value(self) -> float:
        """The mean or the ratio; NaN where that is not defined."""
        return self.top / self.bottom if self.bottom else math.nan

    def p_below(self, limit: float) -> float:
        """Test in one direction whether the value is below a limit; against it, that it is there or above."""
        return self._probability(self._z(limit))

    def p_above(self, limit: float) -> float:
        """Test in one direction whether the value is above a limit."""
        return self._probability(-self._z(limit))

    def _z(self, limit: float) -> float:
        """Return the distance to a limit in standard errors."""
        distance = self.top - limit * self.bottom
        variance = self.variance_at(limit) + self.repetitions.variance / self.repetitions.n
        if variance > 0:
            return distance / math.sqrt(variance)
        return math.copysign(math.inf, distance) if distance else 0.0

    def _probability(self, z: float) -> float:
        """Return the probability of less than z, by Student's t where there are repetitions.

        It has their degrees of freedom alone: Satterthwaite's, of both variances, are too many in the tail that the
        tests of many pairs use.
        """
        return float(stdtr(self.repetitions.df, z) if self.repetitions.df else ndtr(z))

    def interval(self) -> tuple[float, float]:
        """Return the limits that no test in one direction rejects: an interval of 95 %."""
        ends = []
        for p, end in ((self.p_above, self.bounds[0]), (self.p_below, self.bounds[1])):
            inside = end * (1 - 1e-12)
            if math.isnan(self.value) or self.value == end or p(inside) >= ALPHA:
                ends.append(end)
            else:
                ends.append(brentq(lambda limit, p=p: p(limit) - ALPHA, inside, self.value, xtol=1e-9))
        low, high = (math.copysign(math.inf, end) if abs(end) == LARGEST else float(end) for end in ends)
        return low, high


def of_share(right: Runs) -> Evidence:
    """Return the evidence on a share of images; for one run, Wilson's interval (1927).

    Args:
        right: whether a run is right about each image.
    """
    n = right[0].shape[1]

    def variance_at(limit: float) -> float:
        return max(limit * (1 - limit), 0.0) / n

    return Evidence(_mean(right), 1.0, n, variance_at, repetitions=Repetitions.of(right))


def of_difference(end: Runs, stitched: Runs) -> Evidence:
    """Return the evidence on the penalty of stitches; for one run, Tango's (1998).

    Several runs enter by the mean of their counts, with the variance of a single run: their mean varies no more.

    Args:
        end, stitched: whether each is right about each image.
    """
    n, pairs = end[0].shape[1], list(zip(end, stitched, strict=True))
    lost, won = _mean([one & ~other for one, other in pairs]), _mean([~one & other for one, other in pairs])

    def variance_at(limit: float) -> float:
        return _tango_variance(lost, won, limit) / n

    repetitions = Repetitions.of([one.astype(float) - other for one, other in pairs])
    return Evidence(lost - won, 1.0, n, variance_at, repetitions=repetitions)


def of_ratio(top: Runs, bottom: Runs) -> Evidence:
    """Return the evidence on the ratio of two shares of the same images; for one run, Tang's (2003).

    Args:
        top, bottom: whether each image counts in the share.
    """
    n, pairs = top[0].shape[1], list(zip(top, bottom, strict=True))
    both, either = _mean([one & other for one, other in pairs]), _mean([one | other for one, other in pairs])
    above, below = _mean(top), _mean(bottom)

    def variance_at(limit: float) -> float:
        return _tang_variance(both, below - both, either, limit) / n

    ratio = above / below if below else 0.0
    repetitions = Repetitions.of([one - ratio * other for one, other in pairs])
    return Evidence(above, below, n, variance_at, (0.0, LARGEST), repetitions)


def of_reduction(one: Runs, other: Runs) -> Evidence:
    """Return the evidence on 1 − the ratio of two shares; arguments as for `of_ratio`."""
    ratio = of_ratio(one, other)

    def variance_at(limit: float) -> float:
        return ratio.variance_at(1 - limit)

    return ratio._replace(top=ratio.bottom - ratio.top, variance_at=variance_at, bounds=(-LARGEST, 1.0))


def of_networks(means: Sequence[float]) -> Evidence:
    """Return the evidence on a mean over pairs of networks alone, by Student's t; the images are not known."""
    return Evidence(float(np.mean(means)), repetitions=Repetitions.of_means(means))


def moderated(family: Sequence[Evidence]) -> list[Evidence]:
    """Moderate the variances over repetitions by their mean over the pairs of layers of a method (Smyth 2004).

    The mean counts as `PRIOR_DF` degrees of freedom, or as many as the other pairs have.
    """
    repetitions = [each.repetitions for each in family]
    total = sum(each.df for each in repetitions)
    prior = sum(each.df * each.variance for each in repetitions) / total if total else 0.0
    result = []
    for evidence, (n, variance, df) in zip(family, repetitions, strict=True):
        prior_df = min(PRIOR_DF, total - df) if df else 0.0
        both = (prior_df * prior + df * variance) / (prior_df + df) if df else 0.0
        result.append(evidence._replace(repetitions=Repetitions(n, both, prior_df + df)))
    return result


def _mean(values: Runs) -> float:
    """Return the mean over pairs of networks, which count alike, however many runs each has."""
    return float(np.mean([of_networks.mean() for of_networks in values]))


def _tango_variance(lost: float, won: float, difference: float) -> float:
    """Return the variance of one image's difference where the shares of lost and won differ by that much.

    The share of won is its maximum likelihood estimate under this restriction (Tango 1998, equation 8).
    """
    b = (2 - lost + won) * difference - lost - won
    c = -won * difference * (1 - difference)
    share = (math.sqrt(max(b * b - 8 * c, 0.0)) - b) / 4
    return max(2 * share + difference * (1 - difference), 0.0)


def _tang_variance(both: float, only_bottom: float, either: float, ratio: float) -> float:
    """Return the variance of one image's top − ratio · bottom where the shares have that ratio.

    The share of images in the bottom alone is its maximum likelihood estimate under this restriction (Tang, Tang and
    Chan 2003, Statistics in Medicine 22, 1217).
    """
    a = 1 + ratio
    b = (both + only_bottom) * ratio**2 - (either + only_bottom)
    c = only_bottom * (1 - ratio) * either
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    share = -2 * c / (b + root) if b > 0 else (root - b) / (2 * a)  # without cancellation
    return max(a * share + either * (ratio - 1), 0.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that the chance of any false rejection among them stays below the level (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1)
    return adjusted.tolist()


def images_needed(tolerance: float, n_tests: int) -> float:
    """Return how many test images it takes to find a penalty below the tolerance if no image is lost.

    At least the number n with (1 − tolerance)ⁿ ≤ α, and so many that the score test rejects.
    """
    if not 0 < tolerance < 1:
        return math.inf
    exact = math.log(ALPHA / n_tests) / math.log1p(-tolerance)
    by_score = ndtri(ALPHA / n_tests) ** 2 * (1 - tolerance) / tolerance
    return math.ceil(max(exact, by_score))


def are_independent(pairs: Sequence[tuple[Hashable, Hashable]]) -> bool:
    """Return whether no network is in two pairs, so that runs on the pairs are independent.

    Args:
        pairs: front and end network of each run; a network stitched to itself counts once.
    """
    networks = [network for pair in pairs for network in set(pair)]
    return len(networks) == len(set(networks))
