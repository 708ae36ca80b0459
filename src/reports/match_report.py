"""The report of best matches: how often they are the corresponding layers, and which layers they are."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean

from src.choices.similarity import measure_of
from src.collected.best_matches import END, FRONT, BestMatchRow, MatchShareRow, match_shares
from src.ground.console import note, result, table
from src.ground.grouping import grouped
from src.tables.matrices import Matrix
from src.tables.network_names import short
from src.tables.quantities import QUANTITIES
from src.tables.tables import write_table

MAX_TABLES = 12  # of layers; of more, the CSV has all
# What is asked, by the side of the layer in stitches; of similarity there are no sides
SOUGHT = {FRONT: "best end layer", END: "best front layer", "": "best match"}


def print_shares(rows: Sequence[BestMatchRow]) -> None:
    """Print how often best matches are the corresponding layers."""
    _print(tables_of_shares(rows))


def print_layers(rows: Sequence[BestMatchRow]) -> None:
    """Print the best matches of layers, at most `MAX_TABLES` tables."""
    tables = tables_of_layers(rows)
    _print(dict(list(tables.items())[:MAX_TABLES]))
    if len(tables) > MAX_TABLES:
        note(
            f"{MAX_TABLES} of {len(tables)} tables of layers are printed; the CSV has all best matches"
        )


def _print(tables: Mapping[str, Matrix]) -> None:
    """Print tables with their titles."""
    for title, matrix in tables.items():
        table(title, *matrix)
        result()


def tables_of_shares(rows: Sequence[BestMatchRow]) -> dict[str, Matrix]:
    """Return how often best matches are the corresponding layers: a table for each method and side,
    by its title, with a line a pair of groups and a column a measure."""
    tables = {}
    by_method = grouped(match_shares(rows), lambda row: (row.method, row.dataset, row.side))
    for (method, dataset, side), shares in by_method.items():
        by_groups = grouped(shares, lambda row: row.networks)
        columns = list(dict.fromkeys(row.measure for row in shares))
        values = []
        for of_groups in by_groups.values():
            share_of = {row.measure: row.share for row in of_groups}
            chance = fmean(row.chance for row in of_groups)
            values.append([chance, *(share_of.get(name, math.nan) for name in columns)])
        data = f", {short(dataset)}" if dataset else ""
        title = f"{SOUGHT[side]}: how often it is the corresponding layer, {method}{data}"
        lines = [f"{groups} ({of_groups[0].n_pairs})" for groups, of_groups in by_groups.items()]
        titles = ["chance", *(_title(name, side) for name in columns)]
        tables[title] = Matrix(lines, titles, values)
    return tables


def tables_of_layers(rows: Sequence[BestMatchRow]) -> dict[str, Matrix]:
    """Return the best matches of layers: a table for each pair of architectures, method, data set and
    side, by its title, with a line a layer and a column a measure.

    A cell has the layer that is the best match in most pairs of networks, and in how many.
    """
    tables = {}
    by_table = grouped(rows, lambda row: (row.method, row.dataset, row.side, row.architectures))
    for (method, dataset, side, architectures), of_table in by_table.items():
        by_layer = grouped(of_table, lambda row: row.layer)
        columns = list(dict.fromkeys(row.measure for row in of_table))
        values = []
        for of_layer in by_layer.values():
            corresponding = chain.from_iterable(row.corresponding_layers for row in of_layer)
            by_measure = grouped(of_layer, lambda row: row.measure)
            best = [_most_frequent(by_measure.get(name, ())) for name in columns]
            values.append([", ".join(dict.fromkeys(corresponding)), *best])
        first, second = map(short, architectures)
        data = f", {short(dataset)}" if dataset else ""
        title = f"{SOUGHT[side]} in {second} for each layer of {first}, {method}{data}"
        titles = ["corresponding", *(_title(name, side) for name in columns)]
        tables[title] = Matrix(list(by_layer), titles, values)
    return tables


def _title(measure: str, side: str) -> str:
    """Return the title of a measure of similarity, or of a quantity of stitches."""
    return QUANTITIES[measure].title if side else measure_of(measure).title


def _most_frequent(rows: Sequence[BestMatchRow]) -> str:
    """Return the best match of most pairs of networks, and in how many of them it is."""
    if not rows:
        return ""
    ((layer, n_pairs),) = Counter(row.best_layer for row in rows).most_common(1)
    return f"{layer} ({n_pairs}/{len(rows)})"


def write_files(path: Path, rows: Sequence[BestMatchRow]) -> None:
    """Write the table of best matches, and beside it the table of shares."""
    write_table(path, BestMatchRow, rows)
    write_table(path.with_name(f"{path.stem}_shares.csv"), MatchShareRow, match_shares(rows))
