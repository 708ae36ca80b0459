"""The choices of a training run: optimizers, schedulers of the learning rate, and penalties of fine-tuning.

Each row names its function as "module:function", which is imported when it is used.
"""

from typing import NamedTuple


class OptimizerChoice(NamedTuple):
    """An optimizer."""

    description: str  # for `--help`
    function: str  # "module:class"
    momentum: float | None = None


class SchedulerChoice(NamedTuple):
    """A schedule of the learning rate."""

    description: str  # for `--help`
    function: str  # "module:function" of an optimizer and `training.Settings`


class PenaltyChoice(NamedTuple):
    """A penalty that fine-tuning adds to the cross-entropy of a detector."""

    description: str  # for `--help`
    function: str  # "module:function" of logits and labels
    has_margins: bool = False  # the function takes the margins `m_in` and `m_out`


OPTIMIZERS = {
    "adam": OptimizerChoice("Adam", "torch.optim:Adam"),
    "adamw": OptimizerChoice("Adam with decoupled weight decay", "torch.optim:AdamW"),
    "sgd": OptimizerChoice(
        "stochastic gradient descent with a momentum of 0.9", "torch.optim:SGD", momentum=0.9
    ),
}
SCHEDULERS = {
    "none": SchedulerChoice(
        "the learning rate changes by -rlre only", "src.training.settings:steps"
    ),
    "cosine": SchedulerChoice(
        "the learning rate falls to 0 over all epochs", "src.training.settings:cosine"
    ),
}
PENALTIES = {
    "energy": PenaltyChoice(
        "the hinge loss of energies", "src.ood.finetuning:energy_penalty", has_margins=True
    ),
    "OE": PenaltyChoice("outlier exposure", "src.ood.finetuning:outlier_exposure_penalty"),
}
