"""The OOD evaluations of stitching runs, read from the tables in their folders.

This module does not import torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from src.ground.console import warn
from src.results.evaluation_rows import (
    EvaluationRow,
    SkillRow,
    read_evaluations,
    read_skills,
)
from src.results.experiments import Place, StitchResult
from src.results.folders import Stitch, folders_meant, read_runs, warn_of_weights
from src.results.image_records import are_same
from src.values import Pair

StitchKey = tuple[Path, Pair]  # the folder of its run, and its layers
SKILL = ""  # stands for skill among the detectors


def read_evaluated_runs(
    source_dirs: Iterable[str | Path], *, recursive: bool = False
) -> list[Stitch]:
    """Read the finished runs of folders with their evaluations; the oldest of a folder come first.

    A folder that holds no run stands for all folders of runs below it. A run that two folders have
    counts once. Warns of runs that are skipped, and of weights that have changed since.

    Args:
        recursive: read the runs below all folders, also below those that hold runs.
    """
    folders = list(map(Path, source_dirs))
    if not recursive:
        folders = list(chain.from_iterable(map(folders_meant, folders)))
    runs: dict[StitchKey, Stitch] = {}
    for folder in folders:
        runs_of_folder, skipped = read_runs(folder, recursive=recursive)
        for reason in skipped:
            warn(f"skipped: {reason}")
        runs |= {(run.folder.resolve(), run.row.pair): run for run in runs_of_folder}
    evaluated_runs = with_evaluations(list(runs.values()))
    warn_of_weights(evaluated_runs)
    return evaluated_runs


def with_evaluations(runs: Sequence[Stitch]) -> list[Stitch]:
    """Return stitches with their OOD evaluations and their skill, as far as there are some.

    The tables are in the folder that holds the runs, or in the folder of a run. Evaluations on other
    data than the run's are skipped, with a warning.
    """
    folders = dict.fromkeys(run.folder.parent for run in runs)
    folders |= dict.fromkeys(run.folder for run in runs)
    run_of_stitch = {(run.folder, run.row.pair): run for run in runs}
    found: dict[StitchKey, dict[str, Any]] = {stitch: {} for stitch in run_of_stitch}
    for folder in folders:
        tables: dict[str, Sequence[EvaluationRow | SkillRow]] = {SKILL: read_skills(folder)}
        tables |= read_evaluations(folder)
        for name, rows in tables.items():
            n_skipped = 0
            for row in rows:
                stitch = _stitch_of(row.place, folder)
                if stitch not in run_of_stitch:
                    continue
                if _is_on_data_of(run_of_stitch[stitch].row, row):
                    found[stitch][name] = row
                else:
                    n_skipped += 1
            if n_skipped:
                title = f"the evaluation by {name}" if name else "skill"
                warn(f"{folder}: {title} of {n_skipped} stitches is skipped: runs used other data")
    return [
        replace(run, skill=of_stitch.pop(SKILL, None), evaluations=of_stitch)
        for run, of_stitch in zip(runs, found.values(), strict=True)
    ]


def _stitch_of(place: Place, folder: Path) -> StitchKey:
    """Return the stitch that a row in a table of a folder is of: of a run in the folder, or of the
    run that the folder is."""
    if place.folder == folder.name:
        return folder, place.pair
    return folder / place.folder, place.pair


def _is_on_data_of(run: StitchResult, row: EvaluationRow | SkillRow) -> bool:
    """Return whether a row is on the data set and the images of a run, where recorded."""
    if isinstance(row, EvaluationRow):
        is_of_dataset = row.dataset in (None, run.dataset)
        if not (is_of_dataset and are_same(run.train_images, row.train_images)):
            return False
    return are_same(run.test_images, row.test_images)
