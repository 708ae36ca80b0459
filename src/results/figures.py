"""Figures of panels with a title and, below them, a caption and a legend. Imports matplotlib to
draw one."""

import contextlib
import importlib.util
import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from src.console import warn
from src.files import write_bytes

COLUMN = 3.3  # inches: the width of a panel, and of a paper's column
POINTS = 8  # the size of all text but the numbers in cells
CHARACTERS = 16  # of this text in an inch
STYLE = {
    "font.size": POINTS, "axes.titlesize": POINTS, "figure.titlesize": POINTS + 1, "legend.title_fontsize": POINTS,
    "text.parse_math": False,  # a $ in the name of a file is a $
    "pdf.fonttype": 42,  # TrueType: text stays text, and publishers take it
}  # fmt: skip

_are_left_out = False


@contextlib.contextmanager
def left_out(are_left_out: bool = True) -> Iterator[None]:
    """Draw no figures while the block runs, if so asked: of many small tables they take longer than
    the tables."""
    global _are_left_out
    before, _are_left_out = _are_left_out, are_left_out
    try:
        yield
    finally:
        _are_left_out = before


def can_draw(path: Path) -> bool:
    """Return whether figures are asked for and matplotlib is installed; warn if it is not."""
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
    """Make a figure with a panel for each title, to be drawn in; then write it in the format that
    its name ends in.

    By default up to three panels stand side by side; four make two rows, and more a square or one
    panel wider. The legend of all panels lies below them, with the caption as its title; the figure
    grows by it.

    Args:
        panel: inches of each.
        n_columns: panels in a row.
    Yields:
        The axes of the panels, and a dict for the handles of the legend by label.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if n_columns is None:
        n_columns = len(titles) if len(titles) <= 3 else math.ceil(math.sqrt(len(titles)))
    n_rows = math.ceil(len(titles) / n_columns)
    width = n_columns * panel[0]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, n_rows * panel[1]), layout="compressed")
        axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
        for unused in axes[len(titles) :]:
            unused.remove()
        for one, text in zip(axes, titles, strict=False):
            one.set_title(_wrap(text, 0.75 * panel[0]))
        figure.suptitle(_wrap(title, width) or None)
        handles: dict[str, Any] = {}
        yield axes[: len(titles)], handles
        labels = [_wrap(label, width - 0.5) for label in handles]
        n_beside = max(1, int(CHARACTERS * width / (8 + max(map(len, labels), default=0))))
        place = {
            "loc": "upper center",
            "bbox_to_anchor": (0.5, 0),
            "ncols": min(n_beside, max(1, len(labels))),
        }
        figure.legend(handles.values(), labels, title=_wrap(caption, width), frameon=False, **place)
        _save(figure, path)


def _wrap(text: str, width: float) -> str:
    """Return the text in lines of that many inches, long paths cut; its own line breaks stay."""
    return "\n".join(textwrap.fill(line, int(CHARACTERS * width)) for line in text.splitlines())


def _save(figure: Any, path: Path) -> None:
    buffer, suffix = io.BytesIO(), Path(path).suffix[1:]
    metadata = {"CreationDate": None} if suffix == "pdf" else {}  # equal figures make equal files
    figure.savefig(buffer, format=suffix, dpi=200, metadata=metadata, bbox_inches="tight")
    write_bytes(path, buffer.getvalue())
