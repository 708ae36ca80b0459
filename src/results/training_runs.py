"""Training runs: the training and fine-tuning of a single network, with the logs of its epochs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from src.core.console import result
from src.core.files import write_csv
from src.datasets.base import InputSet
from src.results.checkpoints import save_state
from src.results.run import Run
from src.training.loop import Epochs, History, Settings, train
from src.training.task import Classification, EpochLog

LOGS = "training_logs.csv"


def write_logs(folder: Path, epochs: Sequence[Mapping[str, object]]) -> None:
    """Write `training_logs.csv` with one row for each epoch; no file without epochs."""
    if epochs:
        write_csv(folder / LOGS, list(epochs[0]), epochs)


def train_network(
    run: Run,
    task: Classification,
    train_set: InputSet,
    val_set: InputSet,
    settings: Settings,
    *,
    save_frequency: int,
) -> dict[str, object]:
    """Train the network of a task; log, save and report every epoch.

    Args:
        run: claimed; training resumes from its state.
        save_frequency: keep the network of every so many epochs, and of the last one, as
            `model_<epoch>.pt`; 0 keeps the last one only.

    Returns:
        The last row of the log; empty if no epoch remained.
    """
    rows: list[dict[str, object]] = []
    for history, state in train(task, train_set, val_set, settings, state=run.state.get("loop")):
        epoch = len(history)
        logs = _logs_of_network(history)
        rows = [epoch_row(log) for log in logs]
        write_logs(run.folder, rows)
        is_last = epoch == settings.n_epochs
        is_kept = save_frequency > 0 and epoch % save_frequency == 0
        if is_last or is_kept:
            save_state(run.folder / f"model_{epoch}.pt", task.head.state_dict())
        run.save(loop=state)
        report_epoch(epoch, logs[-1])
    if not rows:
        return {}
    return rows[-1]


def finetune_network(
    run: Run, task: Classification, mixed: Epochs, val_set: InputSet, settings: Settings
) -> dict[str, float]:
    """Fine-tune the detector of a task; log, save and report every epoch.

    Args:
        run: claimed; fine-tuning resumes from its state.
        mixed: the training images, ID and OOD.

    Returns:
        The last row of the log; empty without epochs.
    """
    log: list[dict[str, float]] = []
    for history, state in train(task, mixed, val_set, settings, state=run.state.get("finetuning")):
        log = [_finetuning_row(epoch_log) for epoch_log in _logs_of_network(history)]
        epoch = len(log)
        write_csv(run.folder / "ft_logs.csv", list(log[0]), log)
        save_state(run.folder / f"ft_model_{epoch}.pt", task.head.state_dict())
        run.save(loop=None, finetuning=state)
        row = log[-1]
        result(
            f"FT Epoch #{epoch} FT loss: {row['ft_loss']}, CE Loss: {row['ce_loss']}, "
            f"accuracy: {row['train_acc']}"
        )
        result(f"FT Epoch #{epoch} val loss: {row['val_ce_loss']}, accuracy: {row['val_acc']}")
    if not log:
        return {}
    return log[-1]


def _logs_of_network(history: History[str]) -> list[EpochLog]:
    """Return the log of each epoch of a run that trains a single network."""
    return [log for logs in history for log in logs.values()]


def _finetuning_row(log: EpochLog) -> dict[str, float]:
    """Return the row of an epoch in `ft_logs.csv`: cross-entropies, and the loss (cross-entropy plus
    penalty)."""
    return {
        "ft_loss": log.train.loss,
        "ce_loss": log.train.cross_entropy,
        "train_acc": log.train.accuracy,
        "val_ce_loss": log.val.cross_entropy,
        "val_acc": log.val.accuracy,
    }


def epoch_row(log: EpochLog) -> dict[str, object]:
    """Return the row of an epoch in `training_logs.csv`; None: not measured."""
    return {
        "train_acc": _measured(log.train.accuracy),
        "train_loss": log.train.loss,
        "val_acc": _measured(log.val.accuracy),
        "val_loss": _measured(log.val.loss),
    }


def _measured(value: float) -> float | None:
    """Convert NaN to None, which tables write as an empty cell."""
    return None if math.isnan(value) else value


def report_epoch(epoch: int, log: EpochLog) -> None:
    """Print an epoch in the format of the public code, without accuracies that are not measured."""
    for split, measured in (("train", log.train), ("val", log.val)):
        line = f"Epoch #{epoch} {split} loss: {measured.loss}"
        if not math.isnan(measured.accuracy):
            line += f", accuracy: {measured.accuracy}"
        result(line)
