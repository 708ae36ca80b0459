"""Writes figures: pixels, vectors and a caption, in the style of the suite and of the user.

The module imports matplotlib only to draw a figure.
"""

import contextlib
import importlib.util
import io
import math
import string
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from src.figures.figure_files import page_of
from src.figures.style import LAYOUT, WIDTHS, chosen_width, style_sheets
from src.ground.console import warn
from src.ground.files import write_bytes, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE_SHEET = Path(__file__).with_name("figures.mplstyle")
CM = 1 / 2.54  # in inches
CELLS = "cells"  # marks the axes of a map
NUMBERS = "numbers"  # marks the numbers of a map
ENDS = "ends"  # marks the labels at the ends of lines
FILLED = 0.88  # of the width of a cell, by its text at most

Item = TypeVar("Item")
Look = dict[str, Any]  # arguments of a function of matplotlib, such as colour and marker

_to_draw: Collection[str] | None = None  # names of figures; None: all


@contextlib.contextmanager
def left_out(are_left_out: bool = True, *, except_for: Collection[str] = ()) -> Iterator[None]:
    """Draw no figures while the block runs, or draw figures as usual if `are_left_out` is false.

    Drawing takes longer than writing tables, which counts for many small tables.

    Args:
        except_for: names of figures that are drawn all the same, such as "verdict.png".
    """
    global _to_draw
    before = _to_draw
    _to_draw = except_for if are_left_out else None
    try:
        yield
    finally:
        _to_draw = before


def can_draw(path: Path) -> bool:
    """Return whether the figure at `path` can be drawn; warn if matplotlib is not installed.

    Returns:
        False if it is left out, or without matplotlib.
    """
    if _to_draw is not None and path.name not in _to_draw:
        return False
    if importlib.util.find_spec("matplotlib") is None:
        warn(f"{path} was not drawn: matplotlib is not installed")
        return False
    return True


def styled() -> contextlib.AbstractContextManager[None]:
    """Return a context in which matplotlib draws in the style of the suite, and of the user over it."""
    import matplotlib.style

    return matplotlib.style.context([STYLE_SHEET, *style_sheets(), LAYOUT])


def draw_pages(
    path: Path,
    items: Sequence[Item],
    draw: Callable[["Figure", Sequence[Item]], str],
    *,
    on_page: int,
    title: str = "",
    width: float | None = None,
    usual_width: float = WIDTHS[-1],
) -> list[Path]:
    """Draw items, such as panels, and write the figure with its caption; what does not fit a page goes
    on in NAME_2.png and so on.

    Args:
        path: of the image, a PNG or a PDF. The other format goes beside it, and the caption (`.txt`).
        draw: draws the items of a page into an empty figure, and returns the caption.
        on_page: the most items on a page.
        title: the text above the figure.
        width: of the figure in cm; None: as `--width` says, else `usual_width`.
    Returns:
        The paths of the written files; none if the figure is left out, or without matplotlib.
    """
    written: list[Path] = []
    if not can_draw(path):
        return written
    pages = [items[start : start + on_page] for start in range(0, len(items), on_page)]
    for number, page in enumerate(pages, start=1):
        with styled():
            figure = new_figure(width or chosen_width() or usual_width)
            if title:
                figure.suptitle(title)
            figure.caption = draw(figure, page)
            fit(figure)
            written += _write(figure, page_of(path, number))
    return written


def new_figure(width: float = WIDTHS[-1]) -> Any:
    """Return an empty figure of a width in cm that saves in the style."""
    from matplotlib.figure import Figure

    class StyledFigure(Figure):
        caption = ""  # the text for below it

        def savefig(self, fname: Any, **options: Any) -> None:
            with styled():
                super().savefig(fname, **options)

        def _repr_png_(self) -> bytes:  # notebooks show it, also without pyplot
            image = io.BytesIO()
            self.savefig(image, format="png")
            return image.getvalue()

    figure = StyledFigure()
    figure.set_figwidth(width * CM)
    return figure


