"""The jackknife: the variance of a statistic, from its values without each part of the sample."""

import numpy as np
from numpy.typing import ArrayLike


def jackknife_variance(without_part: ArrayLike) -> float:
    """Return the jackknife's variance of a statistic (Efron and Stein 1981).

    It is (n − 1)/n Σ (θᵢ − mean)², where θᵢ is the statistic without part i. The variance of a mean is
    exactly that of n independent values, s²/n.

    Args:
        without_part: the statistic without each of n parts, (n,).
    """
    values = np.asarray(without_part, dtype=np.float64)
    return float((len(values) - 1) * np.var(values))
