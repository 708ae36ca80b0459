"""The accuracies of a folder of stitching runs: matrices by experiment, means, and sweeps over
ranks."""

import dataclasses
import math
from collections.abc import Sequence
from itertools import chain

from src.ground.grouping import grouped
from src.results.architectures import architecture_pairs
from src.results.experiments import by_experiment, method_names
from src.results.groups import Names
from src.results.identity import NETWORKS, RANKS
from src.results.image_records import told_apart
from src.results.matrices import Matrix, mean_of
from src.results.measurements import named_pair
from src.results.named_networks import kind_of_pair, named_networks
from src.results.pair_kinds import KINDS, PAIRS
from src.results.stitch_rows import StitchRow
from src.values import Pair

MAX_EXPERIMENTS = 12  # that are shown one by one; of more, means are drawn and printed

# rank -> accuracy of a pair of layers, None: full rank; by pair
Sweep = dict[Pair, dict[int | None, float]]


def experiments_of(
    rows: Sequence[StitchRow], names: Names | None = None
) -> dict[str, list[StitchRow]]:
    """Group rows of stitches by experiment, under the titles of figures and matrices; of repeated
    runs the last row counts.

    Args:
        names: of the networks; None: titles have the settings in which experiments differ.
    """
    newest = list({(row.key, row.pair): row for row in told_apart(rows)}.values())
    if names is None:
        return by_experiment(newest)
    methods = method_names(newest, apart_from=NETWORKS)
    titled = []
    for row, method in zip(newest, methods, strict=True):
        front, end = named_pair(row, names)
        titled.append((f"{front.name} → {end.name}, {method}", row))
    groups = grouped(titled, lambda item: item[0])
    return {title: [row for _, row in items] for title, items in groups.items()}


def printed_matrices(rows: Sequence[StitchRow], names: Names | None = None) -> dict[str, Matrix]:
    """Return the accuracies to print, by title.

    A sweep over ranks has one matrix (pairs of layers, ranks). Otherwise the matrices are those of
    `shown_rows`.
    """
    sweeps = rank_sweeps(rows, names)
    if sweeps and len(sweeps) <= MAX_EXPERIMENTS:
        return {title: sweep_matrix(sweep) for title, sweep in sweeps.items()}
    shown = shown_rows(rows, names)
    return {title: mean_of(of_title, "accuracy") for title, of_title in shown.items()}


def sweep_matrix(sweep: Sweep) -> Matrix:
    """Return the matrix (pairs of layers, ranks) of accuracies; full rank is the last column."""
    ranks = sorted(set(chain.from_iterable(sweep.values())), key=lambda rank: rank or math.inf)
    columns = [f"rank {rank}" for rank in ranks]
    if None in ranks:
        columns[-1] = "full"
    values = []
    for accuracy_of_rank in sweep.values():
        values.append([accuracy_of_rank.get(rank, math.nan) for rank in ranks])
    return Matrix([str(pair) for pair in sweep], columns, values)


def shown_rows(rows: Sequence[StitchRow], names: Names | None = None) -> dict[str, list[StitchRow]]:
    """Return the rows of each map, by title: of an experiment, or of means over more than twelve
    experiments."""
    experiments = experiments_of(rows, names)
    if len(experiments) <= MAX_EXPERIMENTS:
        return experiments
    return rows_of_means(list(chain.from_iterable(experiments.values())), names)


def rows_of_means(
    rows: Sequence[StitchRow], names: Names | None = None
) -> dict[str, list[StitchRow]]:
    """Return the rows of each mean, by title.

    A mean is over one method, one kind of pairs of networks and one pair of architectures. The titles
    name the kinds unless all pairs are of two trained networks, and the architectures if there are
    several.

    Args:
        names: of the networks; None: nothing but their files tells trainings.
    """
    methods = method_names(rows, apart_from=(*NETWORKS, *RANKS, "seed"))
    if names is None:
        names = named_networks(chain.from_iterable(row.networks for row in rows), {})
    kinds = [kind_of_pair(*named_pair(row, names)) for row in rows]
    architectures = architecture_pairs(rows)
    groups = grouped(zip(methods, kinds, architectures, rows, strict=True), lambda item: item[:3])
    in_order = sorted(
        groups,
        key=lambda group: (
            methods.index(group[0]),
            KINDS.index(group[1]),
            architectures.index(group[2]),
        ),
    )
    titled = {}
    for method, kind, pair in in_order:
        rows_of_kind = [row for *_, row in groups[method, kind, pair]]
        shown_kind = kind
        if set(kinds) == {PAIRS}:
            shown_kind = ""
        n_experiments = len({row.key for row in rows_of_kind})
        count = f"mean of {n_experiments} experiments"
        if n_experiments == 1:
            count = "1 experiment"
        title = ", ".join(filter(None, [method, pair, shown_kind, count]))
        titled[title] = rows_of_kind
    return titled


def rank_sweeps(rows: Sequence[StitchRow], names: Names | None = None) -> dict[str, Sweep]:
    """Return the accuracies over ranks, by experiment.

    There are no sweeps where both ranks of a stitch vary and differ, or where a pair of layers has
    fewer than two ranks.
    """
    stitch_ranks = {row.front_stitch_rank for row in rows}
    matching_ranks = {row.front_pinv_rank for row in rows}
    if len(stitch_ranks) == len(matching_ranks) == 1:
        return {}
    both_vary = len(stitch_ranks) > 1 and len(matching_ranks) > 1
    if both_vary and any(row.front_stitch_rank != row.front_pinv_rank for row in rows):
        return {}

    full = told_apart(
        [dataclasses.replace(row, front_stitch_rank=None, front_pinv_rank=None) for row in rows]
    )
    titles = {group[0].key: title for title, group in experiments_of(full, names).items()}
    sweeps: dict[str, Sweep] = {}
    for row, row_at_full_rank in zip(rows, full, strict=True):
        sweep = sweeps.setdefault(titles[row_at_full_rank.key], {})
        rank = row.front_stitch_rank if len(stitch_ranks) > 1 else row.front_pinv_rank
        sweep.setdefault(row.pair, {})[rank] = row.accuracy
    for sweep in sweeps.values():
        if any(len(accuracy_of_rank.keys() - {None}) < 2 for accuracy_of_rank in sweep.values()):
            return {}
    return sweeps
