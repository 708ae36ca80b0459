"""Writes figures as PNG and PDF with captions, in the style of the suite.

A user's matplotlibrc counts where figures.mplstyle says nothing, such as for fonts.

The module imports matplotlib only to draw a figure.
"""

import contextlib
import importlib.util
import io
import math
import textwrap
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from src.core.choices.datasets import dataset_label
from src.core.console import warn, warn_once
from src.core.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE_SHEET = Path(__file__).with_name("figures.mplstyle")
CM = 1 / 2.54  # in inches
COLUMN = 8.5  # cm: the width of a column of a paper
PAGE = 17.0  # cm: the width of two columns
CAPTION = "Description"  # the text in a PNG that holds its caption
CELLS = "cells"  # marks the axes of a map
NUMBERS = "numbers"  # marks the numbers of a map
FILLED = 0.9  # of a cell, by its text at most
NAME_LENGTH = 18  # characters of a name in a figure
NAME_WIDTH = 2.6  # cm, of a name in lines
PAD = 6  # pixels between panels, legends and texts
LINE = 0.4  # cm of height, for a line of a remark
CHARACTERS = 8  # in a cm of a line
WIDE_CHARACTERS = 6  # in a cm of a long word, with digits and underscores

Item = TypeVar("Item")
Look = dict[str, Any]  # arguments of a function of matplotlib, such as colour and marker

_to_draw: Collection[str] | None = None  # names of figures; None: all


@contextlib.contextmanager
def left_out(are_left_out: bool = True, *, except_for: Collection[str] = ()) -> Iterator[None]:
    """Context manager that disables figures if `are_left_out` is true.

    Drawing takes longer than writing tables, which counts for many small tables.

    Args:
        except_for: names of figures that are drawn all the same, such as "verdict.png".
    """
    global _to_draw
    before = _to_draw
    if are_left_out:
        _to_draw = except_for
    try:
        yield
    finally:
        _to_draw = before


