"""The choices of a training run: optimizers, schedulers of the learning rate, and penalties of fine-tuning.

Each row names its function as "module:function", which is imported when it is used.
"""

from typing import NamedTuple


class Choice(NamedTuple):
    """An optimizer, a schedule of the learning rate, or a penalty that fine-tuning adds to the cross-entropy."""

    description: str  # for `--help`
    # "module:class" of an optimizer; "module:function" of an optimizer and `training.Settings`, or of
    # logits and labels
    function: str
    momentum: float | None = None  # of an optimizer
    has_margins: bool = False  # a penalty takes the margins `m_in` and `m_out`


OPTIMIZERS = {
    "adam": Choice("Adam", "torch.optim:Adam"),
    "adamw": Choice("Adam with decoupled weight decay", "torch.optim:AdamW"),
    "sgd": Choice(
        "stochastic gradient descent with a momentum of 0.9", "torch.optim:SGD", momentum=0.9
    ),
}
SCHEDULERS = {
    "none": Choice("the learning rate changes by -rlre only", "src.training.settings:steps"),
    "cosine": Choice(
        "the learning rate falls to 0 over all epochs", "src.training.settings:cosine"
    ),
}
PENALTIES = {
    "energy": Choice(
        "the hinge loss of energies", "src.ood.finetuning:energy_penalty", has_margins=True
    ),
    "OE": Choice("outlier exposure", "src.ood.finetuning:outlier_exposure_penalty"),
}
