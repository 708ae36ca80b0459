"""Groups of items by a key, and the order of layers."""

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Return lists of items by their key; keys and items keep the order of `items`.

    Args:
        key: returns the key of an item.
    """
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def by_depth(layers: Iterable[str], depths: Mapping[str, float]) -> list[str]:
    """Return the distinct layers in the order of depth.

    Args:
        depths: by layer. Unless all layers have one, as in runs of the public code they have none, the order
            is the natural one of the names: `blocks.2` stands before `blocks.10`.
    """
    distinct = set(layers)
    if not distinct <= depths.keys():
        depths = dict.fromkeys(distinct, 0)
    return sorted(distinct, key=lambda layer: (depths[layer], _natural(layer)))


def _natural(name: str) -> list[str | int]:
    """Return a key for natural sorting, which compares numbers in names by value."""
    key: list[str | int] = re.split(r"(\d+)", name)  # texts and numbers in turn
    key[1::2] = map(int, key[1::2])
    return key
