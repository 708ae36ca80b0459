"""How well scores tell two sets of samples apart: the area under the ROC curve, with its interval.

ID samples are the positive ones, and a low energy speaks for ID.
"""

import numpy as np
import scipy  # loads a part of it at its first use

from src.values import Interval


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


def _shares_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return for each of `values` (N,) the share of `others` (M,) below it. Ties count half.

    All shares are NaN if a number is, as `np.sort` puts it last.
    """
    if np.isnan(values).any() or np.isnan(others).any():
        return np.full(len(values), np.nan)
    ordered = np.sort(others)
    n_below = np.searchsorted(ordered, values, side="left")
    n_at_most = np.searchsorted(ordered, values, side="right")
    return (n_below + n_at_most) / (2 * len(others))
