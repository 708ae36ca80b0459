"""Values of stitches by front and end layer: what is printed as a table and drawn as a heat map."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class Matrix(NamedTuple):
    """Values with the labels of their rows and columns."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[Any]]  # (rows, columns)


def pivot(rows: Iterable[Any], value: Callable[[Any], Any], *, missing: Any = math.nan) -> Matrix:
    """Lay out a value of rows of stitches as a matrix, both axes in the order of depth; of a pair
    the last row counts.

    Args:
        rows: have `front_layer`, `end_layer`, and `front_depth` and `end_depth`, which may be None.
    """
    rows = list(rows)
    cells = {(row.front_layer, row.end_layer): value(row) for row in rows}
    fronts = by_depth((front for front, _ in cells), depths_of(rows, "front"))
    ends = by_depth((end for _, end in cells), depths_of(rows, "end"))
    return Matrix(
        fronts, ends, [[cells.get((front, end), missing) for end in ends] for front in fronts]
    )


def is_known(rows: Iterable[Any], name: str) -> bool:
    """Return whether any of the rows has a value in a column."""
    return any(getattr(row, name) is not None for row in rows)


def known(row: Any, *, name: str) -> float:
    """Return the value of a row in a column; NaN where it is None."""
    value = getattr(row, name)
    return math.nan if value is None else value


def accuracies(rows: Iterable[Any]) -> Matrix:
    """Return the newest accuracy of each pair of layers among rows of stitches."""
    return pivot(rows, lambda row: row.accuracy)


def depths_of(rows: Iterable[Any], *sides: str) -> dict[str, int]:
    """Return the depths of the front layers, the end layers or both of rows, where they know
    them."""
    layers = [
        (getattr(row, f"{side}_layer"), getattr(row, f"{side}_depth"))
        for row in rows
        for side in sides
    ]
    return {layer: depth for layer, depth in layers if depth is not None}


def by_depth(layers: Iterable[str], *depths: Mapping[str, int]) -> list[str]:
    """Return distinct layers in the order of the first of these mappings that knows all of them.

    Runs of the public code know none: then in natural order, `blocks.2` before `blocks.10`.
    """
    layers = set(layers)
    known = next((each for each in depths if each.keys() >= layers), {})

    def key(name: str) -> list:
        parts = re.split(r"(\d+)", name)
        natural = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
        return [known.get(name, 0), natural]

    return sorted(layers, key=key)
