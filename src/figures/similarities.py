"""The report of a comparison: the tables of the paper's code that it prints, its CSV and its
figure."""

import math
from collections.abc import Callable, Collection, Sequence
from itertools import product
from pathlib import Path

from src.choices.similarity import measure_of
from src.core.console import decimals, result, table
from src.core.grouping import grouped
from src.figures.curves import draw_ranks
from src.figures.maps import draw_layers
from src.figures.pages import on_data
from src.figures.shown import Shown, of_matrix, of_ranks
from src.results.matrices import Matrix
from src.results.network_names import counted
from src.results.similarity_rows import SimilarityRow, same_layers
from src.results.tables import write_table

MAX_LINES = 10  # pairs of layers, of figures over ranks
WITHIN = {"": "", "_within": " within classes"}  # in titles, by the end of a column
PARTS = {"p_value": "p-value", "null_95": "95 % null", "calibrated": "calibrated"}  # of nulls


def is_matrix(rows: Sequence[SimilarityRow]) -> bool:
    """Return whether there are several pairs of layers, with one row a pair."""
    pairs = {row.pair for row in rows}
    return 1 < len(pairs) == len(rows)


def print_matrices(rows: Sequence[SimilarityRow]) -> None:
    """Print a matrix over pairs of layers for each measure, and for its calibrated and p-values
    where images were permuted; the rows are as in `is_matrix`."""
    for name, title in titles_of(rows, "calibrated", "p_value").items():
        table(title, *_matrix(rows, name, _layers))


def print_largest(rows: Sequence[SimilarityRow]) -> None:
    """Print the most similar pair of layers by each measure against the most similar pairs of
    permuted images; the rows are as in `is_matrix`."""
    for ending, within in WITHIN.items():
        lines = {}
        for metric in rows[0].measures:
            measure = measure_of(metric)
            known = [row for row in rows if math.isfinite(row.values[metric])]
            best = max(known or rows, key=lambda row: measure.sign * row.values[metric])  # noqa: B023
            columns = [f"{metric}_{part}_largest{ending}" for part in PARTS]
            if columns[0] in best.values:
                title = f"{measure.title}: {best.layer1} – {best.layer2}"
                lines[title] = [best.values[column] for column in (metric, *columns)]
        if lines:
            title = f"most similar pair{within}, against the most similar ones of permuted inputs"
            table(title, list(lines), ["value", *PARTS.values()], [*lines.values()])


def print_tables(rows: Sequence[SimilarityRow], metrics: Sequence[str]) -> None:
    """Print the rows of one pair of layers as the public code does: a block for each rank of the
    first layer, with the values of each measure once more as bare numbers."""
    for rank1, block in grouped(rows, lambda row: row.rank1).items():
        first = block[0]
        lines = [f"{first.model1} -- {first.model2}", f"{first.layer1} -- {first.layer2}"]
        for metric in metrics:
            lines += [f"{measure_of(metric).heading}:", f"Model1 rank {rank1}:"]
            for row in block:
                value = f"{row.values[metric]}{_against_nulls(row, metric)}"
                lines.append(f"\tModel2 rank {row.rank2}: {value}")
            lines += ["", *(str(row.values[metric]) for row in block), ""]
        result("\n".join([*lines, "", ""]))


def _against_nulls(row: SimilarityRow, metric: str) -> str:
    """Return the text that compares a value with its own nulls; empty if images were not
    permuted."""
    texts = []
    for ending, within in WITHIN.items():
        if f"{metric}_p_value{ending}" in row.values:
            p_value, null, calibrated = (row.values[f"{metric}_{part}{ending}"] for part in PARTS)
            text = f"p {p_value:.3g}, null {null:.4f}, calibrated {decimals(calibrated)}"
            texts.append(f"{within} {text}".strip())
    return f" ({'; '.join(texts)})" if texts else ""


def write_files(path: Path, rows: Sequence[SimilarityRow]) -> None:
    """Write the CSV, one row for each pair of layers and ranks, and the figure of several rows.

    A full rank is empty, and an undefined value is `nan`.
    """
    write_table(path, SimilarityRow, rows)
    if len(rows) > 1:
        draw(path.with_suffix(".png"), rows)


