"""Writes the stitches of a run, their predictions and logs, and loads stitches; `folders` reads the tables.

A run of one stitch has the files of the public code, see `public`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from src.core.errors import UserError
from src.core.files import write_arrays, write_csv
from src.core.tensors import load_tensors, save_tensors
from src.results import public
from src.results.checkpoints import StateDict, load_state, on_cpu, save_state
from src.results.stitch_rows import EpochRow, StitchRow
from src.results.tables import columns, write_table
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
    """Write `training_logs.csv` with a row an epoch; nothing without epochs.

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
