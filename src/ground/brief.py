"""Texts of values with large arrays, for an interactive session."""

from collections.abc import Mapping
from typing import Any, NamedTuple


def brief(value: NamedTuple) -> str:
    """Return a NamedTuple as a text of one line: of arrays and tensors their type and shape."""
    fields = ", ".join(f"{name}={_field(item)}" for name, item in value._asdict().items())
    return f"{type(value).__name__}({fields})"


def _field(value: Any) -> str:
    """Return a field as a text."""
    shape = getattr(value, "shape", ())
    if shape:
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(shape)}"
    if isinstance(value, Mapping):
        return f"{{{len(value)} entries}}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if hasattr(value, "item"):
        return f"{value.item():.4g}"
    return repr(value)
