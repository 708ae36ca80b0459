"""The report of a verdict: tables, maps of each method, and a paragraph of computed sentences."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from src.choices import WITH_POSITIONS, on_lost_positions
from src.choices.stitching import FORMS
from src.collected.between_groups import SHARE, GroupComparison
from src.collected.groups import FRESH_FRONT, SELF, Names
from src.collected.sections import Section
from src.figures.captions import on_data
from src.figures.evidence import draw_evidence
from src.figures.groups import draw_groups
from src.figures.networks import draw_networks
from src.figures.shown import of_networks
from src.ground.console import decimals, result, table
from src.ground.files import write_text
from src.ground.grouping import grouped
from src.ground.user_code import title_of as title_of_code
from src.ground.user_code import titles_in
from src.reports.group_words import SHARE_TITLE, lines_on_layers, on_types, title_of
from src.runs.folders import StitchingRun
from src.tables.matrices import Matrix, is_known, mean_of, mean_pivot
from src.tables.quantities import IN_VERDICT, QUANTITIES, shown_in
from src.tables.tables import write_table
from src.tables.verdict_rows import GroupRow, GroupTestRow, VerdictRow
from src.values import IntervalEstimate
from src.verdict import NOT_MATCHED, SIMILAR, UNDECIDED, VERDICTS, Limits

IN_SUMMARY = ("penalty", "skill", "skill_at_end")  # beside the share of similar pairs
CONTROLS = {  # and how many of them must be similar
    SELF: ("layers stitched to themselves", "all must be"),
    FRESH_FRONT: ("stitches from networks that were never trained", "none may be"),
}
ROUNDING = 1e-9  # of differences of accuracies
LOW = 0.5  # the report names end networks with a lower accuracy
MAX_NAMED = 6  # networks, or pairs of networks, that have a sentence each
MAX_TESTS = 12  # lines of tests between groups, a method


def print_verdicts(rows: Sequence[VerdictRow]) -> None:
    """Print a line for each verdict."""
    for row in rows:
        estimates = [_estimate(row, name) for name in shown_in(IN_VERDICT)]
        parts = [f"accuracy {row.accuracy:.4f}", *filter(None, estimates), row.reason]
        title = f"{row.method}, {row.networks}"
        result(f"{title}: {row.pair}: {row.verdict} ({'; '.join(parts)})")


def _estimate(row: VerdictRow, name: str) -> str:
    """Return a value with its interval as a text; "" where the value is not known."""
    value = getattr(row, name)
    if value is None:
        return ""
    low = getattr(row, f"{name}_low", None)
    high = getattr(row, f"{name}_high", None)
    quantity = QUANTITIES[name]
    if low is None or high is None:
        return f"{quantity.title} {decimals(value)}"
    return f"{quantity.title} {IntervalEstimate(value, low, high)}"


def print_matrices(parts: Iterable[Section]) -> None:
    """Print matrices of each part: the known quantities of a verdict, such as penalties, or their
    means over pairs of networks.

    Args:
        parts: from `parts_of`.
    """
    for section in parts:
        matrices: dict[str, Matrix] = {}
        if section.is_summary:
            mean = "mean "
            names: Collection[str] = IN_SUMMARY
            matrices[SHARE_TITLE] = shares_of(SIMILAR, section.rows)
        else:
            mean = ""
            names = shown_in(IN_VERDICT)
        for name in names:
            if is_known(section.rows, name):
                matrices[f"{mean}{QUANTITIES[name].title}"] = mean_of(section.rows, name)
        subject = titles_in(section.title)
        for title, matrix in matrices.items():
            table(f"{title}, {subject}", *matrix)
            result()


def shares_of(word: str, rows: Iterable[VerdictRow]) -> Matrix:
    """Return the matrix (front layers, end layers) of the share of stitches with a verdict, such as
    similar."""
    return mean_pivot(rows, lambda row: float(row.verdict == word))


def print_groups(rows: Sequence[GroupRow]) -> None:
    """Print a table for each method: a line a pair of groups, a column a quantity; and its layers."""
    columns = (SHARE, *IN_SUMMARY)
    titles = [SHARE, *(QUANTITIES[name].title for name in IN_SUMMARY)]
    for method, rows_of_method in grouped(rows, lambda row: row.method).items():
        lines = [
            f"{title_of_code(row.front_group)} → {title_of_code(row.end_group)} ({row.n_networks})"
            for row in rows_of_method
        ]
        values = [[row.values.get(name, np.nan) for name in columns] for row in rows_of_method]
        title = f"groups (and pairs of networks), {method}, means over {rows_of_method[0].layers}"
        table(title, lines, titles, values)
        result("\n".join(lines_on_layers(rows_of_method)))
        result()


def write_tables(
    path: Path,
    rows: Sequence[VerdictRow],
    lines: Iterable[str] = (),
    *,
    groups: Sequence[GroupRow] = (),
    tests: Sequence[GroupTestRow] = (),
) -> None:
    """Write the CSV, and beside it the lines of text (`.md`) and tables of groups."""
    write_table(path, VerdictRow, rows)
    text = [f"# Verdict on {len(rows)} stitched pairs of layers", "", *lines, ""]
    write_text(path.with_suffix(".md"), "\n".join(text))
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


def sentences(
    rows: Sequence[VerdictRow],
    sections: Iterable[Section],
    limits: Limits,
    tests: Sequence[GroupTestRow] = (),
) -> list[str]:
    """Return the verdicts in words: the rule, each section, the controls, tests between groups.

    Args:
        sections: of all rows, from `sections_of`.
    """
    lines = [rule(limits)]
    for section in sections:
        lines += _on_section(section)
    positions = on_lost_positions(row.stitching_type for row in rows for _ in range(row.n_runs))
    if positions:
        lines.append(f"{positions} {WITH_POSITIONS}")
    lines += _on_end_networks(rows)
    lines += _on_each_worse_front(rows, limits)
    for kind, (title, must) in CONTROLS.items():
        words = [row.verdict for row in rows if row.control == kind]
        if words:
            counted = f"{words.count(SIMILAR)} are similar ({must})"
            if UNDECIDED in words:
                counted += f", {words.count(UNDECIDED)} undecided"
            lines.append(f"Control: of {len(words)} {title} {counted}.")
    for tests_of_method in grouped(tests, lambda test: test.method).values():
        lines += _on_groups(tests_of_method)
    return lines


def _on_end_networks(rows: Sequence[VerdictRow]) -> Iterator[str]:
    """Yield a sentence on each end network with a low accuracy, or one on their number."""
    accuracies = {}
    for row in rows:
        if row.end_accuracy is not None and row.end_accuracy < LOW:
            accuracies[row.end_network or row.networks] = row.end_accuracy
    if len(accuracies) > MAX_NAMED:
        yield f"{len(accuracies)} end networks alone are right about less than {LOW:.0%}."
        return
    for name, value in accuracies.items():
        yield f"The end network of {name} alone is right about {value:.0%}."


def _worse_fronts(
    rows: Iterable[VerdictRow], limits: Limits
) -> dict[str, tuple[VerdictRow, float]]:
    """Return the pairs of networks whose front network loses more than the tolerance by itself: a row
    and the loss, by their title."""
    worse = {}
    for row in rows:
        if row.control is None and row.front_accuracy is not None and row.end_accuracy is not None:
            difference = row.end_accuracy - row.front_accuracy
            if difference > limits.tolerance + ROUNDING:
                worse[row.networks] = (row, difference)
    return worse


def _on_each_worse_front(rows: Sequence[VerdictRow], limits: Limits) -> Iterator[str]:
    """Yield a sentence on each front network worse than its end network, or one on their number."""
    worse = _worse_fronts(rows, limits)
    consequence = "more than the tolerance: at the last layers it can hardly be similar."
    if len(worse) > MAX_NAMED:
        largest = max(difference for _, difference in worse.values())
        yield (
            f"In {len(worse)} pairs of networks the front network alone is up to {100 * largest:.1f} points worse than "
            f"its end network, {consequence}"
        )
        return
    for row, difference in worse.values():
        end = f"the end network {row.end_network}" if row.end_network else "its end network"
        yield (
            f"The front network of {row.front_network or row.networks} alone is {100 * difference:.1f} points worse "
            f"than {end}, {consequence}"
        )


def rule(limits: Limits) -> str:
    """Return the sentences on the rule, and on the meaning of *similar*."""
    tests = "false discovery rate over all pairs of one method and the same types of networks"
    if limits.pairwise:
        tests = "each pair for itself"
    return (
        f"A pair is similar if its penalty against the end network is below {100 * limits.tolerance:g} points (score "
        f"tests, {tests}), and its skill above {limits.skill:g} at the output and {limits.skill_at_end:g} at the end "
        "layer (both intervals lie above; 0: no better than the class beside untrained networks, 1: the end network "
        "itself). Similar says that an affine map of what the front shows takes the end network to its own answers, "
        "and to its own differences within a class; it does not say that the front computes the same."
    )


def _on_section(section: Section) -> Iterator[str]:
    """Yield the sentences on the verdicts of a section."""
    title = section.title
    rows = section.rows
    counts = Counter(row.verdict for row in rows)
    counted = ", ".join(f"{counts[name]} {name}" for name in VERDICTS)
    yield f"{title[0].upper()}{title[1:]}, {len(rows)} pairs: {counted}."
    reasons = Counter(row.reason for row in rows if row.verdict == UNDECIDED)
    if reasons:
        yield f"Undecided: {'; '.join(f'{reason} ({n})' for reason, n in reasons.most_common())}."
    of_one_type = [row for row in rows if row.front_model_type == row.end_model_type]
    diagonal = [row.verdict == SIMILAR for row in of_one_type if row.front_layer == row.end_layer]
    if diagonal and len(diagonal) < len(rows):
        yield f"Of the {len(diagonal)} pairs of layers of the same name {sum(diagonal)} are similar."
    both_ways = {}  # by pair of layers; its two directions may both be in the section
    for row in rows:
        front = (row.front_network, row.front_layer)
        end = (row.end_network, row.end_layer)
        if row.both_ways is not None:
            both_ways[frozenset({front, end})] = row.both_ways
    if both_ways:
        n_similar = sum(both_ways.values())
        yield f"Of {len(both_ways)} pairs that were stitched both ways {n_similar} are similar both ways."
    form = rows[0].method.split()[0]
    if counts[NOT_MATCHED] and form in ("direct", *FORMS):
        yield (
            f"Not matched is said of the method: a training on the layers behind (--objective fula) "
            f"may match what {rows[0].method} does not."
        )


def _on_groups(tests: Sequence[GroupTestRow]) -> Iterator[str]:
    """Yield a sentence for each question about the groups of a method, and one on the tests."""
    questions = grouped(tests, lambda test: (test.within, test.across))
    for (within, across), answers in list(questions.items())[:MAX_TESTS]:
        answer_of_quantity = {answer.quantity: answer for answer in answers}
        parts = []
        for name in (SHARE, *IN_SUMMARY):
            if name in answer_of_quantity:
                answer = answer_of_quantity[name]
                difference = decimals(answer.difference, sign="+")
                parts.append(f"{title_of(name)} {difference} (p = {answer.p_value:.2g})")
        question = f"({titles_in(within)}) − ({titles_in(across)})"
        yield f"{question}, {tests[0].method}: {', '.join(parts)}."
    if len(questions) > MAX_TESTS:
        yield f"{len(questions) - MAX_TESTS} more comparisons of groups are in the CSV of tests."
    lowest = max(test.lowest_p for test in tests)
    n_labelings = min(test.n_labelings for test in tests)
    yield (
        f"These are differences of means over {tests[0].layers}. The tests permute the networks: there are "
        f"{n_labelings} ways to give the labels of the groups to the networks, so that no p-value can be below "
        f"{lowest:.2g}."
    )
    yield from filter(None, [on_types(tests)])
