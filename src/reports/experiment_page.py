"""The page of an experiment: its results, how they came about, and all files, in one file of HTML."""

import io
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from src.collected.best_matches import BestMatchRow, tables_of_layers, tables_of_shares
from src.collected.between_groups import SHARE
from src.collected.groups import Names
from src.collected.record import Command, MeasuredNetwork
from src.collected.sections import by_groups, parts_of, sections_of
from src.ground import html_page as html
from src.ground.console import decimals, listed
from src.ground.grouping import grouped
from src.ground.html_page import Cell, Section
from src.ground.user_code import titles_in
from src.reports import similarity_report
from src.reports.captions import describe_stitches
from src.reports.group_words import SHARE_TITLE, lines_on_layers, on_types, title_of
from src.reports.match_report import MAX_TABLES
from src.reports.methods_text import by_method, description, how, on_versions
from src.reports.verdict_report import IN_SUMMARY, sentences, shares_of
from src.runs.folders import StitchingRun
from src.tables.image_records import RECORDS, SPLITS
from src.tables.matrices import Matrix, mean_of
from src.tables.network_names import SHORT
from src.tables.quantities import QUANTITIES
from src.tables.similarity_rows import SimilarityRow, described
from src.tables.verdict_rows import AUROC, GroupRow, GroupTestRow, VerdictRow
from src.values import IntervalEstimate, Pair
from src.verdict import SIMILAR, VERDICTS, Limits

QUESTION = (
    "Which layers of networks are functionally similar? The activation of a front network at one layer is mapped by "
    "an affine map to the activation space of a layer of an end network, which goes on from there. Two things are "
    "asked of this stitched network: is it as accurate as the end network, and does it follow the end network within a "
    "class, better than the class and untrained networks do?"
)
IN_GROUPS = (SHARE, *IN_SUMMARY)


def subject(
    runs: Sequence[StitchingRun], similarities: Sequence[SimilarityRow], names: Names
) -> str:
    """Return a text on the subject of the page: networks, data and methods.

    Args:
        names: of all networks.
    """
    if runs:
        return describe_stitches([run.row for run in runs], names=names)
    return similarity_report.describe(similarities)


def results(rows: Sequence[VerdictRow], limits: Limits) -> Section:
    """Return the counts of the verdicts, and sentences on the verdicts."""
    if not rows:
        return Section("Result", [])
    counts: list[list[Cell]] = []
    sections = sections_of(rows)
    for section in sections:
        words = Counter(row.verdict for row in section.rows)
        counts.append([section.title, *(words[word] for word in VERDICTS), len(section.rows)])
    rule, *findings = sentences(rows, sections, limits)
    header = ["method", *VERDICTS, "all pairs"]
    table = html.table("Verdicts on pairs of layers", header, counts)
    return Section(
        "Result", [html.paragraph(QUESTION), table, html.paragraph(rule), html.bullets(findings)]
    )


def figures(title: str, folder: Path, *patterns: str) -> Section:
    """Return a section with the figures of a folder that match patterns, in order, with captions."""
    elements = []
    for pattern in patterns:
        for image in sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name)):
            elements.append(html.figure(image, image.with_suffix(".txt").read_text().strip()))
    return Section(title, elements)


def pairs(rows: Sequence[VerdictRow]) -> Section:
    """Return a table of all pairs of layers for each method and pair of groups; of several pairs of
    networks, means."""
    tables = []
    for section in parts_of(sections_of(rows)):
        for part in by_groups(section):
            content = _means(part.rows) if part.is_summary else _verdicts(part.rows)
            tables.append(html.table(part.title, *content))
    return Section("All pairs of layers", tables)


def _verdicts(rows: Sequence[VerdictRow]) -> tuple[list[str], list[list[Cell]]]:
    """Return the header and the lines of the verdicts on two networks."""
    columns = described(tuple(dict.fromkeys(name for row in rows for name in row.further)))
    further = [name for name, column in columns.items() if not column.part]  # without nulls
    header = ["front layer", "end layer", "verdict", "accuracy", "penalty", "skill"]
    header += [
        "at end layer",
        *(name.replace(AUROC, "AUROC ").replace("_", " ") for name in further),
    ]
    lines = []
    for row in rows:
        line: list[Cell] = [row.front_layer, row.end_layer, row.verdict, row.accuracy]
        line += [_interval(row, "penalty"), _interval(row, "skill"), _interval(row, "skill_at_end")]
        line += [row.further.get(name) for name in further]
        lines.append([*line, row.reason])
    return [*header, "reason"], lines


