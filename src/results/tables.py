"""Reads and writes tables as CSV: records with the columns of a layout.

This module does not import torch.
"""

import contextlib
import csv
import difflib
import json
import types
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from src.core.console import listed
from src.core.errors import UserError
from src.core.files import readable, write_csv

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


def columns(layout: Layout) -> list[str]:
    """Return the names of the columns that all tables of a layout share."""
    return list(layout.types)


def json_object(text: str) -> str:
    """Return a text that is a JSON object; a type of columns. Raise a ValueError for another text."""
    if not isinstance(json.loads(text), dict):
        raise ValueError(text)
    return text


def from_record(layout: Layout, record: Mapping[str, object]) -> dict[str, Any]:
    """Return a record with the types of a layout, from values as read from JSON or a CSV; further columns come
    last.

    A missing or empty value becomes None if the column is optional or may be None.

    Raises:
        ValueError: a value is missing or has the wrong type. The message is the column's name.
    """
    values: dict[str, Any] = dict.fromkeys(layout.types)
    for name, hint in layout.types.items():
        if name not in layout.optional or not _is_empty(record.get(name)):
            values[name] = _typed(name, hint, record.get(name))
    for name, value in record.items():
        if name not in layout.types and not _is_empty(value):
            values[name] = _typed(name, layout.further, value)
    return values


def write_table(path: str | Path, layout: Layout, records: Iterable[Mapping[str, object]]) -> None:
    """Write records as a CSV, with the further columns of all records; the cell of a missing value stays empty."""
    records = list(records)
    header = dict.fromkeys(columns(layout))
    for record in records:
        header |= dict.fromkeys(record)
    write_csv(Path(path), list(header), records)


def read_table(path: str | Path, *layouts: Layout) -> list[dict[str, Any]]:
    """Read a CSV; return its records, all of the first layout whose required columns are in the header.

    Raises:
        UserError: the file cannot be read, lacks a column, or has a damaged cell. The message names
            the file, and the line and the column of the cell.
    """
    header, texts = _read_csv(path)
    fitting = [layout for layout in layouts if header.issuperset(_required(layout))]
    if not fitting:
        raise UserError(_describe_misfit(path, header, layouts))

    records = []
    for line, record in enumerate(texts, start=FIRST_LINE):
        try:
            records.append(from_record(fitting[0], record))
        except ValueError as error:
            raise UserError(
                f"{path}, line {line}: {error} is missing or damaged; correct it"
            ) from error
    return records


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


def _required(layout: Layout) -> list[str]:
    """Return the names of the columns that all tables of a layout have."""
    return [name for name in layout.types if name not in layout.optional]


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
