"""Reads tables of similarity, probing and stitching as one kind of thing: values of measures at layers and ranks."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from src.captions import caption, network
from src.console import warn
from src.errors import UserError
from src.probe_results import Row as ProbeRow
from src.records import read_record
from src.similarity.measures import GRAMS, MEASURES
from src.similarity.results import Row
from src.stitching.rows import EXPERIMENT, method_names
from src.stitching.rows import Row as Stitch

HEADERS = {  # what tells the three kinds of CSV apart
    "similarity": {"model1", "model2", "layer1", "layer2", "rank1", "rank2"},
    "probing": {"model", "layer", "rank", "accuracy", "loss"},
    "stitching": {"front_layer", "end_layer", "stitching_type", "init", "front_stitch_rank", "accuracy"},
}
MADE_WITH = {  # of each kind: columns of networks and of their types; what images are for; the column of their number
    "similarity": ({"model1": "model1_type", "model2": "model2_type"}, "similarity", "n_samples"),
    "probing": ({"model": "model_type"}, "probes", "n_images"),
    "stitching": (
        {"front_model_path": "front_model_type", "end_model_path": "end_model_type"}, "matching", "n_pinv_init_samples",
    ),
}  # fmt: skip
FULL = math.inf  # the rank of what is not truncated: above all others
VARIED = ("front_stitch_rank", "front_pinv_rank")  # in the sensitivity test; all else tells stitches apart


class Series(NamedTuple):
    """One measure of the layers of two networks under one setting."""

    measure: str
    setting: str  # the networks, and of stitches the method
    models: tuple[str | None, str | None]  # paths; None in tables of earlier versions, which do not say
    method: str = ""  # of stitching


class Key(NamedTuple):
    """Layers and ranks that a value was measured at; FULL where nothing is truncated."""

    layer1: str
    layer2: str
    rank1: float
    rank2: float


class Probe(NamedTuple):
    """A probe of a layer."""

    accuracy: float
    loss: float  # equal where a rank above the width of the layer changes nothing


class Tables(NamedTuple):
    """What the given files hold; of measurements that are repeated, the last one."""

    values: dict[Series, dict[Key, float]]
    probes: dict[tuple[str, str], dict[float, Probe]]  # by model and layer: the probes by rank
    alignments: Mapping[Series, dict[Key, str]] = MappingProxyType({})  # what the samples were, where measures differ


def read_tables(paths: Sequence[str | Path]) -> Tables:
    """Read CSVs of similarity, probing and stitching in any order; their headers tell what they are.

    Raises:
        UserError: a file cannot be read, is none of these, or holds something else than numbers; names it.
    """
    values: dict[Series, dict[Key, float]] = {}
    probes: dict[tuple[str, str], dict[float, Probe]] = {}
    alignments: dict[Series, dict[Key, str]] = {}
    stitches: list[tuple[Path, Stitch]] = []
    n_repeated = 0
    for path in dict.fromkeys(map(Path, paths)):
        kind, rows = _read(path)
        for number, row in enumerate(rows, start=2):
            try:
                if kind == "stitching":
                    stitches.append((path, Stitch.of(row)))
                elif kind == "probing":
                    probe = read_record(ProbeRow, row)
                    of_layer = probes.setdefault((_path(probe.model), probe.layer), {})
                    rank = FULL if probe.rank is None else probe.rank
                    n_repeated += rank in of_layer
                    of_layer[rank] = Probe(probe.accuracy, probe.loss)
                else:
                    for series, key, value in _similarities(row):
                        n_repeated += key in values.setdefault(series, {})
                        values[series][key] = value
                        if MEASURES[series.measure].of != GRAMS:
                            alignments.setdefault(series, {})[key] = row["alignment"]
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{path}, line {number} is damaged ({error}); write the table again") from error
    for series, key, value in _accuracies(stitches):
        n_repeated += key in values.setdefault(series, {})
        values[series][key] = value
    if n_repeated:
        warn(f"these tables hold {n_repeated} measurements of what was measured before; the last of each counts")
    return Tables(values, probes, alignments)


def read_similarities(path: Path) -> list[Row]:
    """Return the rows of a table of similarity.

    Raises:
        UserError: it is none, or damaged; names it.
    """
    kind, rows = _read(path)
    if kind != "similarity":
        raise UserError(f"{path} is a table of {kind}; give one of exec_compute_low_rank_sim_metrics.py -o")
    try:
        return [Row.read(row) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); write the table again") from error


def describe(paths: Sequence[str | Path]) -> str:
    """Describe what tables were made with, for the caption of a figure.

    Raises:
        UserError: as `read_tables`.
    """
    types, datasets = {}, {}  # networks: their types by path; datasets as keys
    images: dict[str, set[str]] = {}  # by what they were used for
    for path in dict.fromkeys(map(Path, paths)):
        kind, rows = _read(path)
        columns, use, count = MADE_WITH[kind]
        for row in rows:
            for column, type_column in columns.items():
                if row.get(column):
                    types[_path(row[column])] = row.get(type_column) or types.get(_path(row[column]), "")
            if row.get("dataset"):
                datasets[row["dataset"]] = None
            if row.get(count):
                images.setdefault(use, set()).add(row[count])
    counts = [f"{', '.join(sorted(numbers, key=float))} ({use})" for use, numbers in images.items()]
    named = ", ".join(network(path, kind) for path, kind in types.items())
    return caption(networks=named, data=", ".join(datasets), images=", ".join(counts))


def over_ranks(values: Mapping[Key, float], side: int) -> Iterator[tuple[tuple[str, str], float, dict[float, float]]]:
    """Yield each pair of layers that was measured at two or more ranks of one of them, the other at its highest rank.

    Args:
        side: 0 where the first layer is truncated, 1 where the second is.
    Yields:
        The layers, the rank of the other one (FULL if that was measured), and the values by rank.
    """
    by_pair: dict[tuple[str, str], dict[tuple[float, float], float]] = {}
    for key, value in values.items():
        by_pair.setdefault(key[:2], {})[key[2:]] = value
    for layers, at in by_pair.items():
        reference = max(ranks[1 - side] for ranks in at)
        measured = {ranks[side]: value for ranks, value in at.items() if ranks[1 - side] == reference}
        if len(measured) > 1:
            yield layers, reference, measured


def _read(path: Path) -> tuple[str, list[dict[str, str]]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            header, rows = set(reader.fieldnames or []), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    for kind, needed in HEADERS.items():
        if needed <= header:
            return kind, rows
    raise UserError(
        f"{path} is no table of similarity, probing or stitching; give the CSV of "
        "exec_compute_low_rank_sim_metrics.py -o, of exec_probe.py -o, or a grid.csv of exec_stitch.py"
    )


def _accuracies(stitches: Sequence[tuple[Path, Stitch]]) -> Iterator[tuple[Series, Key, float]]:
    """Yield the accuracies of stitches; the method tells apart those of the same networks."""
    rows = [row for _, row in stitches]
    fields = [name for name in EXPERIMENT if name not in VARIED and "_model_" not in name]
    for (file, row), name in zip(stitches, method_names(rows, fields), strict=True):
        models = tuple(path and _path(path) for path in (row.front_model_path, row.end_model_path))
        networks = " -- ".join(models) if all(models) else str(file)
        rank = FULL if row.front_stitch_rank is None else row.front_stitch_rank
        series = Series("stitching accuracy", f"{networks}: {row.stitching_type}, {name}", models, name)
        yield series, Key(*row.pair, rank, FULL), row.accuracy


def _similarities(row: Mapping[str, str]) -> Iterator[tuple[Series, Key, float]]:
    """Yield the values of a row, signed so that higher means more similar."""
    measured = Row.read(row)
    models = (_path(measured.model1), _path(measured.model2))
    ranks = (FULL if rank is None else rank for rank in (measured.rank1, measured.rank2))
    key = Key(measured.layer1, measured.layer2, *ranks)
    for measure, value in measured.values.items():
        setting = " -- ".join(models)
        if measured.alignment_option in ("pool", "positions") and MEASURES[measure].of != GRAMS:
            setting += f", {measured.alignment_option}"  # not to be mixed with values of other samples
        yield Series(measure, setting, models), key, MEASURES[measure].sign * value


def _path(text: str) -> str:
    return str(Path(text))  # ./models/a.pt is models/a.pt
