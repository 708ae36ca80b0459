"""The form of an activation: positions × channels, and back, whatever the order of the axes."""

import math

import pytest
import torch

from src.core.activations import (
    ActivationShape,
    TokenLayout,
    as_rows,
    cells,
    map_positions,
    mean_over_positions,
    pool,
    positions_of,
    shape_of,
)
from src.core.errors import UserError
from src.core.kinds import GRID, MAP, SEQUENCE, VECTOR
from tests.goldens import random

FORMS = {
    MAP: ((5, 2, 3), None),
    GRID: ((7, 5), TokenLayout(1, (2, 3), True)),
    SEQUENCE: ((7, 5), TokenLayout()),
    VECTOR: ((5,), None),
}


@pytest.fixture(params=FORMS)
def kind(request) -> str:
    return request.param


def test_channels_at_positions_are_a_view(kind):
    shape, layout = FORMS[kind]
    x = random(4, *shape)
    form = ActivationShape.of(shape, layout)
    assert form.kind == kind and str(form) == "×".join(map(str, shape))
    assert (form.n_channels, form.n_values) == (5, math.prod(shape))
    positions = positions_of(x)
    assert positions.shape == (4, form.n_positions, 5)
    assert positions.data_ptr() == x.data_ptr()
    assert torch.equal(form.native(positions), x)
    assert torch.equal(as_rows(x), positions.flatten(0, 1))
    vectors = random(4, 2)
    everywhere = vectors[:, None].expand(-1, form.n_positions, -1)
    assert torch.equal(positions_of(form.everywhere(vectors)), everywhere)
    torch.testing.assert_close(mean_over_positions(x), positions.mean(1))


def test_positions_are_mapped_and_pooled(kind):
    shape, layout = FORMS[kind]
    x = random(4, *shape)
    weight = random(3, 5)
    bias = random(3)
    mapped = map_positions(x, weight, bias)
    positions = positions_of(x)
    torch.testing.assert_close(positions_of(mapped), positions @ weight.T + bias)
    pooled = positions[:, 0] if kind == GRID else positions.mean(1)
    torch.testing.assert_close(pool(x, layout), pooled)
    n_prefix = int(kind == GRID)
    few = cells(x, layout, side=1)
    torch.testing.assert_close(few[:, n_prefix:], positions[:, n_prefix:].mean(1, keepdim=True))
    assert torch.equal(few[:, :n_prefix], positions[:, :n_prefix])
    torch.testing.assert_close(cells(x, layout, side=7), positions)


@pytest.mark.parametrize("shape", [(), (2, 3, 4, 4)])
def test_other_axes_are_refused(shape):
    with pytest.raises(UserError, match="the third layer has shape .*choose a layer"):
        ActivationShape.of(shape, title="the third layer")
    with pytest.raises(UserError, match="choose a layer"):
        shape_of(torch.zeros(1, *shape))
