"""Reads stitching runs, of this suite and of the public code."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.errors import UserError
from src.files import read_json
from src.options import MATCHED_INITS
from src.runs import read_options
from src.stitching.rows import Row, by_experiment, warn_of_repetitions

RUN_NAME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(\.\d+)?")


class Run(NamedTuple):
    """A finished run."""

    folder: Path
    options: dict[str, Any]  # its config.txt
    row: Row  # of grid.csv


def read_run(folder: Path) -> Run:
    """Read a finished run; what the public code does not store is NaN in its row.

    Raises:
        UserError: the run is unfinished or a file of it is damaged.
    """
    if not (folder / "config.txt").is_file():
        raise UserError(f"{folder} has no config.txt: the run in it did not finish")
    options = read_options(folder / "config.txt")
    measured: dict[str, Any] = _read_summary(folder / "summary.txt")
    if (folder / "metrics.json").is_file():
        written = read_json(folder / "metrics.json")
        measured |= written if isinstance(written, dict) else {}
    try:
        if "accuracy" not in measured:
            raise ValueError("accuracy")
        row = Row.of({**options, **measured, "folder": folder.name})
    except ValueError as error:
        raise UserError(f"{folder} is no folder of a stitching run ({error} missing or damaged)") from error
    if row.init not in MATCHED_INITS:
        row = row._replace(matching_error=None)  # for which the public code writes 0
    return Run(folder, options, row)


def _read_summary(path: Path) -> dict[str, str]:
    names = {
        "Clean accuracy": "accuracy",
        "Normalized PINV difference": "matching_error",
        "Normalized representation difference": "representation_difference",
    }
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    pairs = (line.split(": ", 1) for line in lines[:7] if ": " in line)
    return {names[key]: value.strip() for key, value in pairs if key in names}


def read_runs(source_dir: str | Path) -> tuple[list[Run], list[str]]:
    """Read all finished runs in a folder, oldest first (names are times), and say which ones were skipped and why.

    What has neither the name nor the options of a run, such as a folder of runs, is none.

    Raises:
        UserError: there is no such folder.
    """
    source_dir = Path(source_dir)
    if not source_dir.is_dir():
        raise UserError(f"{source_dir} is no folder; give the folder that holds the folders of stitching runs")
    runs, skipped = [], []
    for folder in sorted(path for path in source_dir.iterdir() if path.is_dir()):
        if not (RUN_NAME.fullmatch(folder.name) or (folder / "config.txt").is_file()):
            continue
        try:
            runs.append(read_run(folder))
        except UserError as error:
            skipped.append(str(error))
    return runs, skipped


def newest_of_each_pair(runs: Sequence[Run]) -> list[Run]:
    """Return the newest run of each pair in each experiment (names are times); warns where there are several."""
    newest = []
    for rows in by_experiment([run.row for run in runs]).values():
        warn_of_repetitions(rows)
        newest += {row.pair: row for row in rows}.values()
    folders = {row.folder for row in newest}
    return [run for run in runs if run.row.folder in folders]
