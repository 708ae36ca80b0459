"""Writes the results of runs: stitches, predictions and training logs, which `stitches` reads. A run of one
stitch has the files of the public code, see `public`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from src.core.console import result
from src.core.errors import UserError
from src.core.files import write_arrays, write_csv
from src.core.tensors import load_tensors, save_tensors
from src.datasets.base import BaseImageSet
from src.results import public
from src.results.checkpoints import StateDict, load_state, on_cpu, save_state
from src.results.run import Run
from src.results.stitches import EpochRow, StitchRow
from src.results.tables import columns, write_table
from src.training.loop import Epochs, History, Settings, train
from src.training.task import Classification, EpochLog
from src.values import Pair, Predictions

STITCHES = "stitches.pt"  # the stitches of a run with several


def write_stitches(
    folder: Path,
    rows: Mapping[Pair, StitchRow],
    *,
    states: Mapping[Pair, Mapping[str, Tensor]],
    predictions: Mapping[Pair, Predictions],
    command: str,
) -> None:
    """Write the files of a run, but for its logs, `run.json` and `config.txt`.

    Args:
        rows: of all stitches.
        states: their weights; empty: they are not saved.
        predictions: their predictions; empty: they are not saved.
        command: the command line of the run.
    """
    write_table(folder / "grid.csv", StitchRow, rows.values())
    if predictions:
        write_predictions(folder / "predictions.npz", list(predictions.values()))
    if len(rows) > 1:
        if states:
            save_stitches(folder, states)
        return
    (row,) = rows.values()
    public.write_summary(folder, row, command=command)
    for state in states.values():
        save_state(folder / public.STITCH, state)


def save_stitches(folder: Path, states: Mapping[Pair, Mapping[str, Tensor]]) -> None:
    """Save the state dicts of stitching layers in `stitches.pt`, by front layer and end layer."""
    by_layers: dict[str, dict[str, StateDict]] = {}
    for pair, state in states.items():
        by_layers.setdefault(pair.front_layer, {})[pair.end_layer] = on_cpu(state)
    save_tensors(folder / STITCHES, by_layers)


def load_stitch(folder: Path, pair: Pair) -> StateDict:
    """Load the state dict of a stitch in a run's folder; only its own tensors are read.

    Raises:
        UserError: as `load_state`; or the run has kept no such stitch.
    """
    path = folder / STITCHES
    if not path.exists():
        return load_state(folder / public.STITCH)
    states = load_tensors(path, mmap=True)
    try:
        return states[pair.front_layer][pair.end_layer]
    except KeyError:
        raise UserError(f"{path} has no stitch {pair}; stitch again") from None


def write_predictions(path: Path, predictions: Sequence[Predictions]) -> None:
    """Write predicted classes and labels of stitches of two networks as a compressed npz.

    The array `stitched` is (N,) of one stitch, and (stitches, N) of several. All are int16, or int32 if
    there are too many classes.
    """
    _, front, end, labels = predictions[0]
    stitched = np.stack([of_stitch.stitched for of_stitch in predictions])
    if len(stitched) == 1:
        (stitched,) = stitched
    classes = Predictions(stitched, front, end, labels)
    largest = max(int(of_images.max()) for of_images in classes)
    dtype = np.int16 if largest <= np.iinfo(np.int16).max else np.int32
    small = Predictions(*(of_images.astype(dtype) for of_images in classes))
    write_arrays(path, small._asdict())


def write_logs(folder: Path, epochs: Sequence[EpochRow], *, of_pairs: bool = False) -> None:
    """Write `training_logs.csv` with one row for each epoch; no file without epochs.

    Args:
        of_pairs: the rows are of several pairs, and begin with their layers.
    """
    if epochs:
        header = [name for name in columns(EpochRow) if of_pairs or name not in Pair._fields]
        records = [{name: getattr(epoch, name) for name in header} for epoch in epochs]
        write_csv(folder / "training_logs.csv", header, records)


def write_logs_of_pairs(folder: Path, epochs: Mapping[Pair, Sequence[EpochRow]]) -> None:
    """Write `training_logs.csv` of one pair or of several."""
    rows = [
        replace(epoch, **pair._asdict()) for pair, of_pair in epochs.items() for epoch in of_pair
    ]
    write_logs(folder, rows, of_pairs=len(epochs) > 1)


def train_network(
    run: Run,
    task: Classification,
    train_set: BaseImageSet,
    val_set: BaseImageSet,
    settings: Settings,
    *,
    save_frequency: int,
) -> None:
    """Train the network of a task; log, save and report every epoch.

    Args:
        run: claimed; training resumes from its state.
        save_frequency: keep the network of every so many epochs, and of the last one, as
            `model_<epoch>.pt`; 0 keeps the last one only.
    """
    for history, state in train(task, train_set, val_set, settings, state=run.state.get("loop")):
        epoch = len(history)
        logs = _logs_of_network(history)
        write_logs(run.folder, [epoch_row(log) for log in logs])
        is_last = epoch == settings.n_epochs
        is_kept = save_frequency > 0 and epoch % save_frequency == 0
        if is_last or is_kept:
            save_state(run.folder / f"model_{epoch}.pt", task.head.state_dict())
        run.save(loop=state)
        report_epoch(epoch, logs[-1])


def finetune_network(
    run: Run, task: Classification, mixed: Epochs, val_set: BaseImageSet, settings: Settings
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


def epoch_row(log: EpochLog) -> EpochRow:
    """Return the row of an epoch in `training_logs.csv`."""
    return EpochRow(
        train_acc=_measured(log.train.accuracy),
        train_loss=log.train.loss,
        val_acc=_measured(log.val.accuracy),
        val_loss=_measured(log.val.loss),
    )


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
