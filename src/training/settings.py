"""The settings of a training run, and the optimizer and the scheduler that follow from these."""

from collections.abc import Iterable, Sequence
from pkgutil import resolve_name
from typing import Any, NamedTuple

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from src.core.arguments import check_integer, check_real
from src.core.choices.training import OPTIMIZERS, SCHEDULERS
from src.core.errors import UserError, unknown_name

REDUCE_LR_UNITS = ("epochs", "updates")


class Settings(NamedTuple):
    """The settings of a training run; names are the names of the options."""

    n_epochs: int
    batch_size: int  # images
    optimizer: str = "adam"  # in `OPTIMIZERS`
    learning_rate: float = 1e-3  # of the first epoch
    weight_decay: float = 1e-5
    scheduler: str = "none"  # in `SCHEDULERS`
    reduce_lr_epochs: Sequence[int] = ()  # after these the learning rate is a tenth of before
    grad_clip: float | None = None  # largest l2 norm of the gradient of a head; None: any
    seed: int = 0  # of the order of images, augmentation and random numbers of networks
    reduce_lr_unit: str = "epochs"  # of `reduce_lr_epochs`, in `REDUCE_LR_UNITS`


def checked_settings(settings: Settings) -> Settings:
    """Return the settings of a training run; a UserError if one is none, or two contradict each other."""
    for name, allowed in (
        ("optimizer", OPTIMIZERS),
        ("scheduler", SCHEDULERS),
        ("reduce_lr_unit", REDUCE_LR_UNITS),
    ):
        value = getattr(settings, name)
        if value not in allowed:
            raise unknown_name(name, str(value), allowed)
    check_real("learning_rate", settings.learning_rate, is_positive=True)
    check_real("weight_decay", settings.weight_decay)
    if settings.grad_clip is not None:
        check_real("grad_clip", settings.grad_clip, is_positive=True)
    check_integer("batch_size", settings.batch_size, at_least=1)
    check_integer("seed", settings.seed, at_least=0)
    if not isinstance(settings.reduce_lr_epochs, Iterable):
        raise UserError(f"reduce_lr_epochs is {settings.reduce_lr_epochs!r}; give a list of epochs")
    for epoch in settings.reduce_lr_epochs:
        check_integer("an epoch of reduce_lr_epochs", epoch, at_least=1)
    if settings.scheduler != "none" and settings.reduce_lr_epochs:
        raise UserError(
            f"scheduler {settings.scheduler} (-sched) and reduce_lr_epochs (-rlre) both set the learning rate; "
            "give one of them"
        )
    return settings


def make_optimizer(parameters: Sequence[nn.Parameter], settings: Settings) -> Optimizer:
    """Return the optimizer of all parameters."""
    choice = OPTIMIZERS[settings.optimizer]
    options: dict[str, Any] = {}
    if choice.momentum is not None:
        options["momentum"] = choice.momentum
    elif parameters[0].is_cuda:
        options["fused"] = True  # one kernel for all parameters
    return resolve_name(choice.function)(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, **options
    )


def steps(optimizer: Optimizer, settings: Settings) -> LRScheduler:
    """Return a scheduler that multiplies the learning rate by 0.1 after each of `reduce_lr_epochs`."""
    return MultiStepLR(optimizer, sorted(settings.reduce_lr_epochs), gamma=0.1)


def cosine(optimizer: Optimizer, settings: Settings) -> LRScheduler:
    """Return a scheduler by which the learning rate falls to 0 over all epochs (Loshchilov and Hutter 2017)."""
    return CosineAnnealingLR(optimizer, max(1, settings.n_epochs))
