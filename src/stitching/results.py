"""Reads stitching runs, of this suite and of the public code, and arranges their accuracies as a matrix."""

import csv
import math
import re
import types
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from src.console import warn
from src.errors import UserError
from src.files import read_json
from src.options import MATCHED_INITS
from src.runs import read_options
from src.stitching.stitched_model import Pair

# What tells one experiment of a folder from another, beside the two layers.
EXPERIMENT = (
    "front_model_path", "end_model_path", "front_model_type", "end_model_type", "dataset", "stitching_type", "init",
    "n_pinv_init_samples", "front_pinv_rank", "front_stitch_rank", "objective", "n_epochs", "seed",
)  # fmt: skip
RUN_NAME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(\.\d+)?")


class Metrics(NamedTuple):
    """What a stitching run measured; accuracies and agreement in [0, 1]."""

    accuracy: float
    front_accuracy: float
    end_accuracy: float
    matching_error: float | None  # None where nothing was matched
    representation_difference: float
    agreement: float  # share of test images for which stitched and end network predict the same class
    kappa: float  # Cohen's kappa of these predictions


class Row(NamedTuple):
    """A finished run: a row of `grid.csv`, whose columns are these. What a run does not say is None or NaN."""

    front_layer: str
    end_layer: str
    stitching_type: str
    init: str
    front_stitch_rank: int | None
    front_pinv_rank: int | None
    seed: int | None
    accuracy: float
    front_accuracy: float
    end_accuracy: float
    matching_error: float | None
    representation_difference: float
    folder: str
    front_model_path: str | None
    end_model_path: str | None
    front_model_type: str | None
    end_model_type: str | None
    dataset: str | None
    objective: str
    n_epochs: int | None
    n_pinv_init_samples: int | None
    agreement: float
    kappa: float

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Row":
        """Make a row from values by name, as JSON or as the text of a CSV.

        Raises:
            ValueError: a value is missing or of another type; names it.
        """
        values = {"objective": "task"} | dict(values)  # older runs do not say so
        return cls(**{name: _typed(name, kind, values.get(name)) for name, kind in get_type_hints(cls).items()})

    @property
    def pair(self) -> Pair:
        """The layers that the run stitched."""
        return Pair(self.front_layer, self.end_layer)

    @property
    def method(self) -> str:
        """The name of the way of stitching, such as task loss matching."""
        if self.n_epochs == 0:
            return "direct matching" if self.init == "pinv" else f"init {self.init}"
        return "task loss matching" if self.objective == "task" else f"{self.objective} matching"


def _typed(name: str, kind: Any, value: Any) -> Any:
    kinds = get_args(kind) or (kind,)
    if value is None or value == "":
        if types.NoneType not in kinds and kind is not float:
            raise ValueError(name)
        return math.nan if kind is float else None
    if kinds[0] is str:
        if not isinstance(value, str) or not value.isprintable():
            raise ValueError(name)
        return value
    if isinstance(value, bool) or (kinds[0] is int and isinstance(value, float)):
        raise ValueError(name)
    try:
        return kinds[0](value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(name) from error


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


def read_grid(path: Path) -> list[Row]:
    """Read a `grid.csv`.

    Raises:
        UserError: it cannot be read, or a row of it is damaged.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [Row.of(values) for values in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); misc/collect_results.py writes it again") from error


def by_experiment(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Group rows by experiment, under a title that names what tells it from the others; "" for a single one."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, name) for name in EXPERIMENT), []).append(row)
    varied = [i for i in range(len(EXPERIMENT)) if len({experiment[i] for experiment in groups}) > 1]
    titles = (", ".join(f"{EXPERIMENT[i]}={experiment[i]}" for i in varied) for experiment in groups)
    return dict(zip(titles, groups.values(), strict=True))


def newest_of_each_pair(runs: Sequence[Run]) -> dict[Pair, Run]:
    """Return the newest run of each pair (names are times); warns where there are several."""
    warn_of_repetitions([run.row for run in runs])
    return {run.row.pair: run for run in runs}


def warn_of_repetitions(rows: Sequence[Row]) -> None:
    """Warn where there are several runs of a pair, of which the newest is to count."""
    newest = {row.pair: row.folder for row in rows}
    for pair, count in Counter(row.pair for row in rows).items():
        if count > 1:
            warn(f"{pair.front_layer} -> {pair.end_layer} has {count} runs; the newest counts, {newest[pair]}")


def accuracy_matrix(rows: Sequence[Row]) -> tuple[list[str], list[str], list[list[float]]]:
    """Front layers and end layers in natural order, and the newest accuracy of each pair, NaN where there is none."""
    fronts, ends = natural_order(row.front_layer for row in rows), natural_order(row.end_layer for row in rows)
    return fronts, ends, accuracies(rows, fronts, ends)


def accuracies(rows: Iterable[Row], fronts: Sequence[str], ends: Sequence[str]) -> list[list[float]]:
    """Return the newest accuracy of each pair of the given layers, NaN where there is none."""
    newest = {row.pair: row.accuracy for row in rows}
    return [[newest.get((front, end), math.nan) for end in ends] for front in fronts]


def natural_order(names: Iterable[str]) -> list[str]:
    """Distinct layer names in the order a reader expects: blocks.2 before blocks.10."""

    def key(name: str) -> list:
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]

    return sorted(set(names), key=key)
