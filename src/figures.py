"""Figures: heat maps over layers and curves over ranks. matplotlib is imported only where one is drawn."""

import io
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.console import warn
from src.files import write_bytes


def heat_maps(
    path: Path,
    matrices: Mapping[str, Sequence[Sequence[float]]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_label: str,
    column_label: str,
    value_range: tuple[float, float] | None = (0.0, 1.0),
    reverse: Collection[str] = (),
) -> None:
    """Draw matrices of the same rows and columns side by side, with every value written into its cell.

    Args:
        matrices: by title; each (rows, columns). A missing value is NaN and its cell stays blank.
        value_range: what the two ends of the colour scale stand for; None fits them to each matrix.
        reverse: titles of matrices whose low values are bright, such as distances.
    """
    size = (max(5.0, 2.2 + 0.62 * len(columns)), 1.6 + 0.45 * len(rows))
    figure = _figure(path, len(matrices), size)
    if figure is None:
        return
    for axes, (title, matrix) in zip(figure.axes, matrices.items(), strict=True):
        values = [value for line in matrix for value in line if not math.isnan(value)]
        low, high = value_range or (min(values, default=0.0), max(values, default=1.0))
        colours = "viridis_r" if title in reverse else "viridis"
        image = axes.imshow(matrix, vmin=low, vmax=high, cmap=colours, aspect="auto")
        axes.set_title(title)
        axes.set_xticks(range(len(columns)), columns, rotation=90)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel(column_label)
        axes.set_ylabel(row_label)
        middle = (low + high) / 2
        for y, line in enumerate(matrix):
            for x, value in enumerate(line):
                if not math.isnan(value):
                    colour = "black" if (value > middle) != (title in reverse) else "white"
                    axes.text(x, y, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
        figure.colorbar(image, ax=axes)
    _save(figure, path)


def class_maps(
    path: Path,
    panels: Mapping[str, Sequence[Sequence[tuple[str, float] | None]]],
    colours: Mapping[str, str],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_label: str,
    column_label: str,
) -> None:
    """Draw maps whose cells have the colour of a class and a number, side by side, with one legend.

    Args:
        panels: by title; each (rows, columns) of class and number, None where a cell stays blank.
        colours: by class.
    """
    size = (max(5.0, 2.2 + 0.62 * len(columns)), 2.2 + 0.45 * len(rows))
    figure = _figure(path, len(panels), size)
    if figure is None:
        return
    from matplotlib.patches import Patch, Rectangle

    for axes, (title, cells) in zip(figure.axes, panels.items(), strict=True):
        axes.set_title(title)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(columns)), columns, rotation=90)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel(column_label)
        axes.set_ylabel(row_label)
        for y, line in enumerate(cells):
            for x, cell in enumerate(line):
                if cell is not None:
                    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colours[cell[0]], edgecolor="grey"))
                    axes.text(x, y, f"{cell[1]:.2f}", ha="center", va="center", fontsize=8)
    handles = [Patch(facecolor=colour, edgecolor="grey", label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    _save(figure, path)


def curves(
    path: Path,
    panels: Mapping[str, Mapping[str, Mapping[int, float]]],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
) -> None:
    """Draw curves over ranks, in panels side by side, on a logarithmic axis (to the base of 2).

    Args:
        panels: by title, the curves by label; each maps ranks (at least 1) to values. NaN leaves a gap.
        y_range: the ends of the vertical axis; None fits them to each panel's curves.
    """
    figure = _figure(path, len(panels), (5.6, 4.2))
    if figure is None:
        return
    for axes, (title, lines) in zip(figure.axes, panels.items(), strict=True):
        for label, values in lines.items():
            ranks = sorted(values)
            axes.plot(ranks, [values[rank] for rank in ranks], marker="o", markersize=3, label=label)
        axes.set_xscale("log", base=2)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_ylim(y_range)
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


def scatter(path: Path, points: Mapping[str, Sequence[tuple[float, float]]], *, x_label: str, y_label: str) -> None:
    """Draw points in one panel, in a colour for each group.

    Args:
        points: by the label of their group, (x, y) each.
    """
    figure = _figure(path, 1, (6.4, 4.8))
    if figure is None:
        return
    (axes,) = figure.axes
    for label, group in points.items():
        axes.scatter(*zip(*group, strict=True), s=16, alpha=0.7, label=label)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def _figure(path: Path, n_panels: int, size: tuple[float, float]) -> Any | None:
    """A figure of panels side by side, each of that size in inches; without matplotlib None, and a warning."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        warn(f"{path} was not drawn: matplotlib is not installed")
        return None
    figure = Figure(figsize=(size[0] * n_panels, size[1]), layout="constrained")
    figure.subplots(1, n_panels)
    return figure


def _save(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix[1:], dpi=120)
    write_bytes(path, buffer.getvalue())
