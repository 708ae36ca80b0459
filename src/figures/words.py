"""Verdicts in words: maps of their signs, counts, reasons with their remedies, and groups of networks.

Accuracy drops are in points of accuracy, other quantities in their own unit.
"""

import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from src.choices import WITH_POSITIONS, on_lost_positions
from src.choices.similarity import measure_of
from src.core.console import aligned, listed, note, points
from src.core.grouping import grouped
from src.core.user_code import titles_in
from src.figures.sections import Section, parts_of, sections_of
from src.figures.shown import SHARE
from src.results.matrices import pivot
from src.results.network_names import short
from src.results.quantities import QUANTITIES
from src.results.reports import ALL_LAYERS, CORRESPONDING, on_unlike_types
from src.results.verdict_rows import VerdictRow
from src.statistics.intervals import ALPHA
from src.verdict import ACCURATE_ONLY, INCONCLUSIVE, NOT_MATCHED, SIMILAR, VERDICTS, Limits

if TYPE_CHECKING:
    from pandas import DataFrame

SIGNS = {SIMILAR: "S", ACCURATE_ONLY: "A", NOT_MATCHED: "–", INCONCLUSIVE: "?"}
OF_GROUPS = (SHARE, "accuracy_drop", "skill", "skill_at_end")
HEADINGS = {  # others have the quantity's title
    SHARE: "share similar",
    "accuracy_drop": "accuracy drop",
    "skill": "skill at the output",
}
CONTROLS = {  # by `VerdictRow.control`; and how many of them must be similar
    "self": ("layers stitched to themselves", "all must be"),
    "untrained": ("stitches from networks that were never trained", "none may be"),
}
NO_CHOICE = "only one layer"  # in place of a share that could not be other than 1
# What best matches answer, by the side of the layer in stitches; of similarity there are no sides
SOUGHT = {"front": "best end layer", "end": "best front layer", "": "best match"}
LOW = 0.5  # an end network with a lower accuracy is named
N_NAMED = 3  # networks, or pairs of networks, that a line names
WIDTH = 120  # characters of a printed line
MAX_TESTS = 12  # lines of tests between groups, a method

SKILL = (
    "Skill says how closely a stitched network follows the end network from input to input of a class: 1 is the end "
    "network itself, 0 the baseline, which untrained features reach when given the class. It is (r − baseline) / (1 − "
    "baseline), where r is the correlation of stitched and end network's values, both less the means of their classes "
    "(misc/docs/methods.md)."
)
CAUTION = (
    "Similar says that an affine map of the front layer leads the end network to the answers that it gives by itself, "
    "and to its own differences between inputs of a class. It does not say that both networks compute in the same way."
)


class Table(NamedTuple):
    """A table of texts."""

    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[str]]

    def __str__(self) -> str:
        """Return the title above the columns; all but the first are flush right."""
        return f"{self.title}\n{aligned([self.header, *self.lines], to_right=True)}"


def heading(name: str) -> str:
    """Return the heading of a column of a quantity or of a measure of similarity."""
    if name in HEADINGS:
        return HEADINGS[name]
    return QUANTITIES[name].title if name in QUANTITIES else measure_of(name).title


def number(name: str, value: float | None, *, sign: str = "") -> str:
    """Return a value of a quantity as a text; "" of None and NaN."""
    if value is None or math.isnan(value):
        return ""
    if name == "accuracy_drop":
        return points(value, sign=sign)
    return f"{round(value, 2) + 0.0:{sign}.2f}"  # −0.0 becomes 0.0


def estimate(row: VerdictRow, name: str) -> str:
    """Return a value with its interval as a text; "" where the value is not known."""
    text = number(name, getattr(row, name))
    ends = [number(name, getattr(row, f"{name}_{end}", None)) for end in ("low", "high")]
    return f"{text} [{', '.join(ends)}]" if all(ends) else text


