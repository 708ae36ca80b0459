"""Groups of things that share a key."""

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

Thing = TypeVar("Thing")


def grouped(
    things: Iterable[Thing], key: Callable[[Thing], Hashable]
) -> dict[Hashable, list[Thing]]:
    """Return the things by key, each group in the order in which its things came."""
    groups: dict[Hashable, list[Thing]] = {}
    for thing in things:
        groups.setdefault(key(thing), []).append(thing)
    return groups
