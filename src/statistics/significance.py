"""P-values of many tests together."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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
