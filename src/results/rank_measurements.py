"""Reads tables of similarity, probing and stitching as values at layers and ranks.

Of repeated results the newest counts: the result in the table that was written last.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.choices import STARTS
from src.core.console import warn
from src.core.grouping import grouped
from src.results.experiments import (
    method_names,
    newest,
    options_beside_tables,
    told_apart,
    typed,
    warn_of_earlier,
    warn_of_several,
)
from src.results.groups import Names
from src.results.measurements import (
    Measurement,
    NetworkPair,
    named_pair,
    similarities_of,
    stitched_layers,
)
from src.results.named_networks import named_by_list
from src.results.network_names import networks_in_words, short
from src.results.probe_rows import ProbeRow
from src.results.similarity_rows import SimilarityRow
from src.results.spec import (
    NETWORKS,
    RANKS,
)
from src.results.stitches import StitchRow, read_stitches, with_spec
from src.results.tables import read_table
from src.values import Pair, Rank

FULL = math.inf  # the rank of a layer that is not truncated: above all other ranks

ProbeKey = tuple[str, str, str]  # the name of a network, a layer and a data set
ProbesByRank = dict[float, ProbeRow]
MeasuredRow = SimilarityRow | ProbeRow | StitchRow


class Measurements(NamedTuple):
    """The contents of some tables; of repeated results, the newest."""

    values: list[Measurement]  # each with its setting
    probes: dict[ProbeKey, ProbesByRank]


class Series(NamedTuple):
    """The values of a measure at two layers, over the ranks of one of the layers."""

    pair: Pair
    other_rank: float  # of the layer whose rank is fixed
    values: dict[float, float]  # by rank


def read_measurements(paths: Sequence[str | Path]) -> Measurements:
    """Read CSVs of similarity, probing and stitching, and folders of stitching runs, in any order.

    The columns of a CSV tell its kind.

    Raises:
        UserError: a file cannot be read, is of no such kind, or is damaged. The message names it.
    """
    tables: dict[Path, list[MeasuredRow]] = {}
    for path in map(Path, paths):
        if path.is_dir():
            of_folder, _ = read_stitches(path, recursive=True)
            tables[path] = [stitch.row for stitch in of_folder]
        else:
            rows: list[Any] = read_table(path, SimilarityRow, ProbeRow, StitchRow)
            if rows and isinstance(rows[0], StitchRow):
                rows = list(map(with_spec, rows))
            tables[path] = rows

    # Rows, the oldest first; folders of stitches are named by time
    oldest_first = sorted(tables, key=lambda path: path.stat().st_mtime)
    rows = [row for path in oldest_first for row in tables[path]]
    warn_of_several(rows)
    rows = told_apart(rows)
    similarities = [row for row in rows if isinstance(row, SimilarityRow)]
    probes = [row for row in rows if isinstance(row, ProbeRow)]
    stitches = [row for row in rows if isinstance(row, StitchRow)]
    stitches.sort(key=lambda row: row.folder)
    networks = [name for row in rows for name in row.networks]
    warn_of_earlier(networks, options_beside_tables(tables))

    # Values
    names = named_by_list(networks, None)
    values = [*_similarities(similarities, names), *_accuracies(stitches, names)]
    return Measurements(
        newest(
            values,
            lambda value: (value.quantity, value.setting, value.pair, ranks_of(value)),
            lambda value: " and ".join(dict.fromkeys(network.name for network in value.networks)),
        ),
        _newest_probes(probes, names),
    )


def ranks_of(value: Measurement) -> tuple[float, float]:
    """Return the ranks of both layers; FULL where nothing is truncated."""
    return _number(value.front.rank), _number(value.end.rank)


def by_series(values: Iterable[Measurement]) -> list[list[Measurement]]:
    """Return lists of the values that share quantity and setting."""
    return list(grouped(values, lambda value: (value.quantity, value.setting)).values())


def over_ranks(values: Sequence[Measurement], side: int) -> Iterator[Series]:
    """Yield the values over the ranks of one layer, for each two layers with at least two ranks.

    The other layer has the highest rank that was measured.

    Args:
        values: of one quantity and setting.
        side: 0: ranks of the first layer; 1: ranks of the second layer.
    """
    for pair, values_of_pair in grouped(values, lambda value: value.pair).items():
        other_rank = max(ranks_of(value)[1 - side] for value in values_of_pair)
        by_rank = {}
        for value in values_of_pair:
            ranks = ranks_of(value)
            if ranks[1 - side] == other_rank:
                by_rank[ranks[side]] = value.value
        if len(by_rank) > 1:
            yield Series(pair, other_rank, by_rank)


def _newest_probes(rows: Sequence[ProbeRow], names: Names) -> dict[ProbeKey, ProbesByRank]:
    """Return the newest probes by network, layer and data set, and by rank.

    All probes of a layer have the epochs and the options of its newest probe; warns of others.

    Args:
        rows: the oldest first.
    """

    def key_of(row: ProbeRow) -> ProbeKey:
        (network,) = row.networks
        return names[network.key].name, row.layer, row.dataset

    latest = {key_of(row): row for row in rows}
    probes: dict[ProbeKey, ProbesByRank] = {}
    n_other = 0
    distinct = newest(
        rows,
        lambda row: (key_of(row), _method_of(row), row.rank),
        lambda row: networks_in_words(row.networks),
    )
    for key, of_layer in grouped(distinct, key_of).items():
        kept = [row for row in of_layer if _method_of(row) == _method_of(latest[key])]
        n_other += len(of_layer) - len(kept)
        probes[key] = {_number(row.rank): row for row in kept}
    if n_other:
        warn(
            f"{n_other} probes have other options or epochs than the newest of their layers, and are left out;"
            " give the tables of one kind of probes"
        )
    return probes


def _method_of(probe: ProbeRow) -> tuple[int | None, str]:
    """Return how a probe was trained."""
    return probe.epochs, probe.further_options


def _similarities(rows: Sequence[SimilarityRow], names: Names) -> Iterator[Measurement]:
    """Yield the values of rows.

    The setting names the data and the number of images where rows of the same networks differ in
    them, and the alignment where the user chose it.
    """
    for networks, rows_of_networks in grouped(rows, lambda row: named_pair(row, names)).items():
        has_several_datasets = len({row.dataset for row in rows_of_networks}) > 1
        has_several_numbers = len({row.n_samples for row in rows_of_networks}) > 1
        for row in rows_of_networks:
            setting = _title(networks)
            if has_several_datasets:
                setting += f", {short(row.dataset)}"
            if has_several_numbers:
                setting += f", {row.n_samples} images"
            values = [value for value in similarities_of(row, networks) if not value.part]
            for value in values:
                if value.alignment and row.alignment_option == "pool":
                    yield value._replace(setting=f"{setting}, {row.alignment_option}")
                else:
                    yield value._replace(setting=setting)


def _accuracies(rows: Sequence[StitchRow], names: Names) -> Iterator[Measurement]:
    """Yield the accuracy of each row; its setting names the method."""
    for row, method in zip(rows, _methods(rows), strict=True):
        networks = named_pair(row, names)
        stitching_type = row.spec["stitching_type"]
        setting = f"{_title(networks)}: {stitching_type}, {method}"
        yield Measurement(
            method,
            "accuracy",
            *stitched_layers(row, networks),
            row.accuracy,
            dataset=row.dataset,
            setting=setting,
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
        key = (method, row.network_keys, row.pair, row.front_stitch_rank)
        matched_ranks.setdefault(key, set()).add(_matched_rank(row))
    ambiguous = {method for (method, *_), ranks in matched_ranks.items() if len(ranks) > 1}

    names = []
    for row, method in zip(rows, methods, strict=True):
        rank = _matched_rank(row)
        if method in ambiguous and rank != row.front_stitch_rank:
            method += f", {typed('front_pinv_rank', rank)}"
        names.append(method)
    return names


def _matched_rank(row: StitchRow) -> Rank:
    """Return the rank of the activations that a stitch was matched on.

    A stitch that starts without matching has the rank of the stitch.
    """
    if row.init in STARTS:
        return row.front_stitch_rank
    return row.front_pinv_rank


def _title(networks: NetworkPair) -> str:
    """Return the names of two networks, such as "a.pt -- b.pt"."""
    return " -- ".join(network.name for network in networks)


def _number(rank: Rank) -> float:
    """Return the rank as a number: FULL for None."""
    return FULL if rank is None else rank
