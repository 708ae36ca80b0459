"""Closed forms against numpy, scipy and scikit-learn, and what they have to be by definition."""

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, PredefinedSplit

from src.choices.stitching import FORMS
from src.errors import UserError
from src.low_rank import low_rank_approx
from src.moments import as_rows
from src.stitching.closed_forms import PENALTIES, closed_form, orthogonal, ridge
from src.stitching.layers import resize
from src.stitching.matching import direct_matching
from src.stitching.moments import SourceMoments, Target
from tests.goldens import random


def sums_of(source, *targets, size=None):
    return SourceMoments.of(source, {str(i): Target.of(y, full=True) for i, y in enumerate(targets)}, size=size)


def map_of(x, y, form, **options):
    """The map of a form as numpy arrays: W (C1, C2), b (C2,)."""
    found = direct_matching(x, y, form=form, **options)
    return found.weight.numpy().T, found.bias.numpy()


def covariance_of(rows):
    return np.cov(np.asarray(rows).T, bias=True).reshape(rows.shape[1], rows.shape[1])


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
    first, last = slice(80), slice(80, None)
    found = ridge(sums_of(x[first], *(y[first] for y in targets)), sums_of(x[last], *(y[last] for y in targets)))
    alphas = PENALTIES * x.numpy().var(0).mean()
    split = PredefinedSplit([-1] * 80 + [0] * 20)
    for y, matching in zip(targets, found.values(), strict=True):
        search = GridSearchCV(Ridge(), {"alpha": alphas}, cv=split, scoring="neg_mean_squared_error")
        search.fit(x.numpy(), y.numpy())
        assert matching.ridge_penalty == pytest.approx(search.best_params_["alpha"], rel=1e-9)
        np.testing.assert_allclose(matching.weight, search.best_estimator_.coef_, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(matching.bias, search.best_estimator_.intercept_, rtol=1e-6, atol=1e-6 * scale)
        assert matching.error == pytest.approx(error_of(matching, x, y), rel=1e-6, abs=1e-12)
        assert direct_matching(x, y, form="ridge").ridge_penalty == pytest.approx(matching.ridge_penalty)
    assert found["0"].ridge_penalty < found["1"].ridge_penalty  # noise asks for more


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize(("source", "target"), [((4, 4), (8, 8)), ((8, 8), (4, 4))])
def test_resized_and_truncated_sources_equal_doing_so_first(source, target, rank):
    x, y = random(10, 6, *source), random(10, 3, *target, seed=1)
    plain = low_rank_approx(resize(x, target, "bilinear"), rank)
    for form in ("pinv", "ortho", "repair", "covariance"):
        one = closed_form(form, sums_of(x, y, size=target), rank=rank)["0"]
        other = closed_form(form, sums_of(plain, y))["0"]
        rows = as_rows(plain)
        torch.testing.assert_close(rows @ one.weight.T + one.bias, rows @ other.weight.T + other.bias)
        assert one.error == pytest.approx(other.error, rel=1e-9) and one.r2 == pytest.approx(other.r2, rel=1e-9)
    parts = sums_of(x[:8], y[:8], size=target), sums_of(x[8:], y[8:], size=target)
    found = closed_form("ridge", *parts, rank=rank)["0"]
    expected = ridge(sums_of(plain[:8], y[:8]), sums_of(plain[8:], y[8:]))["0"]
    torch.testing.assert_close(found.weight, expected.weight)
    assert found.ridge_penalty == pytest.approx(expected.ridge_penalty)


@pytest.mark.parametrize("form", ["repair", "covariance", "ridge"])
def test_a_source_that_does_not_vary_gives_the_mean_target(form):
    x, y = torch.full((13, 3), 0.1, dtype=torch.float64), random(13, 2)
    found = direct_matching(x, y, form=form)
    torch.testing.assert_close(found.weight, torch.zeros(2, 3, dtype=torch.float64))
    torch.testing.assert_close(found.bias, y.mean(0))
    assert found.r2 == pytest.approx(0, abs=1e-12)


def numpy_repair(x, y):
    """Least squares with rows in numpy, then each output brought to the target's mean and standard deviation."""
    augmented = np.hstack([x, np.ones((len(x), 1))])
    solution = np.linalg.pinv(augmented, rcond=1e-10) @ y
    made = augmented @ solution
    spread = made.std(0)
    scale = np.where(spread > 1e-6 * y.std(0), y.std(0) / np.where(spread > 0, spread, 1), 0)
    weight = solution[:-1] * scale
    return weight, y.mean(0) - x.mean(0) @ weight


def root(matrix, power):
    values, vectors = np.linalg.eigh(matrix)
    kept = values > 1e-10 * values[-1]
    return vectors[:, kept] * values[kept] ** power @ vectors[:, kept].T


def numpy_covariance(x, y):
    """The formula as it stands."""
    cross = (x - x.mean(0)).T @ (y - y.mean(0)) / len(x)
    inverse_root, target_root = root(covariance_of(x), -0.5), root(covariance_of(y), 0.5)
    u, _, vh = np.linalg.svd(inverse_root @ cross @ target_root, full_matrices=False)
    weight = inverse_root @ u @ vh @ target_root
    return weight, y.mean(0) - x.mean(0) @ weight


ORACLES = {"repair": numpy_repair, "covariance": numpy_covariance}


def rows_of_case(case):
    """Source and target rows that hang together in part, with means that are far from zero."""
    n_in, n_out = {"wide": (4, 7), "narrow": (7, 4)}.get(case, (6, 6))
    x = random(200, n_in) @ random(n_in, n_in, seed=5) + 3
    y = x @ random(n_in, n_out, seed=1) + 2 * random(200, n_out, seed=2) - 5
    if case == "deficient source":
        x[:, 4] = x[:, 0] - 2 * x[:, 1]
        x[:, 5] = 7
    if case == "deficient target":
        y[:, 4] = y[:, 0] + y[:, 1]
        y[:, 5] = 0
    return x, y


CASES = ["square", "wide", "narrow", "deficient source", "deficient target"]


@pytest.mark.parametrize("form", ORACLES)
@pytest.mark.parametrize("case", CASES)
def test_variance_keeping_forms_equal_numpy(case, form):
    x, y = rows_of_case(case)
    weight, bias = map_of(x, y, form, cutoff="exact")
    expected = ORACLES[form](x.numpy(), y.numpy())
    made, wanted = x.numpy() @ weight + bias, x.numpy() @ expected[0] + expected[1]
    np.testing.assert_allclose(made, wanted, atol=1e-9)
    np.testing.assert_allclose(weight, expected[0], atol=1e-9)
    found = direct_matching(x, y, form=form, cutoff="exact")
    assert found.error == pytest.approx(np.square(wanted - y.numpy()).sum() / np.square(y.numpy()).sum(), rel=1e-9)
    assert found.r2 == pytest.approx(1 - np.square(wanted - y.numpy()).sum() / y.numpy().var(0).sum() / 200, rel=1e-9)


def test_repair_leaves_a_channel_of_which_nothing_is_explained_at_its_mean():
    x = random(40, 3) + 1
    y = torch.stack([x[:, 0], random(40, seed=1)], dim=1)
    basis = torch.linalg.qr(torch.cat([x, torch.ones(40, 1)], dim=1)).Q
    y[:, 1] = y[:, 1] - basis @ (basis.T @ y[:, 1]) + 4  # uncorrelated with the source
    weight, bias = map_of(x, y, "repair")
    np.testing.assert_allclose(weight, [[1, 0], [0, 0], [0, 0]], atol=1e-12)
    np.testing.assert_allclose(bias, [0, 4], atol=1e-12)


def test_refuses_what_is_not_finite_and_too_few_samples():
    x, y = random(9, 4), random(9, 2)
    y[0, 0] = torch.inf
    for form in FORMS:
        with pytest.raises(ValueError, match="target activations are not finite"):
            direct_matching(x, y, form=form)
    with pytest.raises(UserError, match="at least two samples"):
        direct_matching(x[1:2], y[1:2], form="ridge")
