"""Values over two axes, such as front and end layers: what is printed as a table and drawn as a heat map."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class Matrix(NamedTuple):
    """Values with the labels of their rows and columns."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[Any]]  # (rows, columns)


def pivot(
    cells: Mapping[tuple[str, str], Any], *, missing: Any = math.nan, orders: Sequence[Sequence[str]] = ((), ())
) -> Matrix:
    """Lay out values by (row, column) as a matrix.

    Args:
        orders: the names of rows and of columns in their order; others follow in natural order.
    """
    names = zip(*cells, strict=True) if cells else ([], [])
    rows, columns = (in_order(each, order) for each, order in zip(names, orders, strict=True))
    return Matrix(rows, columns, [[cells.get((row, column), missing) for column in columns] for row in rows])


def accuracies(rows: Iterable[Any]) -> Matrix:
    """Return the newest accuracy of each pair of layers among rows of stitches."""
    return pivot({row.pair: row.accuracy for row in rows})


def in_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Distinct names in a given order, such as that of a network's layers; others follow in natural order."""
    names = set(names)
    return [name for name in order if name in names] + natural_order(names.difference(order))


def natural_order(names: Iterable[str]) -> list[str]:
    """Distinct layer names in the order a reader expects: blocks.2 before blocks.10."""

    def key(name: str) -> list:
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]

    return sorted(set(names), key=key)
