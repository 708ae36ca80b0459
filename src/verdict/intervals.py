"""Score tests and intervals of shares of test images, of their differences and ratios.

A test at a limit takes the variance that the images would have there, not the one that was seen: where few images
disagree, the latter is nearly 0. The variance over repetitions, which are pairs of networks or the seeds of one pair,
is moderated by that of the other pairs of layers.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtr

ALPHA = 0.025  # of a test in one direction; an interval of 95 % has two
PRIOR_DF = 4.0  # of the variance over repetitions that the other pairs of layers have
PER_PRIOR_DF = 4.0  # degrees of freedom of theirs that it takes for each
LARGEST = 1e6  # a ratio whose interval reaches it has no such end

Runs = Sequence[np.ndarray]  # of each pair of networks: (runs, N), one value an image


class Evidence(NamedTuple):
    """The ratio of two means over images, with what tests of its value need; of a single mean, the bottom is 1."""

    top: float
    bottom: float
    n_images: int
    variance_at: Callable[[float], float]  # of top − limit · bottom, over images
    bounds: tuple[float, float]  # of the value
    n_repetitions: int = 1
    variance: float = 0.0  # of top − value · bottom, over repetitions
    prior_df: float = 0.0  # degrees of freedom that this variance has from other pairs of layers

    @property
    def value(self) -> float:
        """The ratio; NaN where the bottom is 0."""
        return self.top / self.bottom if self.bottom else math.nan

    @property
    def df(self) -> float:
        """The degrees of freedom of the variance over repetitions."""
        return self.n_repetitions - 1 + self.prior_df

    def p_below(self, limit: float) -> float:
        """Test in one direction whether the value is below a limit; against it, that it is there or above."""
        return self._p(limit, 1)

    def p_above(self, limit: float) -> float:
        """Test in one direction whether the value is above a limit."""
        return self._p(limit, -1)

    def _p(self, limit: float, sign: int) -> float:
        """Test on one side of a limit.

        The variance over images has a normal distribution and that over repetitions Student's t. Their p-values are
        weighted by the variances, as Cochran (1964) weights quantiles. Satterthwaite's degrees of freedom would be too
        many in the tail that the tests of many pairs use. Where few other pairs moderate the variance over
        repetitions, it may be near 0 by chance, and its weight with it: then Student's t counts alone, which bounds
        the p-value of any sum of the two (Hájek 1962).
        """
        over_images, over_repetitions = self.variance_at(limit), self.variance / self.n_repetitions
        distance, total = sign * (self.top - limit * self.bottom), over_images + over_repetitions
        if not total > 0:
            return 0.5 if not distance else float(distance > 0)
        z = distance / math.sqrt(total)
        if self.n_repetitions == 1:
            return float(ndtr(z))
        weight = over_repetitions / total if self.prior_df >= PRIOR_DF else 1.0
        return float((1 - weight) * ndtr(z) + weight * stdtr(self.df, z))

    def interval(self) -> tuple[float, float]:
        """Return the limits that no test in one direction rejects: an interval of 95 %."""
        ends = []
        for p, end in ((self.p_above, self.bounds[0]), (self.p_below, self.bounds[1])):
            inside = end + 1e-12 * (self.value - end)
            if not math.isnan(self.value) and self.value != end and p(inside) < ALPHA:
                end = brentq(lambda limit, p=p: p(limit) - ALPHA, inside, self.value, xtol=1e-9)
            ends.append(math.inf if end == LARGEST else float(end))
        return ends[0], ends[1]

    def repeated(self, values: Sequence[np.ndarray]) -> "Evidence":
        """Return the evidence with the variance over pairs of networks, or over the runs of a single pair.

        Args:
            values: top − value · bottom of each pair of networks: (runs,).
        """
        means = [of_networks.mean() for of_networks in values] if len(values) > 1 else values[0]
        variance = float(np.var(means, ddof=1)) if len(means) > 1 else 0.0
        return self._replace(n_repetitions=len(means), variance=variance)


def of_share(right: Runs) -> Evidence:
    """Return the evidence on the share of images that runs are right about; for one run, Wilson's interval (1927)."""
    n, shares = right[0].shape[1], _shares(right)
    return Evidence(_mean(shares), 1.0, n, lambda limit: limit * (1 - limit) / n, (0.0, 1.0)).repeated(shares)


