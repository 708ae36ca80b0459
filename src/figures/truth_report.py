"""The report of the tests of measures: tables, a figure of scores, and sentences.

Networks that were trained with `--shortcut` saw dots in their images which told the class."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import TypeVar

import numpy as np

from src.collected.truth_protocol import ALL_LAYERS, ALPHA, IMPOSTORS
from src.figures.check import draw_check
from src.figures.shown import of_scores
from src.ground.console import aligned, listed, result
from src.ground.files import write_text
from src.ground.grouping import grouped
from src.tables.matrices import Matrix
from src.tables.tables import write_table
from src.tables.truth_rows import DotsRow, TruthRow

Cell = TypeVar("Cell", str, float)

N_BESIDE = 3  # known measures that are shown beside another one
RELIES = 0.2  # loss of accuracy by misleading dots, of a network that relies on dots


def write_scores(path: Path, rows: Sequence[TruthRow]) -> None:
    """Write the scores as a CSV, and beside it a table with sentences (`.md`) and a figure (`.png`).

    Table and figure have the main scores of the best measure of each family, and of the baselines.
    """
    write_table(path, TruthRow, rows)
    write_text(path.with_suffix(".md"), _markdown(rows))
    draw_check(path.with_suffix(".png"), list(of_scores(best_of_families(main_rows(rows)))))


def shown_rows(rows: Sequence[TruthRow]) -> list[TruthRow]:
    """Return the rows over all layers of the measures that the table shows: the best of each
    family, and the baselines."""
    shown = {row.measure for row in best_of_families(main_rows(rows))}
    return [row for row in rows if row.measure in shown and row.layer == ALL_LAYERS]


def print_beside(rows: Sequence[TruthRow], earlier: Sequence[TruthRow]) -> None:
    """Print scores of measures, beside the best baseline and the best measures so far.

    There is a line for each test, and for each kind of impostors.

    Args:
        rows: of the measures.
        earlier: of the measures so far and of the baselines, over all layers.
    """
    measures = list(dict.fromkeys(row.measure for row in rows if not row.is_baseline))
    score_of = {(row.test, row.score, row.measure): row for row in rows if row.layer == ALL_LAYERS}
    header = ("chance", *measures, "best baseline", "best measures so far")
    of_tests = [("test", *header)]
    of_kinds = [("counterfeits", *header)]
    for (test, score), earlier_rows in grouped(earlier, lambda row: (row.test, row.score)).items():
        scores = [score_of.get((test, score, measure)) for measure in measures]
        cells = (
            f"{earlier_rows[0].chance:.2f}",
            *map(_cell, scores),
            _best([row for row in earlier_rows if row.is_baseline], n=1),
            _best([row for row in earlier_rows if not row.is_baseline], n=N_BESIDE),
        )
        if earlier_rows[0].is_main:
            of_tests.append((test, *cells))
        elif test == IMPOSTORS:
            of_kinds.append((score, *cells))
    result(aligned(of_tests))
    if len(of_kinds) > 1:
        result(f"\n{aligned(of_kinds)}")
    result("\n* above chance; † above chance and above the best baseline")
    for sentence in _sentences_on_few(rows):
        result(sentence)


def _best(rows: Sequence[TruthRow], *, n: int) -> str:
    """Return the n highest scores with their measures."""
    ordered = sorted(rows, key=lambda row: -row.value)
    return ", ".join(f"{_cell(row)} {row.measure}" for row in ordered[:n])


def _markdown(rows: Sequence[TruthRow]) -> str:
    """Return the table of the best measures and baselines in Markdown, and the sentences as a
    list."""
    matrix = _matrix(best_of_families(main_rows(rows)), _cell, missing="–")
    lines = [
        f"| {' | '.join(['measure', *matrix.columns])} |",
        f"|{'---|' * (1 + len(matrix.columns))}",
    ]
    for measure, cells in zip(matrix.rows, matrix.values, strict=True):
        lines.append(f"| {' | '.join([measure, *cells])} |")
    lines.append("")
    lines += [f"* {sentence}" for sentence in sentences(rows)]
    return "\n".join([*lines, ""])


def _cell(row: TruthRow | None) -> str:
    """Return a score with a star if it is above chance, and a dagger if it is above baselines; a dash
    without a row."""
    if row is None:
        return "–"
    text = f"{row.value:.2f}"
    if row.is_above_chance:
        text += "*"
    if _is_better(row):
        text += "†"
    return text


def main_rows(rows: Sequence[TruthRow]) -> list[TruthRow]:
    """Return the main score of each test over all layers, best measures first, baselines last.

    Measures are sorted by the mean of their scores over tests.
    """
    counted = []
    for row in rows:
        if row.is_main and row.layer == ALL_LAYERS and not math.isnan(row.value):
            counted.append(row)
    means = {}
    for measure, rows_of_measure in grouped(counted, lambda row: row.measure).items():
        means[measure] = fmean(_over_chance(row) for row in rows_of_measure)
    return sorted(counted, key=lambda row: (row.is_baseline, -means[row.measure]))


def best_of_families(rows: Sequence[TruthRow]) -> list[TruthRow]:
    """Return the rows of the first measure of each family, and of all baselines.

    Args:
        rows: from `main_rows`, which puts the best measures first.
    """
    best: dict[str, str] = {}
    for row in rows:
        best.setdefault(row.family, row.measure)
    return [row for row in rows if row.is_baseline or row.measure in best.values()]


def sentences(rows: Sequence[TruthRow]) -> list[str]:
    """Say for each test which measures are above chance, and which are above the best baseline.

    Tests of few networks come first. They show the highest scores instead.
    """
    counted = main_rows(rows)
    lines = _sentences_on_few(rows)
    for test in dict.fromkeys(row.test for row in rows):
        lines += _sentences_on_test(test, [row for row in counted if row.test == test])
    return lines


def _sentences_on_test(test: str, rows: Sequence[TruthRow]) -> list[str]:
    """Return the sentences on one test; none without measures."""
    ordered = sorted(rows, key=lambda row: -row.value)
    measures = [row for row in ordered if not row.is_baseline]
    if not measures:
        return []
    baselines = [row for row in ordered if row.is_baseline]
    if _is_of_few(measures[0]):
        highest = listed(f"{row.measure} ({row.value:.2f})" for row in measures[:N_BESIDE])
        line = f"Test of {test}: highest are {highest}; chance is {measures[0].chance:.2f}"
        if baselines:
            line += f", the best baseline {baselines[0].measure} ({baselines[0].value:.2f})"
        return [f"{line}."]
    above = [row.measure for row in measures if row.is_above_chance]
    lines = [
        f"Test of {test}: {len(above)} of {len(measures)} measures are above chance "
        f"(chance is {measures[0].chance:.2f}): {listed(above) or 'none'}."
    ]
    if baselines:
        better = listed(row.measure for row in measures if _is_better(row))
        best = f"{baselines[0].measure} ({baselines[0].value:.2f})"
        lines.append(f"Test of {test}: above the best baseline, {best}: {better or 'none'}.")
    return lines


def _sentences_on_few(rows: Sequence[TruthRow]) -> list[str]:
    """Return sentences on tests with too few networks for a score above chance."""
    few = [row for row in main_rows(rows) if _is_of_few(row)]
    lines = []
    by_number = grouped(few, lambda row: (row.n_networks, row.lowest_p))
    for (n_networks, lowest_p), rows_of_number in by_number.items():
        tests = listed(dict.fromkeys(row.test for row in rows_of_number))
        if lowest_p is None:
            reason = "give no interval"
        else:
            reason = f"have only {1 / lowest_p:.0f} labelings, so p cannot be below {lowest_p:.2f}"
        lines.append(
            f"No star in the test of {tests}: {n_networks} networks {reason}; take five or more a "
            "group."
        )
    return lines


def _is_of_few(row: TruthRow) -> bool:
    """Return whether the networks of a test are so few that no score can be above chance."""
    if row.p is None:
        return math.isnan(row.low)
    return row.lowest_p is not None and row.lowest_p > ALPHA


def sentences_on_dots(rows: Sequence[DotsRow]) -> list[str]:
    """Say for each group of networks how accurate it is with dots and without.

    Dots either tell the class, or are drawn at random.
    """
    lines = []
    for group, rows_of_group in grouped(rows, lambda row: row.group).items():
        accuracies = [(row.true, row.absent, row.drawn) for row in rows_of_group]
        true, absent, drawn = np.mean(accuracies, axis=0)
        n_relying = sum(row.true - row.drawn > RELIES for row in rows_of_group)
        lines.append(
            f"{group}: accuracy {true:.2f} with dots that tell the class, {absent:.2f} without "
            f"dots, {drawn:.2f} with drawn ones; {n_relying} of {len(rows_of_group)} networks rely "
            "on the dot."
        )
    return lines


def _is_better(row: TruthRow) -> bool:
    """Return whether a score is above chance and above all baselines."""
    return row.is_above_chance and row.is_above_baselines


def _over_chance(row: TruthRow) -> float:
    """Return a score on the scale where 0 is chance and 1 is the truth."""
    return (row.value - row.chance) / (1 - row.chance)


def _matrix(
    rows: Sequence[TruthRow], value: Callable[[TruthRow], Cell], *, missing: Cell
) -> Matrix:
    """Lay out a value of rows as a matrix of measures × tests, in the order of the rows."""
    cells = {(row.measure, row.test): value(row) for row in rows}
    measures = list(dict.fromkeys(row.measure for row in rows))
    tests = list(dict.fromkeys(row.test for row in rows))
    values = [[cells.get((measure, test), missing) for test in tests] for measure in measures]
    return Matrix(measures, tests, values)
