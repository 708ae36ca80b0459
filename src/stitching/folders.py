"""The files of stitching runs, of this suite or of the public code: options, metrics, predictions.

`summary.txt`, `config.txt` and `training_logs.csv` are the public code's; `metrics.json` and
`predictions.npz` are new."""

import io
import math
import os
import re
import shutil
import sys
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from src.choices import STARTS
from src.console import warn
from src.errors import UserError
from src.files import read_json, readable, write_bytes, write_json, write_text
from src.results.options import read_options
from src.results.tables import columns, from_record, read_table
from src.results.weights import warn_of_earlier, warn_of_newer
from src.stitching.experiments import short_weights
from src.stitching.stitch_rows import Metrics, StitchRow
from src.training.recorded import EpochRow

RUN_NAME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(\.\d+)?")
SUMMARY = {  # lines of `summary.txt`, and the metrics that they give
    "Clean accuracy": "accuracy",
    "Normalized PINV difference": "matching_error",
    "Normalized representation difference": "representation_difference",
}
PREDICTIONS = ("stitched", "front", "end", "labels")  # arrays of `predictions.npz`
STALE = "stale-"  # begins the name of a folder of runs that were moved aside
STILL_FELL = 0.02  # by which share a loss may fall over the last fifth of the epochs


@dataclass(frozen=True)
class StitchingRun:
    """A finished run with everything that was measured of it."""

    folder: Path
    options: dict[str, Any]  # its config.txt
    row: StitchRow
    evaluations: Mapping[str, Any] = field(
        default_factory=dict
    )  # by detector, see `src.ood.evaluation_rows`

    @property
    def validity(self) -> Any:
        """How its activations lie to those of the end network, by any evaluation that measured it;
        None of none."""
        return next((row.validity for row in self.evaluations.values() if row.validity), None)

    @property
    def identified(self) -> Any:
        """The share of test images that it is identified by, from any evaluation that measured it;
        None of none."""
        return next((row.identified for row in self.evaluations.values() if row.identified), None)

    @property
    def noise_cost(self) -> float | None:
        """The accuracy that noise of the limit costs the end network at the end layer; None where
        it is not known."""
        costs = (row.noise_cost for row in self.evaluations.values())
        return next((cost for cost in costs if cost is not None), None)

    @cached_property
    def predictions(self) -> dict[str, np.ndarray] | None:
        """The classes (N,) that stitch and networks predict for all test images, and the labels.

        None where the run has kept none, or with a warning where they are damaged.
        """
        path = self.folder / "predictions.npz"
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in PREDICTIONS}
        except Exception as error:  # a damaged archive can raise anything
            warn(f"{path} is damaged ({error}) and left out; stitch this pair again")
            return None

    @property
    def has_converged(self) -> bool:
        """Whether the training loss fell by at most 2 % over the last fifth of the epochs; one
        epoch does not tell."""
        path = self.folder / "training_logs.csv"
        losses = [row.train_loss for row in read_table(path, EpochRow)] if path.is_file() else []
        fifth = math.ceil(len(losses) / 5)
        if len(losses) <= fifth:
            return not losses
        before, last = losses[-1 - fifth], losses[-1]
        return before - last <= STILL_FELL * abs(before)


def write_predictions(path: Path, classes: Mapping[Hashable, Tensor]) -> None:
    """Write the classes (N,) of `PREDICTIONS` as a compressed npz of int16, or int32 if need be."""
    arrays = {name: classes[name].numpy() for name in PREDICTIONS}
    largest = max(int(values.max()) for values in arrays.values())
    dtype = np.int16 if largest <= np.iinfo(np.int16).max else np.int32
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: array.astype(dtype) for name, array in arrays.items()})
    write_bytes(path, buffer.getvalue())


def write_metrics(
    folder: Path, row: StitchRow, *, sparsity: Mapping[str, float], **further: float
) -> None:
    """Write `metrics.json`, which has null for what is not finite, and `summary.txt`.

    Args:
        sparsity: shares of weights of at most each threshold.
        further: entries of `metrics.json`.
    """
    values = {name: getattr(row, name) for name in columns(Metrics)}
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            values[name] = None
            if name not in (
                "kappa",
                "front_accuracy",
                "r2_matched",
                "r2_test",
            ):  # where they are not defined
                warn(f"{row.pair}: the {name} is not finite ({value})")
    write_json(folder / "metrics.json", values | further | {"sparsity": sparsity})
    lines = [  # some end with a blank, which readers rely on
        f"Front model: {row.front_model_path} ",
        f"End model: {row.end_model_path} ",
        f"Front layer: {row.front_layer} ",
        f"End layer: {row.end_layer} ",
        f"Clean accuracy: {row.accuracy:.4f} ",
        f"Normalized PINV difference: {row.matching_error or 0:.4f}",  # 0 where nothing was matched
        f"Normalized representation difference: {row.representation_difference:.4f}",
        "",
        f"Command: {' '.join(sys.argv)}",
        "",
        "Sparsity",
    ]
    for threshold, share in sparsity.items():
        tabs = "\t\t" if threshold == "0" else "\t"
        lines.append(f"{threshold}: {tabs}{share}")
    write_text(folder / "summary.txt", "\n".join(lines) + "\n")


