"""The check of the settings of a training run, from a script or from Python."""

from collections.abc import Iterable

from src.choices import OPTIMIZERS, SCHEDULERS
from src.core.arguments import check_integer, check_real
from src.core.errors import UserError, unknown_name
from src.training.loop import Settings

REDUCE_LR_UNITS = ("epochs", "updates")


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
    if isinstance(settings.reduce_lr_epochs, str) or not isinstance(
        settings.reduce_lr_epochs, Iterable
    ):
        raise UserError(f"reduce_lr_epochs is {settings.reduce_lr_epochs!r}; give a list of epochs")
    for epoch in settings.reduce_lr_epochs:
        check_integer("an epoch of reduce_lr_epochs", epoch, at_least=1)
    if settings.scheduler != "none" and settings.reduce_lr_epochs:
        raise UserError(
            f"scheduler {settings.scheduler} (-sched) and reduce_lr_epochs (-rlre) both set the learning rate; "
            "give one of them"
        )
    return settings
