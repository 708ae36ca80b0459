"""Tables: rows of a flat type to and from the columns of a CSV, or the values of JSON. Importing
this spares torch.

A row type is a NamedTuple or a frozen dataclass. Its fields are the columns, in their order; fields
that do not compare are no columns. One field may be a `dict[str, T]`: columns of other names, such
as those of the measures that were asked for. A table has those of all its rows. A type that is read
from a user's file says what it holds (`contents`) and who writes it (`written_by`)."""

import contextlib
import csv
import functools
import inspect
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from src.console import listed
from src.errors import UserError
from src.files import write_csv

Row = TypeVar("Row")
Rank = int | None  # None: full


class Interval(NamedTuple):
    """The ends of an interval of 95 %."""

    low: float
    high: float


class IntervalEstimate(NamedTuple):
    """A value with the ends of its interval of 95 %; all NaN where the value is not defined."""

    value: float
    low: float
    high: float


class Column(NamedTuple):
    """A field of a row type."""

    hint: Any
    default: Any  # `inspect.Parameter.empty`: there is none


@functools.cache
def fields(kind: type) -> dict[str, Column]:
    """Return the fields of a row type by name, in the order of the columns."""
    hints = get_type_hints(kind)
    parameters = inspect.signature(kind).parameters
    no_columns = {
        field.name
        for field in getattr(kind, "__dataclass_fields__", {}).values()
        if not field.compare
    }
    return {
        name: Column(hints[name], parameters[name].default)
        for name in parameters
        if name not in no_columns
    }


def columns(kind: type) -> list[str]:
    """Return the columns that all tables of a row type have."""
    return [name for name, column in fields(kind).items() if get_origin(column.hint) is not dict]


def to_record(row: Any) -> dict[str, Any]:
    """Return the values of a row by column."""
    record = {name: getattr(row, name) for name in fields(type(row))}
    others = next((name for name in fields(type(row)) if name not in columns(type(row))), None)
    return record | record.pop(others) if others else record


def from_record(kind: type[Row], record: Mapping[str, Any]) -> Row:
    """Make a row from values by column, as JSON or as the text of a CSV.

    A value that is missing or empty is the default of its field, or else None where the field
    allows it.

    Raises:
        ValueError: a value is missing or of another type; names the column.
    """
    values = {}
    for name, (hint, default) in fields(kind).items():
        if get_origin(hint) is dict:
            others = [
                each for each in record if each not in fields(kind) and not _is_empty(record[each])
            ]
            values[name] = {each: _typed(each, get_args(hint)[1], record[each]) for each in others}
        elif default is inspect.Parameter.empty or not _is_empty(record.get(name)):
            values[name] = _typed(name, hint, record.get(name))
    return kind(**values)


def write_table(path: str | Path, kind: type, rows: Iterable[Any]) -> None:
    """Write rows as a CSV; what a row has no value for stays empty."""
    records = [to_record(row) for row in rows]
    write_csv(
        Path(path),
        list(dict.fromkeys([*columns(kind), *(name for each in records for name in each)])),
        records,
    )


def read_table(path: str | Path, *kinds: type) -> list[Any]:
    """Read a CSV as rows of the first of these types whose columns it has.

    Raises:
        UserError: the file cannot be read, is no such table, or is damaged; names it, the line and the column.
    """
    try:
        with open(
            path, newline="", encoding="utf-8-sig"
        ) as file:  # a user's own may be of a spreadsheet
            reader = csv.DictReader(file, skipinitialspace=True)
            header, records = set(reader.fieldnames or []), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
        ) from error
    kind = next((kind for kind in kinds if header.issuperset(_required(kind))), None)
    if kind is None:
        tables = " or ".join(f"{kind.contents} ({kind.written_by})" for kind in kinds)
        missing = (
            listed(name for name in _required(kinds[0]) if name not in header)
            if len(kinds) == 1
            else ""
        )
        raise UserError(
            f"{path} is no table of {tables}{missing and f': it lacks {missing}'}; give such a one"
        )
    rows = []
    for number, record in enumerate(records, start=2):
        if (
            record.get("control") == "labels"
        ):  # a label-only control, which version 1.0 wrote beside the stitches
            continue
        try:
            rows.append(from_record(kind, record))
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: {error} is missing or damaged; correct it"
            ) from error
    return rows


def _required(kind: type) -> list[str]:
    """Return the columns without a default; tables of earlier versions may lack the others."""
    return [name for name in columns(kind) if fields(kind)[name].default is inspect.Parameter.empty]


def _is_empty(value: Any) -> bool:
    return value is None or value == ""


def _typed(column: str, hint: Any, value: Any) -> Any:
    """Convert a value to the type of its field, or to the first that fits of several."""
    kinds = get_args(hint) or (hint,)
    if _is_empty(value):
        if types.NoneType not in kinds:
            raise ValueError(column)
        return None
    for kind in kinds:
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            return {"True": True, "False": False}[str(value)] if kind is bool else kind(value)
    raise ValueError(column)
