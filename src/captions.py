"""Captions of figures: networks, data, method and number of images."""

from collections.abc import Iterable, Sequence
from typing import Any


def caption(**facts: Any) -> str:
    """Build the text below a figure, such as "Networks: a.pt → b.pt.", from the facts that are not empty."""
    return " ".join(f"{name.capitalize()}: {fact}." for name, fact in facts.items() if fact not in (None, ""))


def common(rows: Iterable[Any], field: str) -> Any:
    """Return the value of a field that all rows share; "" where they differ or do not know it."""
    values = {getattr(row, field) for row in rows}
    value = values.pop() if len(values) == 1 else ""
    return "" if value is None else value


def networks(rows: Sequence[Any], first: str, second: str, *, path: str = "_path", sign: str = "→") -> str:
    """Return the two networks that all rows share, each by checkpoint and type; "" where they differ.

    Args:
        first, second: the beginnings of the fields' names, such as `front_model`.
        path: how the name of the field with the checkpoint ends; that with the type ends in `_type`.
    """
    named = [network(common(rows, f"{one}{path}"), common(rows, f"{one}_type")) for one in (first, second)]
    return f" {sign} ".join(named) if all(named) else ""


def network(path: str, kind: str) -> str:
    """Name a network by checkpoint and type, or by the one that is given."""
    return f"{path} ({kind})" if path and kind else path or kind
