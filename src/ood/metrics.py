"""How well energies tell in-distribution (ID) from out-of-distribution (OOD) samples; ID is the positive class."""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from src.results.tables import Interval


class OODMetrics(NamedTuple):
    """Area under the ROC curve, average precision, and the false-positive rate at 95 % recall; all in [0, 1]."""

    auroc: float
    aupr: float
    fpr95: float


def ood_metrics(id_energies: np.ndarray, ood_energies: np.ndarray, *, recall: float = 0.95) -> OODMetrics:
    """Compare the energies of ID samples (N,) with those of OOD samples (M,); ID should have the lower ones.

    FPR95 is the FPR at the recall nearest to 0.95, also from below; of ties, at the lowest threshold. As in the paper's
    code, thresholds below the highest one of full recall do not count.

    Raises:
        ValueError: one of them is empty or not finite.
    """
    positives, negatives = (-np.asarray(energies, dtype=np.float64).ravel() for energies in (id_energies, ood_energies))
    if not len(positives) or not len(negatives):
        raise ValueError("metrics need both ID and OOD energies")
    if not np.isfinite(positives).all() or not np.isfinite(negatives).all():
        raise ValueError("the energies are not finite")
    true, false = _counts_above_thresholds(positives, negatives)
    recalls = true / len(positives)
    precisions = true / (true + false)
    aupr = float(np.sum(np.diff(recalls, prepend=0.0) * precisions))
    fpr95 = _fpr_nearest_to(recall, recalls, false / len(negatives))
    return OODMetrics(_auroc(positives, negatives), aupr, fpr95)


def _auroc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Return the share of pairs that are in order, ties counting half (Mann and Whitney 1947)."""
    n, m = len(positives), len(negatives)
    ranks = rankdata(np.concatenate([positives, negatives]))[:n]
    return float((ranks.sum() - n * (n + 1) / 2) / (n * m))


def auroc_interval(id_energies: np.ndarray, ood_energies: np.ndarray, *, paired: bool) -> Interval:
    """Return the interval of 95 % of an AUROC, by DeLong's components (1988) and on the scale of log odds.

    Args:
        id_energies, ood_energies: as for `ood_metrics`.
        paired: both are of the same images in the same order; the components of each image then add up.
    """
    positives, negatives = (-np.asarray(energies, dtype=np.float64).ravel() for energies in (id_energies, ood_energies))
    n, m = len(positives), len(negatives)
    ranks = rankdata(np.concatenate([positives, negatives]))
    above = (ranks[:n] - rankdata(positives)) / m  # (n,): share of negatives below each positive
    below = 1 - (ranks[n:] - rankdata(negatives)) / n  # (m,): share of positives above each negative
    auroc = above.mean()
    variance = np.var(above + below, ddof=1) / n if paired else np.var(above, ddof=1) / n + np.var(below, ddof=1) / m
    if not 0 < auroc < 1 or not variance > 0:
        return Interval(float(auroc), float(auroc))
    half = norm.ppf(0.975) * np.sqrt(variance) / (auroc * (1 - auroc))
    return Interval(float(expit(logit(auroc) - half)), float(expit(logit(auroc) + half)))


def _counts_above_thresholds(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the positives and negatives that reach each distinct score, from the highest score down."""
    thresholds = np.unique(np.concatenate([positives, negatives]))[::-1]
    true, false = (
        len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left") for scores in (positives, negatives)
    )
    return true, false


def _fpr_nearest_to(recall: float, recalls: np.ndarray, false_positive_rates: np.ndarray) -> float:
    last = int(np.searchsorted(recalls, 1.0))  # thresholds below this one only add false positives
    # from the lowest threshold up, so that argmin finds the lowest of several; above all scores nothing is reached
    candidates = np.append(recalls[: last + 1][::-1], 0.0)
    rates = np.append(false_positive_rates[: last + 1][::-1], 0.0)
    return float(rates[np.argmin(np.abs(candidates - recall))])