def panels_in(figure: "Figure", n: int, *, in_line: int, height: float) -> "list[Axes]":
    """Return panels in lines, and make the figure as high as they need.

    Args:
        in_line: the most panels side by side.
        height: of a panel with what is above and below it, in cm.
    """
    n_columns = min(n, max(1, in_line))
    n_lines = math.ceil(n / n_columns)
    figure.set_figheight(n_lines * height * CM)
    panels = list(figure.subplots(n_lines, n_columns, squeeze=False).flat)
    for unused in panels[n:]:
        unused.remove()
    return panels[:n]


def letter(axes: "Axes", place: int) -> None:
    """Write the letter of a panel at its upper left corner, by its place: a, b and so on."""
    name = string.ascii_lowercase[place % 26] * (1 + place // 26)
    axes.set_title(f"{name}  ", loc="left", ha="right", fontweight="bold")


def head(axes: "Axes", place: int, title: str) -> None:
    """Write the letter and the title of a panel at its upper left corner."""
    letter(axes, place)
    axes.set_title(title, loc="right", x=0, ha="left")


def fit(figure: "Figure") -> None:
    """Turn names of layers that are wider than a cell, leave out names that would still touch,
    remove the numbers of maps whose cells have no room for them, and part the labels of lines."""
    maps = [axes for axes in figure.axes if axes.get_gid() == CELLS]
    figure.draw_without_rendering()
    for axes in maps:
        cell_width, _ = _cell_size(axes)
        widths = [name.get_window_extent().width for name in axes.get_xticklabels()]
        if max(widths, default=0) > FILLED * cell_width:
            axes.tick_params(axis="x", labelrotation=90)
    figure.draw_without_rendering()
    for axes in maps:
        sizes = zip((axes.xaxis, axes.yaxis), _cell_size(axes), strict=True)
        for axis, size in sizes:
            names = [name.get_text() for name in axis.get_ticklabels()]
            step = math.ceil(font_size(figure) / size)
            axis.set_ticks(axis.get_ticklocs()[::step], names[::step])
        numbers = [text for text in axes.texts if text.get_gid() == NUMBERS]
        extents = [text.get_window_extent() for text in numbers]
        has_room = all(
            extent.width < FILLED * _cell_size(axes)[0] and extent.height < _cell_size(axes)[1]
            for extent in extents
        )
        if not has_room:
            for text in numbers:
                text.remove()

    for axes in figure.axes:
        _part_labels(axes, font_size(figure))


def _part_labels(axes: "Axes", height: float) -> None:
    """Move the labels at the ends of lines apart, each by as little as the height of a line."""
    labels = [text for text in axes.texts if text.get_gid() == ENDS]
    labels.sort(key=lambda label: label.get_position()[1])
    ys = [axes.transData.transform((0, label.get_position()[1]))[1] for label in labels]
    parted: list[float] = []
    for y in ys:
        parted.append(max([y, *(previous + height for previous in parted[-1:])]))
    shift = sum(parted) / max(len(ys), 1) - sum(ys) / max(len(ys), 1)
    for label, y in zip(labels, parted, strict=True):
        label.set_y(axes.transData.inverted().transform((0, y - shift))[1])


def _cell_size(axes: "Axes") -> tuple[float, float]:
    """Return the width and the height of a cell of a map in pixels."""
    extent = axes.get_window_extent()
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    return extent.width / abs(right - left), extent.height / abs(top - bottom)


def font_size(figure: "Figure") -> float:
    """Return the height of a line of text in pixels."""
    import matplotlib

    return 1.1 * matplotlib.rcParams["font.size"] / 72 * figure.dpi


def _write(figure: Any, path: Path) -> list[Path]:
    """Write a figure as pixels and as vectors, and its caption; equal figures make equal files."""
    text = path.with_suffix(".txt")
    images = [path.with_suffix(".png"), path.with_suffix(".pdf")]
    for image in images:
        write_bytes(image, _rendered(figure, image.suffix[1:]))
    write_text(text, f"{figure.caption}\n")
    return [*images, text]


def _rendered(figure: Any, kind: str) -> bytes:
    """Return the content of an image file of a kind, png or pdf."""
    image = io.BytesIO()
    metadata = {"CreationDate": None} if kind == "pdf" else {}
    figure.canvas.print_figure(image, format=kind, metadata=metadata)
    return image.getvalue()
