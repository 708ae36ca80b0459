"""Intervals of 95 %: over test images by a paired bootstrap, over independent runs by Student's t."""

from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
from scipy import stats

from src.results.rows import Interval

N_RESAMPLES = 2000
LEVEL = 0.95


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


def over_runs(values: Sequence[float]) -> Interval | None:
    """Return Student's interval of the mean of independent runs; None of fewer than three, which have none."""
    if len(values) < 3:
        return None
    centre, error = float(np.mean(values)), float(stats.sem(values))
    if error == 0:
        return Interval(centre, centre)
    return Interval(*map(float, stats.t.interval(LEVEL, len(values) - 1, centre, error)))


def wider(*intervals: Interval | None) -> Interval | None:
    """Return the widest of some intervals, the first of several; None where there is none."""
    return max((interval for interval in intervals if interval), key=lambda interval: interval.width, default=None)


def are_independent(pairs: Sequence[tuple[Hashable, Hashable]]) -> bool:
    """Return whether no network is in two pairs, so that runs on the pairs are independent.

    Args:
        pairs: front and end network of each run; a network stitched to itself counts once.
    """
    networks = [network for pair in pairs for network in set(pair)]
    return len(networks) == len(set(networks))
