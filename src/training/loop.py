"""The epochs of a training, and the measurement of what it gives.

Nothing here touches a file: a training yields its state after each epoch and starts from one, and who calls it saves.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from src.console import progress
from src.datasets.base import BaseImageSet
from src.errors import UserError
from src.runtime import seed_of, seeded
from src.training.distributed import add_up
from src.training.task import Classification, EpochLog, HeadLosses, Score, Task

CHECK_EVERY = 16  # steps between two checks that losses are finite: each waits for the GPU

History = list[list[EpochLog]]  # for each epoch, the log of each head
State = dict[str, Any]


class Settings(NamedTuple):
    """How to train; the names are those of the options."""

    n_epochs: int
    batch_size: int
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    scheduler: str = "none"
    reduce_lr_epochs: Sequence[int] = ()
    grad_clip: float | None = None
    seed: int = 0
    momentum: float = 0.0  # of sgd
    reduce_lr_each: str = "epochs"  # the unit of `reduce_lr_epochs`: `epochs` or `updates`


class NonFiniteLoss(UserError):
    """A loss is NaN or infinite; the weights of this epoch are of no use."""


def train(
    task: Task, train_set: BaseImageSet, val_set: BaseImageSet, settings: Settings, *, state: State | None = None
) -> Iterator[tuple[History, State]]:
    """Train, and yield after each epoch the logs of all epochs so far and the state to go on from.

    The order of images, augmentation and random numbers of networks depend on (seed, epoch) alone. A training that goes
    on from a state therefore ends as one that was never interrupted.

    Args:
        state: what an earlier training of the same task and settings yielded. Its last epoch is yielded once more, so
            that the caller can repeat what it did with it.
    Yields:
        The history, and the state: tensors and plain values. The tensors change in the next epoch, so save or copy
        them before.
    Raises:
        NonFiniteLoss: a loss is NaN or infinite.
        UserError: the state does not fit the task.
    """
    optimizer = _optimizer([parameter for head in task.heads for parameter in head.parameters()], settings)
    scheduler = _scheduler(optimizer, settings)
    history: History = []
    if state:
        history = _restore(state, task, optimizer, scheduler)
        yield history, state
    while len(history) < settings.n_epochs:
        epoch = len(history) + 1
        with seeded(seed_of(settings.seed, epoch, 1)):  # of random numbers in the forward pass, such as dropout
            trained = _train_epoch(task, train_set, settings, epoch, optimizer, scheduler)
            validated = evaluate(task, val_set.batches(settings.batch_size), device=val_set.device)
        if settings.reduce_lr_each == "epochs":
            scheduler.step()
        history = [*history, [EpochLog(*scores) for scores in zip(trained, validated, strict=True)]]
        yield (
            history,
            {
                "modules": [module.state_dict() for module in task.modules],
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "history": [[[list(score) for score in log] for log in logs] for logs in history],
            },
        )


def _restore(
    state: State, task: Task, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler
) -> History:
    """Load a state into the modules, the optimiser and the schedule of a training; return its history."""
    try:
        for module, content in zip(task.modules, state["modules"], strict=True):
            module.load_state_dict(content)
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
    except (RuntimeError, ValueError) as error:
        raise UserError(
            "the state of the interrupted run does not fit: was a checkpoint replaced? Start anew without --resume"
        ) from error
    return [[EpochLog(*(Score(*score) for score in log)) for log in logs] for logs in state["history"]]


def _train_epoch(
    task: Task,
    train_set: BaseImageSet,
    settings: Settings,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> list[Score]:
    """Train for an epoch; returns the scores of each head over it."""
    task.train(True)
    sums = Sums(len(task.heads), train_set.device)
    batches = train_set.epoch(settings.batch_size, seed=settings.seed, epoch=epoch)
    title, total = f"epoch {epoch}/{settings.n_epochs}", train_set.n_batches(settings.batch_size)
    for step, (images, labels) in enumerate(progress(batches, title, total), start=1):
        optimizer.zero_grad(set_to_none=True)
        for group in task.losses(images, labels, training=True):
            group.losses.sum().backward()
            sums.add(group)
        if settings.grad_clip is not None:
            for head in task.heads:
                nn.utils.clip_grad_norm_(head.parameters(), settings.grad_clip)
        optimizer.step()
        if settings.reduce_lr_each == "updates":
            scheduler.step()
        if step % CHECK_EVERY == 0:
            _check_losses(task, sums, epoch, step)
    _check_losses(task, sums, epoch, step)
    return sums.scores()


def _check_losses(task: Task, sums: "Sums", epoch: int, step: int) -> None:
    for name, score in zip(task.names, sums.scores(), strict=True):
        if not math.isfinite(score.loss):  # as one loss makes the sum
            raise NonFiniteLoss(
                f"epoch {epoch}, up to step {step}: the loss of {name} is not finite; "
                "lower -lr, or limit gradients with --grad-clip where there is one"
            )


class Sums:
    """Running sums over batches for each head, on the device so that nothing waits for it.

    Scores are those over all processes that train together.
    """

    def __init__(self, n_heads: int, device: torch.device):
        self.sums = torch.zeros(4, n_heads, dtype=torch.float64, device=device)

    def add(self, group: HeadLosses) -> None:
        """Add the losses of some heads on a batch."""
        heads, losses = list(group.heads), group.losses.detach()
        values = (group.n_correct, losses * group.n_samples, group.cross_entropies.detach() * group.n_samples)
        rows = [value.double() for value in values]
        self.sums[:, heads] += torch.stack([*rows, group.n_samples.double().expand_as(rows[0])])

    def scores(self) -> list[Score]:
        """Return the means so far, one score for each head."""
        *totals, n_samples = add_up(self.sums.clone()).tolist()
        return [Score(*(total / n for total in row)) for *row, n in zip(*totals, n_samples, strict=True)]


@torch.no_grad()
def evaluate(task: Task, batches: Iterable[tuple[Tensor, Tensor]], *, device: torch.device) -> list[Score]:
    """Accuracy and loss of each head over the batches, in evaluation mode."""
    task.train(False)
    sums = Sums(len(task.heads), device)
    for images, labels in batches:
        for group in task.losses(images, labels, training=False):
            sums.add(group)
    return sums.scores()


def accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, device: torch.device) -> float:
    """Return the share of images that a network classifies correctly, in [0, 1]."""
    (score,) = evaluate(Classification(network), batches, device=device)
    return score.accuracy


def _optimizer(parameters: list[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[settings.optimizer]
    momentum = {"momentum": settings.momentum} if settings.optimizer == "sgd" else {}
    return optimizer(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, **momentum)


def _scheduler(optimizer: torch.optim.Optimizer, settings: Settings) -> torch.optim.lr_scheduler.LRScheduler:
    if settings.scheduler == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, settings.n_epochs))
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, sorted(settings.reduce_lr_epochs), gamma=0.1)
