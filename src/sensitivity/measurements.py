"""Reads tables of similarity, probing and stitching as measurements: values of measures at layers and ranks.

Of results that are repeated, those of the table that was written last count.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from src.choices import STARTS
from src.choices.measures import GRAMS, MEASURES
from src.errors import UserError
from src.files import read_json
from src.network_names import NetworkName
from src.probing.rows import ProbeRow
from src.results.captions import caption, network, short
from src.results.experiments import NETWORKS, RANKS, grouped, method_names, newest
from src.results.tables import Rank, read_table
from src.similarity.rows import SimilarityRow
from src.stitching.rows import StitchRow

Row = SimilarityRow | ProbeRow | StitchRow
FULL = math.inf  # the rank of a layer that is not truncated: above all others


class Measurement(NamedTuple):
    """The value of a measure at two layers and ranks, signed so that higher means more similar."""

    measure: str
    setting: str  # the networks, what else tells it from others of theirs, and of stitches the method
    models: tuple[str, str]  # identities of the networks
    layers: tuple[str, str]
    ranks: tuple[float, float]  # FULL where nothing is truncated
    value: float
    method: str = ""  # of stitching
    alignment: str = ""  # the samples, of measures that depend on them
    dataset: str | None = None  # of its images


class ProbeKey(NamedTuple):
    """The probes of a layer that differ in the rank alone."""

    model: str  # identity of the network
    layer: str
    dataset: str
    epochs: int | None


class Measurements(NamedTuple):
    """The contents of some tables; of repeated measurements, the newest."""

    measurements: list[Measurement]
    probes: dict[ProbeKey, dict[float, ProbeRow]]  # by rank; the newest last
    names: dict[str, NetworkName]  # by identity
    rows: list[Row]  # all of them


def read_measurements(paths: Sequence[str | Path]) -> Measurements:
    """Read CSVs of similarity, probing and stitching in any order; their columns tell what they are.

    Raises:
        UserError: a file cannot be read, is none of these, or is damaged; names it.
    """
    tables = {path: read_table(path, SimilarityRow, ProbeRow, StitchRow) for path in map(Path, paths)}
    rows = [row for path in sorted(tables, key=_written) for row in tables[path]]
    names = {name.identity: name for row in reversed(rows) for name in row.networks}
    titles = {name.identity: name.title(row.seed) for row in reversed(rows) for name in row.networks}
    similarities = [row for row in rows if isinstance(row, SimilarityRow)]
    stitches = sorted((row for row in rows if isinstance(row, StitchRow)), key=lambda row: row.folder)  # a time
    measurements = []
    for measured in (_similarities(similarities, titles), _accuracies(stitches, titles)):
        measurements += newest(measured, lambda each: (each.measure, each.setting, each.layers, each.ranks))
    probes: dict[ProbeKey, dict[float, ProbeRow]] = {}
    for row in newest((row for row in rows if isinstance(row, ProbeRow)), lambda row: (_probe_key(row), row.rank)):
        key = _probe_key(row)
        probes[key] = probes.pop(key, {}) | {_number(row.rank): row}
    return Measurements(measurements, probes, names, rows)


def describe(tables: Measurements) -> str:
    """Describe the networks, data and images of tables, for the caption of a figure."""
    counts: dict[str, set[int | None]] = {"similarity": set(), "probes": set(), "matching": set()}
    for row in tables.rows:
        if isinstance(row, StitchRow):
            n = None if row.init in STARTS else row.n_matched or row.n_pinv_init_samples
            counts["matching"].add(n)
        elif isinstance(row, SimilarityRow):
            counts["similarity"].add(row.n_samples)
        else:
            counts["probes"].add(row.n_images)
    images = [f"{', '.join(map(str, sorted(n - {None})))} ({use})" for use, n in counts.items() if n - {None}]
    networks = [network(tables.names[name.identity].path, name.type) for row in tables.rows for name in row.networks]
    data = dict.fromkeys(short(row.dataset) for row in tables.rows if row.dataset)
    return caption(networks=", ".join(dict.fromkeys(networks)), data=", ".join(data), images=", ".join(images))


def by_series(measurements: Iterable[Measurement]) -> list[list[Measurement]]:
    """Return the measurements of each measure under one setting."""
    return list(grouped(measurements, lambda each: (each.measure, each.setting)).values())


def over_ranks(series: Sequence[Measurement], side: int) -> Iterator[tuple[tuple[str, str], float, dict[float, float]]]:
    """Yield each pair of layers that was measured at two or more ranks of one of them, the other at its highest rank.

    Args:
        series: see `by_series`.
        side: 0 where the first layer is truncated, 1 where the second is.
    Yields:
        The layers, the rank of the other one (FULL if that was measured), and the values by rank.
    """
    for layers, measured in grouped(series, lambda each: each.layers).items():
        reference = max(each.ranks[1 - side] for each in measured)
        by_rank = {each.ranks[side]: each.value for each in measured if each.ranks[1 - side] == reference}
        if len(by_rank) > 1:
            yield layers, reference, by_rank


def _written(path: Path) -> str:
    """Return the time when a table was written, in ISO format: what `run.json` says, or else that of the file."""
    try:
        return str(read_json(path.with_suffix(".run.json"))["end"])
    except (UserError, KeyError, TypeError):
        return datetime.fromtimestamp(path.stat().st_mtime).isoformat()


def _similarities(rows: Sequence[SimilarityRow], titles: Mapping[str, str]) -> Iterator[Measurement]:
    """Yield the values of each row; those of other data, numbers of images or samples are not mixed."""
    for models, same in grouped(rows, _models).items():
        data, numbers = {row.dataset for row in same}, {row.n_samples for row in same}
        for row in same:
            networks = " -- ".join(titles[model] for model in models)
            networks += f", {short(row.dataset)}" if len(data) > 1 else ""
            networks += f", {row.n_samples} images" if len(numbers) > 1 else ""
            for measure, value in row.measures.items():
                is_aligned = MEASURES[measure].of != GRAMS
                is_named = is_aligned and row.alignment_option in ("pool", "positions")
                setting = f"{networks}, {row.alignment_option}" if is_named else networks
                yield Measurement(
                    measure, setting, models, (row.layer1, row.layer2), (_number(row.rank1), _number(row.rank2)),
                    MEASURES[measure].sign * value, alignment=row.alignment if is_aligned else "", dataset=row.dataset,
                )  # fmt: skip


def _accuracies(rows: Sequence[StitchRow], titles: Mapping[str, str]) -> Iterator[Measurement]:
    """Yield the accuracy of each row; the method tells apart those of the same networks.

    The rank of the matched activations is named where stitches of one method and rank differ in it alone, but for the
    rank of the stitch itself.
    """
    methods = method_names([row.experiment for row in rows], apart_from=(*NETWORKS, *RANKS))
    matched = [row.front_stitch_rank if row.init in STARTS else row.front_pinv_rank for row in rows]
    stitches = list(zip(rows, methods, matched, strict=True))
    alike = grouped(stitches, lambda each: (each[1], _models(each[0]), each[0].pair, each[0].front_stitch_rank))
    several = {key[0] for key, same in alike.items() if len({rank for *_, rank in same}) > 1}
    for row, plain, rank in stitches:
        is_named = plain in several and rank != row.front_stitch_rank
        method = f"{plain}, front_pinv_rank={'full' if rank is None else rank}" if is_named else plain
        setting = f"{' -- '.join(titles[model] for model in _models(row))}: {row.stitching_type}, {method}"
        yield Measurement(
            "stitching accuracy", setting, _models(row), tuple(row.pair), (_number(row.front_stitch_rank), FULL),
            row.accuracy, method=method, dataset=row.dataset,
        )  # fmt: skip


def _models(row: SimilarityRow | StitchRow) -> tuple[str, str]:
    first, second = row.networks
    return first.identity, second.identity


def _probe_key(row: ProbeRow) -> ProbeKey:
    (model,) = row.networks
    return ProbeKey(model.identity, row.layer, row.dataset, row.epochs)


def _number(rank: Rank) -> float:
    return FULL if rank is None else rank
