"""Writes the table and the heat maps of a folder of stitching runs, and compares two folders."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from src.collected.grid_matrices import (
    MAX_EXPERIMENTS,
    experiments_of,
    rank_sweeps,
    shown_matrices,
    shown_rows,
)
from src.collected.groups import Names
from src.figures.captions import on_data
from src.figures.check import draw_ranks
from src.figures.figure_files import remove_figure
from src.figures.layers import draw_layers
from src.figures.shown import DIFFERENCE, Shown, of_matrix, of_ranks
from src.ground.console import listed, note, table, warn
from src.ground.errors import UserError
from src.ground.files import locked
from src.runs.folders import read_runs
from src.tables.architectures import corresponding_layers
from src.tables.experiments import Experiment, by_experiment
from src.tables.image_records import told_apart
from src.tables.matrices import pivot
from src.tables.stitch_rows import ComparisonRow, StitchRow
from src.tables.tables import write_table


def write_grid(
    path: Path,
    rows: Sequence[StitchRow],
    *,
    title: str = "",
    names: Names | None = None,
) -> None:
    """Write rows as a CSV, and beside it the figure of their accuracies, see `draw_grid`.

    Args:
        names: of the networks, for titles and the caption.
    """
    write_table(path, StitchRow, rows)
    drawn = draw_grid(path.with_suffix(".png"), rows, title=title, names=names)
    note(f"wrote {listed([path, *drawn[:1]])}")


def draw_grid(
    path: Path, rows: Sequence[StitchRow], *, title: str = "", names: Names | None = None
) -> list[Path]:
    """Draw the accuracies of stitches: over ranks, or a map of layers an experiment; of more than
    twelve experiments, means. Return the written paths.

    Args:
        names: of the networks, for titles.
    """
    sweeps = rank_sweeps(rows, names)
    source = source_of(rows)
    if sweeps and len(sweeps) <= MAX_EXPERIMENTS:
        over_ranks: list[Shown] = []
        for name, sweep in sweeps.items():
            lines = {}
            for pair, accuracy_of_rank in sweep.items():
                known = {rank: value for rank, value in accuracy_of_rank.items() if rank}
                lines[str(pair)] = known
            over_ranks += of_ranks(lines, name)
        return draw_ranks(path, over_ranks, y_title="accuracy", title=title, source=source)
    experiments = experiments_of(rows, names)
    if len(experiments) > MAX_EXPERIMENTS:
        note(f"{path} shows means of {len(experiments)} experiments; the CSV has all of them")
    shown: list[Shown] = []
    rows_of_map = shown_rows(experiments)
    for name, matrix in shown_matrices(experiments).items():
        shown += of_matrix(matrix, "accuracy", name, corresponding_layers(rows_of_map[name]))
    return draw_layers(path, shown, title=title, source=source)


def source_of(rows: Sequence[Experiment], n_images: int | None = None) -> str:
    """Return the sentence of captions on the networks and the images of stitches.

    Args:
        n_images: of the test set; None: rows have it.
    """
    images = {(row.dataset, n_images or getattr(row, "n_images", None)) for row in rows}
    return on_data(len({row.network_keys for row in rows}), images)


def update_grid(directory: Path, *, create: bool, title: str = "") -> None:
    """Rebuild `grid.csv` and `grid.png` from all finished runs of a folder.

    A lock lets several processes do so.

    Args:
        create: write the files if they do not exist; otherwise only update them.
        title: of the figure.
    """
    path = directory / "grid.csv"
    lock = directory / ".grid.lock"
    if create or path.exists() or lock.exists():
        with locked(lock):
            runs, _ = read_runs(directory)
            remove_figure(path, start=2)  # pages of an earlier call
            write_grid(path, [run.row for run in runs], title=title)


def compare(
    folders: Sequence[str],
    experiments: Sequence[Sequence[StitchRow]],
    path: Path | None = None,
    *,
    title: str = "",
) -> None:
    """Print the accuracies of two experiments over layers, and the second less the first.

    Args:
        folders: of the two experiments. They are the titles if the methods have one name.
        experiments: the rows of the two experiments.
        path: of a CSV with a row per pair of layers, and of a figure beside it with the three
            matrices; None: only print.
        title: of the figure.

    Raises:
        UserError: the folders are one, a folder holds several experiments, or they have no pair of
            layers in common.
    """
    _check_comparable(folders, experiments)
    first, second = [rows[0].method for rows in experiments]
    if first == second:
        first, second = folders

    accuracy_1, accuracy_2 = ({row.pair: row.accuracy for row in rows} for rows in experiments)

    def compared(row: StitchRow) -> ComparisonRow:
        first_accuracy = accuracy_1.get(row.pair, math.nan)
        second_accuracy = accuracy_2.get(row.pair, math.nan)
        difference = second_accuracy - first_accuracy
        return ComparisonRow(*row.pair, first_accuracy, second_accuracy, difference)

    stitches = [row for rows in experiments for row in rows]
    differences = pivot(stitches, lambda row: compared(row).difference)
    matrices = {
        first: pivot(stitches, lambda row: compared(row).accuracy_1),
        second: pivot(stitches, lambda row: compared(row).accuracy_2),
        f"{second} − {first}": differences,
    }
    for name, matrix in matrices.items():
        table(name, *matrix)
    if path:
        lines = pivot(stitches, compared, missing=None).values
        cells = itertools.chain(*lines)
        write_table(path, ComparisonRow, [cell for cell in cells if cell is not None])
        shown = [
            *of_matrix(matrices[first], "accuracy", first, corresponding_layers(stitches)),
            *of_matrix(matrices[second], "accuracy", second, corresponding_layers(stitches)),
            *of_matrix(differences, DIFFERENCE, f"{second} − {first}"),
        ]
        drawn = draw_layers(
            path.with_suffix(".png"), shown, title=title, source=source_of(stitches)
        )
        note(f"wrote {listed([path, *drawn[:1]])}")


def _check_comparable(folders: Sequence[str], experiments: Sequence[Sequence[StitchRow]]) -> None:
    """Raise a UserError unless there are two folders of one experiment each, with common layers;
    warn if their data differ."""
    if len(set(folders)) == 1:
        raise UserError(f"{folders[0]} is given twice; give another folder to compare it with")
    for folder, rows in zip(folders, experiments, strict=True):
        titles = list(by_experiment(rows))
        if len(titles) > 1:
            raise UserError(
                f"{folder} holds {len(titles)} experiments ({'; '.join(titles)}); "
                "to compare two folders, give folders of one experiment each"
            )
    pairs_of_folders = [{row.pair for row in rows} for rows in experiments]
    if set.isdisjoint(*pairs_of_folders):
        examples = [
            f"{min(pairs)} in {folder}"
            for pairs, folder in zip(pairs_of_folders, folders, strict=True)
        ]
        raise UserError(
            f"{' and '.join(folders)} have no pair of layers in common ({', '.join(examples)}); give "
            "folders of stitches between the same layers"
        )
    rows_of_both = told_apart(list(itertools.chain.from_iterable(experiments)))
    datasets = dict.fromkeys(row.dataset for row in rows_of_both)
    if len(datasets) > 1:
        warn(
            f"{' and '.join(folders)} are of different data ({listed(datasets)}); their accuracies "
            "are of different images"
        )
