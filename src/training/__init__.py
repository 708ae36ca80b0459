"""One loop of epochs for everything that is trained: one network, or many heads on shared activations.

A task names its heads (the modules whose parameters are trained) and yields their losses batch by batch, in parts,
so that what one part keeps for its gradients is freed before the next is computed. All heads share one optimiser:
Adam and SGD work elementwise, so that equals one optimiser for each; gradients are clipped for each head.
"""

from src.training.loop import History, NonFiniteLoss, Settings, State, accuracy, evaluate, train
from src.training.task import Classification, EpochLog, Part, Score, Task, part_of

__all__ = [
    "Classification",
    "EpochLog",
    "History",
    "NonFiniteLoss",
    "Part",
    "Score",
    "Settings",
    "State",
    "Task",
    "accuracy",
    "evaluate",
    "part_of",
    "train",
]
