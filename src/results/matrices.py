"""Matrices of stitches: values by front and end layer, for printed tables and heat maps."""

import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from src.core.grouping import grouped

Keys = TypeVar("Keys", bound=tuple[Hashable, ...])


class Matrix(NamedTuple):
    """Values with the labels of their rows and columns."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[Any]]  # (rows, columns)


def pivot(
    rows: Iterable[Any], value: Callable[[Any], object], *, missing: object = math.nan
) -> Matrix:
    """Return the matrix (front layers, end layers) of a value of stitches, ordered by depth.

    Args:
        rows: of two layers; of rows with equal layers the last row counts.
        value: returns the value of a row.
        missing: the value of pairs of layers without a row.
    """
    rows = list(rows)
    cells = {(row.front_layer, row.end_layer): value(row) for row in rows}
    fronts = by_depth((row.front_layer for row in rows), depths_of(rows, "front"))
    ends = by_depth((row.end_layer for row in rows), depths_of(rows, "end"))
    values = []
    for front in fronts:
        values.append([cells.get((front, end), missing) for end in ends])
    return Matrix(fronts, ends, values)


def mean_of(rows: Iterable[Any], name: str) -> Matrix:
    """Return the matrix (front layers, end layers) of means of a column over stitches of equal layers.

    NaN values are left out of a mean. A mean without values is NaN.
    """
    rows = list(rows)
    means = {}
    for pair, of_pair in grouped(rows, lambda row: row.pair).items():
        values = [known(row, name=name) for row in of_pair]
        defined = [value for value in values if not math.isnan(value)]
        means[pair] = math.nan
        if defined:
            means[pair] = float(np.mean(defined))
    return pivot(rows, lambda row: means[row.pair])


def known(row: object, *, name: str) -> float:
    """Return the value of a row in a column, with None as NaN."""
    value = getattr(row, name)
    return math.nan if value is None else value


def depths_of(rows: Iterable[Any], *sides: str) -> dict[str, int]:
    """Return the depths of layers of stitches; layers without a recorded depth are left out.

    Args:
        sides: "front", "end" or both.
    """
    depths = {}
    for row in rows:
        for side in sides:
            depth = getattr(row, f"{side}_depth")
            if depth is not None:
                depths[getattr(row, f"{side}_layer")] = depth
    return depths


def by_depth(layers: Iterable[str], *depths: Mapping[str, int]) -> list[str]:
    """Return the distinct layers in the order of depth.

    Args:
        depths: mappings from layers to depths. The first mapping with all layers counts. Without
            such a mapping, as for runs of the public code, the order is the natural one of the
            names: `blocks.2` stands before `blocks.10`.
    """
    distinct = set(layers)
    complete = [mapping for mapping in depths if mapping.keys() >= distinct]
    depth_of = complete[0] if complete else {}

    def key(layer: str) -> tuple[int, list[tuple[int, int, str]]]:
        return depth_of.get(layer, 0), _natural(layer)

    return sorted(distinct, key=key)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key for natural sorting, which compares numbers in names by value."""
    key = []
    for part in re.split(r"(\d+)", name):
        if part.isdecimal():
            key.append((0, int(part), ""))
        else:
            key.append((1, 0, part))
    return key
