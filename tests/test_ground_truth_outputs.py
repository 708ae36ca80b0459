"""Differences of outputs: cases by hand, scipy's divergence, symmetry and limits."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from src.ground_truth import output_differences


def predictions(n=200, n_classes=10, seed=0) -> np.ndarray:
    logits = 3 * np.random.default_rng(seed).normal(size=(n, n_classes))
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_differences_by_hand():
    first, second = [[1, 0], [1, 0], [0.5, 0.5], [0, 1]], [[1, 0], [0, 1], [0.5, 0.5], [0, 1]]
    found = output_differences(first, second, [0, 0, 0, 0])  # a tie is the first class
    assert found == (1 / 4, 1 / 4, 1 / 4)
    found = output_differences([[1.0, 0.0]], [[0.5, 0.5]])
    assert found.jensen_shannon == pytest.approx(1.5 - 0.75 * math.log2(3)) and math.isnan(found.accuracy)


def test_divergence_is_that_of_scipy():
    first, second = predictions(), predictions(seed=1)
    expected = np.mean([jensenshannon(p, q, base=2) ** 2 for p, q in zip(first, second, strict=True)])
    found = output_differences(first, second)
    assert found.jensen_shannon == pytest.approx(expected, rel=1e-9)
    assert found.disagreement == (first.argmax(1) != second.argmax(1)).mean()


def test_differences_have_no_order_and_equal_outputs_none():
    first, second, labels = predictions(), predictions(seed=1), np.arange(200) % 10
    assert output_differences(first, second, labels) == output_differences(second, first, labels)
    assert output_differences(first, first, labels) == (0, 0, 0)
    order = np.random.default_rng(0).permutation(200)
    moved = output_differences(first[order], second[order], labels[order])
    assert moved == pytest.approx(output_differences(first, second, labels))


def test_limits():
    """Certain of different classes: 1 bit. Nearly equal distributions stay at 0 or above."""
    sure = np.eye(3)
    assert output_differences(sure, sure[[1, 2, 0]], [0, 1, 2]) == (1, 1, 1)
    first = predictions(2000)
    for row in first:  # rounding gives less than 0 in some of them
        assert 0 <= output_differences(row[None], row[None] * (1 + 1e-9)).jensen_shannon < 1e-12
    in_single = first.astype(np.float32)
    assert output_differences(in_single, first).jensen_shannon < 1e-6


@pytest.mark.parametrize(
    ("first", "second", "labels", "message"),
    [
        (predictions(3), predictions(4), None, "of other images or classes"),
        (predictions(3), predictions(3), [0, 1], r"\(2,\) labels for predictions \(3, 10\)"),
        (np.log(predictions(3)), predictions(3), None, "apply a softmax to logits"),
        (predictions(3), 2 * predictions(3), None, "apply a softmax to logits"),
        (predictions(3), np.full((3, 10), np.nan), None, "apply a softmax to logits"),
        (predictions(3)[0], predictions(3), None, r"predictions are \(n, C\)"),
        (predictions(0), predictions(0), None, "n of 1 or more"),
    ],
)
def test_what_is_refused(first, second, labels, message):
    with pytest.raises(ValueError, match=message):
        output_differences(first, second, labels)
