"""Direct matching: goldens, and the properties of a least-squares solution."""

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from src.stitching import direct_matching
from tests.goldens import numbers, random, tensor

CASES = sorted({key.split("/")[0] for key in numbers("ps_inv")})


@pytest.mark.parametrize("case", CASES)
def test_equals_the_public_code(case):
    found = direct_matching(tensor("ps_inv", f"{case}/x1"), tensor("ps_inv", f"{case}/x2"))
    golden = {key: numbers("ps_inv")[f"{case}/{key}"] for key in ("w", "b", "w64", "b64", "loss64")}
    np.testing.assert_allclose(found.weight, golden["w64"], atol=1e-9)
    np.testing.assert_allclose(found.bias, golden["b64"], atol=1e-9)
    np.testing.assert_allclose(found.weight, golden["w"], atol=7e-6)
    np.testing.assert_allclose(found.error, golden["loss64"], rtol=1e-9, atol=1e-12)


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


@pytest.mark.parametrize("cutoff", [0.3, 0.5])
def test_a_cutoff_of_ones_own_is_numpys(cutoff):
    x, y = random(60, 6) * torch.logspace(0, -1, 6), random(60, 3, seed=1)
    augmented = np.hstack([x.numpy(), np.ones((60, 1))])
    found = direct_matching(x, y, cutoff=cutoff)
    solution = np.linalg.pinv(augmented, rcond=cutoff) @ y.numpy()
    np.testing.assert_allclose(found.weight.T, solution[:-1], atol=1e-12)
    sigma = np.linalg.svd(augmented, compute_uv=False)
    assert found.rank == (sigma > cutoff * sigma[0]).sum() < 7


def test_the_papers_cutoff_grows_with_the_rows_and_the_exact_one_does_not():
    """Rows said again and again change nothing about least squares, but the cutoff of the paper."""
    x, y = random(50, 5) * torch.logspace(0, -3, 5) + 1, random(50, 2, seed=1)
    y = y + 5000 * x[:, -1:]  # known to the direction that varies least
    many_x, many_y = x.repeat(400, 1), y.repeat(400, 1)
    few, paper = direct_matching(x, y), direct_matching(many_x, many_y)
    exact = direct_matching(many_x, many_y, cutoff="exact")
    torch.testing.assert_close(exact.weight, few.weight)
    assert exact.rank == few.rank == 6 > paper.rank
    assert paper.error > 1.1 * few.error and paper.truncated and not few.truncated and not exact.truncated
    singular = np.linalg.svd(np.hstack([many_x, np.ones((20000, 1))]), compute_uv=False)
    assert paper.rank == (singular > 20000 * np.finfo(np.float32).eps * singular[0]).sum()


def test_dropped_directions_that_explain_little_are_no_truncation_to_warn_of():
    x, y = random(30000, 4) * torch.tensor([1, 1, 1, 1e-3]), random(30000, 2, seed=1)
    found = direct_matching(x, y + x[:, :2])
    assert found.rank == 4 and not found.truncated
    found = direct_matching(x, y + x[:, :2] + 1e3 * x[:, 3:])
    assert found.rank == 4 and found.truncated
    found = direct_matching(x, y + x[:, :2] + 1e3 * x[:, 3:], cutoff=0.01)
    assert found.rank == 4 and not found.truncated  # as asked for


@pytest.mark.parametrize("mean", [0, 1e3])
def test_r2_is_that_of_scikit_learn_whatever_the_mean(mean):
    x, y = random(40, 5), random(40, 3, seed=1)
    x, y = x + mean, y + x @ random(5, 3, seed=2) + mean
    found = direct_matching(x, y)
    stitched = x @ found.weight.T + found.bias
    expected = r2_score(y, stitched, multioutput="variance_weighted")
    assert 0.1 < found.r2 < 0.95 and found.r2 == pytest.approx(expected, abs=1e-8)


def test_r2_of_a_target_that_does_not_vary_is_unknown():
    found = direct_matching(random(9, 4), torch.full((9, 2), 0.1, dtype=torch.float64))
    assert found.r2 != found.r2 and found.error < 1e-15


def test_refuses_other_positions_and_what_is_not_finite():
    with pytest.raises(ValueError, match="positions"):
        direct_matching(random(3, 4, 2, 2), random(3, 4, 3, 3))
    x = random(9, 4)
    x[2, 2] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        direct_matching(x, random(9, 2))
    with pytest.raises(ValueError, match="not finite"):
        direct_matching(random(9, 2), x)


def test_refuses_unknown_forms_and_cutoffs():
    x, y = random(9, 4), random(9, 2)
    with pytest.raises(ValueError, match="no form pca; choose one of pinv"):
        direct_matching(x, y, form="pca")
    for cutoff in (-0.1, 1.0, "papier"):
        with pytest.raises(ValueError, match="is not paper, exact or a number|could not convert"):
            direct_matching(x, y, cutoff=cutoff)


def test_a_target_of_zeros_is_met_exactly():
    found = direct_matching(random(9, 4), torch.zeros(9, 2))
    assert found.error == 0 and found.weight.abs().max() == 0
