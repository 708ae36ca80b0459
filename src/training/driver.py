"""The epochs of a training, and the measurement of what it gives."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from src import distributed, signals
from src.datasets.base import BaseImageSet
from src.report import progress, result
from src.resuming import StateFile
from src.runtime import seed_of, seeded
from src.training.course import Course, Settings
from src.training.task import Classification, EpochLog, Score, Sums, Task

CHECK_EVERY = 16  # batches: whether losses are finite is looked up so often, as a GPU has to be waited for


def train(
    task: Task,
    train_set: BaseImageSet,
    val_set: BaseImageSet,
    settings: Settings,
    *,
    state: StateFile | None = None,
    stage: int = 0,
) -> Iterator[list[list[EpochLog]]]:
    """Train, and yield after each epoch the logs of all epochs so far, with one log for each head.

    Shuffling, augmentation and what the networks draw come from (seed, epoch) alone.

    Args:
        state: where to keep how far the training is, after each epoch and when a signal ends it within one, and
            from where to go on. What was made of the last finished epoch may be lost when the run was killed, so
            that epoch is yielded once more, unless the next one had begun.
        stage: the number of this training among those that share a state; earlier ones are over once it has begun.
    Raises:
        NonFiniteLoss: a loss is NaN or infinite.
        UserError: the state does not fit the task.
    """
    course = Course(task, settings, train_set.device)
    reached = state.reached if state else -1
    if reached > stage:
        return
    if reached == stage:
        course.load(state.content.get("training"), where=state.path)
        if course.history and not course.step:
            yield course.history
    while len(course.history) < settings.n_epochs:
        epoch = len(course.history) + 1
        with seeded(seed_of(settings.seed, epoch, 1)):  # for what draws in the forward pass, such as dropout
            try:
                _train_epoch(course, train_set, epoch)
                with signals.deferred() if distributed.together() else contextlib.nullcontext():
                    validated = evaluate(task, val_set.batches(settings.batch_size), device=val_set.device)
            except signals.Interrupted:
                if state:
                    state.write(stage=stage, training=course.state())
                raise
        course.finish_epoch(validated)
        if state:
            state.write(stage=stage, training=course.state())
        yield course.history


def _train_epoch(course: Course, train_set: BaseImageSet, epoch: int) -> None:
    """Train for an epoch, or for what is left of it; a signal ends it after the step that is under way.

    Several processes look up together, once in a while, whether to go on: then all of them stop after the same step.
    """
    task, settings, optimizer = course.task, course.settings, course.optimizer
    task.train(True)
    course.restore_random_state()
    batches = train_set.epoch(settings.batch_size, seed=settings.seed, epoch=epoch, start=course.step)
    title, total = f"epoch {epoch}/{settings.n_epochs}", train_set.n_batches(settings.batch_size)
    with signals.deferred():
        for images, labels in progress(batches, title, total, initial=course.step):
            optimizer.zero_grad(set_to_none=True)
            for part in task.parts(images, labels, training=True):
                part.losses.sum().backward()
                course.sums.add(part)
                course.watch(part)
            if settings.grad_clip is not None:
                for head in task.heads:
                    nn.utils.clip_grad_norm_(head.parameters(), settings.grad_clip)
            optimizer.step()
            if settings.reduce_lr_each == "updates":
                course.scheduler.step()
            course.step += 1
            if course.step % CHECK_EVERY == 0 or (signals.pending() and not distributed.together()):
                course.check_losses(epoch)
                if distributed.any_process(signals.pending(), train_set.device):
                    signals.stop()
        course.check_losses(epoch)


def report_epoch(epoch: int, log: EpochLog) -> None:
    """Print an epoch the way the public code does."""
    result(f"Epoch #{epoch} train loss: {log.train.loss}, accuracy: {log.train.accuracy}")
    result(f"Epoch #{epoch} val loss: {log.val.loss}, accuracy: {log.val.accuracy}")


@torch.no_grad()
def evaluate(task: Task, batches: Iterable[tuple[Tensor, Tensor]], *, device: torch.device) -> list[Score]:
    """Accuracy and loss of each head over the batches, in evaluation mode."""
    task.train(False)
    sums = Sums(len(task.heads), device)
    for images, labels in batches:
        for part in task.parts(images, labels, training=False):
            sums.add(part)
    return sums.scores()


def accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, device: torch.device) -> float:
    """The share of images that a network classifies correctly, in [0, 1]."""
    (score,) = evaluate(Classification(network), batches, device=device)
    return score.accuracy
