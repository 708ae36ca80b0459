"""Tables of similarity, probing and stitching read back as what they have in common: values at layers and ranks."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from src.captions import caption, network
from src.errors import UserError
from src.similarity.measures import GRAMS, MEASURES
from src.similarity.results import Row

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


class Series(NamedTuple):
    """One measure of the layers of two networks under one setting."""

    measure: str
    setting: str  # the networks, or the file and the kind of stitch
    models: tuple[str | None, str | None]  # paths; None where the file does not say


class Key(NamedTuple):
    """Layers and ranks that a value was measured at; FULL where nothing is truncated."""

    layer1: str
    layer2: str
    rank1: float
    rank2: float


class Probe(NamedTuple):
    """A probe of a layer, or several that differ in their seeds."""

    accuracy: float  # their mean
    losses: tuple[float, ...]  # equal where a rank above the width of the layer changes nothing


class Tables(NamedTuple):
    """What the given files hold; repeated measurements are averaged."""

    values: dict[Series, dict[Key, float]]
    probes: dict[tuple[str, str], dict[float, Probe]]  # by model and layer: the probes by rank
    alignments: Mapping[Series, dict[Key, str]] = MappingProxyType({})  # what the samples were, where measures differ


def read_tables(paths: Sequence[str | Path]) -> Tables:
    """Read CSVs of similarity, probing and stitching in any order; their headers tell what they are.

    Raises:
        UserError: a file cannot be read, is none of these, or holds something else than numbers; names it.
    """
    values: dict[Series, dict[Key, list[float]]] = {}
    accuracies: dict[tuple[str, str], dict[float, list[tuple[float, float]]]] = {}
    alignments: dict[Series, dict[Key, str]] = {}
    for path in dict.fromkeys(map(Path, paths)):
        kind, rows = _read(path)
        for number, row in enumerate(rows, start=2):
            try:
                if kind == "probing":
                    probes = accuracies.setdefault((_path(row["model"]), row["layer"]), {})
                    probes.setdefault(_rank(row["rank"]), []).append((float(row["loss"]), float(row["accuracy"])))
                    continue
                for series, key, value in _measurements(path, kind, row):
                    values.setdefault(series, {}).setdefault(key, []).append(value)
                    if series.measure in MEASURES and MEASURES[series.measure].of != GRAMS:
                        alignments.setdefault(series, {})[key] = row["alignment"]
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{path}, line {number} is damaged ({error}); write the table again") from error
    means = {
        series: {key: sum(repeated) / len(repeated) for key, repeated in values_by_key.items()}
        for series, values_by_key in values.items()
    }
    probes = {key: {rank: _probe(runs) for rank, runs in by_rank.items()} for key, by_rank in accuracies.items()}
    return Tables(means, probes, alignments)


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
    """Return each pair of layers that was measured at two or more ranks of one of them, the other at its highest rank.

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


def _measurements(path: Path, kind: str, row: Mapping[str, str]) -> Iterator[tuple[Series, Key, float]]:
    """Read the values of a row, signed so that higher means more similar."""
    if kind == "stitching":
        setting = f"{path}: {row['stitching_type']}, {row['init']}"
        key = Key(row["front_layer"], row["end_layer"], _rank(row["front_stitch_rank"]), FULL)
        yield Series("stitching accuracy", setting, (None, None)), key, float(row["accuracy"])
        return
    measured = Row.read(row)
    models = (_path(measured.model1), _path(measured.model2))
    ranks = (FULL if rank is None else rank for rank in (measured.rank1, measured.rank2))
    key = Key(measured.layer1, measured.layer2, *ranks)
    for measure, value in measured.values.items():
        setting = " -- ".join(models)
        if measured.alignment_option in ("pool", "positions") and MEASURES[measure].of != GRAMS:
            setting += f", {measured.alignment_option}"  # not to be averaged with values of other samples
        yield Series(measure, setting, models), key, MEASURES[measure].sign * value


def _probe(runs: Sequence[tuple[float, float]]) -> Probe:
    losses, accuracies = zip(*sorted(runs), strict=True)
    return Probe(sum(accuracies) / len(accuracies), losses)


def _path(text: str) -> str:
    return str(Path(text))  # ./models/a.pt is models/a.pt


def _rank(text: str) -> float:
    return int(text) if text else FULL
