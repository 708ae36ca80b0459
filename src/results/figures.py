"""Figures at the size of a paper's column: heat maps over layers, curves over ranks. Imports matplotlib to draw one."""

import contextlib
import importlib.util
import io
import math
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.console import warn
from src.files import write_bytes
from src.results.matrices import Matrix, natural_order

COLUMN = 3.3  # inches: the width of a panel
POINTS = 8  # the size of all text but the numbers in cells
STYLE = {
    "font.size": POINTS, "axes.titlesize": POINTS, "figure.titlesize": POINTS + 1,
    "text.parse_math": False,  # a $ in the name of a file is a $
    "pdf.fonttype": 42,  # TrueType: text stays text, and publishers take it
}  # fmt: skip
CHARACTER, LINE = 0.065, 0.16  # inches, of this text
SIMILARITY, DISTANCE, DIVERGING = "viridis", "viridis_r", "RdBu_r"  # colour maps

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


class HeatMap(NamedTuple):
    """A panel: a matrix, and the meaning of its colours. Bright stands for similar, dark for different."""

    matrix: Matrix  # a cell of NaN stays blank
    scale: tuple[float, float] = (0.0, 1.0)  # values of the darkest and the brightest colour; a distance has (1, 0)
    is_diverging: bool = False  # bright in the middle of `scale`, dark blue below and dark red above
    marked: Collection[tuple[str, str]] = ()  # row and column of cells with a red corner

    @classmethod
    def difference(cls, matrix: Matrix) -> "HeatMap":
        """Make the panel of a matrix of differences, with the colours centred at 0."""
        largest = max((abs(value) for line in matrix.values for value in line if not math.isnan(value)), default=0)
        return cls(matrix, (-(largest or 1.0), largest or 1.0), is_diverging=True)

    def paint(self, axes: Any) -> None:
        """Draw the cells with their values, and a bar that explains the colours."""
        low, high = sorted(self.scale)
        colours = DIVERGING if self.is_diverging else SIMILARITY if self.scale[0] < self.scale[1] else DISTANCE
        image = axes.imshow(self.matrix.values, vmin=low, vmax=high, cmap=colours, aspect="auto")
        for y, line in enumerate(self.matrix.values):
            for x, value in enumerate(line):
                if not math.isnan(value):
                    red, green, blue, _ = image.cmap(image.norm(value))
                    is_bright = 0.3 * red + 0.59 * green + 0.11 * blue > 0.5
                    _write_cell(axes, x, y, value, "black" if is_bright else "white")
        for row, column in self.marked:
            y, x = self.matrix.rows.index(row), self.matrix.columns.index(column)
            corner = [(x + 0.5, y - 0.5), (x + 0.26, y - 0.5), (x + 0.5, y - 0.26)]
            axes.fill(*zip(*corner, strict=True), facecolor="red", edgecolor="white", linewidth=0.5)
        axes.figure.colorbar(image, ax=axes)


class ClassMap(NamedTuple):
    """A panel whose cells have the colour of a class, and a number."""

    matrix: Matrix  # of classes and numbers; a cell of None stays blank
    colours: Mapping[str, str]  # by class; they are in the legend

    def paint(self, axes: Any) -> None:
        """Draw the cells with their numbers."""
        from matplotlib.patches import Rectangle

        axes.set_xlim(-0.5, len(self.matrix.columns) - 0.5)
        axes.set_ylim(len(self.matrix.rows) - 0.5, -0.5)
        for y, line in enumerate(self.matrix.values):
            for x, cell in enumerate(line):
                if cell is not None:
                    look = {"facecolor": self.colours[cell[0]], "edgecolor": "grey"}
                    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **look))
                    _write_cell(axes, x, y, cell[1], "black")


def maps(
    path: Path,
    panels: Mapping[str, HeatMap | ClassMap],
    *,
    row_label: str,
    column_label: str,
    title: str = "",
    caption: str = "",
) -> bool:
    """Draw matrices, with every value written into its cell, and one legend of classes.

    Args:
        panels: by title; each has axes of its own.
        caption: the text below the figure.
    Returns:
        Whether the figure was drawn.
    """
    if not _can_draw(path):
        return False
    from matplotlib.patches import Patch

    colours = {name: colour for panel in panels.values() for name, colour in getattr(panel, "colours", {}).items()}
    size = tuple(map(max, zip(*(_map_size(panel.matrix) for panel in panels.values()), strict=True)))
    texts = {"title": title, "caption": caption, "legend": colours}
    with _figure(path, list(panels), size, **texts) as figure:
        for axes, panel in zip(figure.axes, panels.values(), strict=True):
            axes.set_facecolor("0.9")  # of cells without a value
            axes.set_xticks(range(len(panel.matrix.columns)), panel.matrix.columns, rotation=90)
            axes.set_yticks(range(len(panel.matrix.rows)), panel.matrix.rows)
            axes.set_xlabel(column_label)
            axes.set_ylabel(row_label)
            panel.paint(axes)
        if colours:
            _add_legend(figure, {name: Patch(facecolor=colour, edgecolor="grey") for name, colour in colours.items()})
    return True


