"""The report of the tests: tables, a figure of scores, and sentences."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from src.console import listed
from src.files import write_text
from src.ground_truth.protocol import ALL_LAYERS
from src.ground_truth.truth_rows import DotsRow, TruthRow
from src.grouping import grouped
from src.results.heat_maps import HeatMap, maps
from src.results.matrices import Matrix
from src.results.tables import write_table

RELIES = 0.2  # by how much accuracy falls where dots mislead a network that has learned them


def write_scores(path: Path, rows: Sequence[TruthRow]) -> None:
    """Write the CSV, and beside it the table of main scores with the sentences (`.md`), and the
    figure (`.png`)."""
    write_table(path, TruthRow, rows)
    counted = main_rows(rows)
    matrix = _matrix(
        counted,
        lambda row: f"{row.value:.2f}{'*' * row.is_above_chance}{'†' * _is_better(row)}",
        "–",
    )
    lines = [
        f"| {' | '.join(['measure', *matrix.columns])} |",
        f"|{'---|' * (1 + len(matrix.columns))}",
    ]
    lines += [
        f"| {' | '.join([name, *cells])} |"
        for name, cells in zip(matrix.rows, matrix.values, strict=True)
    ]
    write_text(
        path.with_suffix(".md"),
        "\n".join([*lines, "", *(f"* {line}" for line in sentences(rows)), ""]),
    )
    draw_scores(path.with_suffix(".png"), counted)


def main_rows(rows: Sequence[TruthRow]) -> list[TruthRow]:
    """Return the main score of each test over all layers, the best measures (by their mean) first,
    then baselines."""
    counted = [
        row for row in rows if row.is_main and row.layer == ALL_LAYERS and not math.isnan(row.value)
    ]
    means = {
        name: fmean(map(_over_chance, same))
        for name, same in grouped(counted, lambda row: row.measure).items()
    }
    return sorted(counted, key=lambda row: (row.is_baseline, -means[row.measure]))


def sentences(rows: Sequence[TruthRow]) -> list[str]:
    """Return which measures find what a test asks for, and which of these find more than a baseline
    does."""
    return [
        line
        for test in dict.fromkeys(row.test for row in rows)
        for line in _on_test(test, main_rows(rows))
    ]


def _on_test(test: str, rows: Sequence[TruthRow]) -> Iterator[str]:
    of_test = sorted((row for row in rows if row.test == test), key=lambda row: -row.value)
    measures = [row for row in of_test if not row.is_baseline]
    above = [row.measure for row in measures if row.is_above_chance]
    better = [row.measure for row in measures if _is_better(row)]
    baseline = next((f"{row.measure} ({row.value:.2f})" for row in of_test if row.is_baseline), "")
    if measures:
        chance = f"chance is {measures[0].chance:.2f}"
        named = listed(above) or "none"
        yield f"Test of {test}: {len(above)} of {len(measures)} measures are above chance ({chance}): {named}."
    if measures and baseline:
        yield f"Test of {test}: above the best baseline, {baseline}: {listed(better) or 'none'}."


def sentences_on_dots(rows: Sequence[DotsRow]) -> list[str]:
    """Return the accuracies of each group with dots that tell the class, without dots, and with
    drawn ones."""
    lines = []
    for group in dict.fromkeys(row.group for row in rows):
        of_group = [row for row in rows if row.group == group]
        true, absent, drawn = np.mean(
            [(row.true, row.absent, row.drawn) for row in of_group], axis=0
        )
        relies = sum(row.true - row.drawn > RELIES for row in of_group)
        lines.append(
            f"{group}: accuracy {true:.2f} with dots that tell the class, {absent:.2f} without dots, {drawn:.2f} with "
            f"drawn ones; {relies} of {len(of_group)} networks rely on the dot."
        )
    return lines


def _is_better(row: TruthRow) -> bool:
    return row.is_above_chance and row.is_above_baselines


def _over_chance(row: TruthRow) -> float:
    """Return a score where 0 is chance and 1 the truth."""
    return (row.value - row.chance) / (1 - row.chance)


def _matrix(rows: Sequence[TruthRow], value, missing) -> Matrix:
    cells = {(row.measure, row.test): value(row) for row in rows}
    measures, tests = (
        list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("measure", "test")
    )
    return Matrix(
        measures, tests, [[cells.get((name, test), missing) for test in tests] for name in measures]
    )


def draw_scores(path: Path, rows: Sequence[TruthRow]) -> None:
    """Draw the scores as a heat map of measures × tests, baselines apart; a red corner: above all
    baselines."""
    matrix, n = (
        _matrix(rows, _over_chance, math.nan),
        len({row.measure for row in rows if not row.is_baseline}),
    )
    apart = [[math.nan] * len(matrix.columns)]
    matrix = Matrix(
        [*matrix.rows[:n], "", *matrix.rows[n:]],
        matrix.columns,
        matrix.values[:n] + apart + matrix.values[n:],
    )
    marked = [(row.measure, row.test) for row in rows if _is_better(row)]
    below = "0: chance, 1: the truth; by mean ranks over layers. Red corners: above all baselines, which stand last."
    maps(
        path,
        {"": HeatMap(matrix, marked=marked)},
        row_label="measure",
        column_label="test",
        caption=below,
    )
