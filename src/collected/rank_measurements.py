"""Reads tables of similarity, probing and stitching as measurements at layers and ranks.

Of repeated results the newest counts: the result in the table that was written last.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from src.choices import STARTS
from src.choices.similarity import SAMPLES, measure_of
from src.ground.grouping import grouped
from src.runs.weights import warn_of_earlier
from src.tables.experiments import NETWORKS, RANKS, method_names, newest
from src.tables.image_records import told_apart, warn_of_several
from src.tables.network_names import NetworkKey, NetworkName, short, titles_of
from src.tables.probe_rows import ProbeRow
from src.tables.similarity_rows import SimilarityRow
from src.tables.stitch_rows import StitchRow
from src.tables.tables import read_table
from src.values import Rank

FULL = math.inf  # the rank of a layer that is not truncated: above all other ranks

Layers = tuple[str, str]
ProbeKey = tuple[NetworkKey, str, str]  # network, layer, data set
ProbesByRank = dict[float, ProbeRow]
MeasuredRow = SimilarityRow | ProbeRow | StitchRow


class Measurement(NamedTuple):
    """The value of a measure at two layers and ranks, signed so that higher means more similar."""

    measure: str
    setting: str  # everything else but layers and ranks: networks, data, method
    models: tuple[NetworkKey, NetworkKey]  # the networks
    layers: Layers
    ranks: tuple[float, float]  # FULL where nothing is truncated
    value: float
    method: str = ""  # of stitching
    alignment: str = ""  # how samples are made of activations; "": the measure needs no samples
    dataset: str | None = None  # of the images


class Measurements(NamedTuple):
    """The contents of some tables; of repeated measurements, the newest."""

    measurements: list[Measurement]
    probes: dict[ProbeKey, ProbesByRank]
    titles: dict[NetworkKey, str]  # of the networks
    networks: list[NetworkName]  # distinct
    datasets: list[str]  # distinct


class Series(NamedTuple):
    """The values of a measure at two layers, over the ranks of one of the layers."""

    layers: Layers
    other_rank: float  # of the layer whose rank is fixed
    values: dict[float, float]  # by rank


def read_measurements(paths: Sequence[str | Path]) -> Measurements:
    """Read CSVs of similarity, probing and stitching, in any order.

    The columns of a CSV tell its kind.

    Raises:
        UserError: a file cannot be read, is of no such kind, or is damaged. The message names it.
    """
    tables: dict[Path, list[MeasuredRow]] = {}
    for path in map(Path, paths):
        tables[path] = read_table(path, SimilarityRow, ProbeRow, StitchRow)

    # Rows, the oldest first; folders of stitches are named by time
    oldest_first = sorted(tables, key=lambda path: path.stat().st_mtime)
    rows = [row for path in oldest_first for row in tables[path]]
    warn_of_several(rows)
    rows = told_apart(rows)
    similarities = [row for row in rows if isinstance(row, SimilarityRow)]
    probes = [row for row in rows if isinstance(row, ProbeRow)]
    stitches = [row for row in rows if isinstance(row, StitchRow)]
    stitches.sort(key=lambda row: row.folder)
    warn_of_earlier((row.networks for row in rows), kind="row")

    # Measurements
    names = [name for row in rows for name in row.networks]
    titles = titles_of(names)
    measurements = [*_similarities(similarities, titles), *_accuracies(stitches, titles)]
    datasets = dict.fromkeys(row.dataset for row in rows if row.dataset)
    return Measurements(
        newest(measurements, lambda item: (item.measure, item.setting, item.layers, item.ranks)),
        _newest_probes(probes),
        titles,
        list(dict.fromkeys(names)),
        list(datasets),
    )


def by_series(measurements: Iterable[Measurement]) -> list[list[Measurement]]:
    """Return lists of the measurements that share measure and setting."""
    groups = grouped(measurements, lambda item: (item.measure, item.setting))
    return list(groups.values())


def over_ranks(measurements: Sequence[Measurement], side: int) -> Iterator[Series]:
    """Yield the values over the ranks of one layer, for each two layers with at least two ranks.

    The other layer has the highest rank that was measured.

    Args:
        measurements: of one measure and setting.
        side: 0: ranks of the first layer; 1: ranks of the second layer.
    """
    groups: dict[Layers, list[Measurement]] = {}
    for item in measurements:
        groups.setdefault(item.layers, []).append(item)
    for layers, group in groups.items():
        other_rank = max(item.ranks[1 - side] for item in group)
        values = {
            item.ranks[side]: item.value for item in group if item.ranks[1 - side] == other_rank
        }
        if len(values) > 1:
            yield Series(layers, other_rank, values)


def _newest_probes(rows: Iterable[ProbeRow]) -> dict[ProbeKey, ProbesByRank]:
    """Return the newest probes by network, layer and data set, and by rank.

    All probes of a layer have the number of epochs of its newest probe.

    Args:
        rows: the oldest first.
    """
    newest_rows = newest(
        rows, lambda row: (row.networks[0].key, row.layer, row.dataset, row.epochs, row.rank)
    )
    probes: dict[ProbeKey, ProbesByRank] = {}
    for row in newest_rows:
        key = (row.networks[0].key, row.layer, row.dataset)
        by_rank: ProbesByRank = {}
        for rank, probe in probes.get(key, {}).items():
            if probe.epochs == row.epochs:
                by_rank[rank] = probe
        by_rank[_number(row.rank)] = row
        probes[key] = by_rank
    return probes


def _similarities(
    rows: Sequence[SimilarityRow], titles: Mapping[NetworkKey, str]
) -> Iterator[Measurement]:
    """Yield a measurement for each value of a row.

    The setting names the data and the number of images where rows of the same networks differ in
    them, and the alignment where the user chose it.
    """
    for rows_of_models in grouped(rows, _models).values():
        has_several_datasets = len({row.dataset for row in rows_of_models}) > 1
        has_several_numbers = len({row.n_samples for row in rows_of_models}) > 1
        for row in rows_of_models:
            networks = _title(row, titles)
            if has_several_datasets:
                networks += f", {short(row.dataset)}"
            if has_several_numbers:
                networks += f", {row.n_samples} images"
            for measure, similarity in row.compared.values.items():
                is_aligned = measure_of(measure).of == SAMPLES
                setting = networks
                if is_aligned and row.alignment_option in ("pool", "positions"):
                    setting += f", {row.alignment_option}"
                yield Measurement(
                    measure,
                    setting,
                    _models(row),
                    (row.layer1, row.layer2),
                    (_number(row.rank1), _number(row.rank2)),
                    measure_of(measure).sign * similarity.value,
                    alignment=row.alignment if is_aligned else "",
                    dataset=row.dataset,
                )


def _accuracies(
    rows: Sequence[StitchRow], titles: Mapping[NetworkKey, str]
) -> Iterator[Measurement]:
    """Yield the accuracy of each row as a measurement; its setting names the method."""
    for row, method in zip(rows, _methods(rows), strict=True):
        yield Measurement(
            "stitching accuracy",
            f"{_title(row, titles)}: {row.distinctions['stitching_type']}, {method}",
            _models(row),
            (row.front_layer, row.end_layer),
            (_number(row.front_stitch_rank), FULL),
            row.accuracy,
            method=method,
            dataset=row.dataset,
        )


def _methods(rows: Sequence[StitchRow]) -> list[str]:
    """Name the method of each stitch.

    The name contains the rank of the matched activations if two stitches of the method differ in
    nothing else, and if it is not the rank of the stitch.
    """
    methods = method_names(rows, apart_from=(*NETWORKS, *RANKS))

    # Ranks of the matched activations, of stitches that differ in nothing else
    matched_ranks: dict[tuple, set[Rank]] = {}
    for row, method in zip(rows, methods, strict=True):
        key = (method, _models(row), row.pair, row.front_stitch_rank)
        matched_ranks.setdefault(key, set()).add(_matched_rank(row))
    ambiguous = {method for (method, *_), ranks in matched_ranks.items() if len(ranks) > 1}

    names = []
    for row, method in zip(rows, methods, strict=True):
        rank = _matched_rank(row)
        if method in ambiguous and rank != row.front_stitch_rank:
            method += f", front_pinv_rank={'full' if rank is None else rank}"
        names.append(method)
    return names


def _matched_rank(row: StitchRow) -> Rank:
    """Return the rank of the activations that a stitch was matched on.

    A stitch that starts without matching has the rank of the stitch.
    """
    return row.front_stitch_rank if row.init in STARTS else row.front_pinv_rank


def _models(row: SimilarityRow | StitchRow) -> tuple[NetworkKey, NetworkKey]:
    """Return the keys of both networks of a row."""
    first, second = row.networks
    return first.key, second.key


def _title(row: SimilarityRow | StitchRow, titles: Mapping[NetworkKey, str]) -> str:
    """Return the titles of both networks of a row, such as "a.pt -- b.pt"."""
    return " -- ".join(titles[model] for model in _models(row))


def _number(rank: Rank) -> float:
    """Return the rank as a number: FULL for None."""
    return FULL if rank is None else rank
