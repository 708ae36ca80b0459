"""Rows of tables as NamedTuples, read back by the types of their fields. Importing this spares torch."""

import math
import types
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

Row = TypeVar("Row", bound=NamedTuple)


def read_record(kind: type[Row], values: Mapping[str, Any], *, may_lack: Collection[str] = ()) -> Row:
    """Make a row from values by name, as JSON or as the text of a CSV.

    What is missing or empty is the default of its field, or else None where the field allows it.

    Args:
        may_lack: fields of numbers that are NaN where they are missing.
    Raises:
        ValueError: a value is missing or of another type; names it.
    """
    missing = {name: math.nan for name in may_lack} | kind._field_defaults
    fields = {}
    for name, hint in get_type_hints(kind).items():
        is_missing = values.get(name) in (None, "")
        fields[name] = missing[name] if is_missing and name in missing else _typed(name, hint, values.get(name))
    return kind(**fields)


def _typed(name: str, hint: Any, value: Any) -> Any:
    kinds = get_args(hint) or (hint,)
    if value is None or value == "":
        if types.NoneType not in kinds:
            raise ValueError(name)
        return None
    if kinds[0] is str:
        if not isinstance(value, str) or not value.isprintable():
            raise ValueError(name)
        return value
    if isinstance(value, bool) or (kinds[0] is int and isinstance(value, float)):
        raise ValueError(name)
    try:
        return kinds[0](value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(name) from error
