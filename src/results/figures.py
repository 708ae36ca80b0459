"""Figures at the size of a paper's column: titles, captions and legends. Imports matplotlib to draw one."""

import contextlib
import importlib.util
import io
import math
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.console import warn
from src.files import write_bytes

COLUMN = 3.3  # inches: the width of a panel
POINTS = 8  # the size of all text but the numbers in cells
STYLE = {
    "font.size": POINTS, "axes.titlesize": POINTS, "figure.titlesize": POINTS + 1,
    "text.parse_math": False,  # a $ in the name of a file is a $
    "pdf.fonttype": 42,  # TrueType: text stays text, and publishers take it
}  # fmt: skip
CHARACTER, LINE = 0.065, 0.16  # inches, of this text

_are_left_out = False


@contextlib.contextmanager
def left_out(are_left_out: bool = True) -> Iterator[None]:
    """Draw no figures while the block runs, if so asked: of many small tables they take longer than the tables."""
    global _are_left_out
    before, _are_left_out = _are_left_out, are_left_out
    try:
        yield
    finally:
        _are_left_out = before


def add_legend(figure: Any, handles: Mapping[str, Any]) -> None:
    """Add one legend for all panels below them, in as many columns as the figure has room for."""
    n_columns, labels = _legend_layout(handles, figure.get_figwidth())
    bottom = figure.get_layout_engine().get()["rect"][1]  # of the panels
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, bottom), "borderaxespad": 0, "borderpad": 0.2}
    figure.legend(handles.values(), labels, ncols=n_columns, frameon=False, **place)


def _legend_layout(labels: Collection[str], width: float) -> tuple[int, list[str]]:
    """Choose the number of columns of a legend, and break its labels into lines that fit."""
    wrapped = [_wrap(label, width - 0.5) for label in labels]
    longest = max(len(line) for label in wrapped for line in label.splitlines())
    return max(1, min(len(wrapped), int(width / (0.5 + CHARACTER * longest)))), wrapped


def _wrap(text: str, width: float) -> str:
    """Return the text in lines of that many inches; its own line breaks stay."""
    return "\n".join(textwrap.fill(line, max(10, int(width / CHARACTER))) for line in text.splitlines())


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
    path: Path, titles: Sequence[str], panel: tuple[float, float], *, title: str, caption: str, legend: Collection = ()
) -> Iterator[Any]:
    """Make a figure with a panel for each title, to be drawn in; then write it in the format that its name ends in.

    Up to three panels stand side by side; four make two rows, and more a square or one panel wider.

    Args:
        panel: inches of each.
        legend: labels of the legend that is to be added, for which there is room.
    """
    import matplotlib
    from matplotlib.figure import Figure

    n_columns = len(titles) if len(titles) <= 3 else math.ceil(math.sqrt(len(titles)))
    n_rows = math.ceil(len(titles) / n_columns)
    width = n_columns * panel[0]
    titles = [_wrap(text, 0.75 * panel[0]) for text in titles]
    title, caption = _wrap(title, width), _wrap(caption, width)
    below = LINE * (len(caption.splitlines()) + 0.5) if caption else 0
    if legend:
        n_in_row, labels = _legend_layout(legend, width)
        n_lines = math.ceil(len(labels) / n_in_row) * max(len(label.splitlines()) for label in labels)
        below += LINE * (1.1 * n_lines + 0.3)
    above = LINE * (len(title.splitlines()) + n_rows * max(len(text.splitlines()) for text in titles))
    height = n_rows * panel[1] + above + below
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.get_layout_engine().set(rect=(0, below / height, 1, 1 - below / height))
        for axes, text in zip(figure.subplots(n_rows, n_columns, squeeze=False).flat, titles, strict=False):
            axes.set_title(text)
        for axes in figure.axes[len(titles) :]:
            axes.remove()
        if title:
            figure.suptitle(title)
        if caption:
            figure.text(0.5, 0.25 * LINE / height, caption, ha="center", va="bottom")
        yield figure
        _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    buffer, suffix = io.BytesIO(), Path(path).suffix[1:]
    metadata = {"CreationDate": None} if suffix == "pdf" else {}  # equal figures make equal files
    figure.savefig(buffer, format=suffix, dpi=200, metadata=metadata)
    write_bytes(path, buffer.getvalue())
