"""How well energies tell in-distribution (ID) from out-of-distribution (OOD) samples; ID is the
positive class."""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from src.results.tables import Interval


class OODMetrics(NamedTuple):
    """Area under the ROC curve, average precision, and the false-positive rate at 95 % recall; all
    in [0, 1]."""

    auroc: float
    aupr: float
    fpr95: float


def ood_metrics(id_energies: np.ndarray, ood_energies: np.ndarray) -> OODMetrics:
    """Compare the energies of ID samples (N,) with those of OOD samples (M,); ID should have the
    lower ones.

    FPR95 is the FPR at the recall nearest to 0.95, also from below; of ties, at the lowest
    threshold. As in the paper's code, thresholds below the highest one of full recall do not count.

    Raises:
        ValueError: one of them is empty or not finite.
    """
    positives, negatives = (
        np.asarray(energies, dtype=np.float64).ravel() for energies in (id_energies, ood_energies)
    )
    if not len(positives) or not len(negatives):
        raise ValueError("metrics need both ID and OOD energies")
    if not np.isfinite(positives).all() or not np.isfinite(negatives).all():
        raise ValueError("the energies are not finite")
    thresholds = np.unique(
        np.concatenate([positives, negatives])
    )  # an energy of at most that is taken for ID
    true, false = (
        np.searchsorted(np.sort(energies), thresholds, side="right")
        for energies in (positives, negatives)
    )
    recalls = true / len(positives)
    aupr = float(np.sum(np.diff(recalls, prepend=0.0) * true / (true + false)))

    first_full = int(np.searchsorted(recalls, 1.0))  # thresholds behind it only add false positives
    recalls, rates = (
        np.insert(each, 0, 0.0) for each in (recalls, false / len(negatives))
    )  # in front: none is taken
    distances = np.abs(recalls - 0.95)[
        first_full + 1 :: -1
    ]  # so that argmin finds the lowest score of several
    fpr95 = float(rates[first_full + 1 - np.argmin(distances)])
    return OODMetrics(float(_order(positives, negatives)[0].mean()), aupr, fpr95)


def auroc_interval(id_energies: np.ndarray, ood_energies: np.ndarray, *, paired: bool) -> Interval:
    """Return the interval of 95 % of an AUROC, by DeLong's components (1988) and on the scale of
    log odds.

    Args:
        id_energies, ood_energies: as for `ood_metrics`.
        paired: both are of the same images in the same order; the components of each image then add up.
    """
    above, below = _order(id_energies, ood_energies)
    n, m, auroc = len(above), len(below), above.mean()
    variance = (
        np.var(above + below, ddof=1) / n
        if paired
        else np.var(above, ddof=1) / n + np.var(below, ddof=1) / m
    )
    if not 0 < auroc < 1 or not variance > 0:
        return Interval(float(auroc), float(auroc))
    half = norm.ppf(0.975) * np.sqrt(variance) / (auroc * (1 - auroc))
    return Interval(float(expit(logit(auroc) - half)), float(expit(logit(auroc) + half)))


def _order(id_energies: np.ndarray, ood_energies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each ID sample (N,) the share of OOD samples of more energy, and for each of these
    (M,) the reverse.

    Ties count half; the mean of either is the AUROC (Mann and Whitney 1947).
    """
    positives, negatives = (
        -np.asarray(energies, dtype=np.float64).ravel() for energies in (id_energies, ood_energies)
    )
    n, m = len(positives), len(negatives)
    ranks = rankdata(np.concatenate([positives, negatives]))
    return (ranks[:n] - rankdata(positives)) / m, 1 - (ranks[n:] - rankdata(negatives)) / n
