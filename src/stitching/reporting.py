"""Writes the table and the heat maps of a folder of stitching runs, and the comparison of two such folders."""

import math
from collections.abc import Sequence
from pathlib import Path

from src.captions import caption, common, networks
from src.console import note
from src.errors import UserError
from src.figures import HeatMap, maps
from src.files import locked, write_csv
from src.options import MATCHED_INITS
from src.stitching.results import read_runs
from src.stitching.rows import Row, accuracies, by_experiment, natural_order

MAX_PANELS = 12  # heat maps in one figure
ACCURACY = "accuracy of the stitched network"
LABELS = {"row_label": "front layer", "column_label": "end layer"}


def write_grid(path: Path, rows: Sequence[Row], *, figure: str = ".png", title: str = "") -> None:
    """Write rows as a CSV, and beside it heat maps of their accuracies, one for each experiment.

    Args:
        figure: the ending of its name, and so its format: .png or .pdf.
    """
    drawn = path.with_suffix(figure)
    write_csv(path, Row._fields, [row._asdict() for row in rows])
    groups = list(by_experiment(rows).items())
    if len(groups) > MAX_PANELS:
        note(f"{drawn} shows the last {MAX_PANELS} of {len(groups)} experiments")
    fronts, ends = _layers(rows)
    panels = {
        name.replace(", ", "\n") or ACCURACY: HeatMap(accuracies(group, fronts, ends))
        for name, group in groups[-MAX_PANELS:]
    }
    texts = {"title": title, "caption": describe(rows)}
    maps(drawn, panels, rows=fronts, columns=ends, **LABELS, **texts)
    note(f"wrote {path} and {drawn}")


def update_grid(directory: Path, *, create: bool, title: str = "") -> None:
    """Rebuild `grid.csv` and `grid.png` from all finished runs of a folder; safe when several processes do so.

    Args:
        create: also where there are none yet, and no other process is about to make them.
    """
    table, lock = directory / "grid.csv", directory / ".grid.lock"
    if create or table.exists() or lock.exists():
        with locked(lock):
            write_grid(table, [run.row for run in read_runs(directory)[0]], title=title)


def describe(*experiments: Sequence[Row]) -> str:
    """Describe what all rows share, and the method of each experiment, for a caption."""
    rows = [row for experiment in experiments for row in experiment]
    methods = dict.fromkeys(filter(None, map(method, experiments)))
    stitched = networks(rows, "front_model", "end_model")
    images = common(rows, "n_images")
    return caption(networks=stitched, data=common(rows, "dataset"), method="; ".join(methods), images=images)


def method(rows: Sequence[Row]) -> str:
    """Return the way of stitching that all rows share, with its details; "" where they differ."""
    name, n_epochs, n_samples = (common(rows, field) for field in ("method", "n_epochs", "n_pinv_init_samples"))
    details = [common(rows, "stitching_type"), f"{n_epochs} epoch{'s' if n_epochs > 1 else ''}" if n_epochs else ""]
    if common(rows, "init"):
        matched = common(rows, "init") in MATCHED_INITS
        details += [] if n_epochs == 0 else [f"init {common(rows, 'init')}"]
        details += [f"matched on {n_samples} images"] if matched and n_samples else []
    if not name:
        return ""
    return f"{name} ({', '.join(filter(None, details))})"


class Comparison:
    """The accuracies of two experiments over the same layers, and the second less the first.

    Args:
        folders: names of both, for what is printed and drawn where the methods have one name.
        experiments: the rows of both.
    Raises:
        UserError: both are the same, or one of them holds several experiments, which have no one matrix.
    """

    def __init__(self, folders: Sequence[str], experiments: Sequence[Sequence[Row]]):
        if len(set(folders)) == 1:
            raise UserError(f"{folders[0]} is given twice; give another folder to compare it with")
        for folder, rows in zip(folders, experiments, strict=True):
            titles = list(by_experiment(rows))
            if len(titles) > 1:
                raise UserError(
                    f"{folder} holds {len(titles)} experiments ({'; '.join(titles)}); "
                    "to compare two folders, give folders of one experiment each"
                )
        self.caption = describe(*experiments)
        self.fronts, self.ends = _layers([row for rows in experiments for row in rows])
        methods = [common(rows, "method") for rows in experiments]
        self.names = list(folders) if len(set(methods)) == 1 else methods
        first, second = (accuracies(rows, self.fronts, self.ends) for rows in experiments)
        self.panels = {
            self.names[0]: HeatMap(first),
            self.names[1]: HeatMap(second),
            f"{self.names[1]} − {self.names[0]}": HeatMap.difference(second, first),
        }

    def write(self, path: Path, *, figure: str, title: str = "") -> None:
        """Write the CSV, one row for each pair of layers, and beside it the figure of three panels."""
        columns = ("front_layer", "end_layer", "accuracy_1", "accuracy_2", "difference")
        matrices = [panel.values for panel in self.panels.values()]
        records = []
        for y, front in enumerate(self.fronts):
            for x, end in enumerate(self.ends):
                values = [matrix[y][x] for matrix in matrices]
                if not all(map(math.isnan, values)):
                    records.append(dict(zip(columns, (front, end, *values), strict=True)))
        write_csv(path, columns, records)
        drawn, texts = path.with_suffix(figure), {"title": title, "caption": self.caption}
        maps(drawn, self.panels, rows=self.fronts, columns=self.ends, **LABELS, **texts)
        note(f"wrote {path} and {drawn}")


def _layers(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    return natural_order(row.front_layer for row in rows), natural_order(row.end_layer for row in rows)
