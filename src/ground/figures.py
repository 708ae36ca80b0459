"""Figures of two widths, in the style of a style sheet, with their captions in text files.

The module imports matplotlib only to draw a figure.
"""

import contextlib
import importlib.util
import io
import math
import re
import string
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from src.ground.console import warn
from src.ground.files import write_bytes, write_text
from src.ground.style import LAYOUT, style_sheets

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import LayoutEngine

STYLE_SHEET = Path(__file__).with_name("figures.mplstyle")
CHARACTER = 0.57  # width of a character of text, in sizes of the font
LEGEND = 0.98  # of the width of a figure, at most: at other resolutions letters are a little wider
NO_BREAK = "\u00a0"  # a blank that no line ends at

Place = TypeVar("Place", int, tuple[int, int])  # of a panel in a figure

# Colours that colour-blind people tell apart (Okabe and Ito)
YELLOW = "#F0E442"
BLUE = "#0072B2"
ORANGE = "#E69F00"
BRIGHTEST = 0.9  # of a colour map, of lines on white

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


@contextlib.contextmanager
def new_figure(
    path: Path | None, *, is_wide: bool, title: str = "", caption: str = ""
) -> "Iterator[Figure]":
    """Make an empty figure; the block draws into it, and when it ends the figure is written.

    Args:
        path: of the image, a PNG or a PDF. The other format goes beside it, and so does the caption
            (`.txt`). None: nothing is written.
        is_wide: it has the width of two columns of a paper.
        caption: the text for below the figure, which is not in the image.
    """
    with styled():
        figure = _styled_figure(caption)
        if is_wide:
            width, height = figure.get_size_inches()
            figure.set_size_inches(2 * width, 2 * height)
        if title:
            figure.suptitle(wrap(title, figure.get_figwidth()))
        yield figure
        if path is not None:
            _save(figure, path)
            write_text(path.with_suffix(".txt"), f"{caption}\n")


def _styled_figure(caption: str) -> "Figure":
    """Return an empty narrow figure, which knows its caption, and saves in the style."""
    from matplotlib.figure import Figure

    class StyledFigure(Figure):
        def __init__(self, caption: str):
            super().__init__()
            self.caption = caption

        def savefig(self, fname: Any, **options: Any) -> None:
            with styled():
                super().savefig(fname, **options)

        def _repr_png_(self) -> bytes:  # notebooks show it, also without pyplot
            image = io.BytesIO()
            self.savefig(image, format="png")
            return image.getvalue()

    return StyledFigure(caption)


