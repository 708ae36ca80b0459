"""Direct matching: goldens, and the properties of a least-squares solution."""

import numpy as np
import pytest
import torch

from src.low_rank import as_rows, low_rank_approx
from src.stitching import direct_matching
from src.stitching.layers import resize
from src.stitching.matching import LeastSquares
from tests.goldens import numbers, tensor

CASES = sorted({key.split("/")[0] for key in numbers("ps_inv")})


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", CASES)
def test_equals_the_public_code(case):
    found = direct_matching(tensor("ps_inv", f"{case}/x1"), tensor("ps_inv", f"{case}/x2"))
    golden = {key: numbers("ps_inv")[f"{case}/{key}"] for key in ("w", "b", "w64", "b64", "loss64")}
    np.testing.assert_allclose(found.weight, golden["w64"], atol=1e-9)
    np.testing.assert_allclose(found.bias, golden["b64"], atol=1e-9)
    np.testing.assert_allclose(found.weight, golden["w"], atol=7e-6)
    np.testing.assert_allclose(found.error, golden["loss64"], rtol=1e-9, atol=1e-12)


def test_finds_an_affine_map_exactly():
    x, weight, bias = random(7, 4, 3, 3), random(5, 4, seed=1), random(5, seed=2)
    y = torch.einsum("dc,bchw->bdhw", weight, x) + bias[:, None, None]
    found = direct_matching(x, y)
    torch.testing.assert_close(found.weight, weight)
    torch.testing.assert_close(found.bias, bias)
    assert found.error < 1e-12


def test_equals_numpys_pseudo_inverse_with_the_same_cutoff():
    x, y = random(40, 9), random(40, 3, seed=1)
    x[:, 4] = 0  # a dead feature
    x[:, 7] = 1e-7 * x[:, 7]  # one below the cutoff
    augmented = np.hstack([x.numpy(), np.ones((40, 1))])
    solution = np.linalg.pinv(augmented, rcond=40 * np.finfo(np.float32).eps) @ y.numpy()
    found = direct_matching(x, y)
    np.testing.assert_allclose(found.weight.T, solution[:-1], atol=1e-10)
    np.testing.assert_allclose(found.bias, solution[-1], atol=1e-10)
    error = np.square(augmented @ solution - y.numpy()).sum() / np.square(y.numpy()).sum()
    assert found.error == pytest.approx(error, rel=1e-9)


def test_many_batches_equal_one():
    x, y = random(12, 5, 2, 2), random(12, 3, 2, 2, seed=1)
    sums = LeastSquares()
    for start in range(0, 12, 5):
        sums.add(x[start : start + 5], {"y": y[start : start + 5]})
    torch.testing.assert_close(sums.solve()["y"].weight, direct_matching(x, y).weight)


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize(("source", "target"), [((4, 4), (8, 8)), ((8, 8), (4, 4)), ((3, 5), (7, 6)), ((3, 8), (6, 4))])
def test_resized_source_equals_resizing_it_first(source, target, mode, rank):
    x, y = random(5, 6, *source), random(5, 3, *target, seed=1)
    sums = LeastSquares(target, mode)
    sums.add(x, {"y": y})
    found = sums.solve(rank=rank)["y"]
    expected = direct_matching(low_rank_approx(resize(x, target, mode), rank), y)
    torch.testing.assert_close(found.weight, expected.weight)
    torch.testing.assert_close(found.bias, expected.bias)
    assert found.error == pytest.approx(expected.error, rel=1e-9)


def test_error_is_that_of_the_weights():
    x, y = random(30, 6, 2, 2), random(30, 4, 2, 2, seed=1)
    found = direct_matching(x, y)
    rows, target = as_rows(x), as_rows(y)
    residual = rows @ found.weight.T + found.bias - target
    assert found.error == pytest.approx((residual.square().sum() / target.square().sum()).item())


def test_refuses_other_positions_and_what_is_not_finite():
    with pytest.raises(ValueError, match="positions"):
        direct_matching(random(3, 4, 2, 2), random(3, 4, 3, 3))
    x = random(9, 4)
    x[2, 2] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        direct_matching(x, random(9, 2))
    with pytest.raises(ValueError, match="not finite"):
        direct_matching(random(9, 2), x)


def test_a_target_of_zeros_is_met_exactly():
    found = direct_matching(random(9, 4), torch.zeros(9, 2))
    assert found.error == 0 and found.weight.abs().max() == 0
