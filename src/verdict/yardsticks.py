"""Two yardsticks of a stitch that need no threshold: ratios of disagreements, which are shares of test images.

All functions take the predicted classes of the same images for each pair of networks, (runs, N), and give the evidence
on a ratio, whose value is NaN where its denominator is 0.
"""

from collections.abc import Sequence

import numpy as np

from src.verdict.intervals import Evidence, Runs, of_ratio, of_reduction

Predictions = Sequence[np.ndarray]


def disagreement(one: Predictions, other: Predictions) -> Runs:
    """Return for which images two networks predict different classes: (runs, N), bool."""
    return [first != second for first, second in zip(one, other, strict=True)]


def rho(stitched: Predictions, front: Predictions, end: Predictions) -> Evidence:
    """Return ρ: the disagreement of a stitch with the end network over that of the front network with it.

    1: as alike as two networks that were trained separately; 0: the same as the end network.
    """
    return of_ratio(disagreement(stitched, end), disagreement(front, end))


def beta(stitched: Predictions, control: Predictions, end: Predictions) -> Evidence:
    """Return β: the share of its label-only control's disagreement with the end network that a stitch removes.

    0: it tells the class and nothing else; 1: it is the same as the end network.

    Args:
        control: the same stitch, made on front activations of other images of the same class.
    """
    return of_reduction(disagreement(stitched, end), disagreement(control, end))
