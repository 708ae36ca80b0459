"""The codec of rows: NamedTuples to and from the columns of a CSV, or the values of JSON, by the types of their fields.

Nested values are flattened. The fields of a nested NamedTuple are columns under their own names where its type says
`inline`, else behind the name of the outer field; there, an inner field `value` has the outer name alone. A dict has
columns for each key, named by the template that annotates it, such as `Annotated[dict[str, Null], "{key}_{part}"]`. The
keys are those of a science, which hands them in. A type may name columns that come first (`leading`).
"""

import contextlib
import csv
import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from src.errors import UserError
from src.files import write_csv

Row = TypeVar("Row", bound=NamedTuple)
Keys = Mapping[str, Iterable[str]]  # by field that is a dict


class Leaf(NamedTuple):
    """A column, and where its value is in a row."""

    column: str
    path: tuple[str, ...]  # of fields and keys
    hint: Any  # the type of the value


def columns(kind: type[NamedTuple], **keys: Iterable[str]) -> list[str]:
    """Return the columns of a row type; a dict whose keys are not given has none."""
    leading = getattr(kind, "leading", ())
    return [*leading, *(leaf.column for leaf in _leaves(kind, keys) if leaf.column not in leading)]


def to_record(row: NamedTuple) -> dict[str, Any]:
    """Return the values of a row by column; a dict has the keys that it has."""
    dicts = {name: value for name, value in row._asdict().items() if isinstance(value, dict)}
    record = {leaf.column: functools.reduce(_inside, leaf.path, row) for leaf in _leaves(type(row), dicts)}
    return {name: record[name] for name in columns(type(row), **dicts)}


def from_record(kind: type[Row], record: Mapping[str, Any], **keys: Iterable[str]) -> Row:
    """Make a row from values by column, as JSON or as the text of a CSV.

    A value that is missing or empty is the default of its field, or else None where the field allows it.

    Raises:
        ValueError: a value is missing or of another type; names the column.
    """
    return _read(kind, record, keys, "")


def write_table(path: str | Path, kind: type[NamedTuple], rows: Iterable[NamedTuple], **keys: Iterable[str]) -> None:
    """Write rows as a CSV; what a row has no value for stays empty."""
    write_csv(Path(path), columns(kind, **keys), [to_record(row) for row in rows])


def read_table(path: str | Path, *kinds: type[NamedTuple], **keys: Iterable[str]) -> list[Any]:
    """Read a CSV as rows of the first of these types whose columns it has.

    Raises:
        UserError: the file cannot be read, is no such table, or is damaged; names it, the line and the column.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            header, records = set(reader.fieldnames or []), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    kind = next((kind for kind in kinds if header.issuperset(columns(kind))), None)
    if kind is None:
        tables = " or ".join(f"{kind.contents} ({kind.written_by})" for kind in kinds)
        raise UserError(f"{path} is no table of {tables}; give one that this version wrote")
    rows = []
    for number, record in enumerate(records, start=2):
        try:
            rows.append(from_record(kind, record, **keys))
        except ValueError as error:
            raise UserError(f"{path}, line {number} is damaged ({error}); write the table again") from error
    return rows


@functools.cache
def _fields(kind: type[NamedTuple]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _leaves(kind: type[NamedTuple], keys: Keys, name: str = "", path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Yield the columns of a row type, or of a type that is nested under a name."""
    for field, hint in _fields(kind).items():
        inner, column = (*path, field), _column(kind, name, field)
        if get_origin(hint) is Annotated:
            for key in keys.get(field, ()):
                yield from (leaf._replace(path=(*inner, key, *leaf.path)) for leaf in _leaves_of_item(hint, key))
        elif nested := _nested(hint):
            yield from _leaves(nested, keys, column, inner)
        else:
            yield Leaf(column, inner, hint)


def _leaves_of_item(hint: Any, key: str) -> Iterator[Leaf]:
    """Yield the columns of one key of a dict."""
    (_, item), template = get_args(get_args(hint)[0]), get_args(hint)[1]
    if _nested(item):
        for part, part_hint in _fields(item).items():
            yield Leaf(template.format(key=key, part=part), (part,), part_hint)
    else:
        yield Leaf(template.format(key=key), (), item)


def _column(kind: type[NamedTuple], name: str, field: str) -> str:
    """Name the column of a field of a type that is nested under a name ("" for the row itself)."""
    if not name or getattr(kind, "inline", False):
        return field
    return name if field == "value" else f"{name}_{field}"


def _nested(hint: Any) -> type[NamedTuple] | None:
    """Return the row type in a hint such as `Interval` or `Interval | None`."""
    return next((each for each in get_args(hint) or (hint,) if hasattr(each, "_fields")), None)


def _inside(value: Any, name: str) -> Any:
    if value is None:
        return None
    return value[name] if isinstance(value, dict) else getattr(value, name)


def _read(kind: type[Row], record: Mapping[str, Any], keys: Keys, name: str) -> Row:
    values = {}
    for field, hint in _fields(kind).items():
        column = _column(kind, name, field)
        if get_origin(hint) is Annotated:
            values[field] = _read_dict(hint, record, keys.get(field, ()))
        elif nested := _nested(hint):
            is_there = types.NoneType not in get_args(hint) or any(
                not _is_missing(record, leaf) for leaf in _leaves(nested, keys, column)
            )
            values[field] = _read(nested, record, keys, column) if is_there else None
        elif not (field in kind._field_defaults and _is_missing(record, Leaf(column, (), hint))):
            values[field] = _typed(column, hint, record.get(column))
    return kind(**values)


def _read_dict(hint: Any, record: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Read a dict; a key whose first column is missing or empty is not in it."""
    (_, item), values = get_args(get_args(hint)[0]), {}
    for key in keys:
        leaves = list(_leaves_of_item(hint, key))
        if not _is_missing(record, leaves[0]):
            parts = [_typed(leaf.column, leaf.hint, record.get(leaf.column)) for leaf in leaves]
            values[key] = item(*parts) if _nested(item) else parts[0]
    return values


def _is_missing(record: Mapping[str, Any], leaf: Leaf) -> bool:
    return record.get(leaf.column) in (None, "")


def _typed(column: str, hint: Any, value: Any) -> Any:
    """Convert a value to the type of its field, or to the first that fits of several."""
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not types.NoneType]
    if value is None or value == "":
        if types.NoneType not in get_args(hint):
            raise ValueError(column)
        return None
    for kind in kinds:
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            return _converted(kind, value)
    raise ValueError(column)


def _converted(kind: type, value: Any) -> Any:
    if kind is bool:
        return {"True": True, "False": False}[str(value)]
    is_text = isinstance(value, str) and value.isprintable()
    if (kind is str and not is_text) or isinstance(value, bool) or (kind is int and isinstance(value, float)):
        raise ValueError(value)
    return kind(value)
