"""The accuracies of stitches: a table, and maps of layers beside it."""

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from src.core.console import listed, note
from src.figures.maps import draw_layers
from src.figures.matrices import source_of
from src.figures.shown import Shown, of_matrix
from src.results.architectures import corresponding_layers
from src.results.grid_matrices import shown_experiments
from src.results.groups import Names
from src.results.matrices import pivot
from src.results.stitch_rows import StitchRow
from src.results.tables import write_table


def write_grid(path: Path, rows: Sequence[StitchRow], *, names: Names | None = None) -> None:
    """Write rows as a CSV, and beside it the figure of `draw_grid`."""
    write_table(path, StitchRow, rows)
    drawn = draw_grid(path.with_suffix(".png"), rows, names=names)
    note(f"wrote {listed([path, *drawn[:1]])}")


def draw_grid(path: Path, rows: Sequence[StitchRow], *, names: Names | None = None) -> list[Path]:
    """Draw the accuracies of stitches as a map of layers for each experiment. Return the written
    paths.

    Args:
        names: of the networks from a list, for titles; None: there is none.
    """
    shown: list[Shown] = []
    for name, of_map in shown_experiments(rows, names).items():
        matrix = pivot(of_map, attrgetter("accuracy"))
        shown += of_matrix(matrix, "accuracy", name, corresponding_layers(of_map))
    return draw_layers(path, shown, source=source_of(rows))
