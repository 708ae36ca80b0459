"""Metrics of separating in-distribution (ID) from out-of-distribution (OOD) samples by energies.

ID is the positive class, and a low energy speaks for ID.
"""

from typing import NamedTuple

import numpy as np
import scipy  # loads a part of it at its first use

from src.core.values import Interval


class OODMetrics(NamedTuple):
    """Area under the ROC curve, average precision, and false-positive rate at 95 % recall.

    All three are in [0, 1], or NaN where energies are not finite."""

    auroc: float
    aupr: float
    fpr95: float


def ood_metrics(id_energies: np.ndarray, ood_energies: np.ndarray) -> OODMetrics:
    """Compare the energies of ID samples (N,) with the energies of OOD samples (M,).

    A threshold takes all samples for ID whose energy is at most the threshold. FPR95 is the share
    of OOD samples taken for ID at the recall nearest to 0.95, which may be below 0.95. Of equally
    near recalls, the one of the highest threshold counts. Thresholds above the highest ID energy
    do not count, as in the paper's code.

    Raises:
        ValueError: a set of energies is empty or not finite.
    """
    positives = np.asarray(id_energies, dtype=np.float64).ravel()
    negatives = np.asarray(ood_energies, dtype=np.float64).ravel()
    if not len(positives) or not len(negatives):
        raise ValueError("metrics need both ID and OOD energies")
    if not np.isfinite(positives).all() or not np.isfinite(negatives).all():
        raise ValueError("the energies are not finite")

    # Samples that each threshold takes for ID
    thresholds = np.unique(np.concatenate([positives, negatives]))
    n_true = np.searchsorted(np.sort(positives), thresholds, side="right")
    n_false = np.searchsorted(np.sort(negatives), thresholds, side="right")
    recalls = n_true / len(positives)
    false_positive_rates = n_false / len(negatives)

    # Average precision: the precision at each threshold, weighted by the recall that it gains
    gains = np.diff(recalls, prepend=0.0)
    aupr = float(np.sum(gains * n_true / (n_true + n_false)))

    # FPR95, among thresholds from none (no sample is taken for ID) to the first of full recall
    n_counted = int(np.searchsorted(recalls, 1.0)) + 1
    recalls = np.insert(recalls[:n_counted], 0, 0.0)
    false_positive_rates = np.insert(false_positive_rates[:n_counted], 0, 0.0)
    distances = np.abs(recalls - 0.95)
    nearest = np.flatnonzero(distances == distances.min())[-1]
    fpr95 = float(false_positive_rates[nearest])

    shares_of_id, _ = shares_in_order(positives, negatives)
    return OODMetrics(float(shares_of_id.mean()), aupr, fpr95)


def auroc_interval(id_energies: np.ndarray, ood_energies: np.ndarray, *, paired: bool) -> Interval:
    """Return the interval of 95 % of the AUROC of ID energies (N,) and OOD energies (M,).

    The variance is that of DeLong, DeLong and Clarke-Pearson (1988). The interval is symmetric on
    the scale of log odds. It has no width where all ID samples are on one side of all OOD samples.
    Both ends are NaN where an energy is.

    Args:
        paired: both energies are of the same images in the same order, so N = M.
    """
    shares_of_id, shares_of_ood = shares_in_order(id_energies, ood_energies)
    auroc = shares_of_id.mean()
    if paired:
        variance = np.var(shares_of_id + shares_of_ood, ddof=1) / len(shares_of_id)
    else:
        variance_of_id = np.var(shares_of_id, ddof=1) / len(shares_of_id)
        variance_of_ood = np.var(shares_of_ood, ddof=1) / len(shares_of_ood)
        variance = variance_of_id + variance_of_ood
    if not 0 < auroc < 1 or not variance > 0:
        return Interval(float(auroc), float(auroc))
    half_width = scipy.special.ndtri(0.975) * np.sqrt(variance) / (auroc * (1 - auroc))
    low = scipy.special.expit(scipy.special.logit(auroc) - half_width)
    high = scipy.special.expit(scipy.special.logit(auroc) + half_width)
    return Interval(float(low), float(high))


def shares_in_order(
    id_energies: np.ndarray, ood_energies: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compare each sample with all samples of the opposite set.

    Returns:
        For each ID sample (N,), the share of OOD samples with more energy; for each OOD sample
        (M,), the share of ID samples with less energy. Ties count half. The mean of either array is
        the AUROC (Mann and Whitney 1947). Where an energy is NaN, so are all shares.
    """
    positives = -np.asarray(id_energies, dtype=np.float64).ravel()
    negatives = -np.asarray(ood_energies, dtype=np.float64).ravel()
    return _shares_below(positives, negatives), 1 - _shares_below(negatives, positives)


def _shares_below(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return for each of `values` (N,) the share of `reference` (M,) below it. Ties count half."""
    if np.isnan(values).any() or np.isnan(reference).any():  # which np.sort puts last
        return np.full(len(values), np.nan)
    ordered = np.sort(reference)
    n_below = np.searchsorted(ordered, values, side="left")
    n_at_most = np.searchsorted(ordered, values, side="right")
    return (n_below + n_at_most) / (2 * len(reference))
