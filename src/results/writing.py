"""Writes the stitches of a run, their predictions and logs; `folders` reads these files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from src.core.files import write_arrays, write_csv, write_text
from src.results.checkpoints import save_state, save_stitches
from src.results.stitch_rows import SPARSITY, StitchRow
from src.results.tables import columns, write_table
from src.results.training_rows import EpochRow
from src.values import Pair, Predictions


def write_stitches(
    folder: Path,
    rows: Mapping[Pair, StitchRow],
    *,
    states: Mapping[Pair, Mapping[str, Tensor]],
    predictions: Mapping[Pair, Predictions],
    command: str,
) -> None:
    """Write the files of a run, but for its logs, `run.json` and `config.txt`.

    A run of one stitch has `final_model.pt` and `summary.txt`, as the public code writes them.

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
    write_summary(folder, row, command=command)
    for state in states.values():
        save_state(folder / "final_model.pt", state)


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


def write_summary(folder: Path, row: StitchRow, *, command: str) -> None:
    """Write `summary.txt`, as the public code does."""
    # Readers rely on the blanks at the ends of lines.
    lines = [
        f"Front model: {row.front_model_path} ",
        f"End model: {row.end_model_path} ",
        f"Front layer: {row.front_layer} ",
        f"End layer: {row.end_layer} ",
        f"Clean accuracy: {row.accuracy:.4f} ",
        f"Normalized PINV difference: {row.matching_error or 0:.4f}",  # 0 where nothing was matched
        f"Normalized representation difference: {row.representation_difference:.4f}",
        "",
        f"Command: {command}",
        "",
        "Sparsity",
    ]
    for column, share in row.further.items():
        threshold = column.removeprefix(SPARSITY)
        tabs = "\t\t" if threshold == "0" else "\t"
        lines.append(f"{threshold}: {tabs}{share}")
    write_text(folder / "summary.txt", "\n".join(lines) + "\n")


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
