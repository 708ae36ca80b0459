"""How well energies tell in-distribution (ID) from out-of-distribution (OOD) samples.

ID is the positive class, and a low energy speaks for ID."""

from typing import NamedTuple

import numpy as np

from src.statistics.auroc import shares_in_order


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
