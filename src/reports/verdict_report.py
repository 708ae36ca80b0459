"""The report of a verdict: tables, maps of each method, and a paragraph of computed sentences."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from src.choices import WITH_POSITIONS, on_lost_positions
from src.choices.scores import SCORES
from src.choices.stitching import FORMS
from src.collected.between_groups import SHARE, GroupComparison
from src.collected.groups import FRESH_FRONT, SELF, Names
from src.collected.named_networks import UNLISTED
from src.collected.sections import Section, by_groups, titled_in_figures
from src.collected.verdicts import SEPARATOR
from src.ground.console import decimals, result, table
from src.ground.figures import joined
from src.ground.files import write_text
from src.ground.grouping import grouped
from src.ground.user_code import title_of as title_of_code
from src.ground.user_code import titles_in
from src.reports.captions import common, describe_stitches, on_convergence
from src.reports.grid_figures import labels_of
from src.reports.group_maps import (
    IN_FIGURE,
    SHARE_TITLE,
    draw_groups,
    lines_on_layers,
    on_types,
    title_of,
)
from src.reports.heat_maps import maps
from src.reports.map_panels import HeatMap, Panel
from src.reports.verdict_maps import (
    IN_MAIN_FIGURE,
    heat_map,
    shares_of,
    shares_of_verdicts,
    title_of_map,
    verdict_map,
)
from src.runs.folders import StitchingRun
from src.runs.network_pairs import IN_SHORT, PAIRS
from src.tables.matrices import Matrix, is_known, mean_of, pivot
from src.tables.quantities import IN_VERDICT, QUANTITIES, shown_in
from src.tables.tables import write_table
from src.tables.verdict_rows import AUROC, GroupRow, GroupTestRow, VerdictRow
from src.values import IntervalEstimate
from src.verdict import NOT_MATCHED, SIMILAR, UNDECIDED, VERDICTS, Limits

IN_SUMMARY = ("penalty", "skill", "skill_at_end")  # beside the share of similar pairs
CONTROLS = {  # and how many of them must be similar
    SELF: ("layers stitched to themselves", "all must be"),
    FRESH_FRONT: ("stitches from networks that were never trained", "none may be"),
}
REASONS = {  # of undecided pairs, in captions
    "the penalty may lie on either side of the tolerance": "by an uncertain penalty",
    "the penalty is on one side of the tolerance, but not certainly as one of several pairs": "by an uncertain penalty",
    "skill may be on either side of its limit": "by uncertain skill",
    "the training had not converged": "by an unfinished training",
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
        return describe_stitches(
            [run.row for run in of_page], names=names, remark=on_convergence(of_page)
        )

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
        return joined(caption_of(rows), _on_undecided(rows), _on_worse_fronts(rows, limits))

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


def _on_undecided(rows: Sequence[VerdictRow]) -> str:
    """Return the sentence of captions on undecided stitches, with the reasons; "" where there are
    none."""
    methods = grouped(
        rows, lambda row: ", ".join(filter(None, (row.method, IN_SHORT.get(row.kind))))
    )
    texts = []
    for method, of_method in methods.items():
        undecided = [row.reason for row in of_method if row.verdict == UNDECIDED]
        whole = [reason.partition(":")[0].removeprefix("accurate, but ") for reason in undecided]
        reasons = Counter(REASONS.get(reason, f"as {reason}") for reason in whole)
        if reasons:
            by_method = f" by {method}" if len(methods) > 1 else ""
            counted = ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common())
            texts.append(
                f"{reasons.total():,} of {len(of_method):,} stitches{by_method} ({counted})"
            )
    return f"Undecided: {', '.join(texts)}." if texts else ""


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


def _on_worse_fronts(rows: Sequence[VerdictRow], limits: Limits) -> str:
    """Return the sentence of captions on front networks that are worse than their end networks; ""
    where there are none."""
    worse = _worse_fronts(rows, limits)
    if not worse:
        return ""
    n_pairs = len({row.networks for row in rows if row.control is None})
    return (
        f"The front network alone is more than {100 * limits.tolerance:g} points less accurate than the end network in "
        f"{len(worse)} of {n_pairs} pairs of networks."
    )


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