def of_difference(end: Runs, stitched: Runs) -> Evidence:
    """Return the evidence on the penalty of stitches; see `of_penalty`.

    Args:
        end, stitched: whether each is right about each image.
    """
    pairs = list(zip(end, stitched, strict=True))
    lost, won = _shares([one & ~other for one, other in pairs]), _shares([~one & other for one, other in pairs])
    return of_penalty(lost, won, n_images=end[0].shape[1])


def of_penalty(lost: Sequence[np.ndarray], won: Sequence[np.ndarray], *, n_images: int) -> Evidence:
    """Return the evidence on a penalty, the share of images that are lost less that of won ones; Tango's (1998) of one.

    Several runs enter by their means, with the variance of a single run: their mean varies no more.

    Args:
        lost, won: shares of images of each pair of networks: (runs,).
    """
    means = _mean(lost), _mean(won)
    evidence = Evidence(
        means[0] - means[1], 1.0, n_images, lambda limit: _tango_variance(*means, limit) / n_images, (-1.0, 1.0)
    )
    return evidence.repeated([one - other for one, other in zip(lost, won, strict=True)])


def of_ratio(top: Runs, bottom: Runs) -> Evidence:
    """Return the evidence on the ratio of two shares of the same images; for one run, Tang's (2003).

    Args:
        top, bottom: whether each image counts in the share.
    """
    n, pairs = top[0].shape[1], list(zip(top, bottom, strict=True))
    both, either = (_mean(_shares(values)) for values in ([t & b for t, b in pairs], [t | b for t, b in pairs]))
    tops, bottoms = _shares(top), _shares(bottom)
    above, below = _mean(tops), _mean(bottoms)
    ratio = above / below if below else 0.0
    evidence = Evidence(
        above, below, n, lambda limit: _tang_variance(below, below - both, either, limit) / n, (0.0, LARGEST)
    )
    return evidence.repeated([one - ratio * other for one, other in zip(tops, bottoms, strict=True)])


def moderated(family: Sequence[Evidence]) -> list[Evidence]:
    """Moderate the variances over repetitions by their mean over the pairs of layers of a method (Smyth 2004).

    The mean counts as `PRIOR_DF` degrees of freedom, or as a quarter of those that the other pairs have: it is an
    estimate itself, and their variances differ.
    """
    dfs = [each.n_repetitions - 1 for each in family]
    prior = sum(df * each.variance for df, each in zip(dfs, family, strict=True)) / max(1, sum(dfs))
    result = []
    for df, each in zip(dfs, family, strict=True):
        prior_df = min(PRIOR_DF, (sum(dfs) - df) / PER_PRIOR_DF) if df else 0.0
        variance = (prior_df * prior + df * each.variance) / max(1, prior_df + df)
        result.append(each._replace(variance=variance, prior_df=prior_df))
    return result


def _shares(values: Runs) -> list[np.ndarray]:
    return [of_networks.mean(1) for of_networks in values]


def _mean(shares: Sequence[np.ndarray]) -> float:
    """Return the mean over pairs of networks, which count alike, however many runs each has."""
    return float(np.mean([of_networks.mean() for of_networks in shares]))


def _tango_variance(lost: float, won: float, difference: float) -> float:
    """Return the variance of one image's difference where the shares of lost and won differ by that much.

    The share of won is its maximum likelihood estimate under this restriction (Tango 1998, equation 8).
    """
    b = (2 - lost + won) * difference - lost - won
    c = -won * difference * (1 - difference)
    share = (math.sqrt(max(b * b - 8 * c, 0.0)) - b) / 4
    return max(2 * share + difference * (1 - difference), 0.0)


def _tang_variance(bottom: float, only_bottom: float, either: float, ratio: float) -> float:
    """Return the variance of one image's top − ratio · bottom where the shares have that ratio.

    The share of images in the bottom alone is its maximum likelihood estimate under this restriction (Tang, Tang and
    Chan 2003, Statistics in Medicine 22, 1217).
    """
    a = 1 + ratio
    b = bottom * ratio**2 - (either + only_bottom)
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
    """Return how many test images it takes that the score test finds a penalty below the tolerance if none is lost."""
    if not 0 < tolerance < 1:
        return math.inf
    return math.ceil(ndtri(ALPHA / n_tests) ** 2 * (1 - tolerance) / tolerance)
