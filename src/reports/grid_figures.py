"""The figures of a folder of stitching runs: heat maps of layers, curves over ranks, or means."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from src.collected.groups import Names
from src.ground.console import note
from src.ground.grouping import grouped
from src.reports.captions import describe_stitches
from src.reports.curves import CurvePanel, curves
from src.reports.heat_maps import Labels, maps
from src.reports.map_panels import HeatMap
from src.runs.network_pairs import KINDS, PAIRS, kind_of_pair
from src.tables.architectures import StitchOfTypes, architecture_pairs, same_layers
from src.tables.experiments import NETWORKS, RANKS, by_experiment, method_names
from src.tables.image_records import told_apart
from src.tables.matrices import Matrix, accuracies, mean_of
from src.tables.stitch_rows import StitchRow
from src.values import Pair

MAX_PANELS = 12  # in one figure; of more experiments, means are drawn and printed
MAX_LINES = 10  # curves in a panel
TITLE = "accuracy of the stitched network"


STITCHED = Labels("front layer", "end layer", "not stitched or not measured")

# rank -> accuracy of a pair of layers, None: full rank; by pair
Sweep = dict[Pair, dict[int | None, float]]


def labels_of(rows: Iterable[StitchOfTypes]) -> Labels:
    """Return the labels of heat maps of stitches, with frames around the same layers."""
    return STITCHED._replace(framed=same_layers(rows))


def experiments_of(
    rows: Sequence[StitchRow], names: Names | None = None
) -> dict[str, list[StitchRow]]:
    """Group rows of stitches by experiment, under the titles of figures and matrices.

    Args:
        names: of the networks; None: titles have the settings in which experiments differ.
    """
    if names is None:
        return by_experiment(rows)
    methods = method_names(rows, apart_from=NETWORKS)
    titled = []
    for row, method in zip(rows, methods, strict=True):
        front, end = row.network_keys
        titled.append((f"{names[front].name} → {names[end].name}, {method}", row))
    groups = grouped(titled, lambda item: item[0])
    return {title: [row for _, row in items] for title, items in groups.items()}


def printed_matrices(rows: Sequence[StitchRow], names: Names | None = None) -> dict[str, Matrix]:
    """Return the accuracies to print, by title: the matrices of a figure, or of a sweep over ranks
    one matrix (pairs of layers, ranks)."""
    sweeps = rank_sweeps(rows, names)
    if sweeps and len(sweeps) <= MAX_PANELS:
        return {title: sweep_matrix(sweep) for title, sweep in sweeps.items()}
    return shown_matrices(experiments_of(rows, names))


def sweep_matrix(sweep: Sweep) -> Matrix:
    """Return the matrix (pairs of layers, ranks) of accuracies; full rank is the last column."""
    ranks = {rank for accuracy_of_rank in sweep.values() for rank in accuracy_of_rank}
    ordered = sorted(ranks, key=lambda rank: math.inf if rank is None else rank)
    values = []
    for accuracy_of_rank in sweep.values():
        values.append([accuracy_of_rank.get(rank, math.nan) for rank in ordered])
    columns = ["full" if rank is None else f"rank {rank}" for rank in ordered]
    return Matrix([str(pair) for pair in sweep], columns, values)


def shown_matrices(experiments: Mapping[str, Sequence[StitchRow]]) -> dict[str, Matrix]:
    """Return the accuracies of each experiment by title; of more than twelve experiments, the means
    over experiments."""
    if len(experiments) <= MAX_PANELS:
        return {title: accuracies(rows) for title, rows in experiments.items()}
    rows = [row for rows_of_experiment in experiments.values() for row in rows_of_experiment]
    return mean_matrices(rows)


def mean_matrices(rows: Sequence[StitchRow]) -> dict[str, Matrix]:
    """Return the mean accuracies of each method, by title: a matrix for each kind of pairs of
    networks and each pair of architectures.

    The titles name the kinds unless all pairs are of two trained networks, and the architectures if
    there are several. Of repeated runs the last row counts.
    """
    newest = {(row.key, row.pair): row for row in told_apart(rows)}  # of repeated runs
    rows = list(newest.values())
    methods = method_names(rows, apart_from=(*NETWORKS, *RANKS, "seed", "class_control"))
    fronts_and_ends = {(row.networks, row.class_control) for row in rows}
    kinds = {
        (networks, is_control): kind_of_pair(*networks, is_class_control=is_control)
        for networks, is_control in fronts_and_ends
    }
    architectures = architecture_pairs(rows)
    groups: dict[tuple[str, str, str], list[StitchRow]] = {}
    for method, kind, pair in product(*map(dict.fromkeys, (methods, KINDS, architectures))):
        groups[method, kind, pair] = []
    for method, pair, row in zip(methods, architectures, rows, strict=True):
        groups[method, kinds[row.networks, row.class_control], pair].append(row)

    matrices = {}
    for (method, kind, pair), rows_of_kind in groups.items():
        if not rows_of_kind:
            continue
        title = f"{method}, {pair}" if pair else method
        if set(kinds.values()) != {PAIRS}:
            title += f", {kind}"
        n_experiments = len({row.key for row in rows_of_kind})
        if n_experiments == 1:
            title += ", 1 experiment"
        else:
            title += f", mean of {n_experiments} experiments"
        matrices[title] = mean_of(rows_of_kind, "accuracy")
    return matrices


def draw_grid(
    path: Path, rows: Sequence[StitchRow], *, title: str = "", names: Names | None = None
) -> None:
    """Draw the accuracies of stitches beside their table; a note names the files.

    Args:
        path: of the table.
        names: of the networks, for titles and the caption.
    """
    caption = describe_stitches(rows, names=names)
    drawn = path.with_suffix(".png")
    sweeps = rank_sweeps(rows, names)
    if sweeps and len(sweeps) <= MAX_PANELS:
        draw_ranks(drawn, sweeps, title=title, caption=caption)
    else:
        experiments = experiments_of(rows, names)
        if len(experiments) > MAX_PANELS:
            note(f"{drawn} shows means of {len(experiments)} experiments; {path} has all of them")
        matrices = shown_matrices(experiments)
        if len(matrices) > MAX_PANELS:
            caption += (
                f" The first {MAX_PANELS} of {len(matrices)} means are shown; "
                "the CSV has all of them."
            )
        panels = {}
        for name, matrix in list(matrices.items())[:MAX_PANELS]:
            panels[name.replace(", ", "\n")] = {"accuracy": HeatMap(matrix)}
        maps(drawn, panels, labels=labels_of(rows), title=title, caption=caption)
    note(f"wrote {path} and {drawn}" if drawn.exists() else f"wrote {path}")


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


def draw_ranks(path: Path, sweeps: Mapping[str, Sweep], *, title: str, caption: str) -> None:
    """Draw the accuracies over ranks: a panel an experiment, a line a pair of layers.

    More than ten pairs of layers are one line of their mean. Full rank has no place on the axis and
    stands in the caption.
    """
    panels = []
    at_full_rank = []
    for name, sweep in sweeps.items():
        lines: dict[str, dict[int, list[float]]] = {}
        for pair, accuracy_of_rank in sweep.items():
            label = f"{pair.front_layer} → {pair.end_layer}"
            if len(sweep) > MAX_LINES:
                label = f"mean of {len(sweep)} pairs of layers"
            for rank, accuracy in accuracy_of_rank.items():
                if rank is None:
                    at_full_rank.append(accuracy)
                else:
                    lines.setdefault(label, {}).setdefault(rank, []).append(accuracy)
        means = {
            label: {rank: float(np.mean(values)) for rank, values in line.items()}
            for label, line in lines.items()
        }
        panels.append(CurvePanel(means, TITLE, title=name.replace(", ", "\n")))
    if at_full_rank:
        caption = f"{caption} At full rank (mean): {np.mean(at_full_rank):.2f}.".strip()
    curves(path, panels, x_label="retained rank (components)", title=title, caption=caption)