def letters_of(places: Iterable[Place]) -> dict[Place, str]:
    """Return the letter of each panel, from a on; {} for a single panel."""
    in_order = sorted(places)
    if len(in_order) == 1:
        return {}
    alphabet = string.ascii_lowercase
    letters = [alphabet[n % 26] * (1 + n // 26) for n in range(len(in_order))]
    return dict(zip(in_order, letters, strict=True))


def letter_panel(axes: "Axes", letter: str) -> None:
    """Write the letter of a panel beside its upper left corner."""
    axes.set_title(f"{letter} ", loc="left", ha="right", fontweight="bold")


def head_panel(axes: "Axes", heading: str, *, n_lines: int) -> None:
    """Write a heading of several panels above the first panel.

    Args:
        n_lines: of the titles of the panels, which the heading stands above.
    """
    text = heading + "\n" * n_lines
    axes.set_title(text, loc="right", x=0, ha="left", fontweight="bold")


def joined(*captions: str, definitions: str = "") -> str:
    """Join captions to one: a paragraph for below the figure, and one that defines its terms.

    Args:
        captions: each may have both paragraphs, with an empty line between them.
        definitions: what to add to the second paragraph.
    """
    parts = [caption.partition("\n\n") for caption in captions]
    first = " ".join(filter(None, (text for text, _, _ in parts)))
    second = " ".join(filter(None, (*(text for _, _, text in parts), definitions)))
    return "\n\n".join(filter(None, (first, second)))


def capitalised(text: str) -> str:
    """Return a text with a capital at its beginning; κ stays κ."""
    return f"{text[:1].upper()}{text[1:]}" if text[:1].isascii() else text


def named(letters: Sequence[str]) -> str:
    """Return the letters of panels for the beginning of a caption: "(a–d) ", "(a, c) " or ""."""
    if not letters:
        return ""
    first = letters[0]
    last = letters[-1]
    if (
        len(letters) > 2
        and len(first) == len(last) == 1
        and ord(last) - ord(first) + 1 == len(letters)
    ):
        return f"({first}–{last}) "
    return f"({', '.join(letters)}) "


def fit_height(
    figure: "Figure",
    first_panels: "Sequence[Axes]",
    heights: Callable[[float], Sequence[float]],
) -> None:
    """Make a figure as high as its lines of panels need, and not higher than its style allows.

    Args:
        first_panels: the first panel of each line.
        heights: takes the width of the first panel, and returns the height of the panels of each
            line, both in inches and without labels.
    """
    highest = figure.get_figheight()
    layout = cast("LayoutEngine", figure.get_layout_engine())
    for _ in range(2):  # a bar of colours is the thinner the lower it is, and leaves more width
        layout.execute(figure)
        width, height = figure.get_size_inches()
        places = [axes.get_position() for axes in first_panels]
        missing = (
            sum(heights(places[0].width * width)) - sum(place.height for place in places) * height
        )
        figure.set_figheight(min(highest, height + missing))
    layout.execute(figure)


def looks_of_lines(n_lines: int) -> list[dict[str, Any]]:
    """Return the looks of the lines of a figure, such as colour and marker, in their order.

    More lines than the style has colours take theirs from its colour map, so that no two are equal.
    """
    import matplotlib

    settings = matplotlib.rcParams
    cycle = list(settings["axes.prop_cycle"])
    looks = [dict(cycle[number % len(cycle)]) for number in range(n_lines)]
    if n_lines > len({look.get("color") for look in cycle}):
        colour_map = matplotlib.colormaps[settings["image.cmap"]]
        for number, look in enumerate(looks):
            look["color"] = colour_map(BRIGHTEST * number / (n_lines - 1))
    return looks


def font_size() -> float:
    """Return the size of text in inches."""
    import matplotlib

    return matplotlib.rcParams["font.size"] / 72


def wrap(text: str, width: float) -> str:
    """Return the text in lines of `width` inches, broken between words; its line breaks stay.

    What is in brackets, and the two sides of an arrow, stay together if a line has room. A word that
    is longer than a line, such as a path, is broken behind / or =, and if it has none in time, behind
    _ or -.
    """
    n_characters = max(2, int(width / (CHARACTER * font_size())))

    def together(match: re.Match[str]) -> str:
        part = match[0]
        return part.replace(" ", NO_BREAK) if len(part) <= n_characters else part

    lines = []
    for line in text.splitlines():
        joined = re.sub(r"\([^()]*\)|\S+ → \S+", together, line)
        broken = " ".join(_broken(word, n_characters) for word in joined.split(" "))
        for part in broken.splitlines():
            lines += textwrap.wrap(
                part, n_characters, break_long_words=False, break_on_hyphens=False
            )
    return "\n".join(lines).replace(NO_BREAK, " ")


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


def add_legend(figure: "Figure", handles: "Mapping[str, Artist]", **options: Any) -> None:
    """Add a legend below the panels, in one row if it fits the width, otherwise in even rows.

    Args:
        handles: by label.
    """
    labels = [wrap(label, 0.9 * figure.get_figwidth()) for label in handles]
    for n_rows in range(1, len(labels) + 1):
        n_columns = math.ceil(len(labels) / n_rows)
        legend = figure.legend(
            handles.values(), labels, loc="outside lower center", ncols=n_columns, **options
        )
        if n_columns == 1 or legend.get_window_extent().width <= LEGEND * figure.bbox.width:
            break
        legend.remove()


def _save(figure: "Figure", path: Path) -> None:
    """Write a figure as pixels (PNG) and as vectors (PDF); equal figures make equal files."""
    for suffix in (".pdf", ".png"):
        metadata = {"CreationDate": None} if suffix == ".pdf" else {}
        image = io.BytesIO()
        figure.canvas.print_figure(image, format=suffix[1:], metadata=metadata)
        write_bytes(path.with_suffix(suffix), image.getvalue())
