"""Writes the table and the heat maps of a folder of stitching runs, and the comparison of two such
folders."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from src.console import note, table
from src.errors import UserError
from src.files import locked
from src.results.captions import common, describe_stitches
from src.results.heat_maps import HeatMap, maps
from src.results.matrices import accuracies, pivot
from src.results.tables import write_table
from src.stitching.experiments import by_experiment
from src.stitching.folders import read_runs
from src.stitching.stitch_rows import ComparisonRow, StitchRow

MAX_PANELS = 12  # heat maps in one figure
AXES = {"row_label": "front layer", "column_label": "end layer"}


def write_grid(
    path: Path, rows: Sequence[StitchRow], *, figure: str = ".png", title: str = ""
) -> None:
    """Write rows as a CSV, and beside it heat maps of their accuracies, one for each experiment.

    Args:
        figure: the ending of its name, and so its format: .png or .pdf.
    """
    write_table(path, StitchRow, rows)
    panels = {
        name: {
            name.replace(", ", "\n") or "accuracy of the stitched network": HeatMap(
                accuracies(group)
            )
        }
        for name, group in by_experiment(rows).items()
    }
    draw(path, panels, figure=figure, title=title, caption=describe_stitches(rows))


def update_grid(directory: Path, *, create: bool, title: str = "") -> None:
    """Rebuild `grid.csv` and `grid.png` from all finished runs of a folder; safe when several
    processes do so.

    Args:
        create: make them where there are none yet.
    """
    path, lock = directory / "grid.csv", directory / ".grid.lock"
    if create or path.exists() or lock.exists():
        with locked(lock):
            write_grid(path, [run.row for run in read_runs(directory)[0]], title=title)


def compare(
    folders: Sequence[str],
    experiments: Sequence[Sequence[StitchRow]],
    path: Path | None = None,
    *,
    figure: str = ".png",
    title: str = "",
) -> None:
    """Print the accuracies of two experiments over the same layers, and the second less the first.

    Args:
        folders: names of both, for titles where the methods have one name.
        experiments: the rows of both.
        path: of a CSV with one row for each pair of layers; a figure of the three matrices goes beside it.
    """
    if len(set(folders)) == 1:
        raise UserError(f"{folders[0]} is given twice; give another folder to compare it with")
    for folder, rows in zip(folders, experiments, strict=True):
        titles = list(by_experiment(rows))
        if len(titles) > 1:
            raise UserError(
                f"{folder} holds {len(titles)} experiments ({'; '.join(titles)}); "
                "to compare two folders, give folders of one experiment each"
            )
    methods = [common(rows, "method") for rows in experiments]
    first, second = folders if len(set(methods)) == 1 else methods
    one, other = ({row.pair: row.accuracy for row in rows} for rows in experiments)

    def compared(row: StitchRow) -> ComparisonRow:
        accuracies = one.get(row.pair, math.nan), other.get(row.pair, math.nan)
        return ComparisonRow(*row.pair, *accuracies, accuracies[1] - accuracies[0])

    stitches = [row for rows in experiments for row in rows]
    panels = {
        first: HeatMap(pivot(stitches, lambda row: compared(row).accuracy_1)),
        second: HeatMap(pivot(stitches, lambda row: compared(row).accuracy_2)),
        f"{second} − {first}": HeatMap.difference(
            pivot(stitches, lambda row: compared(row).difference)
        ),
    }
    for name, panel in panels.items():
        table(name, *panel.matrix)
    if path:
        lines = pivot(stitches, compared, missing=None).values
        write_table(path, ComparisonRow, [row for line in lines for row in line if row])
        draw(
            path, {"": panels}, figure=figure, title=title, caption=describe_stitches(*experiments)
        )


def draw(
    path: Path, panels: Mapping[str, Mapping[str, HeatMap]], *, figure: str, **texts: str
) -> None:
    """Draw a figure beside a table, and say what was written.

    Args:
        panels: by experiment and title; the last experiments are drawn, as many as fit.
        figure: the ending of its name.
    """
    drawn, n_shown = (
        path.with_suffix(figure),
        MAX_PANELS // max(map(len, panels.values()), default=1),
    )
    if len(panels) > n_shown:
        note(f"{drawn} shows the last {n_shown} of {len(panels)} experiments")
    shown = [
        panel
        for of_experiment in list(panels.values())[-n_shown:]
        for panel in of_experiment.items()
    ]
    is_drawn = maps(drawn, dict(shown), **AXES, **texts)
    note(f"wrote {path}{f' and {drawn}' * is_drawn}")
