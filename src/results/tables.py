"""Reads and writes tables of typed rows as CSV or JSON.

A row type is a NamedTuple or a frozen dataclass. Its fields are the columns, in their order. Fields
of a dataclass with `compare=False` are no columns. One field may be a `dict[str, T]`: its keys are
further columns, such as the measures of a comparison. A table has the further columns of all its
rows. A type that users' files are read as has two class attributes for error messages: `contents`
(what a row is) and `written_by` (the script that writes the table).

This module does not import torch.
"""

import contextlib
import csv
import difflib
import functools
import inspect
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from src.core.console import listed
from src.core.errors import UserError
from src.core.files import readable, write_csv

Row = TypeVar("Row")

FIRST_LINE = 2  # number of the line of the first row in a CSV


class Column(NamedTuple):
    """A field of a row type."""

    hint: Any  # its type
    default: object  # `inspect.Parameter.empty`: it has no default

    @property
    def is_required(self) -> bool:
        """Whether the column is required: the field has no default."""
        return self.default is inspect.Parameter.empty

    @property
    def holds_columns(self) -> bool:
        """Whether the field is the `dict` of further columns."""
        return get_origin(self.hint) is dict


def fields(kind: type) -> dict[str, Column]:
    """Return the fields of a row type by name, in the order of the columns."""
    return _inspected(kind)


@functools.cache  # a table has many rows of a type
def _inspected(kind: type) -> dict[str, Column]:
    hints = get_type_hints(kind)
    parameters = inspect.signature(kind).parameters
    dataclass_fields = getattr(kind, "__dataclass_fields__", {})
    not_columns = {field.name for field in dataclass_fields.values() if not field.compare}
    return {
        name: Column(hints[name], parameter.default)
        for name, parameter in parameters.items()
        if name not in not_columns
    }


def columns(kind: type) -> list[str]:
    """Return the names of the columns that all tables of a row type share."""
    return [name for name, column in fields(kind).items() if not column.holds_columns]


def to_record(row: object) -> dict[str, object]:
    """Return the values of a row by column; further columns come last."""
    kind: type = type(row)
    record = {}
    further: Mapping[str, object] = {}
    for name, column in fields(kind).items():
        value = getattr(row, name)
        if column.holds_columns:
            further = value
        else:
            record[name] = value
    return {**record, **further}


def from_record(kind: type[Row], record: Mapping[str, object]) -> Row:
    """Return a row of a type from values by column, as read from JSON or a CSV.

    A missing or empty value becomes the default of its field. Without a default it becomes None if
    the field may be None.

    Raises:
        ValueError: a value is missing or has the wrong type. The message is the column's name.
    """
    columns_of_kind = fields(kind)
    values: dict[str, object] = {}
    for name, column in columns_of_kind.items():
        if column.holds_columns:
            value_type = get_args(column.hint)[1]
            values[name] = {
                key: _typed(key, value_type, value)
                for key, value in record.items()
                if not (key in columns_of_kind or _is_empty(value))
            }
        elif column.is_required or not _is_empty(record.get(name)):
            values[name] = _typed(name, column.hint, record.get(name))
    return kind(**values)


def write_table(path: str | Path, kind: type, rows: Iterable[object]) -> None:
    """Write rows of a type as a CSV; the cell of a missing value stays empty."""
    records = [to_record(row) for row in rows]
    header = dict.fromkeys(columns(kind))
    for record in records:
        header |= dict.fromkeys(record)
    write_csv(Path(path), list(header), records)


def read_table(path: str | Path, *kinds: type[Any]) -> list[Any]:
    """Read a CSV; return its rows, all of the first type with the required columns in its header.

    Raises:
        UserError: the file cannot be read, lacks a column, or has a damaged cell. The message names
            the file, and the line and the column of the cell.
    """
    header, records = _read_csv(path)
    fitting = [kind for kind in kinds if header.issuperset(_required(kind))]
    if not fitting:
        title = " or ".join(f"{kind.contents} ({kind.written_by})" for kind in kinds)
        required = _required(kinds[0]) if len(kinds) == 1 else []
        raise _misfit(path, header, required, columns(kinds[0]), title=title)

    rows: list[Any] = []
    for line, record in enumerate(records, start=FIRST_LINE):
        try:
            rows.append(from_record(fitting[0], record))
        except ValueError as error:
            raise _damaged(path, line, str(error)) from error
    return rows


def read_records(
    path: str | Path, required: Sequence[str], optional: Sequence[str], *, title: str
) -> list[dict[str, str]]:
    """Read a CSV; return the texts of its cells by column.

    Args:
        required: columns without empty cells.
        optional: columns that the table may lack.
        title: says what the table is, for error messages.

    Raises:
        UserError: as `read_table`.
    """
    header, records = _read_csv(path)
    if not header.issuperset(required):
        raise _misfit(path, header, required, [*required, *optional], title=title)
    for line, record in enumerate(records, start=FIRST_LINE):
        for column in required:
            if not record[column]:
                raise _damaged(path, line, column)
    return records


def _damaged(path: str | Path, line: int, column: str) -> UserError:
    return UserError(f"{path}, line {line}: {column} is missing or damaged; correct it")


def _read_csv(path: str | Path) -> tuple[set[str], list[dict[str, str]]]:
    """Read a CSV; return the names of its columns, and its rows as text by column."""
    remedy = "check the path; a table is a CSV in UTF-8"
    # Spreadsheets write a byte order mark, which `utf-8-sig` removes.
    with readable(path, remedy), open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        names = list(reader.fieldnames or [])
        records = list(reader)
    for name in names:
        if name and names.count(name) > 1:
            raise UserError(f"{path} has two columns {name!r}; give each column its own name")
    header = set(names)
    for line, record in enumerate(records, start=FIRST_LINE):
        surplus = record.pop(None, [])  # type: ignore[call-overload]  # the key of the csv module
        if any(surplus):
            raise UserError(
                f"{path}, line {line}: more values than columns ({listed(surplus)}); put a value with commas in "
                'quotes, such as "pool1,pool2"'
            )
    return header, records


def _misfit(
    path: str | Path,
    header: set[str],
    required: Sequence[str],
    known: Sequence[str],
    *,
    title: str,
) -> UserError:
    """Return the error of a table that lacks required columns.

    Args:
        known: all columns that the table may have.
        title: says what the table should be.
    """
    for mark, separators in ((";", "semicolons"), ("\t", "tabs")):
        if any(mark in name for name in header):
            return UserError(
                f"{path} has {separators} between its columns; separate columns by commas"
            )
    lacks = ""
    missing = [name for name in required if name not in header]
    if missing:
        lacks = f": it lacks {listed(missing)}"
    for name in header.difference(known):
        for meant in difflib.get_close_matches(name, missing, n=1):
            lacks += f" (for {name!r}, did you mean {meant}?)"
    return UserError(f"{path} is no table of {title}{lacks}; give such a table")


def _required(kind: type) -> list[str]:
    """Return the names of the required columns, which have no default.

    Tables of a user may lack the columns with a default.
    """
    return [name for name in columns(kind) if fields(kind)[name].is_required]


def _is_empty(value: object) -> bool:
    return value is None or value == ""


def _typed(column: str, hint: Any, value: object) -> object:
    """Convert a value to the type of a field; of a union, to the first type that fits."""
    kinds = get_args(hint) or (hint,)
    if _is_empty(value):
        if types.NoneType not in kinds:
            raise ValueError(column)
        return None
    for kind in kinds:
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            if kind is bool:
                return {"True": True, "False": False}[str(value)]
            return kind(value)
    raise ValueError(column)
