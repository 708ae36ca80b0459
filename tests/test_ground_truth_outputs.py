"""Differences of outputs, and the numbers of baselines: cases by hand, scipy's divergence, symmetry
and limits."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from src.ground.errors import UserError
from src.ground_truth import output_differences
from src.ground_truth.outputs import (
    BASELINES,
    NetworkPass,
    baseline_numbers,
    baselines,
    differences,
    effective_rank,
    pass_over,
)
from src.models import build_model


def predictions(n=200, n_classes=10, seed=0) -> np.ndarray:
    logits = 3 * np.random.default_rng(seed).normal(size=(n, n_classes))
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_differences_by_hand():
    first, second = [[1, 0], [1, 0], [0.5, 0.5], [0, 1]], [[1, 0], [0, 1], [0.5, 0.5], [0, 1]]
    assert output_differences(first, second) == (1 / 4, 1 / 4)
    assert output_differences([[1.0, 0.0]], [[0.5, 0.5]]).jensen_shannon == pytest.approx(
        1.5 - 0.75 * math.log2(3)
    )
    assert output_differences(np.eye(3), np.eye(3)[[1, 2, 0]]) == (
        1,
        1,
    )  # certain of different classes: 1 bit
    for row in predictions(300):  # rounding gives less than 0 in some of them
        assert 0 <= output_differences(row[None], row[None] * (1 + 1e-9)).jensen_shannon < 1e-12


def test_divergence_is_that_of_scipy_and_has_no_order():
    first, second = predictions(), predictions(seed=1)
    expected = np.mean(
        [jensenshannon(p, q, base=2) ** 2 for p, q in zip(first, second, strict=True)]
    )
    found = output_differences(first, second)
    assert found.jensen_shannon == pytest.approx(expected, rel=1e-9)
    assert found.disagreement == (first.argmax(1) != second.argmax(1)).mean()
    assert output_differences(second, first) == found and output_differences(first, first) == (0, 0)


def test_what_is_refused():
    with pytest.raises(ValueError, match="of other images or classes"):
        output_differences(predictions(3), predictions(4))
    for spoilt in (np.log(predictions(3)), 2 * predictions(3), np.full((3, 10), np.nan)):
        with pytest.raises(ValueError, match="apply a softmax to logits"):
            output_differences(predictions(3), spoilt)


# One pass


def test_effective_rank_counts_the_axes_that_vary():
    rng = torch.Generator().manual_seed(0)
    axes = torch.randn(50, 6, generator=rng, dtype=torch.double)
    axes = torch.linalg.qr(axes - axes.mean(0))[0]  # centred
    assert effective_rank(3 * axes + 7) == pytest.approx(6)
    assert effective_rank(axes * torch.tensor([1, 1, 0, 0, 0, 0])) == pytest.approx(2)
    shares = np.array([0.9, 0.1])
    assert effective_rank(axes[:, :2] * torch.tensor(shares).sqrt()) == pytest.approx(
        math.exp(-shares @ np.log(shares))
    )
    assert effective_rank(torch.ones(5, 3)) == pytest.approx(1)


def test_a_pass_gives_what_the_network_gives():
    torch.manual_seed(0)
    network = build_model("small_cnn", n_classes=10, n_channels=1, image_shape=(1, 8, 8)).eval()
    images, labels = torch.rand(30, 1, 8, 8), torch.arange(30) % 10
    batches = [(images[:20], labels[:20]), (images[20:], labels[20:])]
    passed = pass_over(network, batches, ["pool1", "nothing", "pool4"])
    with torch.no_grad():
        logits, features = (
            network(images),
            network.activations(images, ["pool1"])["pool1"].mean((2, 3)).double(),
        )
    np.testing.assert_allclose(passed.probabilities, logits.softmax(1), atol=1e-6)
    assert passed.accuracy == (logits.argmax(1) == labels).double().mean()
    assert passed.mean_norms[0] == pytest.approx(features.norm(dim=1).mean().item(), rel=1e-5)
    assert passed.effective_ranks[0] == pytest.approx(effective_rank(features), rel=1e-4)
    assert (
        np.isnan(passed.mean_norms).tolist()
        == np.isnan(passed.effective_ranks).tolist()
        == [False, True, False]
    )


def test_a_pass_refuses_logits_that_are_not_finite():
    network = build_model("small_cnn", n_classes=10, n_channels=1, image_shape=(1, 8, 8)).eval()
    batch = (torch.full((3, 1, 8, 8), torch.inf), torch.arange(3))
    with pytest.raises(UserError, match="the logits of clean_0 are not finite"):
        pass_over(network, [batch], [], name="clean_0")


def test_baselines_are_negative_differences_of_one_number_of_each_network():
    passed = [
        NetworkPass(predictions(seed=i), 0.1 * i, np.array([i, 5.0]), np.array([7.0, i * i]))
        for i in range(3)
    ]
    found = baselines(baseline_numbers(passed))
    assert list(found) == list(BASELINES) and {each.shape for each in found.values()} == {
        (3, 3, 2, 2)
    }
    accuracy, rank, norm = found.values()
    assert (accuracy[0, 2] == -0.2).all() and rank[2, 1, 0, 0] == -1 and norm[2, 1, 1, 1] == -3
    assert (
        rank[1, 2, 0, 1] == -4 and norm[1, 2, 0, 1] == -3
    )  # of the first layer of one and the second of the other
    of_outputs = differences(passed)
    assert of_outputs["accuracy"][0, 2] == pytest.approx(0.2)
    assert (
        of_outputs["disagreement"][0, 1]
        == output_differences(predictions(seed=0), predictions(seed=1)).disagreement
    )
