"""Training of one network as a run: every epoch is logged, reported and saved."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from src.datasets.base import BaseImageSet
from src.ground.console import result
from src.runs.checkpoints import save_state
from src.runs.run import Run
from src.tables.tables import write_table
from src.training.loop import Settings, train
from src.training.task import EpochLog, Task


@dataclass(frozen=True)
class EpochRow:
    """An epoch of training: a row of `training_logs.csv`. None: not measured."""

    contents: ClassVar[str] = "training"
    written_by: ClassVar[str] = "exec_stitch.py"

    train_acc: float | None
    train_loss: float
    val_acc: float | None
    val_loss: float | None


def train_network(
    run: Run,
    task: Task,
    train_set: BaseImageSet,
    val_set: BaseImageSet,
    settings: Settings,
    *,
    save_frequency: int,
) -> None:
    """Train the only head of a task; log, save and report every epoch.

    Args:
        run: claimed; training goes on from its state.
        save_frequency: keep the head of every so many epochs, and of the last one, as
            `model_<epoch>.pt`; 0 keeps the last one only.
    """
    for history, state in train(task, train_set, val_set, settings, state=run.state.get("loop")):
        epoch = len(history)
        logs = [log for (log,) in history]
        write_logs(run.folder, logs)
        is_last = epoch == settings.n_epochs
        is_kept = save_frequency > 0 and epoch % save_frequency == 0
        if is_last or is_kept:
            save_state(run.folder / f"model_{epoch}.pt", task.heads[0].state_dict())
        run.save(loop=state)
        report_epoch(epoch, logs[-1])


def write_logs(folder: Path, logs: Sequence[EpochLog]) -> None:
    """Write `training_logs.csv` with one row an epoch."""
    rows = []
    for log in logs:
        row = EpochRow(
            train_acc=_measured(log.train.accuracy),
            train_loss=log.train.loss,
            val_acc=_measured(log.val.accuracy),
            val_loss=_measured(log.val.loss),
        )
        rows.append(row)
    write_table(folder / "training_logs.csv", EpochRow, rows)


def _measured(value: float) -> float | None:
    """Return the value, or None for NaN: a cell without a number stays empty."""
    return None if math.isnan(value) else value


def report_epoch(epoch: int, log: EpochLog) -> None:
    """Print an epoch the way the public code does, without accuracies that are not measured."""
    for split, measured in (("train", log.train), ("val", log.val)):
        line = f"Epoch #{epoch} {split} loss: {measured.loss}"
        if not math.isnan(measured.accuracy):
            line += f", accuracy: {measured.accuracy}"
        result(line)
