"""The epochs of a training, and the measurement of what it gives.

Nothing here touches a file: a training yields its state after each epoch and starts from one, and
who calls it saves."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from src.console import progress
from src.datasets.base import BaseImageSet
from src.errors import UserError
from src.runtime import seed_of, seeded
from src.training.distributed import add_up
from src.training.task import EpochLog, HeadResult, Task

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
CHECK_EVERY = 16  # steps between two checks that losses are finite: each waits for the GPU

Batches = Iterable[tuple[Tensor, Tensor]]
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


def train(
    task: Task,
    train_set: BaseImageSet,
    val_set: BaseImageSet,
    settings: Settings,
    *,
    state: State | None = None,
) -> Iterator[tuple[History, State]]:
    """Train, and yield after each epoch the logs of all epochs so far and the state to go on from.

    The order of images, augmentation and random numbers of networks depend on (seed, epoch) alone.
    A training that goes on from a state therefore ends as one that was never interrupted.

    Args:
        state: what an earlier training of the same task and settings yielded. Its last epoch is yielded once more, so
            that the caller can repeat what it did with it. The tensors change in the next epoch: save or copy them.
    Raises:
        UserError: a loss is NaN or infinite.
    """
    optimizer = _optimizer(
        [parameter for head in task.heads for parameter in head.parameters()], settings
    )
    scheduler = _scheduler(optimizer, settings)
    parts = [*task.modules, optimizer, scheduler]
    history: History = []
    if state:
        for part, content in zip(parts, state["parts"], strict=True):
            part.load_state_dict(content)
        history = [_logs_of(numbers) for numbers in state["history"].tolist()]
        yield history, state
    for epoch in range(len(history) + 1, settings.n_epochs + 1):
        with seeded(
            seed_of(settings.seed, epoch, 1)
        ):  # of random numbers in the forward pass, such as dropout
            trained = _train_epoch(task, train_set, settings, epoch, optimizer, scheduler)
            validated = evaluate(task, val_set.batches(settings.batch_size))
        if settings.reduce_lr_each == "epochs":
            scheduler.step()
        history = [
            *history,
            [EpochLog(*results) for results in zip(trained, validated, strict=True)],
        ]
        numbers = torch.tensor(
            history, dtype=torch.float64
        )  # (epochs, heads, train and val, numbers)
        yield history, {"parts": [part.state_dict() for part in parts], "history": numbers}


def _logs_of(numbers: Sequence[Sequence[Sequence[float]]]) -> list[EpochLog]:
    """Return the logs of an epoch from numbers (heads, train and val, numbers)."""
    return [
        EpochLog(HeadResult(*trained), HeadResult(*validated)) for trained, validated in numbers
    ]


def _train_epoch(
    task: Task,
    train_set: BaseImageSet,
    settings: Settings,
    epoch: int,
    optimizer: Optimizer,
    scheduler: LRScheduler,
) -> list[HeadResult]:
    """Train for an epoch; returns the result of each head over it. No step but each
    `CHECK_EVERY`-th waits."""
    task.train(True)
    sums = torch.zeros(())
    batches = train_set.epoch(settings.batch_size, seed=settings.seed, epoch=epoch)
    title, total = f"epoch {epoch}/{settings.n_epochs}", train_set.n_batches(settings.batch_size)
    for step, (images, labels) in enumerate(progress(batches, title, total), start=1):
        optimizer.zero_grad(set_to_none=True)
        parts = []
        for group in task.losses(images, labels, training=True):
            group.losses.sum().backward()
            parts.append(group.sums())
        sums = sums + torch.cat(parts, dim=1)
        if settings.grad_clip is not None:
            for head in task.heads:
                nn.utils.clip_grad_norm_(head.parameters(), settings.grad_clip)
        optimizer.step()
        if settings.reduce_lr_each == "updates":
            scheduler.step()
        if step % CHECK_EVERY == 0:
            _finite(_results(sums), task, f"epoch {epoch}, up to step {step}")
    return _finite(_results(sums), task, f"epoch {epoch}, up to step {step}")


@torch.no_grad()
def evaluate(task: Task, batches: Batches) -> list[HeadResult]:
    """Accuracy and loss of each head over the batches, in evaluation mode."""
    task.train(False)
    sums = torch.zeros(())
    for images, labels in batches:
        sums = sums + torch.cat(
            [group.sums() for group in task.losses(images, labels, training=False)], dim=1
        )
    return _results(sums)


def _results(sums: Tensor) -> list[HeadResult]:
    """Return the means of sums (4, n_heads), one result for each head, over all processes that
    train together."""
    *totals, n_samples = add_up(sums.clone()).tolist()
    return [
        HeadResult(*(total / n for total in row))
        for *row, n in zip(*totals, n_samples, strict=True)
    ]


def _finite(results: list[HeadResult], task: Task, when: str) -> list[HeadResult]:
    """Return the results; raises a UserError if a loss so far, and so their mean, is not finite."""
    for name, measured in zip(task.names, results, strict=True):
        if not math.isfinite(measured.loss):
            raise UserError(
                f"{when}: the loss of {name} is not finite; lower -lr, or limit gradients with --grad-clip where "
                "there is one"
            )
    return results


def _optimizer(parameters: list[nn.Parameter], settings: Settings) -> Optimizer:
    options = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        options["momentum"] = settings.momentum
    else:
        options["fused"] = parameters[0].is_cuda or None  # one kernel for all heads
    return OPTIMIZERS[settings.optimizer](parameters, **options)


def _scheduler(optimizer: Optimizer, settings: Settings) -> LRScheduler:
    if settings.scheduler == "cosine":
        return CosineAnnealingLR(optimizer, max(1, settings.n_epochs))
    return MultiStepLR(optimizer, sorted(settings.reduce_lr_epochs), gamma=0.1)
