"""How much the outputs of two networks differ on the same images."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr


class OutputDifferences(NamedTuple):
    """Differences of the outputs of two networks; 0 where they are equal."""

    disagreement: float  # share of images with other predicted classes, in [0, 1]
    jensen_shannon: float  # mean divergence of the predicted distributions, in bits, in [0, 1]
    accuracy: float  # |difference of the accuracies|, in [0, 1]; NaN without labels


def output_differences(first: ArrayLike, second: ArrayLike, labels: ArrayLike | None = None) -> OutputDifferences:
    """Measure how much two sets of predictions differ; the order of the two does not matter.

    The Jensen–Shannon divergence (Lin 1991) of p and q is (KL(p‖m) + KL(q‖m))/2 with m = (p + q)/2, in bits.

    Args:
        first, second: probabilities (n, C) of the same images; each row adds up to 1.
        labels: (n,), true classes.
    Raises:
        ValueError: shapes do not fit, there are no images, or rows are no probabilities.
    """
    first, second = _probabilities(first), _probabilities(second)
    if first.shape != second.shape:
        raise ValueError(f"predictions {first.shape} and {second.shape} of other images or classes")
    classes = first.argmax(1), second.argmax(1)
    middle = (first + second) / 2
    divergences = (rel_entr(first, middle) + rel_entr(second, middle)).sum(1) / (2 * math.log(2))
    gap = math.nan
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != first.shape[:1]:
            raise ValueError(f"{labels.shape} labels for predictions {first.shape}")
        accuracies = [float((each == labels).mean()) for each in classes]
        gap = abs(accuracies[0] - accuracies[1])
    # Rounding can leave less than 0 of equal predictions
    return OutputDifferences(float((classes[0] != classes[1]).mean()), float(divergences.clip(0, 1).mean()), gap)


def _probabilities(predictions: ArrayLike) -> NDArray:
    predictions = np.asarray(predictions, dtype=np.float64)
    if predictions.ndim != 2 or not predictions.size:
        raise ValueError(f"predictions are (n, C) with n of 1 or more, not {predictions.shape}")
    if not (predictions >= 0).all() or not np.allclose(predictions.sum(1), 1, rtol=0, atol=1e-4):
        raise ValueError("predictions are not probabilities: apply a softmax to logits first")
    return predictions
