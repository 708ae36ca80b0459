"""Reads tables of similarity, probing and stitching as measurements: values of measures at layers and ranks."""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from src.errors import UserError
from src.files import read_json
from src.networks import NetworkName
from src.options import STARTS
from src.probing.rows import ProbeRow
from src.results.captions import caption, network, short
from src.results.experiments import NETWORKS, RANKS, grouped, method_names, newest
from src.results.tables import Rank, read_table
from src.similarity.registry import GRAMS, MEASURES
from src.similarity.rows import SimilarityRow
from src.stitching.rows import StitchRow

Row = SimilarityRow | ProbeRow | StitchRow
Result = TypeVar("Result")
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


class Tables(NamedTuple):
    """The contents of some tables; of repeated measurements, the newest."""

    measurements: list[Measurement]
    probes: dict[ProbeKey, dict[float, ProbeRow]]  # by rank; the newest last
    names: dict[str, NetworkName]  # by identity
    rows: list[Row]  # all of them


def read_tables(paths: Sequence[str | Path]) -> Tables:
    """Read CSVs of similarity, probing and stitching in any order; their columns tell what they are.

    Raises:
        UserError: a file cannot be read, is none of these, or is damaged; names it.
    """
    rows, ages = [], {}
    for path in dict.fromkeys(map(Path, paths)):
        rows += (of_table := read_rows(path))
        written = _written(path)
        ages |= {id(row): row.folder if isinstance(row, StitchRow) else written for row in of_table}
    names = {name.identity: name for row in reversed(rows) for name in row.networks}
    titles = {name.identity: name.title(row.seed) for row in reversed(rows) for name in row.networks}
    measurements = []
    for kind, measure in ((SimilarityRow, _similarities), (StitchRow, _accuracies)):
        aged = [(ages[id(row)], each) for row, each in measure([row for row in rows if isinstance(row, kind)], titles)]
        measurements += _newest(aged, lambda each: (each.measure, each.setting, each.layers, each.ranks))
    probes: dict[ProbeKey, dict[float, ProbeRow]] = {}
    aged = [(ages[id(row)], row) for row in rows if isinstance(row, ProbeRow)]
    for row in sorted(_newest(aged, lambda row: (_probe_key(row), row.rank)), key=lambda row: ages[id(row)]):
        key = _probe_key(row)
        probes[key] = probes.pop(key, {}) | {_number(row.rank): row}
    return Tables(measurements, probes, names, rows)


def read_rows(path: Path) -> list[Row]:
    """Read a CSV of similarity, probing or stitching; raises as `read_tables`."""
    return read_table(path, SimilarityRow, ProbeRow, StitchRow)


def describe(tables: Tables) -> str:
    """Describe the networks, data and images of tables, for the caption of a figure."""
    rows, names = tables.rows, tables.names
    datasets = dict.fromkeys(filter(None, (row.dataset for row in rows)))
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


def _written(path: Path) -> str:
    """Return the time when a table was written, in ISO format: what `run.json` says, or else that of the file."""
    try:
        return str(read_json(path.with_suffix(".run.json"))["end"])
    except (UserError, KeyError, TypeError):
        return datetime.fromtimestamp(path.stat().st_mtime).isoformat()


def _newest(aged: Sequence[tuple[str, Result]], key: Callable[[Result], Hashable]) -> list[Result]:
    """Return the newest of repeated results, given behind their times, in the order of the first ones; see `newest`."""
    by_age = (result for _, result in sorted(aged, key=lambda each: each[0]))
    counted = {key(result): result for result in newest(by_age, key)}
    return [counted[each] for each in dict.fromkeys(key(result) for _, result in aged)]


def _similarities(
    rows: Sequence[SimilarityRow], titles: Mapping[str, str]
) -> Iterator[tuple[SimilarityRow, Measurement]]:
    """Yield each row and its values in turn; those of other data, numbers of images or samples are not mixed."""
    for same in grouped(rows, _models).values():
        data, numbers = {row.dataset for row in same}, {row.n_samples for row in same}
        for row in same:
            networks = _setting(_models(row), titles)
            networks += f", {short(row.dataset)}" if len(data) > 1 else ""
            networks += f", {row.n_samples} images" if len(numbers) > 1 else ""
            for measure, value in row.measures.items():
                is_aligned = MEASURES[measure].of != GRAMS
                is_named = is_aligned and row.alignment_option in ("pool", "positions")
                setting = f"{networks}, {row.alignment_option}" if is_named else networks
                yield row, Measurement(
                    measure, setting, _models(row), (row.layer1, row.layer2), (_number(row.rank1), _number(row.rank2)),
                    MEASURES[measure].sign * value, alignment=row.alignment if is_aligned else "", dataset=row.dataset,
                )  # fmt: skip


def _accuracies(rows: Sequence[StitchRow], titles: Mapping[str, str]) -> Iterator[tuple[StitchRow, Measurement]]:
    """Yield each row and its accuracy; the method tells apart those of the same networks."""
    methods = method_names([row.experiment for row in rows], apart_from=(*NETWORKS, *RANKS))
    for row, method in zip(rows, _with_matching_ranks(rows, methods), strict=True):
        models = _models(row)
        setting = f"{_setting(models, titles)}: {row.stitching_type}, {method}"
        ranks = (_number(row.front_stitch_rank), FULL)
        yield row, Measurement(
            "stitching accuracy", setting, models, tuple(row.pair), ranks, row.accuracy, method=method,
            dataset=row.dataset,
        )  # fmt: skip


def _with_matching_ranks(rows: Sequence[StitchRow], methods: Sequence[str]) -> list[str]:
    """Add to methods the rank of the matched activations, where stitches of one method and rank differ in it alone.

    It is left out where it is the rank of the stitch, with which it is varied.
    """
    pairs = list(zip(rows, methods, strict=True))
    alike = grouped(pairs, lambda each: (each[1], _models(each[0]), each[0].pair, _ranks(each[0])[0]))
    several = {key[0] for key, same in alike.items() if len({_ranks(row)[1] for row, _ in same}) > 1}
    names = []
    for row, method in pairs:
        stitch_rank, matching_rank = _ranks(row)
        is_named = method in several and matching_rank != stitch_rank
        rank = "full" if matching_rank is None else matching_rank
        names.append(f"{method}, front_pinv_rank={rank}" if is_named else method)
    return names


def _ranks(row: StitchRow) -> tuple[Rank, Rank]:
    """Return the ranks at which a stitch runs and was matched; equal where nothing was matched."""
    is_matched = row.init not in STARTS
    return row.front_stitch_rank, row.front_pinv_rank if is_matched else row.front_stitch_rank


def _models(row: SimilarityRow | StitchRow) -> tuple[str, str]:
    first, second = row.networks
    return first.identity, second.identity


def _n_images(row: Row) -> int | None:
    if isinstance(row, StitchRow):
        return None if row.init in STARTS else row.n_matched or row.n_pinv_init_samples
    return row.n_samples if isinstance(row, SimilarityRow) else row.n_images


def _probe_key(row: ProbeRow) -> ProbeKey:
    (model,) = row.networks
    return ProbeKey(model.identity, row.layer, row.dataset, row.epochs)


def _setting(models: Sequence[str], titles: Mapping[str, str]) -> str:
    return " -- ".join(titles[identity] for identity in models)


def _number(rank: Rank) -> float:
    return FULL if rank is None else rank
