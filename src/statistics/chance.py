"""Accuracies close to chance: into such a network, a stitch can lose little accuracy."""

import numpy as np
from numpy.typing import ArrayLike

from src.statistics.intervals import wilson_intervals

TOLERANCE = 0.05  # the accuracy drop that a similar pair may have, unless a limit says otherwise


def chance_of(labels: ArrayLike) -> float:
    """Return the accuracy of always predicting the commonest class of labels (N,); -1 means unlabelled."""
    labels = np.asarray(labels)
    counts = np.bincount(labels[labels >= 0])
    return float(counts.max() / counts.sum())


def is_close_to_chance(
    accuracy: float, n_images: int, chance: float, *, tolerance: float = TOLERANCE
) -> bool:
    """Return whether an accuracy may exceed chance by no more than twice the tolerance, by its interval of 95 %."""
    (interval,) = wilson_intervals([accuracy], [n_images])
    return interval.low <= chance + 2 * tolerance
