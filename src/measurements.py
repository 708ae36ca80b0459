"""Reads tables of similarity, probing and stitching as measurements: values of measures at layers and ranks."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from src.networks import NetworkName
from src.options import STARTS
from src.results.captions import caption, network, short
from src.results.experiments import Networks, grouped, method_names, newest
from src.results.records import read_table
from src.results.rows import ProbeRow, Rank, SimilarityRow, StitchRow
from src.similarity.registry import GRAMS, KEYS, MEASURES

FULL = math.inf  # the rank of a layer that is not truncated: above all others
RANKS = ("front_stitch_rank", "front_pinv_rank")  # varied in the sensitivity test


class Measurement(NamedTuple):
    """The value of a measure at two layers and ranks, signed so that higher means more similar."""

    measure: str
    setting: str  # the networks, and of stitches the method
    models: tuple[str, str]  # identities of the networks
    layers: tuple[str, str]
    ranks: tuple[float, float]  # FULL where nothing is truncated
    value: float
    method: str = ""  # of stitching
    alignment: str = ""  # the samples, of measures that depend on them


class Tables(NamedTuple):
    """The contents of some tables; of repeated measurements, the newest."""

    measurements: list[Measurement]
    probes: dict[tuple[str, str], dict[float, ProbeRow]]  # by identity of the model and layer: the probes by rank
    names: dict[str, NetworkName]  # by identity


def read_tables(paths: Sequence[str | Path]) -> Tables:
    """Read CSVs of similarity, probing and stitching in any order; their columns tell what they are.

    Raises:
        UserError: a file cannot be read, is none of these, or is damaged; names it.
    """
    rows = [row for path in dict.fromkeys(map(Path, paths)) for row in read_rows(path)]
    names = {name.identity: name for row in reversed(rows) for name in row.networks}
    titles = {name.identity: name.title(_seed(row)) for row in reversed(rows) for name in row.networks}
    similarities = (row for row in rows if isinstance(row, SimilarityRow))
    measurements = [measurement for row in similarities for measurement in _similarities(row, titles)]
    measurements += _accuracies([row for row in rows if isinstance(row, StitchRow)], titles)
    probes: dict[tuple[str, str], dict[float, ProbeRow]] = {}
    for row in newest((row for row in rows if isinstance(row, ProbeRow)), _probe_key):
        identity, layer, rank = _probe_key(row)
        probes.setdefault((identity, layer), {})[rank] = row
    return Tables(
        newest(measurements, lambda each: (each.measure, each.setting, each.layers, each.ranks)), probes, names
    )


def read_rows(path: Path) -> list[SimilarityRow | ProbeRow | StitchRow]:
    """Read a CSV of similarity, probing or stitching; raises as `read_tables`."""
    return read_table(path, SimilarityRow, ProbeRow, StitchRow, **KEYS)


def describe(paths: Sequence[str | Path]) -> str:
    """Describe the networks, data and images of tables, for the caption of a figure.

    Raises:
        UserError: as for `read_tables`.
    """
    rows = [row for path in dict.fromkeys(map(Path, paths)) for row in read_rows(path)]
    names = {name.identity: name for row in reversed(rows) for name in row.networks}
    datasets = dict.fromkeys(filter(None, map(_dataset, rows)))
    counts = []
    for kind, use in ((SimilarityRow, "similarity"), (ProbeRow, "probes"), (StitchRow, "matching")):
        numbers = {_n_images(row) for row in rows if isinstance(row, kind)} - {None}
        counts += [f"{', '.join(map(str, sorted(numbers)))} ({use})"] if numbers else []
    shown = dict.fromkeys(network(names[name.identity].path, name.type) for row in rows for name in row.networks)
    return caption(networks=", ".join(shown), data=", ".join(map(short, datasets)), images=", ".join(counts))


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


def _similarities(row: SimilarityRow, titles: Mapping[str, str]) -> Iterator[Measurement]:
    """Yield the values of a row; those of different samples are not mixed."""
    models = tuple(name.identity for name in row.networks)
    for measure, value in row.values.items():
        is_aligned = MEASURES[measure].of != GRAMS
        setting = _setting(models, titles)
        if is_aligned and row.alignment_option in ("pool", "positions"):
            setting += f", {row.alignment_option}"
        yield Measurement(
            measure, setting, models, (row.layer1, row.layer2), (_number(row.rank1), _number(row.rank2)),
            MEASURES[measure].sign * value, alignment=row.alignment if is_aligned else "",
        )  # fmt: skip


def _accuracies(rows: Sequence[StitchRow], titles: Mapping[str, str]) -> Iterator[Measurement]:
    """Yield the accuracies of stitches; the method tells apart those of the same networks."""
    methods = method_names([row.experiment for row in rows], apart_from=(*Networks._fields, *RANKS))
    for row, method in zip(rows, methods, strict=True):
        models = tuple(name.identity for name in row.networks)
        setting = f"{_setting(models, titles)}: {row.experiment.method.stitching_type}, {method}"
        ranks = (_number(row.experiment.method.front_stitch_rank), FULL)
        yield Measurement(
            "stitching accuracy", setting, models, tuple(row.pair), ranks, row.metrics.accuracy, method=method
        )


def _dataset(row: SimilarityRow | ProbeRow | StitchRow) -> str | None:
    return row.experiment.dataset if isinstance(row, StitchRow) else row.dataset


def _n_images(row: SimilarityRow | ProbeRow | StitchRow) -> int | None:
    if isinstance(row, StitchRow):
        method = row.experiment.method
        return None if method.init in STARTS else row.metrics.n_matched or method.n_pinv_init_samples
    return row.n_samples if isinstance(row, SimilarityRow) else row.n_images


def _probe_key(row: ProbeRow) -> tuple[str, str, float]:
    (model,) = row.networks
    return model.identity, row.layer, _number(row.rank)


def _setting(models: Sequence[str], titles: Mapping[str, str]) -> str:
    return " -- ".join(titles[identity] for identity in models)


def _seed(row: SimilarityRow | ProbeRow | StitchRow) -> int | None:
    return row.experiment.seed if isinstance(row, StitchRow) else row.seed


def _number(rank: Rank) -> float:
    return FULL if rank is None else rank
