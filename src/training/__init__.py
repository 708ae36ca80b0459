"""The training loop, for a network or for many heads on shared activations.

A task has heads: the modules whose parameters are trained. It yields the losses of its heads for
each batch. All heads share one optimiser: Adam and SGD work elementwise, so the result is the same
as with one optimiser for each head. Gradients are clipped for each head.
"""

from src.training.loop import State, evaluate, train
from src.training.settings import Settings
from src.training.task import (
    NO_CLASS,
    Classification,
    EpochLog,
    HeadLosses,
    HeadResult,
    Task,
    classification_losses,
    predicted_classes,
)

__all__ = [
    "NO_CLASS", "Classification", "EpochLog", "HeadLosses", "HeadResult", "Settings", "State", "Task",
    "classification_losses", "evaluate", "predicted_classes", "train",
]  # fmt: skip
