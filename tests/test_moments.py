"""Moments against plain sums over rows."""

import pytest
import torch

from src.moments import CrossMoments, Moments, Rows, as_rows
from src.stitching.layers import resize
from src.stitching.matching import moments_of
from src.stitching.moments import source_rows
from tests.goldens import random

DIAGONAL, FULL = "pinv", "covariance"  # forms that need as much of the target's scatter


@pytest.mark.parametrize("shape", [(7, 5, 3, 2), (7, 6, 5), (7, 5)])
def test_moments_are_those_of_the_rows(shape):
    channels = 1 if len(shape) == 4 else -1
    x, y = random(*shape) + 3, random(*shape, seed=1).narrow(channels, 0, 4)
    before, rows, target = x.clone(), as_rows(x), as_rows(y)
    centred = [z - z.mean(0) for z in (rows, target)]
    moments, cross = Rows.of(x).moments(), Rows.of(x).cross(Rows.of(y))
    assert moments.n_rows == cross.n_rows == len(rows) and torch.equal(x, before)
    torch.testing.assert_close(moments.mean, rows.mean(0))
    torch.testing.assert_close(moments.scatter, centred[0].T @ centred[0])
    torch.testing.assert_close(moments.covariance, rows.T.cov(correction=0))
    torch.testing.assert_close(moments.squared_norm, x.square().sum())
    torch.testing.assert_close(cross.scatter, centred[0].T @ centred[1])
    torch.testing.assert_close(Rows.of(x).moments(diagonal=True).scatter, moments.variations)
    found = moments_of(Rows.of(x), Rows.of(y), 7, form=FULL)
    torch.testing.assert_close((found.source, found.cross["target"]), (moments, cross.scatter))
    torch.testing.assert_close(found.targets["target"], Rows.of(y).moments())


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize(
    ("source", "target"), [((4, 4), (8, 8)), ((8, 8), (4, 4)), ((3, 5), (7, 6)), ((3, 8), (6, 4))]
)
def test_moments_of_a_resized_source_are_those_of_its_rows(source, target, mode):
    x, y = random(5, 6, *source) + 2, random(5, 3, *target, seed=1)
    expected, found = (
        moments_of(rows, Rows.of(y), 5, form=FULL)
        for rows in (Rows.of(resize(x, target, mode)), source_rows(x, target, mode))
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("form", [DIAGONAL, FULL])
def test_pooled_moments_are_those_of_all_rows(form):
    x, y = (
        random(12, 5, 2, 2) + torch.arange(12.0)[:, None, None, None],
        random(12, 3, 2, 2, seed=1),
    )
    first, second, third, whole = (
        moments_of(Rows.of(x[part]), Rows.of(y[part]), len(part), form=form)
        for part in (*torch.arange(12).split(5), torch.arange(12))
    )
    torch.testing.assert_close(first.pooled(second).pooled(third), whole)


def test_a_large_mean_costs_no_digits_from_the_first_batch_on():
    x, y = random(30, 4), random(30, 3, seed=1)
    moments, cross = Moments(), CrossMoments()
    for part in torch.arange(30).split(10):
        rows, others = Rows.of(x[part] + 1e6), Rows.of(y[part] - 1e6)
        moments, cross = moments.pooled(rows.moments()), cross.pooled(rows.cross(others))
    expected = Rows.of(x).moments().scatter, Rows.of(x).cross(Rows.of(y)).scatter
    torch.testing.assert_close((moments.scatter, cross.scatter), expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(moments.mean, x.mean(0) + 1e6)
