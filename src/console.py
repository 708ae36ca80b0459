"""The one place that prints: results on stdout, progress and warnings on stderr."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence

from tqdm import tqdm

from src.errors import UserError

_silent = False


@contextlib.contextmanager
def silenced(silent: bool = True) -> Iterator[None]:
    """Print nothing, if `silent`: of several processes that do the same, one is to speak."""
    global _silent
    before, _silent = _silent, silent
    try:
        yield
    finally:
        _silent = before


def result(text: str = "") -> None:
    """Print what the user asked for; a run whose output nobody reads any more (`| head`) goes on.

    Raises:
        UserError: it cannot be written, to a full disk for example.
    """
    if _silent:
        return
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails once more as it ends
        if not isinstance(error, BrokenPipeError):
            raise UserError(f"cannot print the results: {error.strerror}") from None


def table(title: str, rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]]) -> None:
    """Print a matrix with the labels of its rows and columns and four digits; NaN stands for what is missing."""
    width, widths = max(map(len, rows)), [max(8, len(column)) for column in columns]
    lines = [[f"{column:>{width}}" for column, width in zip(columns, widths, strict=True)]]
    lines += [[f"{value:>{width}.4f}" for value, width in zip(line, widths, strict=True)] for line in values]
    texts = [" ".join([f"{row:{width}}", *cells]) for row, cells in zip(["", *rows], lines, strict=True)]
    result("\n".join([title, *texts] if title else texts))


def note(text: str) -> None:
    """Say what is going on, without mixing it into the results."""
    if not _silent:
        tqdm.write(text, file=sys.stderr)


def warn(text: str) -> None:
    """Say what may surprise, and go on."""
    note(f"warning: {text}")


def progress(items: Iterable, description: str, total: int | None = None, **options) -> Iterable:
    """Iterate behind a bar that vanishes when done and never appears when stderr is no terminal."""
    disable = _silent or None
    return tqdm(items, desc=description, total=total, leave=False, disable=disable, file=sys.stderr, **options)