def report(
    rows: Sequence[VerdictRow],
    limits: Limits,
    groups: "DataFrame",
    tests: "DataFrame",
    *,
    has_maps: bool,
) -> str:
    """Return the verdicts in words, in paragraphs.

    Args:
        groups, tests: of the groups of networks.
        has_maps: begin with the maps of the words.
    """
    sections = sections_of(rows)
    mapped = parts_of(sections) if has_maps else []
    signs = [
        f"{SIGNS[verdict]}  {verdict}: {meaning}" for verdict, meaning in meanings(limits).items()
    ]
    if any(section.is_summary for section in mapped):
        signs.append("n/m  pairs of networks: similar, of all")
    if mapped:
        signs.append("Rows are front layers, columns are end layers.")
    blocks = [
        *map(str, map(word_map, mapped)),
        _wrapped([*signs, SKILL, certainty(limits), CAUTION]),
        str(counts(sections)),
        _wrapped(reasons(rows)),
        *map(str, tables_of_groups(groups, tests)),
        _wrapped(lines_on_groups(groups, tests)),
        _wrapped(remarks(rows, limits)),
    ]
    return "\n\n".join(filter(None, blocks))


def _wrapped(sentences: Iterable[str]) -> str:
    """Return sentences in lines of limited width, each from a new line on."""
    return "\n".join(textwrap.fill(text, WIDTH, break_on_hyphens=False) for text in sentences)


def word_map(section: Section) -> Table:
    """Return the sign of the verdict on each pair of layers, · if it was not stitched; of several pairs of
    networks, how many are similar of how many."""
    words = grouped(section.rows, lambda row: row.pair)

    def cell(row: VerdictRow) -> str:
        of_layers = [judged.verdict for judged in words[row.pair]]
        if section.is_summary:
            return f"{of_layers.count(SIMILAR)}/{len(of_layers)}"
        return SIGNS[of_layers[0]]

    matrix = pivot(section.rows, cell, missing="·")
    lines = [[label, *cells] for label, cells in zip(matrix.rows, matrix.values, strict=True)]
    return Table(titles_in(section.title), ["", *matrix.columns], lines)


def meanings(limits: Limits) -> dict[str, str]:
    """Return the meaning of each word."""
    return {
        SIMILAR: f"less than {100 * limits.tolerance:g} points of accuracy drop, with a skill above "
        f"{limits.skill_at_end:g} at the end layer ({limits.skill:g} with two or three classes) and {limits.skill:g} "
        "at the output",
        ACCURATE_ONLY: "an accuracy drop as small, but a skill below its limit at one of the two places",
        NOT_MATCHED: "a larger accuracy drop by this method; another may do better",
        INCONCLUSIVE: "none of these is certain, for a reason that is given",
    }


def certainty(limits: Limits) -> str:
    """Return the sentence on the tests behind the words."""
    if limits.pairwise:
        return "Tests are at the level of 5 %, of each pair of layers by itself."
    return (
        "Tests are at the level of 5 %: of the accuracy drop with a correction for all pairs of layers of a method in "
        "networks of the same types (false discovery rate), of skill in each pair by itself."
    )


def counts(sections: Sequence[Section]) -> Table:
    """Return how many pairs of layers have each verdict, and how many of the same layer or stitched both
    ways are similar; columns without a number are left out."""
    lines = []
    for section in sections:
        words = Counter(row.verdict for row in section.rows)
        same_layers = [
            row.verdict == SIMILAR
            for row in section.rows
            if row.front_model_type == row.end_model_type and row.front_layer == row.end_layer
        ]
        both_ways = {  # both directions may be in the section
            frozenset(
                {(row.front_network, row.front_layer), (row.end_network, row.end_layer)}
            ): row.both_ways
            for row in section.rows
            if row.both_ways is not None
        }
        numbers = [str(words[verdict]) for verdict in VERDICTS]
        shares = [_share(same_layers), _share(both_ways.values())]
        lines.append([titles_in(section.title), *numbers, str(len(section.rows)), *shares])
    header = ["method", *VERDICTS, "all", "similar at the same layer", "similar both ways"]
    columns = [column for column in zip(header, *lines, strict=True) if any(column[1:])]
    header, *lines = map(list, zip(*columns, strict=True))
    return Table("Pairs of layers", header, lines)


