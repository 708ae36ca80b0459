"""Score tests and intervals of means over test images, and over pairs of networks.

A test at a limit takes the variance that the mean would have there, not the one that was seen: where few images
disagree, the latter is nearly 0.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtr

from src.results.tables import Interval

ALPHA = 0.025  # of a test in one direction; an interval of 95 % has two


class Evidence(NamedTuple):
    """A mean, and the variance that it would have at other values."""

    value: float
    n_images: int = 0  # 0: the images are not known
    variance_at: Callable[[float], float] = lambda mean: 0.0  # over images
    n_networks: int = 1
    network_variance: float = 0.0  # of the mean, over pairs of networks

    def z(self, limit: float) -> tuple[float, float]:
        """Return the distance to a limit in standard errors, and its degrees of freedom (Satterthwaite 1946)."""
        over_images = self.variance_at(limit)
        variance = over_images + self.network_variance
        if not variance > 0:
            return math.copysign(math.inf, self.value - limit) if self.value != limit else 0.0, math.inf
        if not self.network_variance:
            return (self.value - limit) / math.sqrt(variance), math.inf
        squares = self.network_variance**2 / (self.n_networks - 1)
        squares += over_images**2 / (self.n_images - 1) if self.n_images > 1 else 0
        return (self.value - limit) / math.sqrt(variance), variance**2 / squares

    def p_below(self, limit: float) -> float:
        """Test in one direction whether the mean is below a limit; against it, that it is there or above."""
        z, df = self.z(limit)
        return float(ndtr(z) if math.isinf(df) else stdtr(df, z))

    def p_above(self, limit: float) -> float:
        """Test in one direction whether the mean is above a limit."""
        z, df = self.z(limit)
        return float(ndtr(-z) if math.isinf(df) else stdtr(df, -z))

    def interval(self) -> Interval:
        """Return the limits that no test in one direction rejects: an interval of 95 %."""
        ends = []
        for p, end in ((self.p_above, -1.0), (self.p_below, 1.0)):
            inside = end * (1 - 1e-12)
            reaches = p(inside) >= ALPHA or self.value == end
            ends.append(end if reaches else brentq(lambda limit, p=p: p(limit) - ALPHA, inside, self.value, xtol=1e-9))
        return Interval(*map(float, ends))


def of_share(right: Sequence[np.ndarray]) -> Evidence:
    """Return the evidence on a share of images; for one pair of networks and run, Wilson's interval (1927).

    Args:
        right: of each pair of networks, whether a run is right about each image, (runs, N).
    """
    value = float(np.mean([of_networks.mean() for of_networks in right]))
    n = right[0].shape[1]
    return Evidence(value, n, lambda mean: max(mean * (1 - mean), 0.0) / n, *_over_networks(right))


def of_difference(end: Sequence[np.ndarray], stitched: Sequence[np.ndarray]) -> Evidence:
    """Return the evidence on the penalty of stitches; for one pair of networks and run, Tango's (1998).

    Several runs enter by the mean of their counts, with the variance of a single run: their mean varies no more.

    Args:
        end, stitched: as for `of_share`.
    """
    n = end[0].shape[1]
    pairs = list(zip(end, stitched, strict=True))
    differences = [one.astype(float) - other for one, other in pairs]
    lost = n * float(np.mean([(one & ~other).mean() for one, other in pairs]))
    won = n * float(np.mean([(~one & other).mean() for one, other in pairs]))
    return Evidence(
        (lost - won) / n, n, lambda mean: _tango_variance(lost, won, n, mean) / n, *_over_networks(differences)
    )


def of_networks(means: Sequence[float]) -> Evidence:
    """Return the evidence on a mean over pairs of networks alone, by Student's t; the images are not known."""
    return Evidence(float(np.mean(means)), 0, lambda mean: 0.0, len(means), float(np.var(means, ddof=1)) / len(means))


def _tango_variance(lost: float, won: float, n: int, difference: float) -> float:
    """Return the variance of one image's difference where the shares of lost and won differ by that much.

    The share of won is its maximum likelihood estimate under this restriction (Tango 1998, equation 8).
    """
    b = (2 * n - lost + won) * difference - lost - won
    c = -won * difference * (1 - difference)
    share = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    return max(2 * share + difference * (1 - difference), 0.0)


def _over_networks(values: Sequence[np.ndarray]) -> tuple[int, float]:
    """Return the number of pairs of networks, and the variance of the mean over them."""
    means = [each.mean() for each in values]
    return len(means), float(np.var(means, ddof=1)) / len(means) if len(means) > 1 else 0.0


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
