"""Figures of panels with a title above, and a caption and a legend below.

The module imports matplotlib only to draw a figure.
"""

import contextlib
import importlib.util
import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from src.ground.console import warn
from src.ground.files import write_bytes

COLUMN = 3.54  # inches: the width of a column of a paper, 9 cm
PAGE = 7.09  # inches: the width of two columns, 18 cm
POINTS = 7  # the size of all text
CHARACTERS = 18  # characters of this text per inch

# Colours that colour-blind people tell apart (Okabe and Ito)
BLACK = "#000000"
ORANGE = "#E69F00"
SKY_BLUE = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"

# Lines differ in all three, and the numbers of looks have no common factor but 2
LINE_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY_BLUE, BLACK)
MARKERS = "osD^vXP*<>"
LINE_STYLES = ("-", "--", "-.", ":")

STYLE: dict[Any, Any] = {
    "font.size": POINTS,
    "axes.titlesize": POINTS,
    "axes.titlepad": 3,
    "axes.labelpad": 2,
    "axes.linewidth": 0.6,
    "figure.titlesize": POINTS + 1,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "figure.constrained_layout.hspace": 0,
    "figure.constrained_layout.wspace": 0,
    "grid.alpha": 0.3,
    "hatch.linewidth": 0.5,
    "legend.handlelength": 4,  # so that line styles can be told apart
    "legend.title_fontsize": POINTS,
    "lines.linewidth": 1,
    "lines.markersize": 3.5,
    "patch.linewidth": 0.5,
    "pdf.fonttype": 42,  # TrueType: text stays text, and publishers accept it
    "savefig.bbox": "tight",
    "savefig.dpi": 300,
    "savefig.pad_inches": 0.03,
    "text.parse_math": False,  # a $ in the name of a file stays a $
    "xtick.major.pad": 2,
    "xtick.major.size": 2,
    "xtick.major.width": 0.6,
    "ytick.major.pad": 2,
    "ytick.major.size": 2,
    "ytick.major.width": 0.6,
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
    widths: Sequence[float],
    heights: Sequence[float],
    *,
    title: str = "",
    caption: str = "",
) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Make a figure with panels in rows and columns, and write it when the block ends.

    The block draws into the panels and labels them. The legend of all panels lies below the
    panels, with the caption as its title.

    Args:
        path: of the image, a PNG or a PDF. The other format goes beside it.
        widths: of the columns of panels, in inches, without labels.
        heights: of the rows of panels, likewise.

    Yields:
        The axes of the panels, row by row, and a dict to fill with the handles of the legend by
        label. The block may remove axes, except the first.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # With ample room for the labels of each panel, which `_fit` reduces to what they need
    size = (sum(widths) + 3 * len(widths), sum(heights) + 3 * len(heights))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        if title:
            figure.suptitle(wrap(title, sum(widths)))
        grid = figure.subplots(
            len(heights), len(widths), squeeze=False, width_ratios=widths, height_ratios=heights
        )
        handles: dict[str, Any] = {}
        yield list(grid.flat), handles
        _fit(figure, grid[0, 0], widths, heights)
        _add_legend(figure, handles, caption, max(COLUMN, figure.get_figwidth()))
        _save(figure, path)


def line_look(number: int) -> dict[str, str]:
    """Return colour, marker and style of a line by its number in the figure."""
    return {
        "color": LINE_COLOURS[number % len(LINE_COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINE_STYLES[number % len(LINE_STYLES)],
    }


def _fit(figure: Any, axes: Any, widths: Sequence[float], heights: Sequence[float]) -> None:
    """Make the figure so large that its panels have these widths and heights beside their labels,
    and fix their places.

    Args:
        axes: the first panel. The layout keeps the ratios of all panels.
    """
    layout = figure.get_layout_engine()
    layout.execute(figure)
    width, height = figure.get_size_inches()
    panel = axes.get_position()
    missing_width = sum(widths) * (1 - panel.width * width / widths[0])
    missing_height = sum(heights) * (1 - panel.height * height / heights[0])
    figure.set_size_inches(width + missing_width, height + missing_height)
    layout.execute(figure)
    figure.set_layout_engine("none")


def wrap(text: str, width: float) -> str:
    """Return the text in lines of `width` inches, broken between words; its line breaks stay.

    A longer word, such as a path, is broken behind / or =. A part of it that is still longer than a
    line is broken behind _ or -.
    """
    n_characters = int(CHARACTERS * width)
    return "\n".join(_fill(line, n_characters) for line in text.splitlines())


def _fill(text: str, n_characters: int) -> str:
    """Return a text without line breaks in lines of so many characters."""
    words: list[str] = []
    for word in text.split():
        for part in _parts(word, "/=", n_characters):
            words += _parts(part, "_-", n_characters)
    return textwrap.fill(
        " ".join(words), n_characters, break_long_words=False, break_on_hyphens=False
    )


def _parts(word: str, separators: str, n_characters: int) -> list[str]:
    """Return a word that fits into a line whole, and a longer one in parts that end in a separator."""
    if len(word) <= n_characters:
        return [word]
    parts = [""]
    for piece in re.findall(f"[^{separators}]*[{separators}]|[^{separators}]+$", word):
        if parts[-1] and len(parts[-1]) + len(piece) > n_characters:
            parts.append("")
        parts[-1] += piece
    return parts


def _add_legend(figure: Any, handles: dict[str, Any], caption: str, width: float) -> None:
    """Add the legend below the panels, with the caption as its title."""
    labels = [wrap(label, width - 0.5) for label in handles]
    longest = max(map(len, labels), default=0)
    n_that_fit = max(1, int(CHARACTERS * width / (8 + longest)))
    figure.legend(
        handles.values(),
        labels,
        title=wrap(caption, width),
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        ncols=min(n_that_fit, max(1, len(labels))),
    )


def _save(figure: Any, path: Path) -> None:
    """Write a figure as pixels (PNG) and as vectors (PDF); equal figures make equal files."""
    for suffix in (".pdf", ".png"):
        metadata = {"CreationDate": None} if suffix == ".pdf" else {}
        image = io.BytesIO()
        figure.savefig(image, format=suffix[1:], metadata=metadata)
        write_bytes(path.with_suffix(suffix), image.getvalue())
