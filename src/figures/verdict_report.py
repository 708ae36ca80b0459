"""The report of a verdict: printed numbers, tables, and maps of each method."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from src.collected.between_groups import GroupComparison
from src.collected.groups import Names
from src.figures.captions import on_data
from src.figures.evidence import draw_evidence
from src.figures.groups import draw_groups
from src.figures.networks import draw_networks
from src.figures.sections import Section
from src.figures.shown import of_networks
from src.figures.verdict_words import estimate, heading, number
from src.ground.console import result, table
from src.ground.files import write_text
from src.ground.user_code import titles_in
from src.runs.folders import StitchingRun
from src.tables.matrices import is_known, mean_of
from src.tables.quantities import IN_VERDICT, shown_in
from src.tables.tables import write_table
from src.tables.verdict_rows import GroupRow, GroupTestRow, VerdictRow
from src.verdict import Limits


def print_verdicts(rows: Sequence[VerdictRow]) -> None:
    """Print a line for each verdict."""
    for row in rows:
        parts = [f"accuracy {row.accuracy:.4f}"]
        for name in shown_in(IN_VERDICT):
            if getattr(row, name) is not None:
                parts.append(f"{heading(name)} {estimate(row, name)}")
        title = f"{row.method}, {row.networks}"
        result(f"{title}: {row.pair}: {row.verdict} ({'; '.join([*parts, row.reason])})")


def print_matrices(parts: Iterable[Section]) -> None:
    """Print matrices of each part: the known quantities of a verdict, or their means over pairs of
    networks.

    Args:
        parts: from `parts_of`.
    """
    for section in parts:
        mean = "mean " if section.is_summary else ""
        for name in shown_in(IN_VERDICT):
            if is_known(section.rows, name):
                matrix = mean_of(section.rows, name)
                values = [
                    [number(name, value) or "nan" for value in line] for line in matrix.values
                ]
                title = f"{mean}{heading(name)}, {titles_in(section.title)}"
                table(title, *matrix._replace(values=values))
                result()


def write_tables(
    path: Path,
    rows: Sequence[VerdictRow],
    text: str = "",
    *,
    groups: Sequence[GroupRow] = (),
    tests: Sequence[GroupTestRow] = (),
) -> None:
    """Write the CSV, and beside it the text (`.md`) and the tables of groups."""
    write_table(path, VerdictRow, rows)
    write_text(path.with_suffix(".md"), text)
    if groups:
        write_table(path.with_name(f"{path.stem}_groups.csv"), GroupRow, groups)
    if tests:
        write_table(path.with_name(f"{path.stem}_group_tests.csv"), GroupTestRow, tests)


def draw(
    path: Path,
    parts: Sequence[Section],
    limits: Limits,
    *,
    title: str = "",
    runs: Sequence[StitchingRun] = (),
    names: Names | None = None,
    comparison: GroupComparison | None = None,
) -> None:
    """Draw the evidence, and with several pairs of networks the groups and the networks.

    Args:
        path: of the table.
        parts: from `parts_of`.
        title: the text above the figures.
        runs: that were judged, for captions.
        names: of the networks, from a list; None: there is none.
        comparison: of the groups of networks; None: there is none.
    """
    rows = list(chain.from_iterable(part.rows for part in parts))
    n_pairs = len({run.row.network_keys for run in runs})
    source = on_data(n_pairs, {(run.row.dataset, run.row.n_images) for run in runs})
    drawing = path.with_suffix(".png")
    draw_evidence(drawing, rows, limits, title=title, names=names, source=source)
    if comparison is not None and comparison.groups:
        means = of_networks(comparison)
        drawing = path.with_name(f"{path.stem}_networks.png")
        draw_networks(drawing, means, title=title, names=names, source=source)
        if len({row.groups for row in means}) > 1:
            drawing = path.with_name(f"{path.stem}_groups.png")
            draw_groups(drawing, means, comparison.tests, title=title, source=source)