def curves(
    path: Path,
    panels: Mapping[str, Mapping[str, Mapping[int, float]]],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    title: str = "",
    caption: str = "",
) -> None:
    """Draw curves over ranks on a logarithmic axis (to the base of 2), in panels of equal scales with one legend.

    Args:
        panels: by title, the curves by label; each maps ranks (at least 1) to values. NaN leaves a gap.
        y_range: the ends of the vertical axes; None fits them to the curves of all panels.
    """
    if not _can_draw(path):
        return
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    texts = {"title": title, "caption": caption, "legend": labels}
    with _figure(path, list(panels), (COLUMN, 2.4), **texts) as figure:
        handles = {}
        for axes, lines in zip(figure.axes, panels.values(), strict=True):
            for label, values in lines.items():
                ranks = sorted(values)
                points = ranks, [values[rank] for rank in ranks]
                (handles[label],) = axes.plot(*points, **_look(labels.index(label)))
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set_xlabel(x_label)
            axes.set_ylabel(y_label)
            axes.grid(alpha=0.3)
        ends = [end for axes in figure.axes for end in axes.get_ylim()]
        for axes in figure.axes:
            axes.set_ylim(y_range or (min(ends), max(ends)))
        _add_legend(figure, handles)


class Point(NamedTuple):
    """A value of a curve, and its interval; NaN: it has none."""

    value: float
    low: float = math.nan
    high: float = math.nan


def curves_over_layers(
    path: Path, panels: Mapping[str, Mapping[str, Mapping[str, Point]]], *, title: str = "", caption: str = ""
) -> None:
    """Draw curves over layers, intervals as bands, in panels of scales of their own, with one legend.

    Args:
        panels: by the name of their quantity, the curves by label; each maps layers to points.
    """
    if not _can_draw(path):
        return
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    layers = natural_order(layer for lines in panels.values() for points in lines.values() for layer in points)
    texts = {"title": title, "caption": caption, "legend": labels}
    size = (COLUMN, 2.0 + CHARACTER * max(map(len, layers)))
    with _figure(path, list(panels), size, **texts) as figure:
        handles = {}
        for axes, lines in zip(figure.axes, panels.values(), strict=True):
            for label, points in lines.items():
                look = _look(labels.index(label))
                places = [layers.index(layer) for layer in points]
                values, low, high = zip(*points.values(), strict=True)
                (handles[label],) = axes.plot(places, values, **look)
                axes.fill_between(places, low, high, color=look["color"], alpha=0.15, linewidth=0)
            axes.set_xticks(range(len(layers)), layers, rotation=90)
            axes.set_xlabel("layer of both networks")
            axes.grid(alpha=0.3)
        _add_legend(figure, handles)


def scatter(
    path: Path,
    points: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    caption: str = "",
) -> None:
    """Draw points in one panel, in a colour for each group.

    Args:
        points: by the label of their group, (x, y) each.
    """
    if not _can_draw(path):
        return
    with _figure(path, [""], (COLUMN, 2.6), title=title, caption=caption, legend=points) as figure:
        (axes,) = figure.axes
        handles = {label: axes.scatter(*zip(*group, strict=True), s=10, alpha=0.7) for label, group in points.items()}
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(alpha=0.3)
        _add_legend(figure, handles)


def _look(number: int) -> dict[str, Any]:
    """Return the look of the curve of a number; markers change after ten."""
    return {"color": f"C{number % 10}", "marker": "osv^D*"[number // 10 % 6], "markersize": 3, "linewidth": 1}


def _write_cell(axes: Any, x: int, y: int, value: float, colour: str) -> None:
    """Write a number, 0.00 without a sign."""
    axes.text(x, y, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", color=colour, fontsize=POINTS - 1)


def _add_legend(figure: Any, handles: Mapping[str, Any]) -> None:
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


def _map_size(matrix: Matrix) -> tuple[float, float]:
    """Return the inches of a panel with cells, whose numbers need 0.26 by 0.2; at least a column wide."""
    rows, columns, _ = matrix
    row_names, column_names = (CHARACTER * max(map(len, names), default=0) for names in (rows, columns))
    return max(COLUMN, 0.9 + row_names + 0.26 * len(columns)), 0.5 + column_names + max(0.8, 0.2 * len(rows))


def _wrap(text: str, width: float) -> str:
    """Return the text in lines of that many inches; its own line breaks stay."""
    return "\n".join(textwrap.fill(line, max(10, int(width / CHARACTER))) for line in text.splitlines())


def _can_draw(path: Path) -> bool:
    """Return whether figures are asked for and matplotlib is installed; warn if it is not."""
    if _are_left_out:
        return False
    if importlib.util.find_spec("matplotlib") is None:
        warn(f"{path} was not drawn: matplotlib is not installed")
        return False
    return True


@contextlib.contextmanager
def _figure(
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
