"""Rows of `grid.csv`, one a stitch, and their accuracies as a matrix. Importing this spares torch."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from src.console import warn
from src.options import MATCHED_INITS
from src.records import read_record

# What tells one experiment of a folder from another, beside the two layers.
EXPERIMENT = (
    "front_model_path", "end_model_path", "front_model_type", "end_model_type", "dataset", "stitching_type", "init",
    "n_pinv_init_samples", "front_pinv_rank", "front_stitch_rank", "objective", "n_epochs", "seed",
)  # fmt: skip


RowOfStitch = TypeVar("RowOfStitch", bound=NamedTuple)


class Pair(NamedTuple):
    """The two layers that a stitch connects."""

    front_layer: str
    end_layer: str


# What older runs, or those of the public code, do not store.
NOT_STORED = ("front_accuracy", "end_accuracy", "representation_difference", "agreement", "kappa")


class Metrics(NamedTuple):
    """What a stitching run measured; accuracies and agreement in [0, 1]."""

    accuracy: float
    front_accuracy: float
    end_accuracy: float
    matching_error: float | None  # None where nothing was matched
    representation_difference: float
    agreement: float  # share of test images for which stitched and end network predict the same class
    kappa: float  # Cohen's kappa of these predictions
    n_images: int  # test images


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
    n_images: int | None = None  # test images; None in older tables

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Row":
        """Make a row from values by name, as JSON or as the text of a CSV.

        Raises:
            ValueError: a value is missing or of another type; names it.
        """
        row = read_record(cls, {"objective": "task"} | dict(values), may_lack=NOT_STORED)  # older runs do not say so
        paths = {name: getattr(row, name) for name in ("front_model_path", "end_model_path")}
        return row._replace(**{name: path and os.path.normpath(path) for name, path in paths.items()})

    @property
    def pair(self) -> Pair:
        """The layers that the run stitched."""
        return Pair(self.front_layer, self.end_layer)

    @property
    def method(self) -> str:
        """The name of the way of stitching, such as task loss matching; of old tables, how a matched layer started."""
        if self.n_epochs == 0:
            return "direct matching" if self.init == "pinv" else f"init {self.init}"
        if self.n_epochs is None and self.init in MATCHED_INITS:  # they do not say whether it was trained on
            return f"init {self.init}"
        return "task loss matching" if self.objective == "task" else f"{self.objective} matching"


def by_experiment(rows: Iterable[RowOfStitch]) -> dict[str, list[RowOfStitch]]:
    """Group rows by experiment, under a title that names what tells it from the others; "" for a single one.

    Args:
        rows: of any table whose rows have the fields `EXPERIMENT`.
    """
    groups: dict[tuple, list[RowOfStitch]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, name) for name in EXPERIMENT), []).append(row)
    varied = [i for i in range(len(EXPERIMENT)) if len({experiment[i] for experiment in groups}) > 1]
    titles = (", ".join(_setting(EXPERIMENT[i], experiment[i]) for i in varied) for experiment in groups)
    return dict(zip(titles, groups.values(), strict=True))


def _setting(name: str, value: Any) -> str:
    return f"{name}={'full' if value is None and name.endswith('_rank') else value}"


def method_names(rows: Sequence[Row], fields: Sequence[str]) -> list[str]:
    """Name the method of each run; where methods share a name, add what tells them apart.

    Args:
        fields: what tells one method from another.
    """
    methods = [tuple(getattr(row, field) for field in fields) for row in rows]
    plain = {method: row.method for method, row in zip(methods, rows, strict=True)}
    names = {}
    for method, name in plain.items():
        alike = [other for other, other_name in plain.items() if other_name == name]
        varied = [i for i in range(len(fields)) if len({other[i] for other in alike}) > 1]
        details = ", ".join(_setting(fields[i], method[i]) for i in varied)
        names[method] = f"{name} ({details})" if details else name
    return [names[method] for method in methods]


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
