"""The report of a verdict: printed numbers, tables, and maps of each method."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from src.choices.scores import SCORES
from src.collected.between_groups import GroupComparison
from src.collected.groups import Names
from src.collected.named_networks import UNLISTED
from src.collected.sections import Section, by_groups, titled_in_figures
from src.collected.verdicts import SEPARATOR
from src.ground.console import result, table
from src.ground.figures import joined
from src.ground.files import write_text
from src.ground.user_code import titles_in
from src.reports.captions import common, describe_stitches
from src.reports.grid_figures import labels_of
from src.reports.group_maps import IN_FIGURE, draw_groups
from src.reports.heat_maps import maps
from src.reports.map_panels import HeatMap, Panel
from src.reports.verdict_maps import (
    IN_MAIN_FIGURE,
    heat_map,
    shares_of_verdicts,
    title_of_map,
    verdict_map,
)
from src.reports.verdict_words import conclusion, estimate, heading, number
from src.runs.folders import StitchingRun
from src.runs.network_pairs import PAIRS
from src.tables.matrices import is_known, mean_of, pivot
from src.tables.quantities import IN_VERDICT, shown_in
from src.tables.tables import write_table
from src.tables.verdict_rows import AUROC, GroupRow, GroupTestRow, VerdictRow
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
    """Draw the maps of several verdicts, and the maps of groups.

    Args:
        path: of the table.
        parts: from `parts_of`.
        title: the text above the figures.
        runs: that were judged, for captions.
        names: of the networks, for captions; None: they are named by checkpoint and type.
        comparison: of the groups of networks; None: there is none.
    """
    rows = list(chain.from_iterable(part.rows for part in parts))

    def caption_of(rows: Sequence[VerdictRow]) -> str:
        of_page = _runs_of(rows, runs)
        if not of_page:
            return ""
        return describe_stitches([run.row for run in of_page], names=names)

    if comparison is not None and comparison.groups:
        draw_groups(
            path.with_name(f"{path.stem}_groups.png"),
            comparison.groups,
            comparison.tests,
            limits,
            title=title,
            caption=caption_of(_in_groups(rows)),
        )
    sections = list(chain.from_iterable(map(by_groups, parts)))
    if len(rows) > 1:
        _draw_maps(path, rows, sections, limits, title=title, caption_of=caption_of)


def _in_groups(rows: Iterable[VerdictRow]) -> list[VerdictRow]:
    """Return the verdicts on pairs of networks that are in a group."""
    return [
        row
        for row in rows
        if row.kind == PAIRS and UNLISTED not in (row.front_group, row.end_group)
    ]


def _runs_of(rows: Iterable[VerdictRow], runs: Iterable[StitchingRun]) -> list[StitchingRun]:
    """Return the runs that verdicts are on."""
    judged = {(folder, row.pair) for row in rows for folder in row.folders.split(SEPARATOR)}
    return [run for run in runs if (run.folder.name, run.row.pair) in judged]


def _draw_maps(
    path: Path,
    rows: Sequence[VerdictRow],
    sections: Sequence[Section],
    limits: Limits,
    *,
    title: str,
    caption_of: Callable[[Sequence[VerdictRow]], str],
) -> None:
    """Draw the maps: a column of panels a section, a line a quantity.

    The main figure has what the verdicts rest on, and ends with them. The further quantities have a
    figure for themselves.
    """
    has_summary = any(section.is_summary for section in sections)
    main_quantities = IN_FIGURE if has_summary else IN_MAIN_FIGURE
    further = [
        name
        for name in shown_in(IN_VERDICT)
        if name not in main_quantities and is_known(rows, name)
    ]
    detector = _most_used_detector(rows)
    end_accuracy = float(common(rows, "end_accuracy") or np.nan)
    main_maps: dict[str, dict[str, Panel]] = {}
    further_maps: dict[str, dict[str, Panel]] = {}
    titled = titled_in_figures(sections)
    for row_title, section in titled.items():
        main_maps[row_title] = {
            **_heat_maps(section, main_quantities, limits, end_accuracy=end_accuracy),
            **_verdicts(section, limits),
        }
        further_maps[row_title] = {
            **_heat_maps(section, further, limits),
            **_auroc_map(section, detector, limits),
        }
    labels = labels_of({name: section.rows for name, section in titled.items()})

    def rows_of(titles: Collection[str]) -> list[VerdictRow]:
        return list(chain.from_iterable(titled[title].rows for title in titles))

    def caption_of_verdicts(titles: Collection[str]) -> str:
        rows = rows_of(titles)
        return joined(conclusion(rows), caption_of(rows))

    drawn = path.with_suffix(".png")
    maps(drawn, main_maps, labels=labels, title=title, caption=caption_of_verdicts)
    if any(further_maps.values()):
        drawn = path.with_name(f"{path.stem}_numbers.png")
        maps(
            drawn,
            further_maps,
            labels=labels,
            title=title,
            caption=lambda titles: caption_of(rows_of(titles)),
        )


def _heat_maps(
    section: Section, names: Sequence[str], limits: Limits, *, end_accuracy: float = np.nan
) -> dict[str, Panel]:
    """Return the heat map of each quantity of a section, or of its mean over pairs of networks."""
    mean = "mean " if section.is_summary else ""
    panels: dict[str, Panel] = {}
    for name in names:
        matrix = mean_of(section.rows, name)
        panel = heat_map(name, matrix, limits, end_accuracy=end_accuracy)
        panels[f"{mean}{title_of_map(name)}"] = panel
    return panels


def _most_used_detector(rows: Sequence[VerdictRow]) -> str:
    """Return the detector of most stitches, on a tie the paper's; "" without detectors."""
    names = Counter(name for row in rows for name in row.further if name.startswith(AUROC))
    if not names:
        return ""
    return max(names, key=lambda name: (names[name], name == f"{AUROC}energy")).removeprefix(AUROC)


def _auroc_map(section: Section, detector: str, limits: Limits) -> dict[str, HeatMap]:
    """Return the map of the AUROC of a detector, by its title; {} for means over networks."""
    if section.is_summary or not detector:
        return {}
    matrix = pivot(section.rows, lambda row: row.further.get(f"{AUROC}{detector}", np.nan))
    panel = heat_map("auroc", matrix, limits)
    if detector not in SCORES:
        return {f"AUROC ({detector})": panel}
    score = SCORES[detector]
    meaning = f"{panel.meaning}; the detector: {score.description}"
    return {f"AUROC ({score.title})": panel._replace(meaning=meaning)}


def _verdicts(section: Section, limits: Limits) -> dict[str, Panel]:
    """Return the map of the verdicts of a section, by its title."""
    shares = shares_of_verdicts(section.rows)
    if section.is_summary:
        return {"verdicts": verdict_map(shares, limits, of="pairs of networks")}
    return {"verdict": verdict_map(shares, limits)}
