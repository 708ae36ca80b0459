"""Training of stitching layers between two networks with frozen weights."""

import contextlib
from collections.abc import Iterator

import torch

from src.core.values import Pair
from src.datasets.base import InputSet
from src.models import Network
from src.stitching.grid import Grid
from src.training import Settings, train
from src.training.loop import Epochs

BATCH_SIZE = 256  # the default of exec_stitch.py


def train_layers(
    grid: Grid, train_set: Epochs, test_set: InputSet, settings: Settings
) -> dict[Pair, list[float]]:
    """Train the layers of a grid; return the training loss of each epoch, by pair.

    Unlike `training.train`, no parameter of the two networks gets a gradient.

    Args:
        test_set: images to validate on after each epoch.
    Raises:
        UserError: as `training.train`.
    """
    with torch.enable_grad(), _without_gradients(grid.front), _without_gradients(grid.end):
        for history, _ in train(grid, train_set, test_set, settings):
            epochs = history
    return {pair: [logs[pair].train.loss for logs in epochs] for pair in grid.pairs}


@contextlib.contextmanager
def _without_gradients(network: Network) -> Iterator[None]:
    """Let no parameter of a network get a gradient while the block runs."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
