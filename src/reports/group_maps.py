"""The figure of groups of networks: front groups × end groups, with p-values in its caption."""

import math
from collections.abc import Sequence
from pathlib import Path

from src.collected.between_groups import SHARE
from src.ground.grouping import grouped
from src.reports.heat_maps import Labels, maps
from src.reports.map_panels import HeatMap
from src.reports.verdict_maps import heat_map
from src.tables.matrices import Matrix
from src.tables.network_names import short
from src.tables.quantities import QUANTITIES
from src.tables.verdict_rows import GroupRow, GroupTestRow
from src.verdict import Limits

SHARE_TITLE = "share of similar pairs"
SHOWN = (SHARE, "penalty", "identification")
MAX_QUESTIONS = 12  # of a method, whose p-values the caption has


def title_of(quantity: str) -> str:
    """Return the title of a quantity of groups; a measure of similarity is its own title."""
    if quantity == SHARE:
        return SHARE_TITLE
    return QUANTITIES[quantity].title if quantity in QUANTITIES else quantity


def draw_groups(
    path: Path,
    rows: Sequence[GroupRow],
    tests: Sequence[GroupTestRow],
    limits: Limits,
    *,
    title: str,
    caption: str,
) -> None:
    """Draw a panel for each quantity and method; nothing, if there is one pair of groups."""
    if len({(row.front_group, row.end_group) for row in rows}) < 2:
        return
    panels = {}
    for method, of_method in grouped(rows, lambda row: row.method).items():
        panels[method] = {title_of(name): _panel(name, of_method, limits) for name in SHOWN}
        p_values = _p_values([test for test in tests if test.method == method])
        caption += f" {method[0].upper()}{method[1:]}: means over {of_method[0].layers}{p_values}."
    labels = Labels("front group", "end group", "not stitched or not measured")
    maps(path, panels, labels=labels, title=title, caption=caption.strip())


def _panel(quantity: str, rows: Sequence[GroupRow], limits: Limits) -> HeatMap:
    """Return the heat map of the means of a quantity by a method."""
    values_of = {(row.front_group, row.end_group): row.values for row in rows}
    groups = list(dict.fromkeys(group for pair in values_of for group in pair))
    means = []
    for front in groups:
        line = [values_of.get((front, end), {}).get(quantity, math.nan) for end in groups]
        means.append(line)
    names = [*map(short, groups)]
    matrix = Matrix(names, names, means)
    return HeatMap(matrix) if quantity == SHARE else heat_map(quantity, matrix, limits)


def _p_values(tests: Sequence[GroupTestRow]) -> str:
    """Return the part of the caption on the tests of a method: the p-values by question."""
    if not tests:
        return ""
    answers = []
    questions = grouped(tests, lambda test: (test.within, test.across))
    for (within, across), of_question in questions.items():
        p_of = {test.quantity: f"{test.p_value:.2g}" for test in of_question}
        numbers = ", ".join(p_of.get(name, "–") for name in SHOWN)
        answers.append(f"({within}) − ({across}) {numbers}")
    if len(answers) > MAX_QUESTIONS:
        answers[MAX_QUESTIONS:] = [f"{len(answers) - MAX_QUESTIONS} more in the CSV of tests"]
    lowest = max(test.lowest_p for test in tests)
    return (
        f"; p-values of permutations of the networks ({', '.join(map(title_of, SHOWN))}; none can be below "
        f"{lowest:.2g}): {'; '.join(answers)}"
    )
