"""Architectures of stitched networks, and corresponding layers by relative depth."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from src.core.grouping import grouped
from src.results.network_names import short
from src.values import Pair

TIE = 1e-6  # relative depths, and distances of these, that are this near count as equal


def architecture_pairs(stitches: Sequence[Any]) -> list[str]:
    """Return for each stitch a title of the architectures of its networks, such as "a → b, c".

    Stitches with one title may share a matrix. Types with the same layers at the same relative depths
    are one architecture, whose title has all of them. The titles are "" if there is one pair of
    architectures.

    Args:
        stitches: rows with the types of their networks, and the relative depths of their layers.
    """
    layers: dict[str | None, set[tuple[str, float | None]]] = {}
    for row in stitches:
        front_layer = (row.front_layer, row.front_relative_depth)
        end_layer = (row.end_layer, row.end_relative_depth)
        layers.setdefault(row.front_model_type, set()).add(front_layer)
        layers.setdefault(row.end_model_type, set()).add(end_layer)

    architectures = grouped(layers, lambda kind: frozenset(layers[kind])).values()
    architecture_of = {kind: tuple(kinds) for kinds in architectures for kind in kinds}
    pairs = [
        (architecture_of[row.front_model_type], architecture_of[row.end_model_type])
        for row in stitches
    ]
    if len(set(pairs)) == 1:
        return [""] * len(pairs)
    title_of = {
        kinds: ", ".join(short(kind or "unknown") for kind in kinds)
        for kinds in architecture_of.values()
    }
    return [f"{title_of[front]} → {title_of[end]}" for front, end in pairs]


def nearest_layers(depth: float, depths: Mapping[str, float]) -> list[str]:
    """Return the layers nearest to a relative depth; two if they are equally near, none without layers.

    Args:
        depths: relative depths by layer.
    """
    distances = {layer: abs(layer_depth - depth) for layer, layer_depth in depths.items()}
    nearest = min(distances.values(), default=0.0)
    return [layer for layer, distance in distances.items() if distance < nearest + TIE]


def nearest_pairs(fronts: Mapping[str, float], ends: Mapping[str, float]) -> set[Pair]:
    """Return the pairs of mutually nearest layers in relative depth.

    Args:
        fronts, ends: relative depths by layer.
    """
    return {
        Pair(front, end)
        for front, depth in fronts.items()
        for end in nearest_layers(depth, ends)
        if front in nearest_layers(ends[end], fronts)
    }


def corresponding_layers(stitches: Iterable[Any]) -> list[Pair]:
    """Return the sorted pairs of corresponding layers of all stitches.

    In networks of one type they are the layers of the same name. If all stitches are between networks
    of different types, they are the layers of which each is the nearest to the other in relative
    depth; there are none if depths are not recorded.
    """
    rows = list(stitches)
    across_types = [row for row in rows if row.front_model_type != row.end_model_type]
    if len(across_types) == len(rows):
        return _nearest_pairs(rows)
    names_across = {row.front_layer for row in across_types if row.front_layer == row.end_layer}
    names = {row.front_layer for row in rows if row.front_layer == row.end_layer}
    return [Pair(name, name) for name in sorted(names - names_across)]


def _nearest_pairs(rows: Sequence[Any]) -> list[Pair]:
    """Return the pairs of mutually nearest layers in relative depth, sorted.

    There are none if a depth is not recorded, as by rows of an evaluation, or a layer has several.
    """
    of_fronts = {(row.front_layer, getattr(row, "front_relative_depth", None)) for row in rows}
    of_ends = {(row.end_layer, getattr(row, "end_relative_depth", None)) for row in rows}
    fronts = {layer: depth for layer, depth in of_fronts if depth is not None}
    ends = {layer: depth for layer, depth in of_ends if depth is not None}
    if len(fronts) < len(of_fronts) or len(ends) < len(of_ends):
        return []
    return sorted(nearest_pairs(fronts, ends))
