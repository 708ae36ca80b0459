"""Truncation to principal components: goldens, and what follows from Eckart and Young."""

import pytest
import torch

from src.cli import descending
from src.core.activations import as_rows
from src.low_rank import low_rank_approx, principal_components
from tests.goldens import numbers, tensor

CASES = sorted(key for key in numbers("low_rank") if "/rank" in key and "directly" not in key)


def test_equals_the_public_code():
    for key in CASES:
        case, _, rank = key.partition("/rank")
        x = tensor("low_rank", f"{case}/x")
        tolerance = 2e-5
        if key.endswith("_64"):
            x = x.double()
            tolerance = 1e-12
        truncated = low_rank_approx(x, int(rank.removesuffix("_64")))
        expected = tensor("low_rank", key)
        torch.testing.assert_close(truncated, expected, rtol=tolerance, atol=tolerance, msg=key)


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 5, 4, 3, dtype=torch.float64, generator=generator) + 2


def test_keeps_the_mean_has_the_rank_and_drops_the_least_variance(x):
    before = x.clone()
    rows = as_rows(x)
    truncated = as_rows(low_rank_approx(x, 2))
    torch.testing.assert_close(truncated.mean(0), rows.mean(0))
    assert torch.linalg.matrix_rank(truncated - truncated.mean(0)) == 2
    sigma = torch.linalg.svdvals(rows - rows.mean(0))
    torch.testing.assert_close((truncated - rows).square().sum(), sigma[2:].square().sum())
    torch.testing.assert_close(low_rank_approx(low_rank_approx(x, 2), 2), low_rank_approx(x, 2))
    assert torch.equal(x, before)
    constant = torch.full((8, 6, 3, 3), 0.3)
    torch.testing.assert_close(low_rank_approx(constant, 2), constant)


def test_full_rank_and_none_change_nothing_and_ranks_below_one_are_refused(x):
    assert low_rank_approx(x, 5) is low_rank_approx(x, 500) is low_rank_approx(x, None) is x
    with pytest.raises(ValueError, match="not positive"):
        low_rank_approx(x, 0)


@pytest.mark.parametrize("shape", [(6, 12, 4, 3), (20, 12), (7, 12), (1, 12)])
def test_axes_are_orthonormal_and_sorted_by_variance(shape):
    acts = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 2
    mean, axes = principal_components(acts, 12)
    n_rows = acts.numel() // 12
    assert axes.shape[1] == min(12, n_rows - 1)  # n samples vary in n - 1 directions
    torch.testing.assert_close(axes.T @ axes, torch.eye(axes.shape[1], dtype=torch.float64))
    assert (((as_rows(acts) - mean) @ axes).square().sum(0).diff() <= 1e-12).all()


def test_gradients_are_those_of_a_constant_projection(x):
    x.requires_grad_()
    weights = torch.rand_like(x)
    (low_rank_approx(x, 2) * weights).sum().backward()
    mean, axes = principal_components(x, 2)
    torch.testing.assert_close(as_rows(x.grad), as_rows(weights) @ axes @ axes.T)


def test_ranks_of_an_option():
    assert descending([4, 64, 4]) == [64, 4] and descending([4, 0, 64]) == [None, 64, 4]
    assert descending(None) == descending([]) == descending([0]) == [None]
