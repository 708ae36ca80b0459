"""Moments against plain sums over rows."""

import pytest
import torch

from src.statistics.moments import CrossMoments, Moments, Rows, as_rows
from src.stitching.matching import moments_of
from tests.goldens import random

DIAGONAL, FULL = "pinv", "covariance"  # forms that need as much of the target's scatter


@pytest.mark.parametrize("shape", [(7, 5, 3, 2), (7, 6, 5), (7, 5)])
def test_moments_are_those_of_the_rows(shape):
    channels = 1 if len(shape) == 4 else -1
    x = random(*shape) + 3
    y = random(*shape, seed=1).narrow(channels, 0, 4)
    rows = as_rows(x)
    centred_x = rows - rows.mean(0)
    centred_y = as_rows(y) - as_rows(y).mean(0)
    moments, cross = Rows.of(x).moments(), Rows.of(x).cross(Rows.of(y))
    assert moments.n_rows == cross.n_rows == len(rows)
    expected = rows.mean(0), centred_x.T @ centred_x, rows.T.cov(correction=0), x.square().sum()
    found = moments.mean, moments.scatter, moments.covariance, moments.squared_norm
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(cross.scatter, centred_x.T @ centred_y)
    torch.testing.assert_close(Rows.of(x).moments(diagonal=True).scatter, moments.variations)
    matching = moments_of(Rows.of(x), Rows.of(y), 7, form=FULL)
    torch.testing.assert_close(matching.source, moments)
    torch.testing.assert_close(matching.cross["target"], cross.scatter)
    torch.testing.assert_close(matching.targets["target"], Rows.of(y).moments())


@pytest.mark.parametrize("offset", [0, 1e6])
def test_pooled_moments_are_those_of_all_rows(offset):
    """A large mean costs no digits, from the first batch on."""
    x, y = random(30, 4), random(30, 3, seed=1)
    moments, cross = Moments(), CrossMoments()
    for part in torch.arange(30).split(10):
        rows_x, rows_y = Rows.of(x[part] + offset), Rows.of(y[part] - offset)
        moments = moments.pooled(rows_x.moments())
        cross = cross.pooled(rows_x.cross(rows_y))
    whole_x, whole_y = Rows.of(x), Rows.of(y)
    expected = whole_x.moments().scatter, whole_x.cross(whole_y).scatter, x.mean(0) + offset
    found = moments.scatter, cross.scatter, moments.mean
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
