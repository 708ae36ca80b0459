"""Training of one network as a run: every epoch is logged, reported and saved."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from src.checkpoints import save_state
from src.console import result
from src.datasets.base import BaseImageSet
from src.results.run import Run
from src.results.tables import write_table
from src.training.loop import Settings, train
from src.training.task import EpochLog, Task


class EpochRow(NamedTuple):
    """An epoch of training: a row of `training_logs.csv`."""

    train_acc: float | None  # None: not measured
    train_loss: float
    val_acc: float
    val_loss: float

    contents, written_by = "training", "exec_stitch.py"


def train_network(
    run: Run,
    task: Task,
    train_set: BaseImageSet,
    val_set: BaseImageSet,
    settings: Settings,
    *,
    save_frequency: int,
) -> None:
    """Train the one head of a task; log, save and report every epoch, and keep some as
    `model_<epoch>.pt`.

    Args:
        run: claimed; training goes on from its state.
        save_frequency: keep every so many epochs, and the last one; 0 keeps the last one only.
    """
    for history, state in train(task, train_set, val_set, settings, state=run.state.get("loop")):
        epoch, logs = len(history), [log for (log,) in history]
        write_logs(run.folder, logs)
        if epoch == settings.n_epochs or (save_frequency and epoch % save_frequency == 0):
            save_state(run.folder / f"model_{epoch}.pt", task.heads[0].state_dict())
        run.save(loop=state)
        report_epoch(epoch, logs[-1])


def write_logs(folder: Path, logs: Sequence[EpochLog]) -> None:
    """Write `training_logs.csv`, one row an epoch; an accuracy that was not measured stays
    empty."""
    measured = [
        (log.train.accuracy, log.train.loss, log.val.accuracy, log.val.loss) for log in logs
    ]
    rows = [EpochRow(*(None if math.isnan(value) else value for value in row)) for row in measured]
    write_table(folder / "training_logs.csv", EpochRow, rows)


def report_epoch(epoch: int, log: EpochLog) -> None:
    """Print an epoch the way the public code does."""
    result(f"Epoch #{epoch} train loss: {log.train.loss}, accuracy: {log.train.accuracy}")
    result(f"Epoch #{epoch} val loss: {log.val.loss}, accuracy: {log.val.accuracy}")