def draw(path: Path, rows: Sequence[SimilarityRow]) -> list[Path]:
    """Draw lines over the ranks of one side for few pairs of layers; else maps over both ranks
    of one pair, or over layers at the highest ranks. Return the written paths."""
    images = {(row.dataset, row.n_samples) for row in rows}
    source = on_data(counted({row.network_keys for row in rows}), images)
    n_pairs = len({row.pair for row in rows})
    ranks1 = {row.rank1 for row in rows}
    ranks2 = {row.rank2 for row in rows}
    has_one_side = min(len(ranks1), len(ranks2)) == 1 < max(len(ranks1), len(ranks2))
    if has_one_side and n_pairs <= MAX_LINES:
        lines = _over_ranks(rows, is_first=len(ranks1) > 1)
        return draw_ranks(path, lines, y_title="similarity", source=source)
    if n_pairs == 1 and len(ranks1) > 1:
        cell: Cell = _ranks
        axes = (f"{rows[0].layer1} of network 1", f"{rows[0].layer2} of network 2")
        framed: Collection[tuple[str, str]] = ()
    else:
        highest = (rows[0].rank1, rows[0].rank2)  # the highest ranks stand first
        rows = [row for row in rows if (row.rank1, row.rank2) == highest]
        cell = _layers
        axes = ("layer of network 1", "layer of network 2")
        framed = same_layers(rows)
    shown: list[Shown] = []
    for name, heading in titles_of(rows, "calibrated").items():
        quantity = name if name in rows[0].measures else heading
        shown += of_matrix(_matrix(rows, name, cell), quantity, heading, framed)
    return draw_layers(path, shown, axes=axes, source=source)


Cell = Callable[[SimilarityRow], tuple[str, str]]  # returns the labels of a row's cell


def _layers(row: SimilarityRow) -> tuple[str, str]:
    return row.layer1, row.layer2


def _ranks(row: SimilarityRow) -> tuple[str, str]:
    first, second = (
        "full rank" if rank is None else f"rank {rank}" for rank in (row.rank1, row.rank2)
    )
    return first, second


def _over_ranks(rows: Sequence[SimilarityRow], *, is_first: bool) -> list[Shown]:
    """Return the similarities over the ranks of the first or of the second layer, a line a
    measure."""
    panels: dict[str, dict[str, dict[int | None, float]]] = {}
    for row in rows:
        rank, fixed = (row.rank1, row.rank2) if is_first else (row.rank2, row.rank1)
        panel = f"{row.layer1} and {row.layer2}"
        if fixed is not None:
            panel += f", the other at rank {fixed}"
        for metric in row.measures:
            measure = measure_of(metric)
            line = panels.setdefault(panel, {}).setdefault(measure.similarity_title, {})
            line[rank] = measure.similarity(row.values[metric])
    return [row for panel, lines in panels.items() for row in of_ranks(lines, panel)]


def titles_of(rows: Sequence[SimilarityRow], *parts: str) -> dict[str, str]:
    """Return the titles of columns: of the value of each measure, and of these parts of its nulls."""
    measured = dict.fromkeys(metric for row in rows for metric in row.measures)
    titles = {}
    for metric in measured:
        title = measure_of(metric).title
        titles[metric] = title
        for part, (ending, within) in product(parts, WITHIN.items()):
            name = f"{metric}_{part}{ending}"
            if any(name in row.values for row in rows):
                titles[name] = f"{title}, {PARTS[part]}{within}"
    return titles


def _matrix(rows: Sequence[SimilarityRow], name: str, cell: Cell) -> Matrix:
    """Return the values of a column, in the order of the rows; NaN where a row has none."""
    cells = {cell(row): row.values.get(name, math.nan) for row in rows}
    firsts = list(dict.fromkeys(first for first, _ in cells))
    seconds = list(dict.fromkeys(second for _, second in cells))
    return Matrix(firsts, seconds, [[cells[one, two] for two in seconds] for one in firsts])
