"""Reads tables of similarity, probing and stitching as measurements: values of measures at layers
and ranks.

Of results that are repeated, those of the table that was written last count.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from src.choices import STARTS
from src.choices.similarity import GRAMS, MEASURES
from src.grouping import grouped
from src.network_names import NetworkKey, titles_of
from src.probing.probe_rows import ProbeRow
from src.results.captions import caption, network, short
from src.results.tables import Rank, read_table
from src.results.weights import warn_of_earlier
from src.similarity.similarity_rows import SimilarityRow
from src.stitching.experiments import NETWORKS, RANKS, method_names, newest
from src.stitching.stitch_rows import StitchRow

FULL = math.inf  # the rank of a layer that is not truncated: above all others


class Measurement(NamedTuple):
    """The value of a measure at two layers and ranks, signed so that higher means more similar."""

    measure: str
    setting: (
        str  # the networks, what else tells it from others of theirs, and of stitches the method
    )
    models: tuple[NetworkKey, NetworkKey]  # the networks
    layers: tuple[str, str]
    ranks: tuple[float, float]  # FULL where nothing is truncated
    value: float
    method: str = ""  # of stitching
    alignment: str = ""  # the samples, of measures that depend on them
    dataset: str | None = None  # of its images


class Measurements(NamedTuple):
    """The contents of some tables; of repeated measurements, the newest."""

    measurements: list[Measurement]
    probes: dict[
        tuple[NetworkKey, str, str], dict[float, ProbeRow]
    ]  # by network, layer and data set; by rank
    titles: dict[NetworkKey, str]  # of the networks
    caption: str  # the networks and data, for a figure


def read_measurements(paths: Sequence[str | Path]) -> Measurements:
    """Read CSVs of similarity, probing and stitching in any order; their columns tell what they
    are.

    Raises:
        UserError: a file cannot be read, is none of these, or is damaged; names it.
    """
    tables = {
        path: read_table(path, SimilarityRow, ProbeRow, StitchRow) for path in map(Path, paths)
    }
    rows = [
        row
        for path in sorted(tables, key=lambda path: path.stat().st_mtime)
        for row in tables[path]
    ]
    of_kind = {
        kind: [row for row in rows if isinstance(row, kind)]
        for kind in (SimilarityRow, ProbeRow, StitchRow)
    }
    warn_of_earlier((row.networks for row in rows), kind="row")
    titles = titles_of(name for row in rows for name in row.networks)
    stitches = sorted(of_kind[StitchRow], key=lambda row: row.folder)  # a time
    measured = [*_similarities(of_kind[SimilarityRow], titles), *_accuracies(stitches, titles)]
    networks = dict.fromkeys(network(name.path, name.type) for row in rows for name in row.networks)
    data = dict.fromkeys(short(row.dataset) for row in rows if row.dataset)
    return Measurements(
        newest(measured, lambda each: (each.measure, each.setting, each.layers, each.ranks)),
        _probes(of_kind[ProbeRow]),
        titles,
        caption(networks=", ".join(networks), data=", ".join(data)),
    )


def by_series(measurements: Iterable[Measurement]) -> list[list[Measurement]]:
    """Return the measurements of each measure under one setting."""
    return list(grouped(measurements, lambda each: (each.measure, each.setting)).values())


def over_ranks(
    series: Sequence[Measurement], side: int
) -> Iterator[tuple[tuple[str, str], float, dict[float, float]]]:
    """Yield each pair of layers that was measured at two or more ranks of the first (side 0) or the
    second (1).

    Yields:
        The layers, the rank of the other one (the highest; FULL if that was measured), and the values by rank.
    """
    for layers, measured in grouped(series, lambda each: each.layers).items():
        reference = max(each.ranks[1 - side] for each in measured)
        values = {
            each.ranks[side]: each.value for each in measured if each.ranks[1 - side] == reference
        }
        if len(values) > 1:
            yield layers, reference, values


def _probes(rows: Iterable[ProbeRow]) -> dict[tuple[NetworkKey, str, str], dict[float, ProbeRow]]:
    """Return the newest probes of each layer; those of other numbers of epochs are not mixed with
    them."""
    probes: dict[tuple[NetworkKey, str, str], dict[float, ProbeRow]] = {}
    for row in newest(
        rows, lambda row: (row.networks[0].key, row.layer, row.dataset, row.epochs, row.rank)
    ):
        key = (row.networks[0].key, row.layer, row.dataset)
        same = {
            rank: other for rank, other in probes.get(key, {}).items() if other.epochs == row.epochs
        }
        probes[key] = same | {_number(row.rank): row}
    return probes


def _similarities(
    rows: Sequence[SimilarityRow], titles: Mapping[NetworkKey, str]
) -> Iterator[Measurement]:
    """Yield the values of each row; those of other data, numbers of images or samples are not
    mixed."""
    for models, same in grouped(rows, _models).items():
        data, numbers = {row.dataset for row in same}, {row.n_samples for row in same}
        for row in same:
            networks = " -- ".join(titles[model] for model in models)
            networks += f", {short(row.dataset)}" if len(data) > 1 else ""
            networks += f", {row.n_samples} images" if len(numbers) > 1 else ""
            for measure, value in row.measures.items():
                is_aligned = MEASURES[measure].of != GRAMS
                is_named = is_aligned and row.alignment_option in ("pool", "positions")
                yield Measurement(
                    measure,
                    f"{networks}, {row.alignment_option}" if is_named else networks,
                    models,
                    (row.layer1, row.layer2),
                    (_number(row.rank1), _number(row.rank2)),
                    MEASURES[measure].sign * value,
                    alignment=row.alignment if is_aligned else "",
                    dataset=row.dataset,
                )


def _accuracies(
    rows: Sequence[StitchRow], titles: Mapping[NetworkKey, str]
) -> Iterator[Measurement]:
    """Yield the accuracy of each row; the method tells apart those of the same networks.

    It names the rank of the matched activations, unless that is the rank of the stitch, where
    methods differ in it."""
    methods = method_names(rows, apart_from=(*NETWORKS, *RANKS))
    matched = [row.front_stitch_rank if row.init in STARTS else row.front_pinv_rank for row in rows]
    stitches = list(zip(rows, methods, matched, strict=True))
    alike = grouped(
        stitches, lambda each: (each[1], _models(each[0]), each[0].pair, each[0].front_stitch_rank)
    )
    several = {key[0] for key, same in alike.items() if len({rank for *_, rank in same}) > 1}
    for row, method, rank in stitches:
        if method in several and rank != row.front_stitch_rank:
            method += f", front_pinv_rank={'full' if rank is None else rank}"
        setting = f"{' -- '.join(titles[model] for model in _models(row))}: {row.stitching_type}, {method}"
        ranks = (_number(row.front_stitch_rank), FULL)
        found = Measurement(
            "stitching accuracy", setting, _models(row), tuple(row.pair), ranks, row.accuracy
        )
        yield found._replace(method=method, dataset=row.dataset)


def _models(row: SimilarityRow | StitchRow) -> tuple[NetworkKey, NetworkKey]:
    first, second = row.networks
    return first.key, second.key


def _number(rank: Rank) -> float:
    return FULL if rank is None else rank
