"""The rows of a table that a report shows, by the names that a user chooses."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from src.core.errors import UserError

Row = TypeVar("Row")


def chosen_rows(
    rows: Sequence[Row], chosen: Sequence[str], names_of: Callable[[Row], Sequence[str]]
) -> list[Row]:
    """Return the rows with a chosen name; all rows if none is chosen.

    Args:
        chosen: names of quantities, methods or measures.
        names_of: returns the names of a row.
    Raises:
        UserError: no row has a name.
    """
    names = dict.fromkeys(name for row in rows for name in names_of(row))
    for name in chosen:
        if name not in names:
            raise UserError(
                f"--quantities {name}: there are {', '.join(names)}; give some of these"
            )
    if not chosen:
        return list(rows)
    return [row for row in rows if not set(chosen).isdisjoint(names_of(row))]
