"""Training of stitching layers between two networks with frozen weights."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from src.choices import OPTIMIZERS, SCHEDULERS
from src.core.errors import unknown_name
from src.datasets.base import BaseImageSet
from src.models import Network
from src.stitching.grid import Grid
from src.training import Settings, train
from src.training.loop import Epochs
from src.values import Pair

BATCH_SIZE = 256  # the default of exec_stitch.py


def training_settings(n_epochs: int, options: Mapping[str, Any]) -> Settings:
    """Return the settings of a training run, with the defaults of `exec_stitch.py`.

    Args:
        options: further fields of `Settings`.
    Raises:
        UserError: there is no such option, optimiser or scheduler.
    """
    further = [name for name in Settings._fields if name != "n_epochs"]
    for name in options:
        if name not in further:
            raise unknown_name("option of training", name, further)
    settings = Settings(n_epochs, **{"batch_size": BATCH_SIZE, **options})
    if settings.optimizer not in OPTIMIZERS:
        raise unknown_name("optimizer", settings.optimizer, OPTIMIZERS)
    if settings.scheduler not in SCHEDULERS:
        raise unknown_name("scheduler", settings.scheduler, SCHEDULERS)
    return settings


def train_layers(
    grid: Grid, train_set: Epochs, test_set: BaseImageSet, settings: Settings
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
