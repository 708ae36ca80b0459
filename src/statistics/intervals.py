"""Score tests and intervals of shares of test images and of their differences, over images and
repetitions.

A test at a limit takes the variance that the images would have at that limit, not the observed
variance, which is nearly 0 where few images disagree. Repetitions are pairs of networks, or the
seeds of one pair. The half-widths over images and over repetitions add up. The sum suffices for
normal errors, however they correlate."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads a part of it at its first use
from numpy.typing import ArrayLike

from src.core.values import IntervalEstimate

ALPHA = 0.025  # of a test in one direction; an interval of 95 % has two
LOWEST_P = 1e-12  # smaller p-values are 0
DEVIATIONS = 1.96  # half of an interval of 95 %, where no level is inverted

Runs = Sequence[np.ndarray]  # by pair of networks: (runs, N), one value an image


class Repetitions(NamedTuple):
    """The error over repetitions of a mean."""

    n: int = 1
    deviation: float = 0.0  # of one repetition

    def half_width(self, p: float) -> float:
        """Return the half-width that Student's t gives at a one-sided level p; 0 of a single
        repetition."""
        if self.n < 2:
            return 0.0
        return student_half_width(self.deviation, p, freedom=self.n - 1) / math.sqrt(self.n)


class Evidence(NamedTuple):
    """A value to test against limits."""

    value: float
    n_images: int
    # limit -> variance over images where the truth is that limit
    variance_at: Callable[[float], float]
    bounds: tuple[float, float]  # of the value
    repetitions: Repetitions = Repetitions()

    def half_width(self, limit: float, p: float) -> float:
        """Return the half-width at a one-sided level p where the truth is the limit: over images
        and repetitions."""
        over_images = -float(scipy.special.ndtri(p)) * math.sqrt(self.variance_at(limit))
        return over_images + self.repetitions.half_width(p)

    def p_below(self, limit: float) -> float:
        """Test in one direction whether the value is below a limit; return the p-value."""
        return self._p_value(limit, limit - self.value)

    def p_above(self, limit: float) -> float:
        """Test in one direction whether the value is above a limit; return the p-value."""
        return self._p_value(limit, self.value - limit)

    def _p_value(self, limit: float, distance: float) -> float:
        """Return the level at which the half-width is the distance between value and limit."""
        if distance < 0:
            return 1 - self._p_value(limit, -distance)
        if distance == 0:
            return 0.5
        deviation_over_images = math.sqrt(self.variance_at(limit))
        if self.repetitions.half_width(ALPHA) == 0:
            if deviation_over_images == 0:
                return 0.0
            return float(scipy.special.ndtr(-distance / deviation_over_images))

        def surplus(log_p: float) -> float:
            return self.half_width(limit, math.exp(log_p)) - distance

        if surplus(math.log(LOWEST_P)) <= 0:
            return 0.0
        log_p = scipy.optimize.brentq(surplus, math.log(LOWEST_P), math.log(0.5))
        return math.exp(log_p)

    def interval(self) -> IntervalEstimate:
        """Return the value with the limits that no test in one direction rejects; NaN for NaN."""
        if math.isnan(self.value):
            return IntervalEstimate(math.nan, math.nan, math.nan)
        low, high = self.bounds
        return IntervalEstimate(
            self.value, self._end(low, self.p_above), self._end(high, self.p_below)
        )

    def _end(self, bound: float, p_of: Callable[[float], float]) -> float:
        """Return the limit between a bound and the value where a test has the level `ALPHA`, or the bound."""
        if math.isinf(bound):  # far out, where nothing is left to test
            bound = self.value - 100 * self.half_width(self.value, ALPHA) - 1
        inside = bound + 1e-12 * (self.value - bound)
        if self.value == bound or p_of(inside) >= ALPHA:
            return bound

        def surplus(limit: float) -> float:
            return p_of(limit) - ALPHA

        return float(scipy.optimize.brentq(surplus, inside, self.value, xtol=1e-9))


def student_half_width(error: float, p: float, *, freedom: int) -> float:
    """Return the half-width of Student's interval of a value with a standard error.

    Args:
        p: the one-sided level, such as `ALPHA` for an interval of 95 %.
        freedom: degrees of freedom of the error.
    """
    return -float(scipy.special.stdtrit(freedom, p)) * error


def wilson_intervals(shares: ArrayLike, n_images: ArrayLike) -> list[IntervalEstimate]:
    """Return shares of images with Wilson's (1927) intervals of 95 %; NaN for a share of NaN.

    The interval of `of_share` is the same for a single run, found by inverting the test.

    Args:
        shares: (k,).
        n_images: that each share is of, (k,).
    """
    share = np.asarray(shares, dtype=np.float64)
    z_squared = DEVIATIONS**2 / np.asarray(n_images, dtype=np.float64)
    centre = (share + z_squared / 2) / (1 + z_squared)
    spread = np.sqrt(z_squared * (share * (1 - share) + z_squared / 4))
    half_width = spread / (1 + z_squared)
    low = np.maximum(0, centre - half_width)
    high = np.minimum(1, centre + half_width)
    return list(map(IntervalEstimate, share.tolist(), low.tolist(), high.tolist()))


def of_share(right: Runs) -> Evidence:
    """Return the evidence on the accuracy of runs; for one run, Wilson's
    interval (1927)."""
    shares = _shares(right)
    n_images = right[0].shape[1]

    def variance_at(limit: float) -> float:
        return limit * (1 - limit) / n_images

    return Evidence(mean_of(shares), n_images, variance_at, (0.0, 1.0), repetitions_of(shares))


def of_difference(end: Runs, stitched: Runs) -> Evidence:
    """Return the evidence on the accuracy drop of stitches; see `of_accuracy_drop`.

    Args:
        end, stitched: whether the end network and the stitch classify each input correctly.
    """
    pairs = list(zip(end, stitched, strict=True))
    lost = [is_end_right & ~is_stitch_right for is_end_right, is_stitch_right in pairs]
    won = [~is_end_right & is_stitch_right for is_end_right, is_stitch_right in pairs]
    return of_accuracy_drop(_shares(lost), _shares(won), n_images=end[0].shape[1])


def of_accuracy_drop(
    lost: Sequence[np.ndarray], won: Sequence[np.ndarray], *, n_images: int
) -> Evidence:
    """Return the evidence on an accuracy drop: the share of lost images less that of won ones; Tango's
    test (1998) of one run.

    Several runs enter by their means, with the variance of a single run: their mean varies no more.

    Args:
        lost, won: shares of images, by pair of networks: (runs,).
    """
    mean_lost = mean_of(lost)
    mean_won = mean_of(won)
    differences = [lost_here - won_here for lost_here, won_here in zip(lost, won, strict=True)]

    def variance_at(limit: float) -> float:
        return _tango_variance(mean_lost, mean_won, limit) / n_images

    return Evidence(
        mean_lost - mean_won, n_images, variance_at, (-1.0, 1.0), repetitions_of(differences)
    )


def of_estimates(estimates: Sequence[Sequence[IntervalEstimate]], *, n_images: int) -> Evidence:
    """Return the evidence on the mean of values of at most 1, from their symmetric intervals of 95 %.

    Runs are of the same images: their mean varies no more than a single run.

    Args:
        estimates: by pair of networks and run.
    """
    values = [np.array([run.value for run in runs]) for runs in estimates]
    half_widths = [np.array([run.value - run.low for run in runs]) for runs in estimates]
    variance = (mean_of(half_widths) / DEVIATIONS) ** 2
    value = mean_of(values)
    bounds = (-math.inf, 1.0)
    return Evidence(value, n_images, lambda limit: variance, bounds, repetitions_of(values))


def repetitions_of(values: Sequence[np.ndarray]) -> Repetitions:
    """Return the error over pairs of networks, or over the runs of a single pair.

    Args:
        values: by pair of networks: (runs,).
    """
    means = np.array([values_of_runs.mean() for values_of_runs in values])
    if len(values) == 1:
        means = values[0]
    if len(means) == 1:
        return Repetitions()
    return Repetitions(len(means), float(np.std(means, ddof=1)))


def mean_of(values: Sequence[np.ndarray]) -> float:
    """Return the mean over pairs of networks of the means over runs."""
    return float(np.mean([values_of_runs.mean() for values_of_runs in values]))


def images_needed(tolerance: float) -> float:
    """Return the number of test images that show an accuracy drop below the tolerance if no image is
    lost."""
    if not 0 < tolerance < 1:
        return math.inf
    return math.ceil(scipy.special.ndtri(ALPHA) ** 2 * (1 - tolerance) / tolerance)


def _shares(values: Runs) -> list[np.ndarray]:
    """Return the share of images of each run, by pair of networks: (runs,)."""
    return [values_of_networks.mean(1) for values_of_networks in values]


def _tango_variance(lost: float, won: float, difference: float) -> float:
    """Return the variance of an image's difference if the true shares differ by `difference`."""
    # With the most likely share of won images under this restriction (Tango 1998, equation 8)
    b = (2 - lost + won) * difference - lost - won
    c = -won * difference * (1 - difference)
    share = (math.sqrt(max(b * b - 8 * c, 0.0)) - b) / 4
    return max(2 * share + difference * (1 - difference), 0.0)
