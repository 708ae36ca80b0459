"""One loop of epochs for everything that is trained: one network, or many heads on shared
activations.

A task has heads (the modules whose parameters are trained) and yields their losses for each batch.
All heads share one optimiser: Adam and SGD work elementwise, so that equals one optimiser for each.
Gradients are clipped for each head."""

from src.training.loop import History, Settings, State, evaluate, train
from src.training.task import (
    Classification,
    EpochLog,
    HeadLosses,
    HeadResult,
    Task,
    classification_losses,
)

__all__ = [
    "Classification", "EpochLog", "HeadLosses", "HeadResult", "History", "Settings", "State", "Task",
    "classification_losses", "evaluate", "train",
]  # fmt: skip