def read_runs(
    source_dir: str | Path, *, recursive: bool = False
) -> tuple[list[StitchingRun], list[str]]:
    """Read all finished runs in a folder, oldest first (names are times), and say which ones were
    skipped and why.

    A folder that has neither the name nor the options of a run is no run.

    Args:
        recursive: read the runs in all folders below as well.
    """
    source_dir = Path(source_dir)
    if not source_dir.is_dir():
        raise UserError(
            f"{source_dir} is no folder; give the folder that holds the folders of stitching runs"
        )
    runs, skipped = [], []
    for parent in (source_dir, *(sorted(folders_of_runs(source_dir)) if recursive else ())):
        for path in sorted(path for path in parent.iterdir() if path.is_dir()):
            try:
                if RUN_NAME.fullmatch(path.name) or _is_stitch(path / "config.txt"):
                    runs.append(read_run(path))
            except UserError as error:
                skipped.append(str(error))
    return sorted(runs, key=lambda run: run.folder.name), skipped


def _is_stitch(config: Path) -> bool:
    return config.is_file() and "stitching_type" in read_options(config)


def folders_of_runs(source_dir: Path) -> set[Path]:
    """Return the folders below this one that hold runs, but those that were moved aside."""
    folders = {config.parent.parent for config in source_dir.rglob("config.txt")} - {
        source_dir,
        source_dir.parent,
    }
    return {folder for folder in folders if not _is_stale(folder.relative_to(source_dir))}


def _is_stale(folder: Path) -> bool:
    return any(part.startswith(STALE) for part in folder.parts)


def warn_of_weights(runs: Iterable[StitchingRun]) -> None:
    """Warn of runs whose checkpoints hold, or may hold, other weights now."""
    runs = list(runs)
    warn_of_earlier((run.row.networks for run in runs), kind="run")
    warn_of_newer((run.folder / "config.txt", run.row.networks) for run in runs)


def remove_parts(directory: Path) -> None:
    """Delete the `*.part` files in a folder and below, which a killed process was writing."""
    for part in list(directory.rglob(".*.part")):
        part.unlink()


def remove_remains(directory: Path) -> None:
    """Delete unfinished runs, unless there is a state to go on from, and `*.part` files.

    No other process may be writing to the folder.
    """
    remove_parts(directory)
    if not any(directory.glob("*/resume.pt")):
        for path in list(directory.iterdir()):
            if RUN_NAME.fullmatch(path.name) and not (path / "config.txt").exists():
                shutil.rmtree(path)


def read_run(folder: Path) -> StitchingRun:
    """Read a finished run; the metrics that the public code does not store are NaN.

    Raises:
        UserError: the run is unfinished or a file of it is damaged.
    """
    if not (folder / "config.txt").is_file():
        raise UserError(f"{folder} has no config.txt: the run in it did not finish")
    options = read_options(folder / "config.txt")
    if options.get("control"):
        raise UserError(
            f"{folder} is a label-only control, which version 1.0 made; remove the folder"
        )
    with readable(folder / "summary.txt", "remove the folder, and stitch this pair again"):
        lines = (folder / "summary.txt").read_text(encoding="utf-8").splitlines()
    said = dict(line.split(": ", 1) for line in lines[:7] if ": " in line)
    measured: dict[str, Any] = {
        name: said[key].strip() for key, name in SUMMARY.items() if key in said
    }
    if (folder / "metrics.json").is_file():
        written = read_json(folder / "metrics.json")
        measured |= written if isinstance(written, dict) else {}
    if options.get("init") in STARTS:
        measured["matching_error"] = None  # for which the public code writes 0
    paths = {f"{side}_model_path": options.get(f"{side}_model_path") for side in ("front", "end")}
    normalised = {
        name: os.path.normpath(path)
        for name, path in paths.items()
        if isinstance(path, str) and path
    }
    unknown = {"end_accuracy": math.nan}  # in runs of the public code
    named = normalised | short_weights(options) | {"folder": folder.name}
    try:
        row = from_record(StitchRow, unknown | measured | options | named)
    except ValueError as error:
        raise UserError(
            f"{folder} is no folder of a stitching run ({error} missing or damaged)"
        ) from error
    return StitchingRun(folder, options, row)
