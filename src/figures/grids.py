"""The accuracies of stitches: a table, and maps or curves over ranks beside it."""

from collections.abc import Sequence
from pathlib import Path

from src.figures.curves import draw_ranks
from src.figures.maps import draw_layers
from src.figures.matrices import source_of
from src.figures.shown import Shown, of_matrix, of_ranks
from src.ground.console import listed, note
from src.results.architectures import corresponding_layers
from src.results.grid_matrices import (
    MAX_EXPERIMENTS,
    experiments_of,
    rank_sweeps,
    shown_rows,
)
from src.results.groups import Names
from src.results.matrices import mean_of
from src.results.stitch_rows import StitchRow
from src.results.tables import write_table


def write_grid(path: Path, rows: Sequence[StitchRow], *, names: Names | None = None) -> None:
    """Write rows as a CSV, and beside it the figure of `draw_grid`."""
    write_table(path, StitchRow, rows)
    drawn = draw_grid(path.with_suffix(".png"), rows, names=names)
    note(f"wrote {listed([path, *drawn[:1]])}")


def draw_grid(path: Path, rows: Sequence[StitchRow], *, names: Names | None = None) -> list[Path]:
    """Draw the accuracies of stitches: over ranks, or a map of layers an experiment; of more than
    twelve experiments, means. Return the written paths.

    Args:
        names: of the networks from a list, for titles; None: there is none.
    """
    shown: list[Shown] = []
    sweeps = rank_sweeps(rows, names)
    if sweeps and len(sweeps) <= MAX_EXPERIMENTS:
        for name, sweep in sweeps.items():
            shown += of_ranks(sweep, name)
        return draw_ranks(path, shown, y_title="accuracy", source=source_of(rows))
    n_experiments = len(experiments_of(rows, names))
    if n_experiments > MAX_EXPERIMENTS:
        note(f"{path} shows means of {n_experiments} experiments; the CSV has all of them")
    for name, of_map in shown_rows(rows, names).items():
        matrix = mean_of(of_map, "accuracy")
        shown += of_matrix(matrix, "accuracy", name, corresponding_layers(of_map))
    return draw_layers(path, shown, source=source_of(rows))
