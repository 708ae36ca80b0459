"""Printing: results to stdout, progress and warnings to stderr. Only this module prints."""

import contextlib
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from tqdm import tqdm

from src.core.errors import UserError

# Kinds of output that are switched off: "results", and "notes" (with warnings and progress bars)
_silent: frozenset[str] = frozenset()
_recording: list[list[str]] = []  # get the texts of warnings
_said: set[str] = set()  # texts that were printed and are not to be repeated


@contextlib.contextmanager
def silenced(*, notes: bool = True) -> Iterator[None]:
    """Print no results while the block runs.

    Args:
        notes: print no messages, warnings and progress bars either.
    """
    global _silent
    before = _silent
    _silent = before | {"results"}
    if notes:
        _silent = _silent | {"notes"}
    try:
        yield
    finally:
        _silent = before


def is_silent() -> bool:
    """Return whether results are not printed."""
    return "results" in _silent


def result(text: str = "") -> None:
    """Print a result to stdout; a closed pipe (`| head`) does not end the run.

    Raises:
        UserError: stdout cannot be written, for example to a full disk.
    """
    if "results" in _silent:
        return
    try:
        print(text, flush=True)
    except OSError as error:
        # Python flushes stdout again at exit, which must not fail a second time
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise UserError(f"cannot print the results: {error.strerror}") from None


def table(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | str]],
) -> None:
    """Print a matrix of texts, or of numbers with four decimals, with labels; a missing number is
    NaN.

    Args:
        title: the line above the matrix; without one, "".
        rows: a label for each row.
        columns: a label for each column.
        values: (rows, columns).
    """
    lines = [["", *columns]]
    for row, values_of_row in zip(rows, values, strict=True):
        cells = [value if isinstance(value, str) else decimals(value) for value in values_of_row]
        lines.append([row, *cells])
    text = aligned(lines, to_right=True)
    if title:
        text = f"{title}\n{text}"
    result(text)


def decimals(number: float) -> str:
    """Return a number with four decimals, and no minus where they are all zero."""
    rounded = round(float(number), 4) + 0.0  # −0.0 becomes 0.0
    return f"{rounded:.4f}"


def points(share: float, *, sign: str = "") -> str:
    """Return a share as points of 100, with one decimal; the sign "+" shows a plus as well."""
    rounded = round(100 * float(share), 1) + 0.0  # −0.0 becomes 0.0
    return f"{rounded:{sign}.1f}"


def aligned(lines: Sequence[Sequence[str]], *, to_right: bool = False) -> str:
    """Return lines of cells as a text in columns, each as wide as its widest cell.

    Args:
        to_right: all columns but the first are flush right.
    """
    widths = [max(map(width_of, column)) for column in zip(*lines, strict=True)]
    texts = []
    for line in lines:
        cells: list[str] = []
        for cell, width in zip(line, widths, strict=True):
            blanks = " " * (width - width_of(cell))
            if to_right and cells:
                cells.append(blanks + cell)
            else:
                cells.append(cell + blanks)
        texts.append("  ".join(cells).rstrip())
    return "\n".join(texts)


def width_of(text: str) -> int:
    """Return the number of columns of a terminal that a text takes; Chinese and Japanese take two each."""
    return len(text) + sum(unicodedata.east_asian_width(character) in "FW" for character in text)


def note(text: str) -> None:
    """Print a message to stderr."""
    if "notes" not in _silent:
        # A single write with the line break in it: a signal cannot leave half a line
        tqdm.write(f"{text}\n", file=sys.stderr, end="")


def warn(text: str) -> None:
    """Print a warning to stderr."""
    for texts in _recording:
        texts.append(text)
    note(f"warning: {text}")


@contextlib.contextmanager
def recorded_warnings() -> Iterator[list[str]]:
    """Give a list that gets the warnings of the block, also those that are not printed again."""
    texts: list[str] = []
    _recording.append(texts)
    try:
        yield texts
    finally:
        _recording.pop()


def note_once(text: str) -> None:
    """Print a message to stderr, unless an equal text was printed before.

    A text that was silenced counts as not printed.
    """
    if text not in _said and "notes" not in _silent:
        note(text)
        _said.add(text)


def warn_once(text: str) -> None:
    """Print a warning to stderr, unless an equal text was printed before."""
    for texts in _recording:
        texts.append(text)
    note_once(f"warning: {text}")


def progress(
    items: Iterable, description: str, total: int | None = None, **options: object
) -> Iterable:
    """Return an iterator over the items that shows a progress bar on stderr.

    The bar is removed at the end. Where stderr is no terminal there is none.

    Args:
        total: the number of items, if `items` has no length.
        options: further options of tqdm.
    """
    is_disabled = "notes" in _silent or None  # None: tqdm finds out whether stderr is a terminal
    return tqdm(
        items,
        desc=description,
        total=total,
        leave=False,
        disable=is_disabled,
        file=sys.stderr,
        **options,
    )


def layer_in_words(layer: str) -> str:
    """Return the name of a layer as a text reads it: "layer 2" for the 2 of a `Sequential`."""
    return f"layer {layer}" if layer.replace(".", "").isdigit() else layer


def counted(n: int, one: str, many: str) -> str:
    """Return a number with its noun, such as "1 stitch" or "2 stitches"."""
    return f"{n} {one if n == 1 else many}"


def listed(items: Iterable[object], *, n: int = 8) -> str:
    """Join the first n items by commas, and append how many are missing, such as "and 3 more"."""
    names = list(map(str, items))
    text = ", ".join(names[:n])
    if len(names) > n:
        text += f" and {len(names) - n} more"
    return text
