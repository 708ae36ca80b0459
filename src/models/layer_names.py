"""Names of layers as options give them: shell patterns, and the error for what is no layer."""

import difflib
import fnmatch
from collections.abc import Iterable

from src.errors import UserError


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """Return the names that a shell pattern matches, compared name by name between the dots; itself where none does."""
    if not set(pattern) & set("*?["):
        return [pattern]
    wanted = pattern.split(".")
    return [name for name in names if _match(name.split("."), wanted)] or [pattern]


def _match(name: list[str], wanted: list[str]) -> bool:
    return len(name) == len(wanted) and all(map(fnmatch.fnmatchcase, name, wanted))


def unknown(name: str, layers: Iterable[str], blocks: Iterable[str]) -> UserError:
    """Return the error for a name that is no layer: close ones, and the blocks."""
    close = difflib.get_close_matches(name, layers, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return UserError(
        f"unknown layer {name!r}; {hint}known: {', '.join(blocks)}; for all others: python misc/list_layers.py MODEL"
    )
