"""Agreement of a stitch with its end network, beyond the agreement that the label and the front
network's class explain."""

import math
from typing import NamedTuple

import numpy as np

from src.statistics.intervals import DEVIATIONS
from src.statistics.jackknife import jackknife_variance
from src.values import IntervalEstimate, Predictions


class StrataCounts(NamedTuple):
    """Counts of images and agreements, by stratum (S,) or by image (n,)."""

    stratum: np.ndarray  # (n,), from 0 on
    n_images: np.ndarray  # (S,)
    agreements: np.ndarray  # (S,): images of which both predict the same class
    # (S,): ordered pairs of images i, j where the stitched class of i is the end class of j
    agreeing_pairs: np.ndarray
    pairs_of_image: np.ndarray  # (n,): the number of agreeing pairs that an image is in


def kappa_of(predictions: Predictions) -> IntervalEstimate:
    """Return the κ of a stitch and its end network within strata; see `kappa_within`."""
    strata = strata_of(predictions.labels, predictions.front)
    return kappa_within(predictions.stitched, predictions.end, strata)


def strata_of(labels: np.ndarray, front: np.ndarray) -> np.ndarray:
    """Return the stratum (n,) of each image: images of one stratum share the label and the front
    network's class.

    Args:
        labels, front: classes (n,); an encoder predicts none (-1), so that its strata are the labels.
    """
    n_front_classes = 2 + int(front.max())  # with the -1 of an encoder
    return np.unique(labels.astype(np.int64) * n_front_classes + front + 1, return_inverse=True)[1]


def kappa_within(stitched: np.ndarray, end: np.ndarray, strata: np.ndarray) -> IntervalEstimate:
    """Return Cohen's κ (1960) within strata of the classes that a stitch and its end network
    predict.

    It is 1 − disagreement / disagreement expected if both were independent within strata: 1 where
    they agree on all images, 0 where they agree no more than the strata explain.

    The interval is the jackknife's over images, about the estimate that leaves out the pairs of an
    image with itself: in small strata these make the expected disagreement too small.

    Args:
        stitched, end: predicted classes (n,).
        strata: (n,); see `strata_of`.
    Returns:
        NaN where the end network predicts a single class within each stratum: then nothing is left to explain.
    """
    counts = _count(np.asarray(stitched), np.asarray(end), np.asarray(strata))
    n_classes = 1 + int(np.max(end))
    if len(np.unique(counts.stratum * n_classes + end)) == len(counts.n_images):
        return IntervalEstimate(math.nan, math.nan, math.nan)
    disagreement = len(counts.stratum) - counts.agreements.sum()
    expected = (counts.n_images - counts.agreeing_pairs / counts.n_images).sum()
    value = float(1 - disagreement / expected)

    agree = np.asarray(stitched) == np.asarray(end)
    observed, independent = _disagreements(
        counts.n_images, counts.agreements, counts.agreeing_pairs
    )
    observed_without, independent_without = _disagreements(
        counts.n_images[counts.stratum] - 1,
        counts.agreements[counts.stratum] - agree,
        counts.agreeing_pairs[counts.stratum] - counts.pairs_of_image,
    )
    observed_without += observed.sum() - observed[counts.stratum]  # (n,): of all images but one
    independent_without += independent.sum() - independent[counts.stratum]
    if not (independent_without > 0).all():
        return IntervalEstimate(value, -1.0, 1.0)
    unbiased = 1 - observed.sum() / independent.sum()
    without_image = 1 - observed_without / independent_without  # (n,)
    half_width = DEVIATIONS * math.sqrt(jackknife_variance(without_image))
    low = min(value, max(-1.0, unbiased - half_width))
    high = max(value, min(1.0, unbiased + half_width))
    return IntervalEstimate(value, float(low), float(high))


def _disagreements(
    n_images: np.ndarray, agreements: np.ndarray, agreeing_pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the observed and the expected disagreements (S,) of strata, from pairs of two images;
    0 for strata of one image."""
    n_pairs = n_images * (n_images - 1)
    disagreeing_pairs = n_pairs - (agreeing_pairs - agreements)
    expected = np.where(n_pairs > 0, disagreeing_pairs / np.maximum(n_images - 1, 1), 0.0)
    observed = np.where(n_pairs > 0, n_images - agreements, 0.0)
    return observed, expected


def _count(stitched: np.ndarray, end: np.ndarray, strata: np.ndarray) -> StrataCounts:
    """Count images and agreements of classes (n,) within strata (n,)."""
    stratum = np.unique(strata, return_inverse=True)[1].reshape(-1)
    n_classes = 1 + int(max(stitched.max(), end.max()))
    key_of_stitched = stratum * n_classes + stitched
    key_of_end = stratum * n_classes + end
    n_stitched_as_end = _occurrences(key_of_stitched, key_of_end)  # (n,)
    n_end_as_stitched = _occurrences(key_of_end, key_of_stitched)
    agree = stitched == end
    return StrataCounts(
        stratum,
        n_images=np.bincount(stratum),
        agreements=np.bincount(stratum, agree),
        agreeing_pairs=np.bincount(stratum, n_stitched_as_end),
        pairs_of_image=n_stitched_as_end + n_end_as_stitched - agree,
    )


def _occurrences(keys: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the number of times (n,) that each query stands among the keys."""
    distinct, counts = np.unique(keys, return_counts=True)
    places = np.minimum(np.searchsorted(distinct, queries), len(distinct) - 1)
    return np.where(distinct[places] == queries, counts[places], 0)
