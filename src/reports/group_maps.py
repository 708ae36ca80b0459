"""The figure of groups of networks: front groups × end groups, with p-values in its caption."""

import math
from collections.abc import Sequence
from pathlib import Path

from src.collected.between_groups import SHARE
from src.ground import user_code
from src.ground.console import listed
from src.ground.figures import joined
from src.ground.grouping import grouped
from src.reports.heat_maps import Labels, maps
from src.reports.map_panels import Panel
from src.reports.verdict_maps import heat_map, title_of_map, verdict_map
from src.tables.matrices import Matrix
from src.tables.quantities import QUANTITIES
from src.tables.verdict_rows import GroupRow, GroupTestRow
from src.verdict import VERDICTS, Limits

SHARE_TITLE = "share of similar pairs"
IN_FIGURE = ("penalty", "skill")  # beside the verdicts
TESTED = (*VERDICTS, *IN_FIGURE)  # the caption has the p-values
LEVEL = 0.05  # of the p-values in captions
MAX_ANSWERS = 6  # that the caption has


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
    layers = {}
    for method, of_method in grouped(rows, lambda row: row.method).items():
        panels[method] = _panels(of_method, limits)
        layers[method] = of_method[0].layers
    for layers_of_methods, methods in grouped(layers, layers.__getitem__).items():
        of_methods = f" of {listed(methods)}" if len(methods) < len(layers) else ""
        caption = joined(caption, f"Means{of_methods} over {layers_of_methods}.")
    caption = joined(caption, _on_pairs(rows), _on_tests(tests), on_types(tests))
    labels = Labels("front group", "end group", "not stitched or not measured")
    maps(path, panels, labels=labels, title=title, caption=caption)


def _panels(rows: Sequence[GroupRow], limits: Limits) -> dict[str, Panel]:
    """Return the map of verdicts and the maps of means by a method, by title."""
    values_of = {(row.front_group, row.end_group): row.values for row in rows}
    groups = list(dict.fromkeys(group for pair in values_of for group in pair))
    names = [user_code.title_of(group) for group in groups]

    def means(name: str) -> Matrix:
        lines = []
        for front in groups:
            line = [values_of.get((front, end), {}).get(name, math.nan) for end in groups]
            lines.append(line)
        return Matrix(names, names, lines)

    shares = {word: means(word) for word in VERDICTS}
    panels: dict[str, Panel] = {"verdicts": verdict_map(shares, limits, of="stitches")}
    for name in IN_FIGURE:
        panels[title_of_map(name)] = heat_map(name, means(name), limits)
    return panels


def _on_pairs(rows: Sequence[GroupRow]) -> str:
    """Return the sentence of the caption on the numbers of pairs of networks and of layers."""
    methods: dict[str, list[str]] = {}  # by their numbers
    for method, of_method in grouped(rows, lambda row: row.method).items():
        counted = listed(f"{_pair(row)} {row.n_networks} × {row.n_layers}" for row in of_method)
        methods.setdefault(counted, []).append(method)
    parts = [
        f"{counted} ({' and '.join(by)})" if len(methods) > 1 else counted
        for counted, by in methods.items()
    ]
    return f"Pairs of networks × pairs of layers: {'; '.join(parts)}."


def lines_on_layers(rows: Sequence[GroupRow]) -> list[str]:
    """Return a line for each set of pairs of layers that means of a method are over.

    Groups with the same layers share a line.
    """
    lines = []
    for layers, of_layers in grouped(rows, lambda row: row.pairs_of_layers).items():
        pairs = ", ".join(map(_pair, of_layers))
        lines.append(f"layers (relative depths) of {pairs}: {listed(layers.split('; '))}")
    return lines


def on_types(tests: Sequence[GroupTestRow]) -> str:
    """Return the sentence on groups that differ in type as well as in name; "" if none do."""
    types = dict.fromkeys(user_code.titles_in(test.types) for test in tests if test.types)
    if not types:
        return ""
    return (
        f"Groups have networks of different types ({'; '.join(types)}): no p-value tells whether their difference "
        "comes from the architecture."
    )


def _pair(row: GroupRow) -> str:
    """Return the pair of groups of a row as a text."""
    return f"{user_code.title_of(row.front_group)} → {user_code.title_of(row.end_group)}"


def _on_tests(tests: Sequence[GroupTestRow]) -> str:
    """Return the sentences of the caption on the tests, with the answers that reach `LEVEL`."""
    shown = [test for test in tests if test.quantity in TESTED]
    if not shown:
        return ""
    lowest = min(test.lowest_p for test in shown)
    if lowest > LEVEL:
        return f"No test of the groups can reach p = {LEVEL:g}: the smallest possible p-value is {lowest:.2g}."
    asked = [test for test in shown if test.lowest_p <= LEVEL]
    has_methods = len({test.method for test in asked}) > 1
    reached = [_answer(test, has_methods=has_methods) for test in asked if test.p_value <= LEVEL]
    found = f"none reaches p ≤ {LEVEL:g}"
    if reached:
        answers = "; ".join(reached[:MAX_ANSWERS])
        by_chance = f"{LEVEL * len(asked):.2g} by chance alone"
        found = f"{len(reached)} reach p ≤ {LEVEL:g} ({by_chance}): {answers}"
    if len(reached) > MAX_ANSWERS:
        found += f"; {len(reached) - MAX_ANSWERS} more in the CSV of tests"
    return (
        f"Of {len(asked)} permutation tests of the networks that can (shares of verdicts, penalty, skill; "
        f"two-sided, not corrected for their number, smallest possible p {lowest:.2g}), {found}."
    )


def _answer(test: GroupTestRow, *, has_methods: bool) -> str:
    """Return the answer of a test with its p-value, and with its method if there are several."""
    quantity = (
        f"share of “{test.quantity}”" if test.quantity in VERDICTS else title_of(test.quantity)
    )
    if has_methods:
        quantity = f"{quantity} by {test.method}"
    side = "above" if test.difference > 0 else "below"
    within = user_code.titles_in(test.within)
    return f"{quantity}, {within} {side} {user_code.titles_in(test.across)} ({test.p_value:.2g})"
