"""The orthogonal map and ridge against scipy and scikit-learn, and what they have to be by definition."""

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from src.errors import UserError
from src.low_rank import as_rows, low_rank_approx
from src.stitching.closed_forms import PENALTIES, orthogonal, ridge
from src.stitching.layers import resize
from src.stitching.matching import LeastSquares, direct_matching, split_last_fifth


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sums_of(source, *targets, size=None):
    sums = LeastSquares(size)
    sums.add(source, {str(i): target for i, target in enumerate(targets)})
    return sums


def error_of(matching, rows, target):
    return ((rows @ matching.weight.T + matching.bias - target).square().sum() / target.square().sum()).item()


@pytest.mark.parametrize(("n_in", "n_out"), [(6, 6), (4, 7)])
def test_orthogonal_equals_scipy(n_in, n_out):
    x = random(50, n_in) + 3
    y = x @ random(n_in, n_out, seed=1) + 0.5 * random(50, n_out, seed=2)
    (found,) = orthogonal(sums_of(x, y)).values()
    centred = [(rows - rows.mean(0)).numpy() for rows in (x, y)]
    padded = np.hstack([centred[0], np.zeros((50, n_out - n_in))])
    expected = orthogonal_procrustes(padded, centred[1])[0][:n_in]  # (n_in, n_out)
    np.testing.assert_allclose(found.weight.T, expected, atol=1e-10)
    np.testing.assert_allclose(found.bias, y.mean(0) - x.mean(0) @ torch.from_numpy(expected), atol=1e-10)
    assert found.error == pytest.approx(error_of(found, x, y), rel=1e-9)


def test_orthogonal_finds_a_rotation_and_a_shift():
    x, rotation = random(5, 4, 3, 3), torch.linalg.qr(random(4, 4, seed=1)).Q
    y = torch.einsum("dc,bchw->bdhw", rotation, x) + random(4, seed=2)[:, None, None]
    (found,) = orthogonal(sums_of(x, y)).values()
    torch.testing.assert_close(found.weight, rotation)
    assert found.error < 1e-12


def test_orthogonal_to_a_narrower_target_maximises_the_trace():
    x = random(60, 8)
    y = x @ random(8, 3, seed=1) + random(60, 3, seed=2)
    (found,) = orthogonal(sums_of(x, y)).values()
    torch.testing.assert_close(found.weight @ found.weight.T, torch.eye(3, dtype=torch.float64))
    cross = (x - x.mean(0)).T @ (y - y.mean(0))
    best = (found.weight.T * cross).sum()
    assert best == pytest.approx(torch.linalg.matrix_norm(cross, "nuc").item())
    for seed in range(20):
        other = torch.linalg.qr(random(8, 3, seed=seed)).Q
        assert (other * cross).sum() < best


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_ridge_equals_scikit_learn(scale):
    x = (random(100, 12) * torch.logspace(0, -3, 12) + 2) * scale
    targets = [x @ random(12, 5, seed=1) + noise * random(100, 5, seed=2) for noise in (1e-3 * scale, 10 * scale)]
    samples = torch.arange(100)
    first, last = split_last_fifth(samples)
    found = ridge(sums_of(x[first], *(y[first] for y in targets)), sums_of(x[last], *(y[last] for y in targets)))
    alphas = PENALTIES * x.numpy().var(0).mean()
    split = PredefinedSplit([-1] * 80 + [0] * 20)
    for y, (matching, penalty) in zip(targets, found.values(), strict=True):
        search = GridSearchCV(Ridge(), {"alpha": alphas}, cv=split, scoring="neg_mean_squared_error")
        search.fit(x.numpy(), y.numpy())
        assert penalty == pytest.approx(search.best_params_["alpha"], rel=1e-9)
        np.testing.assert_allclose(matching.weight, search.best_estimator_.coef_, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(matching.bias, search.best_estimator_.intercept_, rtol=1e-6, atol=1e-6 * scale)
        assert matching.error == pytest.approx(error_of(matching, x, y), rel=1e-6, abs=1e-12)
    assert found["0"].ridge_penalty < found["1"].ridge_penalty  # noise asks for more


def test_ridge_with_little_penalty_approaches_least_squares():
    x, y = random(40, 5), random(40, 3, seed=1)
    y += 10 * x @ random(5, 3, seed=2)
    (found,) = ridge(sums_of(x[:32], y[:32]), sums_of(x[32:], y[32:])).values()
    torch.testing.assert_close(found.matching.weight, direct_matching(x, y).weight, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize(("source", "target"), [((4, 4), (8, 8)), ((8, 8), (4, 4))])
def test_resized_and_truncated_sources_equal_doing_so_first(source, target, rank):
    x, y = random(10, 6, *source), random(10, 3, *target, seed=1)
    plain = low_rank_approx(resize(x, target, "bilinear"), rank)
    found, expected = orthogonal(sums_of(x, y, size=target), rank=rank), orthogonal(sums_of(plain, y))
    rows = as_rows(plain)
    for one, other in zip(found.values(), expected.values(), strict=True):
        torch.testing.assert_close(rows @ one.weight.T + one.bias, rows @ other.weight.T + other.bias)
        assert one.error == pytest.approx(other.error, rel=1e-9)
    found = ridge(sums_of(x[:8], y[:8], size=target), sums_of(x[8:], y[8:], size=target), rank=rank)["0"]
    expected = ridge(sums_of(plain[:8], y[:8]), sums_of(plain[8:], y[8:]))["0"]
    torch.testing.assert_close(found.matching.weight, expected.matching.weight)
    assert found.ridge_penalty == pytest.approx(expected.ridge_penalty)


def test_a_source_that_does_not_vary_gives_the_mean_target():
    x, y = torch.ones(10, 3, dtype=torch.float64), random(10, 2)
    (found,) = ridge(sums_of(x[:8], y[:8]), sums_of(x[8:], y[8:])).values()
    assert found.matching.weight.abs().max() == 0
    torch.testing.assert_close(found.matching.bias, y.mean(0))


def test_refuses_what_is_not_finite_and_too_few_samples():
    x, y = random(9, 4), random(9, 2)
    y[0, 0] = torch.inf
    for run in (lambda: orthogonal(sums_of(x, y)), lambda: ridge(sums_of(x, y), sums_of(x, y))):
        with pytest.raises(ValueError, match="target activations are not finite"):
            run()
    with pytest.raises(UserError, match="at least two samples"):
        split_last_fifth(torch.arange(1))
    assert [len(part) for part in split_last_fifth(torch.arange(103))] == [83, 20]
    assert [len(part) for part in split_last_fifth(torch.arange(2))] == [1, 1]