def are_left_out() -> bool:
    """Return whether no figure is drawn."""
    return _to_draw is not None and len(_to_draw) == 0


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Context manager that sets matplotlib's style to that of the suite.

    Warns once of names in a script that the fonts lack.
    """
    import matplotlib.style

    style = matplotlib.style.context(STYLE_SHEET)
    with style, warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        if "missing from font" in str(warning.message):
            warn_once(
                "figures lack characters of names that are not in their fonts; name an installed font that has them in "
                "a file matplotlibrc in the working folder, such as font.family: DejaVu Sans, Noto Sans CJK JP"
            )
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def write_figure(
    path: Path,
    items: Sequence[Item],
    draw: Callable[["Figure", Sequence[Item]], str],
    *,
    source: str = "",
    remark: str = "",
    width: float = PAGE,
) -> list[Path]:
    """Draw items, such as panels, and write the figure with its caption.

    Args:
        path: of the image, a PNG or a PDF. The other format goes beside it.
        draw: draws items into an empty figure, and returns the caption.
        source: the last sentence of the caption, on networks and images.
        remark: a sentence that stands under the figure.
        width: of the figure in cm.
    Returns:
        The paths of both files; none without items or matplotlib, or if figures are left out.
    """
    if not items or (_to_draw is not None and path.name not in _to_draw):
        return []
    if importlib.util.find_spec("matplotlib") is None:
        warn(f"{path} was not drawn: matplotlib is not installed")
        return []
    return _write(draw_figure(items, draw, source=source, remark=remark, width=width), path)


def draw_figure(
    items: Sequence[Item],
    draw: Callable[["Figure", Sequence[Item]], str],
    *,
    source: str = "",
    remark: str = "",
    width: float = PAGE,
) -> Any:
    """Return the figure of `write_figure`, without writing a file."""
    with styled():
        figure = new_figure(width)
        figure.caption = " ".join(filter(None, [draw(figure, items), source]))
        if remark:
            lines = textwrap.wrap(remark, int(CHARACTERS * width))
            figure.set_figheight(figure.get_figheight() + LINE * (1 + len(lines)) * CM)
            figure.supxlabel("\n".join(lines))
        fit(figure)
    return figure


def new_figure(width: float) -> Any:
    """Return an empty figure of a width in cm, in the style of the suite."""
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


def fit(figure: "Figure") -> None:
    """Adjust the labels of maps: rotate names of columns that are too wide, remove the space around maps, and
    hide overlapping names and numbers."""
    import matplotlib

    maps = [axes for axes in figure.axes if axes.get_gid() == CELLS]
    for axes in maps:
        axes.tick_params(axis="x", labelrotation=90)
    figure.draw_without_rendering()
    for axes in maps:
        lengths = [name.get_window_extent().height for name in axes.get_xticklabels()]
        if max(lengths, default=0) <= FILLED * _cell_size(axes)[0]:
            axes.tick_params(axis="x", labelrotation=0)
    figure.draw_without_rendering()
    if maps:
        figure.set_figheight(_height_of(figure))
        figure.draw_without_rendering()
    line = 1.1 * matplotlib.rcParams["font.size"] / 72 * figure.dpi
    for axes in maps:
        size = _cell_size(axes)
        for axis, length in zip((axes.xaxis, axes.yaxis), size, strict=True):
            names = [name.get_text() for name in axis.get_ticklabels()]
            step = math.ceil(line / length)
            axis.set_ticks(axis.get_ticklocs()[::step], names[::step])
        numbers = [text for text in axes.texts if text.get_gid() == NUMBERS]
        if any((text.get_window_extent().size > FILLED * size).any() for text in numbers):
            for text in numbers:
                text.remove()


def _height_of(figure: "Figure") -> float:
    """Return the height in inches that panels, legends and the text below them need."""
    from matplotlib.transforms import Bbox

    boxes: Any = [axes.get_tightbbox() for axes in figure.axes]
    texts = [text for text in figure.texts if text.get_text() and text.get_rotation() == 0]
    around = [item.get_window_extent() for item in (*figure.legends, *texts)]
    height = Bbox.union(boxes).height + sum(box.height + PAD for box in around)
    return (height + PAD) / figure.dpi


def _cell_size(axes: "Axes") -> Any:
    """Return the width and the height (2,) of a cell of a map in pixels."""
    first, second = axes.transData.transform([(0, 0), (1, 1)])
    return abs(second - first)


def _write(figure: Any, path: Path) -> list[Path]:
    """Write a figure as PNG and PDF with its caption as metadata; equal figures give equal files."""
    pixels = path.with_suffix(".png")
    write_bytes(pixels, _rendered(figure, "png"))
    vectors = path.with_suffix(".pdf")
    write_bytes(vectors, _rendered(figure, "pdf"))
    return [pixels, vectors]


def _rendered(figure: Any, kind: str) -> bytes:
    """Return the content of an image file of a kind, png or pdf."""
    image = io.BytesIO()
    metadata = {CAPTION: figure.caption}
    if kind == "pdf":
        metadata = {"Subject": figure.caption, "CreationDate": None}
    figure.savefig(image, format=kind, metadata=metadata)
    return image.getvalue()


def remove_figure(path: Path) -> None:
    """Remove both images of an earlier figure.

    Args:
        path: of one of the images, or of the table that they stand beside.
    """
    for ending in (".png", ".pdf"):
        path.with_suffix(ending).unlink(missing_ok=True)


def on_data(networks: str, images: Collection[tuple[str | None, int | None]]) -> str:
    """Return the caption's sentence on the networks, and on the images if all rows share these.

    Args:
        networks: their number in words.
        images: the data set and the number of test images of each result; None: not recorded.
    """
    text = networks[:1].upper() + networks[1:]
    if len(set(images)) == 1:
        dataset, n_images = next(iter(images))
        number = f"{n_images:,} " if n_images else ""
        text += f", {number}test inputs"
        if dataset:
            text += f" of {dataset_label(dataset)}"
    return f"{text}."


def span(numbers: Collection[int]) -> str:
    """Format the range of numbers, such as "4 to 20"."""
    ends = (min(numbers), max(numbers))
    return " to ".join(dict.fromkeys(f"{number:,}" for number in ends))


def shortened(text: str, length: int = NAME_LENGTH) -> str:
    """Abbreviate a long text by an ellipsis in its middle."""
    if len(text) <= length:
        return text
    half = length // 2
    return f"{text[:half]}…{text[half + 1 - length :]}"


def in_lines(text: str, width: float = NAME_WIDTH) -> str:
    """Wrap a text to lines of a width in cm, with its long words abbreviated."""
    words = (
        shortened(word, min(NAME_LENGTH, int(WIDE_CHARACTERS * width))) for word in text.split(" ")
    )
    return textwrap.fill(" ".join(words), max(8, int(CHARACTERS * width)), break_on_hyphens=False)
