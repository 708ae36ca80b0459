"""The tables of OOD evaluations of a folder of stitching runs, read back. Importing this spares torch."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from src.console import warn
from src.ood.rows import EvaluationRow
from src.results.experiments import grouped
from src.results.tables import read_table
from src.stitching.folders import StitchingRun


def evaluation_file(folder: Path, detector: str, *, other_data: str = "") -> Path:
    """Return the table of the evaluation of a folder by a detector, on the data of its stitches or on others."""
    name = "ood_evaluation" if detector == "energy" else f"ood_evaluation_{detector}"
    return folder / (f"{name}_on_{other_data}.csv" if other_data else f"{name}.csv")


def read_evaluations(folder: Path, detectors: Iterable[str]) -> dict[str, list[EvaluationRow]]:
    """Read the OOD evaluations of a folder by these detectors, as far as there are any."""
    tables = {name: evaluation_file(folder, name) for name in detectors}
    return {name: read_table(path, EvaluationRow) for name, path in tables.items() if path.exists()}


def with_evaluations(runs: Sequence[StitchingRun], detectors: Iterable[str]) -> list[StitchingRun]:
    """Add to runs their evaluations by these detectors; those on other data than were stitched on are left out."""
    detectors, found = list(detectors), {}
    for folder, of_folder in grouped(runs, lambda run: run.folder.parent).items():
        stitched_on = {run.folder.name: run.row.dataset for run in of_folder}
        for detector, rows in read_evaluations(folder, detectors).items():
            known = {row.dataset for row in rows if row.dataset in (None, stitched_on.get(row.folder, row.dataset))}
            others = {row.dataset for row in rows} - known
            if others:
                warn(f"{folder}: the evaluation by {detector} is of {', '.join(others)}, on which nothing was stitched")
            for row in rows:
                if row.dataset not in others:
                    found.setdefault(folder / row.folder, {})[detector] = row
    return [replace(run, evaluations=found.get(run.folder, {})) for run in runs]
