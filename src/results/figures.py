"""Figures of panels with a title above, and a caption and a legend below.

The module imports matplotlib only to draw a figure.
"""

import contextlib
import importlib.util
import io
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from src.console import warn
from src.files import write_bytes

COLUMN = 3.3  # inches: the width of a panel, and of a paper's column
POINTS = 8  # the size of all text except the numbers in cells
CHARACTERS = 16  # characters of this text per inch
STYLE: dict[Any, Any] = {
    "font.size": POINTS,
    "axes.titlesize": POINTS,
    "figure.titlesize": POINTS + 1,
    "legend.title_fontsize": POINTS,
    "text.parse_math": False,  # a $ in the name of a file stays a $
    "pdf.fonttype": 42,  # TrueType: text stays text, and publishers accept it
}

_are_left_out = False


@contextlib.contextmanager
def left_out(are_left_out: bool = True) -> Iterator[None]:
    """Draw no figures while the block runs, or draw figures as usual if `are_left_out` is false.

    Drawing takes longer than writing tables, which counts for many small tables.
    """
    global _are_left_out
    before = _are_left_out
    _are_left_out = are_left_out
    try:
        yield
    finally:
        _are_left_out = before


def can_draw(path: Path) -> bool:
    """Return whether the figure at `path` can be drawn; warn if matplotlib is not installed.

    Returns:
        False inside of `left_out`, or without matplotlib.
    """
    if _are_left_out:
        return False
    if importlib.util.find_spec("matplotlib") is None:
        warn(f"{path} was not drawn: matplotlib is not installed")
        return False
    return True


@contextlib.contextmanager
def new_figure(
    path: Path,
    titles: Sequence[str],
    panel: tuple[float, float],
    *,
    title: str = "",
    caption: str = "",
    n_columns: int | None = None,
) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Make a figure with a panel per title, and write it when the block ends.

    The block draws into the panels. The legend of all panels lies below the panels, with the
    caption as its title. The figure grows by its height.

    Args:
        path: of the image. Its suffix is the format.
        panel: width and height of a panel in inches.
        n_columns: panels side by side. By default up to three panels stand in one row, and more
            panels make a square, or a rectangle that is one panel wider.

    Yields:
        The axes of the panels, and a dict to fill with the handles of the legend by label.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if n_columns is None:
        n_columns = _default_columns(len(titles))
    n_rows = math.ceil(len(titles) / n_columns)
    panel_width, panel_height = panel
    width = n_columns * panel_width
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, n_rows * panel_height), layout="compressed")
        if title:
            figure.suptitle(_wrap(title, width))

        # Panels
        all_axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
        used_axes = all_axes[: len(titles)]
        for axes in all_axes[len(titles) :]:
            axes.remove()
        for axes, text in zip(used_axes, titles, strict=True):
            axes.set_title(_wrap(text, 0.75 * panel_width))

        handles: dict[str, Any] = {}
        yield used_axes, handles
        _add_legend(figure, handles, caption, width)
        _save(figure, path)


def _default_columns(n_panels: int) -> int:
    """Return the number of panels side by side."""
    return n_panels if n_panels <= 3 else math.ceil(math.sqrt(n_panels))


def _add_legend(figure: Any, handles: dict[str, Any], caption: str, width: float) -> None:
    """Add the legend below the panels, with the caption as its title."""
    labels = [_wrap(label, width - 0.5) for label in handles]
    longest = max(map(len, labels), default=0)
    n_that_fit = max(1, int(CHARACTERS * width / (8 + longest)))
    figure.legend(
        handles.values(),
        labels,
        title=_wrap(caption, width),
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        ncols=min(n_that_fit, max(1, len(labels))),
    )


def _wrap(text: str, width: float) -> str:
    """Return the text in lines of `width` inches, broken between words; its line breaks stay.

    A longer word, such as a path, is broken after / = _ or -.
    """
    n_characters = int(CHARACTERS * width)
    return "\n".join(_fill(line, n_characters) for line in text.splitlines())


def _fill(text: str, n_characters: int) -> str:
    """Return a text without line breaks in lines of so many characters."""
    words: list[str] = []
    for word in text.split():
        words += [word] if len(word) <= n_characters else _chunks(word, n_characters)
    return textwrap.fill(
        " ".join(words), n_characters, break_long_words=False, break_on_hyphens=False
    )


def _chunks(word: str, n_characters: int) -> list[str]:
    """Return the chunks of a long word; a chunk is longer where the word has no separator."""
    chunks = [""]
    for part in re.findall(r"[^/=_-]*[/=_-]|[^/=_-]+$", word):
        if chunks[-1] and len(chunks[-1]) + len(part) > n_characters:
            chunks.append("")
        chunks[-1] += part
    return chunks


def _save(figure: Any, path: Path) -> None:
    """Write the image of a figure; equal figures make equal files."""
    buffer = io.BytesIO()
    suffix = Path(path).suffix[1:]
    metadata = {}
    if suffix == "pdf":
        metadata = {"CreationDate": None}
    figure.savefig(buffer, format=suffix, dpi=200, metadata=metadata, bbox_inches="tight")
    write_bytes(path, buffer.getvalue())
