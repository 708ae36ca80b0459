"""One epoch driver for everything that is trained: one network, or many heads on shared activations.

A task names its heads (the modules whose parameters are trained) and yields their losses batch by batch, in parts,
so that what one part keeps for its gradients is freed before the next is computed. All heads share one optimiser:
Adam and SGD work elementwise, so that equals one optimiser for each; gradients are clipped for each head.

A training that was killed goes on from its state file as if nothing had happened: whatever is drawn in an epoch comes
from (seed, epoch), and what changes beside that is in the file.
"""

from src.training.course import NonFiniteLoss, Settings
from src.training.driver import accuracy, evaluate, report_epoch, train
from src.training.task import Classification, EpochLog, Part, Score, Task, part_of

__all__ = [
    "Classification",
    "EpochLog",
    "NonFiniteLoss",
    "Part",
    "Score",
    "Settings",
    "Task",
    "accuracy",
    "evaluate",
    "part_of",
    "report_epoch",
    "train",
]
