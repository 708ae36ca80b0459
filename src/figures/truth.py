"""The report of the tests of measures: the table of scores, printed and written, and its figure.

Networks that were trained with `--shortcut` saw dots in their images which told the class."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from src.figures.dots import draw_check
from src.figures.shown import of_scores
from src.ground.console import aligned, listed, result
from src.ground.files import write_text
from src.ground.grouping import grouped
from src.results.tables import write_table
from src.results.truth_rows import TruthRow
from src.statistics.intervals import ALPHA

N_BESIDE = 3  # known measures that are shown beside another one
DOTS = ("true", "absent", "drawn")  # that tell the class, none, drawn at random
RELIES = 0.2  # loss of accuracy by misleading dots, of a network that relies on dots
MARKS = "* above chance; † above chance and above the best baseline"


def write_scores(path: Path, rows: Sequence[TruthRow]) -> None:
    """Write the scores as a CSV, and beside it their table (`.md`) and a figure (`.png`), both of the
    main scores of the best measure of each family, and of the baselines."""
    write_table(path, TruthRow, rows)
    write_text(path.with_suffix(".md"), f"{table_of(rows)}\n")
    draw_check(path.with_suffix(".png"), list(of_scores(best_rows(rows))))


def table_of(rows: Sequence[TruthRow]) -> str:
    """Return the main scores of the best measures and of the baselines as a table in Markdown, with
    notes."""
    best = best_rows(rows)
    cells = {(row.measure, row.test): _cell(row) for row in best}
    chances = {row.test: f"{row.chance:.2f}" for row in best}
    lines = [["measure", *chances], ["---"] * (1 + len(chances)), ["chance", *chances.values()]]
    for measure in dict.fromkeys(row.measure for row in best):
        lines.append([measure, *(cells.get((measure, test), "–") for test in chances)])
    table = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*table, "", MARKS, *on_few(rows)])


def _cell(row: TruthRow | None) -> str:
    """Return a score with a star if it is above chance, and a dagger if it is above baselines; a dash
    without a row."""
    if row is None:
        return "–"
    star = "*" if row.is_above_chance else ""
    dagger = "†" if row.is_above_chance and row.is_above_baselines else ""
    return f"{row.value:.2f}{star}{dagger}"


def main_rows(rows: Sequence[TruthRow]) -> list[TruthRow]:
    """Return the main score of each test over all layers, best measures first, baselines last.

    Measures are sorted by the mean of their scores over tests.
    """
    main = [row for row in rows if row.is_main and row.layer is None and not math.isnan(row.value)]
    means = {}
    for measure, of_measure in grouped(main, lambda row: row.measure).items():
        means[measure] = fmean(row.value for row in of_scores(of_measure))
    return sorted(main, key=lambda row: (row.is_baseline, -means[row.measure]))


def best_rows(rows: Sequence[TruthRow]) -> list[TruthRow]:
    """Return the main rows of the best measure of each family, and of all baselines."""
    best: dict[str, str] = {}
    main = main_rows(rows)
    for row in main:
        best.setdefault(row.family, row.measure)
    return [row for row in main if row.is_baseline or row.measure in best.values()]


def shown_rows(rows: Sequence[TruthRow]) -> list[TruthRow]:
    """Return the rows over all layers of the measures that the table shows."""
    shown = {row.measure for row in best_rows(rows)}
    return [row for row in rows if row.measure in shown and row.layer is None]


def print_beside(rows: Sequence[TruthRow], earlier: Sequence[TruthRow]) -> None:
    """Print scores of measures, beside the best baseline and the best measures so far: a line for each
    test, and for each kind of impostors.

    Args:
        rows: of the measures.
        earlier: of the measures so far and of the baselines, over all layers.
    """
    measures = list(dict.fromkeys(row.measure for row in rows if not row.is_baseline))
    score_of = {(row.test, row.score, row.measure): row for row in rows if row.layer is None}
    header = ("chance", *measures, "best baseline", "best measures so far")
    of_tests = [("test", *header)]
    of_kinds = [("counterfeits", *header)]
    for (test, score), of_score in grouped(earlier, lambda row: (row.test, row.score)).items():
        cells = (
            f"{of_score[0].chance:.2f}",
            *(_cell(score_of.get((test, score, measure))) for measure in measures),
            _best([row for row in of_score if row.is_baseline], n=1),
            _best([row for row in of_score if not row.is_baseline], n=N_BESIDE),
        )
        if of_score[0].is_main:
            of_tests.append((test, *cells))
        elif test == "impostors":
            of_kinds.append((score, *cells))
    tables = [aligned(of_tests)]
    if len(of_kinds) > 1:
        tables.append(aligned(of_kinds))
    result("\n\n".join([*tables, MARKS, *on_few(rows)]))


def _best(rows: Sequence[TruthRow], *, n: int) -> str:
    """Return the n highest scores with their measures."""
    ordered = sorted(rows, key=lambda row: -row.value)
    return ", ".join(f"{_cell(row)} {row.measure}" for row in ordered[:n])


def on_few(rows: Sequence[TruthRow]) -> list[str]:
    """Return lines on tests with too few networks for a score above chance."""
    lines = []
    few = [row for row in main_rows(rows) if _is_of_few(row)]
    by_number = grouped(few, lambda row: (row.n_networks, row.lowest_p))
    for (n_networks, lowest_p), of_number in by_number.items():
        tests = listed(dict.fromkeys(row.test for row in of_number))
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


def on_dots(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each group of networks: its accuracy with dots that tell the class, without
    dots, and with dots that are drawn at random.

    Args:
        rows: of single networks; accuracies by the kind of dots.
    """
    lines = []
    for group, of_group in grouped(rows, lambda row: row["group"]).items():
        true, absent, drawn = (fmean(row[kind] for row in of_group) for kind in DOTS)
        n_relying = sum(row["true"] - row["drawn"] > RELIES for row in of_group)
        lines.append(
            f"{group}: accuracy {true:.2f} with dots that tell the class, {absent:.2f} without "
            f"dots, {drawn:.2f} with drawn ones; {n_relying} of {len(of_group)} networks rely "
            "on the dot."
        )
    return lines
