"""Matrices of stitches: values by front and end layer, for printed tables and heat maps."""

import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray


class PairOfLayers(Protocol):
    """A row about two layers, such as a stitch."""

    @property
    def front_layer(self) -> str:
        """The layer of the front network."""

    @property
    def end_layer(self) -> str:
        """The layer of the end network."""

    @property
    def front_depth(self) -> int | None:
        """The place of the front layer in its network; None: not recorded."""

    @property
    def end_depth(self) -> int | None:
        """The place of the end layer in its network; None: not recorded."""


class AccurateStitch(PairOfLayers, Protocol):
    """A row of a stitch with an accuracy."""

    @property
    def accuracy(self) -> float | None:
        """The accuracy of the stitched network."""


Row = TypeVar("Row", bound=PairOfLayers)
Keys = TypeVar("Keys", bound=tuple[Hashable, ...])


class Matrix(NamedTuple):
    """Values with the labels of their rows and columns."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[Any]]  # (rows, columns)


def pivot(
    rows: Iterable[Row], value: Callable[[Row], object], *, missing: object = math.nan
) -> Matrix:
    """Return the matrix (front layers, end layers) of a value of stitches, ordered by depth.

    Args:
        rows: of rows with equal layers the last row counts.
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


def array_of(cells: Mapping[Keys, float], *axes: Sequence[Hashable]) -> NDArray:
    """Return values by their keys, one an axis, as an array; NaN where there is none."""
    places = [{key: place for place, key in enumerate(axis)} for axis in axes]
    array = np.full([len(axis) for axis in axes], math.nan)
    for keys, value in cells.items():
        array[tuple(map(dict.__getitem__, places, keys))] = value
    return array


def mean_pivot(rows: Iterable[Row], value: Callable[[Row], float]) -> Matrix:
    """Return the matrix (front layers, end layers) of means of a value over stitches of equal layers.

    NaN values are left out of a mean. A mean without values is NaN.
    """
    rows = list(rows)
    values_of_layers: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        values = values_of_layers.setdefault((row.front_layer, row.end_layer), [])
        number = value(row)
        if not math.isnan(number):
            values.append(number)
    means = {}
    for layers, values in values_of_layers.items():
        means[layers] = math.nan
        if values:
            means[layers] = float(np.mean(values))
    return pivot(rows, lambda row: means[row.front_layer, row.end_layer])


def mean_of(rows: Iterable[Row], name: str) -> Matrix:
    """Return the matrix (front layers, end layers) of the mean of a column over stitches of equal
    layers, as far as it is known."""
    return mean_pivot(rows, partial(known, name=name))


def is_known(rows: Iterable[object], name: str) -> bool:
    """Return whether any row has a value in a column."""
    return any(getattr(row, name) is not None for row in rows)


def known(row: object, *, name: str) -> float:
    """Return the value of a row in a column; NaN for None."""
    value = getattr(row, name)
    return math.nan if value is None else value


def accuracies(rows: Iterable[AccurateStitch]) -> Matrix:
    """Return the matrix (front layers, end layers) of the accuracies of stitches."""
    return pivot(rows, lambda row: row.accuracy)


def depths_of(rows: Iterable[PairOfLayers], *sides: str) -> dict[str, int]:
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
    """Return a key that sorts the numbers in names by value."""
    key = []
    for part in re.split(r"(\d+)", name):
        if part.isdecimal():
            key.append((0, int(part), ""))
        else:
            key.append((1, 0, part))
    return key
