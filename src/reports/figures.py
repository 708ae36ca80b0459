"""Figures of panels with a title above, and a caption and a legend below.

The module imports matplotlib only to draw a figure.
"""

import contextlib
import importlib.util
import io
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from src.ground.console import warn
from src.ground.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

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


class LineLook(TypedDict):
    """The look of a line, as matplotlib names it."""

    color: str
    marker: str
    linestyle: str


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
    path: Path | None,
    widths: Sequence[float],
    heights: Sequence[float],
    *,
    title: str = "",
    caption: str = "",
) -> "Iterator[tuple[dict[tuple[int, int], Axes], dict[str, Artist]]]":
    """Make a figure with panels in rows and columns; it is complete, and written, when the block
    ends.

    The block draws into the panels and labels them. The legend of all panels lies below the
    panels, with the caption as its title.

    Args:
        path: of the image, a PNG or a PDF. The other format goes beside it. None: the figure is not
            written.
        widths: of the columns of panels, in inches, without labels.
        heights: of the rows of panels, likewise.

    Yields:
        The axes of the panels by row and column, and a dict to fill with the handles of the legend
        by label. The block may remove axes, except the first.
    """
    import matplotlib
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # With ample room for the labels of each panel, which `_fit` reduces to what they need
    size = (sum(widths) + 3 * len(widths), sum(heights) + 3 * len(heights))
    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine()
        figure = _styled_figure(size, layout)
        if title:
            figure.suptitle(wrap(title, sum(widths)))
        grid = figure.subplots(
            len(heights), len(widths), squeeze=False, width_ratios=widths, height_ratios=heights
        )
        handles: dict[str, Artist] = {}
        yield dict(np.ndenumerate(grid)), handles
        _fit(figure, layout, widths, heights)
        _add_legend(figure, handles, caption, max(COLUMN, figure.get_figwidth()))
        if path is not None:
            _save(figure, path)


def _styled_figure(size: tuple[float, float], layout: "ConstrainedLayoutEngine") -> "Figure":
    """Return an empty figure of a size in inches, which saves in `STYLE`.

    Its legend lies below its edge, so that a file has to be as large as what is drawn.
    """
    import matplotlib
    from matplotlib.figure import Figure

    class StyledFigure(Figure):
        def savefig(self, fname: Any, **options: Any) -> None:
            with matplotlib.rc_context(STYLE):
                super().savefig(fname, **options)

        def _repr_png_(self) -> bytes:  # notebooks show it, also without pyplot
            image = io.BytesIO()
            self.savefig(image, format="png")
            return image.getvalue()

    return StyledFigure(figsize=size, layout=layout)


def line_look(number: int) -> LineLook:
    """Return the look of a line by its number in the figure."""
    return {
        "color": LINE_COLOURS[number % len(LINE_COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINE_STYLES[number % len(LINE_STYLES)],
    }


def _fit(
    figure: "Figure",
    layout: "ConstrainedLayoutEngine",
    widths: Sequence[float],
    heights: Sequence[float],
) -> None:
    """Make the figure so large that its panels have these widths and heights beside their labels,
    and fix their places."""
    layout.execute(figure)
    width, height = figure.get_size_inches()
    panel = figure.axes[0].get_position()  # the layout keeps the ratios of all panels
    missing_width = sum(widths) * (1 - panel.width * width / widths[0])
    missing_height = sum(heights) * (1 - panel.height * height / heights[0])
    figure.set_size_inches(width + missing_width, height + missing_height)
    layout.execute(figure)
    figure.set_layout_engine("none")


def wrap(text: str, width: float) -> str:
    """Return the text in lines of `width` inches, broken between words; its line breaks stay.

    A word that is longer than a line, such as a path, is broken behind / or =, and if it has none
    in time, behind _ or -.
    """
    n_characters = int(CHARACTERS * width)
    lines = []
    for line in text.splitlines():
        broken = " ".join(_broken(word, n_characters) for word in line.split())
        for part in broken.splitlines():
            lines += textwrap.wrap(
                part, n_characters, break_long_words=False, break_on_hyphens=False
            )
    return "\n".join(lines)


def _broken(word: str, n_characters: int) -> str:
    """Return a word with line breaks behind separators, in parts of at most so many characters if
    its separators are close enough."""
    if len(word) <= n_characters:
        return word
    start = f".{{1,{n_characters - 1}}}"
    for pattern in (f"{start}[/=]", f"{start}[_-]", ".+?[/=_-](?=.)"):
        part = re.match(pattern, word)
        if part:
            return f"{part[0]}\n{_broken(word[part.end() :], n_characters)}"
    return word


def _add_legend(
    figure: "Figure", handles: "Mapping[str, Artist]", caption: str, width: float
) -> None:
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


def _save(figure: "Figure", path: Path) -> None:
    """Write a figure as pixels (PNG) and as vectors (PDF); equal figures make equal files."""
    for suffix in (".pdf", ".png"):
        metadata = {"CreationDate": None} if suffix == ".pdf" else {}
        image = io.BytesIO()
        figure.savefig(image, format=suffix[1:], metadata=metadata)
        write_bytes(path.with_suffix(suffix), image.getvalue())
