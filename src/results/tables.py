"""Reads and writes tables as CSV or JSON: of typed rows, or of records of a layout.

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
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from src.core.console import listed
from src.core.errors import UserError
from src.core.files import readable, write_csv

FURTHER = "further columns"  # of a layout
FIRST_LINE = 2  # number of the line of the first row in a CSV


class Layout(NamedTuple):
    """The columns of a table whose rows are records: dicts of values by column, None for an empty cell.

    Further columns, such as those of measures, hold numbers unless `further` names another type.
    """

    contents: str  # what a row is, for error messages
    written_by: str  # the script that writes the table
    types: Mapping[str, Any]  # by column
    optional: Collection[str]  # columns that tables of a user may lack
    further: type = float


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


def fields(kind: type | Layout) -> dict[str, Column]:
    """Return the fields of a row type, or the columns of a layout, by name and in order."""
    if not isinstance(kind, Layout):
        return _inspected(kind)
    fields_of_layout = {FURTHER: Column(types.GenericAlias(dict, (str, kind.further)), {})}
    for name, hint in kind.types.items():
        default = None if name in kind.optional else inspect.Parameter.empty
        fields_of_layout[name] = Column(hint, default)
    return fields_of_layout


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


def columns(kind: type | Layout) -> list[str]:
    """Return the names of the columns that all tables of a row type or layout share."""
    return [name for name, column in fields(kind).items() if not column.holds_columns]


def to_record(row: object) -> dict[str, object]:
    """Return the values of a row by column; further columns come last."""
    if isinstance(row, dict):
        return row
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


def from_record(kind: Any, record: Mapping[str, object]) -> Any:
    """Return a row of a type or layout from values by column, as read from JSON or a CSV.

    A missing or empty value becomes the default of its field. Without a default it becomes None if
    the field may be None.

    Raises:
        ValueError: a value is missing or has the wrong type. The message is the column's name.
    """
    columns_of_kind = fields(kind)
    values: dict[str, Any] = {}
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
    if isinstance(kind, Layout):
        further = values.pop(FURTHER)
        return {**dict.fromkeys(columns(kind)), **values, **further}
    return kind(**values)


def write_table(path: str | Path, kind: type | Layout, rows: Iterable[object]) -> None:
    """Write rows of a type or layout as a CSV; the cell of a missing value stays empty."""
    records = [to_record(row) for row in rows]
    header = dict.fromkeys(columns(kind))
    for record in records:
        header |= dict.fromkeys(record)
    write_csv(Path(path), list(header), records)


def read_table(path: str | Path, *kinds: type | Layout) -> list[Any]:
    """Read a CSV; return its rows, all of the first type with the required columns in its header.

    Raises:
        UserError: the file cannot be read, lacks a column, or has a damaged cell. The message names
            the file, and the line and the column of the cell.
    """
    header, records = _read_csv(path)
    fitting = [kind for kind in kinds if header.issuperset(_required(kind))]
    if not fitting:
        raise UserError(_describe_misfit(path, header, kinds))

    rows: list[Any] = []
    for line, record in enumerate(records, start=FIRST_LINE):
        try:
            rows.append(from_record(fitting[0], record))
        except ValueError as error:
            raise UserError(
                f"{path}, line {line}: {error} is missing or damaged; correct it"
            ) from error
    return rows


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


def _describe_misfit(path: str | Path, header: set[str], kinds: tuple[Any, ...]) -> str:
    """Return the error message for a table that matches none of the row types."""
    for mark, title in ((";", "semicolons"), ("\t", "tabs")):
        if any(mark in name for name in header):
            return f"{path} has {title} between its columns; separate columns by commas"
    tables = " or ".join(f"{kind.contents} ({kind.written_by})" for kind in kinds)
    lacks = ""
    if len(kinds) == 1:
        missing = [name for name in _required(kinds[0]) if name not in header]
        lacks = f": it lacks {listed(missing)}"
        for name in header - set(columns(kinds[0])):
            for meant in difflib.get_close_matches(name, missing, n=1):
                lacks += f" (for {name!r}, did you mean {meant}?)"
    return f"{path} is no table of {tables}{lacks}; give such a table"


def _required(kind: type | Layout) -> list[str]:
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
