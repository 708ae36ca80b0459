"""Prints: results to stdout, progress and warnings to stderr. No other module prints."""

import contextlib
import functools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence

from tqdm import tqdm

from src.errors import UserError

_silent: set[str] = set()  # of "results" and "notes", which are warnings and progress bars as well


@contextlib.contextmanager
def silenced(*, notes: bool = True) -> Iterator[None]:
    """Print no results while the block runs, and no notes either unless `notes` is false."""
    global _silent
    before, _silent = _silent, _silent | {"results"} | ({"notes"} if notes else set())
    try:
        yield
    finally:
        _silent = before


def result(text: str = "") -> None:
    """Print a result to stdout; a closed pipe (`| head`) does not end the run.

    Raises:
        UserError: it cannot be written, to a full disk for example.
    """
    if "results" in _silent:
        return
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or Python fails again at exit
        if not isinstance(error, BrokenPipeError):
            raise UserError(f"cannot print the results: {error.strerror}") from None


def table(
    title: str, rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]]
) -> None:
    """Print a matrix with the labels of its rows and columns and four digits; NaN stands for what
    is missing."""
    width, widths = max(map(len, rows)), [max(8, len(column)) for column in columns]
    lines = [[f"{column:>{width}}" for column, width in zip(columns, widths, strict=True)]]
    lines += [
        [f"{value:>{width}.4f}" for value, width in zip(line, widths, strict=True)]
        for line in values
    ]
    texts = [
        " ".join([f"{row:{width}}", *cells]) for row, cells in zip(["", *rows], lines, strict=True)
    ]
    result("\n".join([title, *texts] if title else texts))


def note(text: str) -> None:
    """Print a message to stderr, apart from the results."""
    if "notes" not in _silent:
        tqdm.write(
            f"{text}\n", file=sys.stderr, end=""
        )  # one write: a signal cannot leave half a line


def warn(text: str) -> None:
    """Print a warning to stderr."""
    note(f"warning: {text}")


@functools.cache
def warn_once(text: str) -> None:
    """Print a warning to stderr once in a process, as many pairs would give it."""
    warn(text)


def progress(items: Iterable, description: str, total: int | None = None, **options) -> Iterable:
    """Iterate with a progress bar, which is removed at the end and shown in terminals only."""
    disable = "notes" in _silent or None  # None: where stderr is no terminal
    return tqdm(
        items,
        desc=description,
        total=total,
        leave=False,
        disable=disable,
        file=sys.stderr,
        **options,
    )


def listed(items: Iterable[object], *, n: int = 8) -> str:
    """Name up to n things, and say how many more there are."""
    names = list(map(str, items))
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