def _share(are_similar: Iterable[bool]) -> str:
    """Return how many are true, as "2 of 4"; "" without any."""
    values = list(are_similar)
    return f"{sum(values)} of {len(values)}" if values else ""


def conclusion(rows: Sequence[VerdictRow]) -> str:
    """Return the outcome in one sentence; controls count only if there is nothing else."""
    stitches = [row for row in rows if row.control is None] or rows
    parts = []
    for method, of_method in grouped(stitches, lambda row: row.method).items():
        n_similar = sum(row.verdict == SIMILAR for row in of_method)
        n_accurate = sum(row.p_below is not None and row.p_below < ALPHA for row in of_method)
        parts.append(
            f"in {n_accurate} of {len(of_method)} stitches by {titles_in(method)}, {n_similar} of them similar"
        )
    return f"The accuracy of the end network is kept {'; '.join(parts)}."


def reasons(rows: Iterable[VerdictRow]) -> list[str]:
    """Return a line for each reason of *accurate only* and *inconclusive*: how often, by which methods, and
    the remedy, without the numbers of pairs."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        if row.verdict in (ACCURATE_ONLY, INCONCLUSIVE):
            reason = re.sub(r" \(.*?\)", "", row.reason).removeprefix("accurate, but ")
            found.setdefault((row.verdict, reason), Counter()).update([titles_in(row.method)])
    lines = []
    for (verdict, reason), methods in found.items():
        counted = ", ".join(f"{n} by {method}" for method, n in methods.items())
        lines.append(f"{verdict.capitalize()}, {counted}: {reason}.")
    return sorted(lines)


def remarks(rows: Sequence[VerdictRow], limits: Limits) -> Iterator[str]:
    """Yield the sentences on lost positions, on networks of low accuracy and on controls."""
    positions = on_lost_positions(row.stitching_type for row in rows for _ in range(row.n_runs))
    if positions:
        yield f"{positions} {WITH_POSITIONS}"
    low = {}
    worse = {}
    for row in rows:
        accuracy = row.end_accuracy
        if accuracy is not None and accuracy < LOW:
            low[row.end_network or row.networks] = f"{100 * accuracy:.0f} %"
        if accuracy is not None and row.control is None and row.front_accuracy is not None:
            worse[row.networks] = round(accuracy - row.front_accuracy, 9)
    if low:
        named = listed((f"{name} ({accuracy})" for name, accuracy in low.items()), n=N_NAMED)
        yield f"The end network alone is right about less than half of the inputs: {named}."
    losses = {name: loss for name, loss in worse.items() if loss > limits.tolerance}
    if losses:
        named = listed((f"{name} ({points(loss)})" for name, loss in losses.items()), n=N_NAMED)
        yield (
            f"In {len(losses)} of {len(worse)} pairs of networks the front network alone is up to "
            f"{points(max(losses.values()))} points less accurate than the end network, more than a similar stitch may "
            f"lose, so its last layers can hardly be similar: {named}."
        )
    for kind, (title, must) in CONTROLS.items():
        words = [row.verdict for row in rows if row.control == kind]
        if words:
            yield (
                f"Control: of {len(words)} {title} {words.count(SIMILAR)} are similar ({must}), "
                f"{words.count(INCONCLUSIVE)} inconclusive."
            )


def tables_of_groups(
    groups: "DataFrame", tests: "DataFrame", names: Sequence[str] = OF_GROUPS
) -> list[Table]:
    """Return the means of each method, a line a pair of groups, and the differences between groups with
    their p-values, a line a question.

    Args:
        groups, tests: of `src.results.reports.Comparison`.
        names: of the quantities.
    """
    headings = list(map(heading, names))
    tables = []
    for method, of_method in _rows_by(groups, "method").items():
        lines = []
        for networks, means in grouped(of_method, attrgetter("networks")).items():
            row_of = {row.quantity: row for row in means}
            n_pairs = max(row.n_pairs for row in means)
            n_layers = max(row.n_layers for row in means)
            values = [_mean(row_of, name, n_layers) for name in names]
            lines.append([f"{titles_in(networks)} ({n_pairs})", *values])
        title = f"Groups, {titles_in(method)}: means over {of_method[0].layers}"
        tables.append(Table(title, ["front → end (pairs of networks)", *headings], lines))
    tested = [name for name in names if name != SHARE]
    for method, of_tests in _rows_by(tests, "method").items():
        lines = []
        for question, answers in grouped(of_tests, _question).items():
            texts = {}
            for test in answers:
                difference = number(test.quantity, test.difference, sign="+")
                texts[test.quantity] = f"{difference} ({test.p_value:.2g})"
            lines.append([question, *(texts.get(name, "") for name in tested)])
        title = f"Differences between groups, {titles_in(method)} (p-value)"
        tables.append(Table(title, ["question", *map(heading, tested)], lines[:MAX_TESTS]))
    return tables


def _rows_by(frame: "DataFrame", *names: str) -> dict[Any, list[Any]]:
    """Return the rows of a frame by the value in a column, or by those in several."""
    return grouped(frame.itertuples(index=False), attrgetter(*names))


def _question(test: Any) -> str:
    """Return the question that a test answers."""
    return f"({titles_in(test.within)}) − ({titles_in(test.across)})"


def _mean(row_of: Mapping[str, Any], name: str, n_layers: float) -> str:
    """Return the mean of a quantity as a text, with the number of its layers if it has fewer than
    `n_layers`; of similar pairs with the share that they had with all that is inconclusive.

    Args:
        row_of: the means of a pair of groups, by quantity.
    """
    row = row_of.get(name)
    if row is None:
        return ""
    text = number(name, row.value)
    if row.n_layers < n_layers:
        text += f" ({round(row.n_layers, 1):g} of {round(n_layers, 1):g} layers)"
    if name == SHARE and INCONCLUSIVE in row_of and row_of[INCONCLUSIVE].value > 0:
        text += f" to {number(SHARE, row.value + row_of[INCONCLUSIVE].value)}"
    return text


def lines_on_groups(groups: "DataFrame", tests: "DataFrame") -> Iterator[str]:
    """Yield the layers that means are over, with their groups if these have several sets; and lines on
    p-values and their limits, on questions that are not shown, and on unlike types."""
    of_groups = _rows_by(groups, "method", "networks").values()
    complete = [max(rows, key=lambda row: row.n_layers) for rows in of_groups]
    sets = grouped(complete, lambda row: row.pairs_of_layers)
    for layers, of_layers in sets.items():
        pairs = ", ".join(dict.fromkeys(titles_in(row.networks) for row in of_layers))
        subject = f" of {pairs}" if len(sets) > 1 else ""
        yield f"Layers (relative depths){subject}: {listed(layers.split('; '))}"
    if len(groups) and (groups.value[groups.quantity == INCONCLUSIVE] > 0).any():
        yield "A share of similar pairs has two bounds: without and with the inconclusive stitches."
    if len(sets) > 1:
        yield "The groups are compared over different layers, from which their difference may come as well."
    if tests.empty:
        return
    yield "p is two-sided, by permutations of the networks, and not corrected for the number of tests."
    yield from _lowest_p(tests)
    n_questions = len(tests[["within", "across"]].drop_duplicates())
    if n_questions > MAX_TESTS:
        yield f"{n_questions - MAX_TESTS} more comparisons of groups are in the CSV of tests."
    if on_unlike_types(tests):
        yield on_unlike_types(tests)


def _lowest_p(tests: "DataFrame") -> Iterator[str]:
    """Yield the lower limit of p for each two sizes of groups."""
    sizes = tests[["n_networks", "n_second"]].astype(int)
    by_sizes = tests.assign(fewest=sizes.min(axis=1), most=sizes.max(axis=1))
    for row in by_sizes.drop_duplicates(["fewest", "most"]).itertuples():
        yield (
            f"{row.n_labelings:.0f} ways to give {row.most} + {row.fewest} networks their groups are compared, so no p "
            f"of such groups can be below {row.lowest_p:.2g}."
        )


def note_on_layers(groups: "DataFrame") -> None:
    """Print a note if the means of groups are over different pairs of layers."""
    if groups.empty:
        return
    for layers, rows in groups.groupby("layers"):
        if layers in (CORRESPONDING, ALL_LAYERS):
            note(
                f"{listed(rows.method.unique())}: the means of groups are over {layers}, and these differ between "
                "pairs of networks; so a difference between groups may come from the layers"
            )


def tables_of_shares(
    shares: "DataFrame",
) -> list[tuple[str, list[str], list[str], list[list[Any]]]]:
    """Return the shares of best matches that are the corresponding layers, in a table for each method and
    side: its title, lines, columns and cells.

    A table has a line for each pair of groups, and for each measure a column of shares and one of the
    chance of a random layer. Where a layer had no other to be compared with, cells say so.

    Args:
        shares: from `src.results.reports.match_shares`.
    """
    tables = []
    for key, of_method in _rows_by(shares, "method", "dataset", "side").items():
        by_groups = grouped(of_method, attrgetter("networks"))
        columns = list(dict.fromkeys(row.quantity for row in of_method))
        cells = []
        for of_groups in by_groups.values():
            share_of = {row.quantity: _share_and_chance(row) for row in of_groups}
            cells.append(
                list(chain.from_iterable(share_of.get(name, ("", "")) for name in columns))
            )
        lines = [f"{titles_in(name)} ({rows[0].n_pairs})" for name, rows in by_groups.items()]
        titles = list(chain.from_iterable((heading(name), "chance") for name in columns))
        title = f"{SOUGHT[key[2]]}: how often it is the corresponding layer, {_method_and_data(*key[:2])}"
        tables.append((title, lines, titles, cells))
    return tables


def _share_and_chance(row: Any) -> tuple[float | str, float | str]:
    """Return the share of a measure and its chance, as cells of a table."""
    return (NO_CHOICE, "") if row.chance == 1 else (row.value, row.chance)


def tables_of_matches(
    matches: "DataFrame",
) -> list[tuple[str, list[str], list[str], list[list[str]]]]:
    """Return the best matches of layers, in a table for each pair of types, method and side: its title,
    lines, columns and cells.

    It has a line for each layer, and a column for each measure. A cell has the layer that is the best
    match in most pairs of networks, and in how many.

    Args:
        matches: from `src.results.reports.best_matches`.
    """
    tables = []
    keys = ("method", "dataset", "side", "front_type", "end_type")
    for (*data, side, first, second), of_table in _rows_by(matches, *keys).items():
        by_layer = grouped(of_table, attrgetter("front_layer"))
        columns = list(dict.fromkeys(row.quantity for row in of_table))
        cells = []
        for of_layer in by_layer.values():
            known = [row.corresponding for row in of_layer if isinstance(row.corresponding, str)]
            by_measure = grouped(of_layer, attrgetter("quantity"))
            best = [_most_frequent(by_measure.get(name, ())) for name in columns]
            cells.append([", ".join(dict.fromkeys(";".join(known).split(";"))), *best])
        names = [short(titles_in(kind)) for kind in (second, first)]
        title = (
            f"{SOUGHT[side]} in {names[0]} for each layer of {names[1]}, {_method_and_data(*data)}"
        )
        tables.append((title, list(by_layer), ["corresponding", *map(heading, columns)], cells))
    return tables


def _method_and_data(method: str, dataset: Any) -> str:
    """Return the method and the data set, as a text."""
    return f"{method}, {short(dataset)}" if isinstance(dataset, str) else method


def _most_frequent(matches: Sequence[Any]) -> str:
    """Return the most frequent best match and its count, such as "layer3 (4/5)"; "" without matches."""
    if not matches:
        return ""
    ((layer, n_pairs),) = Counter(row.end_layer for row in matches).most_common(1)
    return f"{layer} ({n_pairs}/{len(matches)})"
