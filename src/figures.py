"""Figures: heat maps over layers and curves over ranks. matplotlib is imported only where one is drawn."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from src.files import write_bytes
from src.report import warn


def heat_maps(
    path: Path,
    matrices: Mapping[str, Sequence[Sequence[float]]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_label: str,
    column_label: str,
    value_range: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Draw matrices of the same layers side by side, with every value written into its cell.

    Args:
        matrices: by title; each (rows, columns). A missing value is NaN and its cell stays blank.
        value_range: what the two ends of the colour scale stand for.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        warn(f"{path} was not drawn: matplotlib is not installed")
        return
    width, height = max(5.0, 2.2 + 0.62 * len(columns)), 1.6 + 0.45 * len(rows)
    figure = Figure(figsize=(width * len(matrices), height), layout="constrained")
    places = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axes, (title, matrix) in zip(places, matrices.items(), strict=True):
        image = axes.imshow(matrix, vmin=value_range[0], vmax=value_range[1], cmap="viridis", aspect="auto")
        axes.set_title(title)
        axes.set_xticks(range(len(columns)), columns, rotation=90)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel(column_label)
        axes.set_ylabel(row_label)
        middle = sum(value_range) / 2
        for y, line in enumerate(matrix):
            for x, value in enumerate(line):
                if not math.isnan(value):
                    colour = "black" if value > middle else "white"
                    axes.text(x, y, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
        figure.colorbar(image, ax=axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes(path, buffer.getvalue())
