"""Words on groups of networks: titles of quantities, layers, and types."""

from collections.abc import Sequence

from src.collected.between_groups import SHARE
from src.ground import user_code
from src.ground.console import listed
from src.ground.grouping import grouped
from src.tables.quantities import QUANTITIES
from src.tables.verdict_rows import GroupRow, GroupTestRow

SHARE_TITLE = "share of similar pairs"


def title_of(quantity: str) -> str:
    """Return the title of a quantity of groups; a measure of similarity is its own title."""
    if quantity == SHARE:
        return SHARE_TITLE
    return QUANTITIES[quantity].title if quantity in QUANTITIES else quantity


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
