"""The accuracies of stitches as maps of layers."""

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from src.figures.maps import draw_layers
from src.figures.matrices import source_of
from src.figures.shown import Shown, of_matrix
from src.results.architectures import corresponding_layers
from src.results.grid_matrices import shown_experiments
from src.results.matrices import pivot
from src.results.stitches import StitchRow


def draw_grid(path: Path, rows: Sequence[StitchRow]) -> list[Path]:
    """Draw the accuracies of stitches as a map of layers for each experiment. Return the written
    paths."""
    shown: list[Shown] = []
    for name, of_map in shown_experiments(rows).items():
        matrix = pivot(of_map, attrgetter("accuracy"))
        shown += of_matrix(matrix, "accuracy", name, corresponding_layers(of_map))
    return draw_layers(path, shown, source=source_of(rows))
