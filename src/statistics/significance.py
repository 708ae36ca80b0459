"""P-values: of two answers to the same images, and of many tests together."""

from collections.abc import Sequence

import numpy as np
import scipy  # loads a part of it at its first use
from numpy.typing import ArrayLike, NDArray


def mcnemar_p(first: ArrayLike, second: ArrayLike) -> float:
    """Test whether the first of two answers is right more often; return the p-value.

    It is McNemar's (1947) exact test in one direction. Of the images that only one of both answers
    right, those of the first are a binomial number with the probability ½. Ties tell nothing.

    Args:
        first, second: for each image 1, 0, or ½ for a tie, (n,).
    """
    first = np.asarray(first)
    second = np.asarray(second)
    n_first = int(((first == 1) & (second == 0)).sum())
    n_second = int(((first == 0) & (second == 1)).sum())
    if n_first == 0:
        return 1.0
    return float(scipy.special.bdtrc(n_first - 1, n_first + n_second, 0.5))


def false_discovery_rate(p_values: Sequence[float]) -> NDArray:
    """Return p-values (n,) adjusted for the false discovery rate (Benjamini and Hochberg 1995).

    A test is positive if its adjusted p-value is below a level α. At most the share α of the
    positive tests is expected to be false.

    The adjusted value of the test at place i of n, the smallest p-value first, is the smallest
    p·n/j of the tests at places j ≥ i.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values)
    n_tests = len(values)
    scaled = values[order] * (n_tests / np.arange(1, n_tests + 1))
    adjusted = np.empty(n_tests)
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return adjusted.clip(0, 1)
