"""Stitching runs with everything that was measured of them: what a verdict rests on."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.console import warn
from src.ood.results import Row as Evaluation
from src.ood.results import read_evaluations
from src.stitching.results import Run, read_runs
from src.stitching.rows import Row

NAMES = ("stitched", "front", "end", "labels")  # arrays of predictions.npz


class Stitch(NamedTuple):
    """A run with everything that was measured of it."""

    row: Row
    predictions: Mapping[str, np.ndarray] | None  # (N,) each: `NAMES`; None in folders of older runs
    evaluations: dict[str, Evaluation]  # by detector


def read_stitches(folder: Path) -> tuple[list[Stitch], list[str]]:
    """Read the runs of a folder with their predictions and OOD evaluations, and say which ones were skipped and why.

    Raises:
        UserError: there is no such folder, or a file of an evaluation is damaged.
    """
    runs, skipped = read_runs(folder)
    by_run: dict[str, dict[str, Evaluation]] = {}
    stitched = {run.folder.name: run.row.dataset for run in runs}
    for detector, rows in read_evaluations(folder).items():
        others = {row.dataset for row in rows if row.dataset and row.dataset != stitched.get(row.folder, row.dataset)}
        if others:
            warn(f"{folder}: the evaluation by {detector} is of {', '.join(others)}, on which nothing was stitched")
        for row in rows:
            if row.dataset not in others:
                by_run.setdefault(row.folder, {})[detector] = row
    return [Stitch(run.row, read_predictions(run), by_run.get(run.folder.name, {})) for run in runs], skipped


def read_predictions(run: Run) -> dict[str, np.ndarray] | None:
    """Return the predicted classes of a run; None where it has kept none, or with a warning they are damaged."""
    path = run.folder / "predictions.npz"
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            predictions = {name: arrays[name] for name in NAMES}
        if len({array.shape for array in predictions.values()}) > 1 or predictions["labels"].ndim != 1:
            raise ValueError("arrays of different lengths")
        if not len(predictions["labels"]) or any(array.dtype.kind not in "iu" for array in predictions.values()):
            raise ValueError("no whole numbers")
        if predictions["labels"].min() < 0:
            raise ValueError("negative labels")
    except Exception as error:  # a damaged archive can raise anything
        warn(f"{path} is damaged ({error}) and left out; stitch this pair again")
        return None
    return predictions
