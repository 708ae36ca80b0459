"""The one place that prints: results on stdout, progress and warnings on stderr."""

import sys
from collections.abc import Iterable

from tqdm import tqdm


def result(text: str = "") -> None:
    """Print what the user asked for."""
    print(text, flush=True)


def note(text: str) -> None:
    """Say what is going on, without mixing it into the results."""
    tqdm.write(text, file=sys.stderr)


def warn(text: str) -> None:
    """Say what may surprise, and go on."""
    note(f"warning: {text}")


def progress(items: Iterable, description: str, total: int | None = None, **options) -> Iterable:
    """Iterate behind a bar that vanishes when done and never appears when stderr is no terminal."""
    return tqdm(items, desc=description, total=total, leave=False, disable=None, file=sys.stderr, **options)
