"""Grids of networks with tuples, dataclasses, LSTMs and NumPy between layers."""

import copy

import pytest
import torch
from torch import nn

from src.models import Network
from src.runtime import seeded
from src.stitching.grid import Grid
from src.stitching.stitched_model import StitchedModel, build_layers
from tests import traps

LAYERS = {traps.Structured: ["blocks.1", "blocks.2.one"], traps.Recurrent: ["lstm", "attention", "again"],
          traps.Numpy: ["blocks.1", "blocks.2"]}  # fmt: skip


def built(kind: type) -> Network:
    with seeded(0):
        network = Network(kind(n_channels=1), image_shape=(1, 8, 8), n_classes=10)
    return network.to(torch.float64).eval().requires_grad_(False)


@pytest.fixture
def images():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_grid_equals_single_pairs(kind, images):
    front, end = built(kind), built(kind)
    layers, _ = build_layers(front, end, LAYERS[kind], LAYERS[kind], "t2t" if kind is traps.Recurrent else "rc2c_pre",
                             image_shape=(1, 8, 8), seed=0)  # fmt: skip
    labels = torch.arange(5)
    grid = Grid(front, end, layers)
    losses = torch.cat([group.losses for group in grid.losses(images, labels, training=True)])
    losses.sum().backward()
    for pair, layer in layers.items():
        alone = copy.deepcopy(layer)
        alone.zero_grad()
        loss = nn.functional.cross_entropy(StitchedModel(front, end, alone, pair)(images), labels)
        loss.backward()
        torch.testing.assert_close(alone.transform.weight.grad, layer.transform.weight.grad, rtol=1e-9, atol=1e-12)
