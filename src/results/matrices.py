"""The order of layers by depth."""

import re
from collections.abc import Iterable, Mapping
from typing import Any


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
