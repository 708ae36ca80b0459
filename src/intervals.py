"""Intervals of 95 %: over test images by a paired bootstrap, over independent runs by Student's t."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import stats

N_RESAMPLES = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """The ends of an interval; NaN where there is none."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """Its length; NaN where there is none."""
        return self.high - self.low


NO_INTERVAL = Interval(math.nan, math.nan)


@lru_cache(maxsize=2)
def resample_counts(n_images: int, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> np.ndarray:
    """Count how often each image is drawn in each resample: (n_resamples, n_images); n_images draws with replacement.

    The same for each number of images, so that all pairs and methods are resampled alike.
    """
    rng = np.random.default_rng((n_images, seed))
    counts = np.empty((n_resamples, n_images), dtype=np.float32)  # exact up to 2²⁴, and faster to multiply
    for resample in counts:
        resample[:] = np.bincount(rng.integers(n_images, size=n_images), minlength=n_images)
    return counts


def resampled_means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Average values (..., n_images) over the resamples of `resample_counts`: (..., n_resamples).

    Differences of two such means are those of paired resamples.
    """
    values = np.asarray(values, dtype=np.float32)
    return (values @ counts.T).astype(np.float64) / values.shape[-1]


def percentile_interval(resampled: np.ndarray) -> Interval:
    """Return the 2.5 and the 97.5 percentile of resampled statistics (n_resamples,) (Efron 1979)."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def over_images(values: np.ndarray, counts: np.ndarray) -> Interval:
    """Return the interval of the mean of values (n_images,), or of their paired differences, over test images.

    Args:
        values: one for each image; for a penalty, whether the end network is right less whether the stitch is.
        counts: (n_resamples, n_images), from `resample_counts`.
    """
    return percentile_interval(resampled_means(values, counts))


def over_runs(values: Sequence[float]) -> Interval:
    """Student's interval of the mean of independent runs; `NO_INTERVAL` of fewer than three."""
    if len(values) < 3:
        return NO_INTERVAL
    centre, error = float(np.mean(values)), float(stats.sem(values))
    if error == 0:
        return Interval(centre, centre)
    return Interval(*map(float, stats.t.interval(LEVEL, len(values) - 1, centre, error)))


def wider(one: Interval, other: Interval) -> Interval:
    """Return the wider of two intervals, of which one may be missing."""
    return other if math.isnan(one.width) or other.width > one.width else one


def independent(pairs: Sequence[tuple[str, str]]) -> bool:
    """Return whether no network is in two pairs, so that runs on the pairs are independent.

    Args:
        pairs: front and end network of each run; a network stitched to itself counts once.
    """
    networks = [network for pair in pairs for network in set(pair)]
    return len(networks) == len(set(networks))
