"""Truncation to principal components: goldens, and what follows from Eckart and Young."""

import pytest
import torch

from src.low_rank import descending, low_rank_approx
from src.moments import as_rows
from tests.goldens import numbers, tensor

CASES = sorted(key for key in numbers("low_rank") if "/rank" in key and "directly" not in key)


@pytest.mark.parametrize("key", CASES)
def test_equals_the_public_code(key):
    case, _, rank = key.partition("/rank")
    x = tensor("low_rank", f"{case}/x")
    if key.endswith("_64"):
        found, tolerance = low_rank_approx(x.double(), int(rank.removesuffix("_64"))), 1e-12
    else:
        found, tolerance = low_rank_approx(x, int(rank)), 2e-5
    torch.testing.assert_close(found, tensor("low_rank", key), rtol=tolerance, atol=tolerance)


@pytest.fixture
def x():
    return torch.randn(6, 5, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 2


def test_keeps_the_mean_and_has_the_rank(x):
    rows, truncated = as_rows(x), as_rows(low_rank_approx(x, 2))
    torch.testing.assert_close(truncated.mean(0), rows.mean(0))
    assert torch.linalg.matrix_rank(truncated - truncated.mean(0)) == 2


def test_error_is_the_dropped_variance(x):
    rows = as_rows(x)
    sigma = torch.linalg.svdvals(rows - rows.mean(0))
    error = (as_rows(low_rank_approx(x, 3)) - rows).square().sum()
    torch.testing.assert_close(error, sigma[3:].square().sum())


def test_is_a_projection_and_leaves_its_input_alone(x):
    before = x.clone()
    once = low_rank_approx(x, 2)
    torch.testing.assert_close(low_rank_approx(once, 2), once)
    assert torch.equal(x, before)


def test_full_rank_and_none_change_nothing(x):
    assert low_rank_approx(x, 5) is x
    assert low_rank_approx(x, 500) is x
    assert low_rank_approx(x, None) is x


@pytest.mark.parametrize("rank", [0, -1])
def test_refuses_ranks_below_one(x, rank):
    with pytest.raises(ValueError, match="not positive"):
        low_rank_approx(x, rank)


def test_gradients_pass_through_the_projection(x):
    x.requires_grad_()
    low_rank_approx(x, 2).sum().backward()
    assert x.grad.shape == x.shape and x.grad.isfinite().all()


def test_ranks_of_an_option():
    assert descending([4, 64, 4]) == [64, 4] and descending([4, 0, 64]) == [None, 64, 4]
    assert descending(None) == descending([]) == descending([0]) == [None]