def _interval(row: VerdictRow, name: str) -> Cell:
    """Return a value with its interval; without an interval the value."""
    value, low, high = (getattr(row, f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None or low is None or high is None:
        return value
    return IntervalEstimate(value, low, high)


def _means(rows: Sequence[VerdictRow]) -> tuple[list[str], list[list[Cell]]]:
    """Return the header and the lines of means over pairs of networks."""
    shares = shares_of(SIMILAR, rows)
    matrices = [shares, *(mean_of(rows, name) for name in IN_SUMMARY)]
    titles = [f"mean {QUANTITIES[name].title}" for name in IN_SUMMARY]
    n_networks = Counter(row.pair for row in rows)
    lines: list[list[Cell]] = []
    for i, front in enumerate(shares.rows):
        for j, end in enumerate(shares.columns):
            n = n_networks[Pair(front, end)]
            if n:
                lines.append([front, end, n, *(matrix.values[i][j] for matrix in matrices)])
    return ["front layer", "end layer", "pairs of networks", SHARE_TITLE, *titles], lines


def groups(folder: Path, rows: Sequence[GroupRow], tests: Sequence[GroupTestRow]) -> Section:
    """Return the means of pairs of groups of networks, in the figure of a folder and as tables, and
    the tests between groups."""
    tables = [*figures("", folder, "verdict_groups*.png").elements]
    for method, of_method in grouped(rows, lambda row: row.method).items():
        quantities = _shown({name for row in of_method for name in row.values})
        header = ["front group", "end group", "pairs of networks", *map(title_of, quantities)]
        lines: list[list[Cell]] = []
        for row in of_method:
            values = [row.values.get(name) for name in quantities]
            lines.append([row.front_group, row.end_group, row.n_networks, *values])
        title = f"{method}: means over {of_method[0].layers}"
        tables.append(html.table(title, header, lines))
        tables += map(html.paragraph, lines_on_layers(of_method))
    for method, answers in grouped(tests, lambda test: test.method).items():
        tables.append(_table_of_tests(method, answers))
    if on_types(tests):
        tables.append(html.paragraph(on_types(tests)))
    return Section("Groups of networks", tables)


def _table_of_tests(method: str, tests: Sequence[GroupTestRow]) -> str:
    """Return the table of the tests between groups by a method: a line a question, a column a
    quantity."""
    quantities = _shown({test.quantity for test in tests})
    lines: list[list[Cell]] = []
    for (within, across), answers in grouped(
        tests, lambda test: (test.within, test.across)
    ).items():
        differences = {
            answer.quantity: f"{decimals(answer.difference, sign='+')} ({answer.p_value:.2g})"
            for answer in answers
        }
        line = [differences.get(name) for name in quantities]
        lines.append(
            [f"({titles_in(within)}) − ({titles_in(across)})", *line, f"{answers[0].lowest_p:.2g}"]
        )
    header = ["question", *map(title_of, quantities), "smallest possible p"]
    title = f"{method}: differences between groups, with p of a permutation of the networks"
    return html.table(title, header, lines)


def _shown(quantities: set[str]) -> list[str]:
    """Return the quantities of groups that the page shows: of verdicts the main ones, of measures
    all."""
    return [name for name in IN_GROUPS if name in quantities] or sorted(quantities)


def matches(rows: Sequence[BestMatchRow]) -> Section:
    """Return how often best matches are the corresponding layers, and the best matches of layers."""
    tables = []
    for title, matrix in tables_of_shares(rows).items():
        tables.append(_table(title, "pair of groups (pairs of networks)", matrix))
    of_layers = tables_of_layers(rows)
    for title, matrix in list(of_layers.items())[:MAX_TABLES]:
        tables.append(_table(title, "layer", matrix))
    if len(of_layers) > MAX_TABLES:
        n = len(of_layers) - MAX_TABLES
        tables.append(html.paragraph(f"{n} more tables of layers can be made of best_matches.csv."))
    return Section("Best matches", tables)


def _table(title: str, corner: str, matrix: Matrix) -> str:
    """Return the table of a matrix.

    Args:
        corner: the name of the first column, of the labels of rows.
    """
    lines = [[label, *values] for label, values in zip(matrix.rows, matrix.values, strict=True)]
    return html.table(title, [corner, *matrix.columns], lines)


def networks(rows: Sequence[MeasuredNetwork]) -> Section:
    """Return the table of networks; a column that repeats another one is left out."""
    columns = {
        "name": [row.name for row in rows],
        "group": [row.group for row in rows],
        "type": [row.type for row in rows],
        "checkpoint": [row.checkpoint for row in rows],
        "data": [row.dataset for row in rows],
        "accuracy alone": [row.accuracy for row in rows],
        "SHA-256 of the weights": [row.weights for row in rows],
    }
    if columns["group"] == columns["type"]:
        del columns["group"]
    if columns["name"] == columns["checkpoint"]:
        del columns["checkpoint"]
    lines = zip(*columns.values(), strict=True)
    return Section("Networks", [html.table("The networks", list(columns), lines)])


def methods(runs: Sequence[StitchingRun]) -> Section:
    """Return the table of the methods of stitching."""
    lines: list[list[Cell]] = []
    for method, of_method in by_method(runs).items():
        for way, made_so in grouped(of_method, lambda run: how(run.options)).items():
            types = listed(dict.fromkeys(run.row.stitching_type for run in made_so))
            lines.append([method, types, way, len(made_so)])
    if not lines:
        return Section("Methods", [])
    header = ["method", "stitching layers", "made by", "stitches"]
    return Section("Methods", [html.table("The methods of stitching", header, lines)])


def for_paper(
    runs: Sequence[StitchingRun],
    similarities: Sequence[SimilarityRow],
    limits: Limits,
    commands: Sequence[Command],
    own_command: Command,
) -> Section:
    """Return the paragraph for the method section of a paper.

    Args:
        commands: that made the results.
        own_command: that makes the page.
    """
    text = description(by_method(runs), similarities, limits)
    versions = on_versions(commands, own_command)
    return Section("For the method section of a paper", [html.quotation(f"{text} {versions}")])


def made_with(
    commands: Sequence[Command], images: Mapping[str, Mapping[str, Sequence[str]]]
) -> Section:
    """Return the images, the versions and the commands of the results.

    Args:
        images: fingerprints by option and by data set, see `images_of`.
    """
    elements = []
    fingerprints = [
        [dataset, title, digest]
        for split, title in SPLITS.items()
        for dataset, digests in images[RECORDS[split]].items()
        for digest in digests
    ]
    if fingerprints:
        header = ["data", "images", "fingerprint (SHA-256)"]
        elements.append(html.table("The images", header, fingerprints))
    versions = dict.fromkeys(
        (row.suite, row.commit[:SHORT], row.packages, row.device) for row in commands
    )
    if versions:
        header = ["suite", "commit", "packages", "device"]
        elements.append(html.table("The versions", header, versions))
    lines = []
    for row in commands:
        results = "1 result" if row.n_runs == 1 else f"{row.n_runs} results"
        lines += [f"# {results}, {row.start[:16]} to {row.end[:16]}", row.command, ""]
    if lines:
        elements.append(html.code(lines[:-1]))
    return Section("How it was made", elements)


def archive(folder: Path, name: str) -> str:
    """Return a link to an archive of all tables and figures in a folder, which is in the page."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(set(folder.iterdir()) - set(folder.glob("*.png"))):
            file.write(path, f"{name}/{path.name}")
    size = len(content.getvalue()) / 1000
    text = f"Save all tables (CSV) and figures (PDF) as {name}.zip ({size:.0f} kB)"
    return html.file(f"{name}.zip", content.getvalue(), text)
