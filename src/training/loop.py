"""Training loop, and evaluation of what is trained.

This module writes no files: a training run yields its state after each epoch and can start from a
state. The caller saves it.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pkgutil import resolve_name
from typing import Any, Protocol, TypedDict

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.core.choices.training import SCHEDULERS
from src.core.console import listed, progress, warn
from src.core.errors import UserError, not_finite
from src.core.seeds import seed_of, seeded
from src.datasets.base import Batches, InputSet
from src.training.distributed import add_up
from src.training.settings import Settings, make_optimizer
from src.training.task import EpochLog, HeadKey, HeadResult, Task

DIVERGED = 10  # times the cross-entropy of chance
CHECK_EVERY = 16  # steps between two checks that losses are finite: a check waits for the GPU

History = list[dict[HeadKey, EpochLog]]  # for each epoch, the log of each head by its key


class State(TypedDict):
    """The state from which a training run resumes."""

    parts: list[Mapping[str, object]]  # the state of each module, of optimiser and scheduler
    history: Tensor  # (epochs, heads, train and val, numbers)


class Epochs(Protocol):
    """Training images with labels, by epoch: a data set, or a mixture of data sets."""

    def n_batches(self, batch_size: int) -> int: ...

    def epoch(
        self, batch_size: int, *, seed: int, epoch: int
    ) -> Iterator[tuple[Tensor, Tensor]]: ...


def train(
    task: Task[HeadKey],
    train_set: Epochs,
    val_set: InputSet,
    settings: Settings,
    *,
    state: State | None = None,
) -> Iterator[tuple[History[HeadKey], State]]:
    """Train; after each epoch, yield the logs of all epochs so far and the state of training.

    The order of images, augmentation and random numbers of networks depend on (seed, epoch) alone.
    A training run that starts from a state therefore ends like one that was never interrupted.

    Args:
        task: what is trained, such as a `Classification` or a `src.stitching.Grid`.
        train_set: images and labels in epochs, such as an image set.
        val_set: images that accuracy and losses are measured on after each epoch.
        state: yielded by an earlier training of the same task and settings. Its last epoch is
            yielded once more, so that the caller can repeat what it did after that epoch. The
            tensors of a state change in the next epoch: save or copy them.
    Raises:
        UserError: a loss is NaN or infinite, or there is nothing to train.
    """
    parameters = [parameter for head in task.heads.values() for parameter in head.parameters()]
    if not any(parameter.requires_grad for parameter in parameters):
        raise UserError(
            f"{task.title(next(iter(task.heads)))} has no parameters to train; give a network with some, and leave "
            "their requires_grad on"
        )
    optimizer = make_optimizer(parameters, settings)
    scheduler = resolve_name(SCHEDULERS[settings.scheduler].function)(optimizer, settings)
    parts: list[Any] = [*task.modules, optimizer, scheduler]
    history: History[HeadKey] = []

    # Resume from a state
    if state:
        for part, state_of_part in zip(parts, state["parts"], strict=True):
            part.load_state_dict(state_of_part)
        for numbers in state["history"].tolist():
            results = [[HeadResult(*result) for result in of_head] for of_head in numbers]
            logs_of_heads = itertools.starmap(EpochLog, results)
            history.append(dict(zip(task.heads, logs_of_heads, strict=True)))
        yield history, state

    for epoch in range(len(history) + 1, settings.n_epochs + 1):
        # Seeds the random numbers of forward passes, such as dropout
        with seeded(seed_of(settings.seed, epoch, 1)):
            trained = _train_epoch(task, train_set, settings, epoch, optimizer, scheduler)
            validated = evaluate(task, val_set.batches(settings.batch_size))
        if settings.reduce_lr_unit == "epochs":
            scheduler.step()
        logs = {key: EpochLog(trained[key], validated[key]) for key in task.heads}
        history = [*history, logs]
        yield history, _state_of(parts, history)
    if history and val_set.n_classes > 1:
        _warn_of_divergence(task, history[-1], loss_of_chance=math.log(val_set.n_classes))


def _warn_of_divergence(
    task: Task[HeadKey], logs: Mapping[HeadKey, EpochLog], *, loss_of_chance: float
) -> None:
    """Warn of heads whose last cross-entropy is above `DIVERGED` times that of equal probabilities.

    Args:
        loss_of_chance: the cross-entropy of equal probabilities.
    """
    losses = {}
    for key, log in logs.items():
        loss = max(log.train.cross_entropy, log.val.cross_entropy)
        if loss > DIVERGED * loss_of_chance:
            losses[task.title(key)] = loss
    if losses:
        warn(
            f"the training of {listed(losses, n=3)} diverged: the cross-entropy is {max(losses.values()):.3g} at "
            f"the end, and {loss_of_chance:.2f} for equal probabilities; lower the learning rate (-lr; in Python "
            "learning_rate)"
        )


def _state_of(parts: Sequence[Any], history: History[HeadKey]) -> State:
    """Return the state of a training run."""
    numbers = [list(logs.values()) for logs in history]
    return {
        "parts": [part.state_dict() for part in parts],
        "history": torch.tensor(numbers, dtype=torch.float64),
    }


def _train_epoch(
    task: Task[HeadKey],
    train_set: Epochs,
    settings: Settings,
    epoch: int,
    optimizer: Optimizer,
    scheduler: LRScheduler,
) -> dict[HeadKey, HeadResult]:
    """Train for an epoch; return the result of each head over it."""
    task.train(True)
    sums = torch.zeros(())
    batches = progress(
        train_set.epoch(settings.batch_size, seed=settings.seed, epoch=epoch),
        f"epoch {epoch}/{settings.n_epochs}",
        train_set.n_batches(settings.batch_size),
    )
    for step, (images, labels) in enumerate(batches, start=1):
        # Gradients
        optimizer.zero_grad(set_to_none=True)
        sums_of_batch = []
        for head_losses in task.losses(images, labels, training=True):
            if not head_losses.losses.requires_grad:
                raise UserError(
                    f"no gradient reaches {task.title(next(iter(task.heads)))}: the loss comes from a pass without "
                    "gradients; leave no_grad(), detach() and the like out of the network"
                )
            head_losses.losses.sum().backward()
            sums_of_batch.append(head_losses.sums())
        sums = sums + torch.cat(sums_of_batch, dim=1)

        # Update
        if settings.grad_clip is not None:
            for head in task.heads.values():
                nn.utils.clip_grad_norm_(head.parameters(), settings.grad_clip)
        optimizer.step()
        if settings.reduce_lr_unit == "updates":
            scheduler.step()

        if step % CHECK_EVERY == 0:
            _check_finite(_results(sums, task), task, f"epoch {epoch}, up to step {step}")
    results = _results(sums, task)
    _check_finite(results, task, f"epoch {epoch}, up to step {step}")
    return results


@torch.no_grad()
def evaluate(task: Task[HeadKey], batches: Batches) -> dict[HeadKey, HeadResult]:
    """Return the accuracy and the losses of each head over the batches, in evaluation mode.

    Raises:
        UserError: the logits of a head are not finite.
    """
    task.train(False)
    sums = torch.zeros(())
    for images, labels in batches:
        losses_of_batch = task.losses(images, labels, training=False)
        sums = sums + torch.cat([head_losses.sums() for head_losses in losses_of_batch], dim=1)
    results = _results(sums, task)
    for key, result in results.items():
        if math.isnan(result.accuracy):
            raise not_finite(task.title(key))
    return results


def _results(sums: Tensor, task: Task[HeadKey]) -> dict[HeadKey, HeadResult]:
    """Return the results of each head from sums (4, n_heads), added up over all processes."""
    *totals, n_samples = add_up(sums.clone())
    means = torch.stack(totals) / n_samples  # (3, n_heads)
    results = zip(task.heads, means.T.tolist(), strict=True)
    return {key: HeadResult(*numbers) for key, numbers in results}


def _check_finite(results: Mapping[HeadKey, HeadResult], task: Task[HeadKey], when: str) -> None:
    """Raise a UserError if the mean loss of a head is NaN or infinite."""
    for key, result in results.items():
        if not math.isfinite(result.loss):
            raise UserError(
                f"{when}: the loss of {task.title(key)} is not finite; lower the learning rate (-lr; in Python "
                "learning_rate), or limit gradients (--grad-clip, if the script has it; grad_clip)"
            )
