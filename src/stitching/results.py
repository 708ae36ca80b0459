"""Stitching runs read back, ours and the public code's, and the table and heat map of all runs in a folder."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.errors import UserError
from src.figures import heat_maps
from src.files import locked, read_json, write_csv
from src.report import note, warn
from src.runs import read_options
from src.stitching.stitched_model import Pair

COLUMNS = (
    "front_layer", "end_layer", "stitching_type", "init", "front_stitch_rank", "front_pinv_rank", "seed", "accuracy",
    "front_accuracy", "end_accuracy", "matching_error", "representation_difference", "folder",
)  # fmt: skip

MAX_NAME = 1000  # characters, of a layer
RUN_NAME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(\.\d+)?")

Row = dict[str, Any]


class Metrics(NamedTuple):
    """What a stitching run measured; accuracies in [0, 1]."""

    accuracy: float
    front_accuracy: float
    end_accuracy: float
    matching_error: float
    representation_difference: float


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
    try:
        named = {name: options[name] for name in COLUMNS[:7]}
        if not all(_is_name(value) for value in list(named.values())[:4]):
            raise ValueError("the names in config.txt")
        if not all(isinstance(value, int | None) for value in list(named.values())[4:]):
            raise ValueError("the numbers in config.txt")
        measured = _read_summary(folder / "summary.txt")
        if (folder / "metrics.json").is_file():
            measured.update(read_json(folder / "metrics.json"))
        numbers = {name: math.nan if measured.get(name) is None else float(measured[name]) for name in Metrics._fields}
        if "accuracy" not in measured:
            raise ValueError("the accuracy")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{folder} is no folder of a stitching run ({error} missing or damaged)") from error
    row = named | numbers | {"folder": folder.name}
    return Run(folder, options, row)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= MAX_NAME


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


def write_grid(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as a CSV, and beside it the heat map of their accuracies (the newest of each pair) as a PNG."""
    fronts, ends, matrix = accuracy_matrix(rows)
    write_csv(path, COLUMNS, rows)
    heat_maps(
        path.with_suffix(".png"),
        {"accuracy of the stitched network": matrix},
        rows=fronts,
        columns=ends,
        row_label="front layer",
        column_label="end layer",
    )
    note(f"wrote {path} and {path.with_suffix('.png')}")


def update_grid(directory: Path, *, create: bool) -> None:
    """Rebuild `grid.csv` and `grid.png` from all finished runs of a folder; safe when several processes do so.

    Args:
        create: also where there are none yet, and no other process is about to make them.
    """
    table, lock = directory / "grid.csv", directory / ".grid.lock"
    if create or table.exists() or lock.exists():
        with locked(lock):
            write_grid(table, [run.row for run in read_runs(directory)[0]])


def newest_of_each_pair(runs: Sequence[Run]) -> dict[Pair, Run]:
    """The newest run of each pair (names are times); warns where there are several."""
    newest: dict[Pair, Run] = {}
    counts = Counter(pair_of(run) for run in runs)
    for run in runs:
        newest[pair_of(run)] = run
    for pair, count in counts.items():
        if count > 1:
            newest_name = newest[pair].folder.name
            warn(f"{pair.front_layer} -> {pair.end_layer} has {count} runs; the newest counts, {newest_name}")
    return newest


def pair_of(run: Run) -> Pair:
    """The layers that a run stitched."""
    return Pair(run.row["front_layer"], run.row["end_layer"])


def accuracy_matrix(rows: Iterable[Row]) -> tuple[list[str], list[str], list[list[float]]]:
    """Front layers and end layers in natural order, and the newest accuracy of each pair, NaN where there is none."""
    accuracy = {(row["front_layer"], row["end_layer"]): row["accuracy"] for row in rows}
    fronts, ends = (natural_order(names) for names in zip(*accuracy, strict=True))
    return fronts, ends, [[accuracy.get((front, end), math.nan) for end in ends] for front in fronts]


def natural_order(names: Iterable[str]) -> list[str]:
    """Distinct layer names in the order a reader expects: blocks.2 before blocks.10."""

    def key(name: str) -> list:
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]

    return sorted(set(names), key=key)
