"""The OOD evaluations of stitching runs, read from the tables in their folders.

This module does not import torch.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from src.ground.console import warn
from src.results.evaluation_rows import (
    EvaluationRow,
    SkillRow,
    read_evaluations,
    read_skills,
    skill_file,
)
from src.results.experiments import Place, StitchResult
from src.results.folders import StitchingRun, folders_meant, read_runs, warn_of_weights
from src.results.image_records import are_same
from src.values import Pair

Stitch = tuple[Path, Pair]  # the folder of its run, and its layers


def read_evaluated_runs(
    source_dirs: Iterable[str | Path], *, recursive: bool = False
) -> list[StitchingRun]:
    """Read the finished runs of folders with their evaluations; the oldest of a folder come first.

    A folder that holds no run stands for all folders of runs below it. A run that two folders have
    counts once. Warns of runs that are skipped, and of weights that have changed since.

    Args:
        recursive: read the runs below all folders, also below those that hold runs.
    """
    folders = list(map(Path, source_dirs))
    if not recursive:
        folders = list(chain.from_iterable(map(folders_meant, folders)))
    runs: dict[Stitch, StitchingRun] = {}
    for folder in folders:
        runs_of_folder, skipped = read_runs(folder, recursive=recursive)
        for reason in skipped:
            warn(f"skipped: {reason}")
        runs |= {(run.folder.resolve(), run.row.pair): run for run in runs_of_folder}
    evaluated_runs = with_evaluations(list(runs.values()))
    warn_of_weights(evaluated_runs)
    return evaluated_runs


def with_evaluations(runs: Sequence[StitchingRun]) -> list[StitchingRun]:
    """Return stitches with their OOD evaluations and their skill, as far as there are some.

    The tables are in the folder that holds the runs, or in the folder of a run. Evaluations on other
    data than the run's are skipped, with a warning.
    """
    folders = dict.fromkeys(run.folder.parent for run in runs)
    folders |= dict.fromkeys(run.folder for run in runs)
    run_of_stitch = {_stitch(run): run for run in runs}
    evaluations: dict[Stitch, dict[str, EvaluationRow]] = defaultdict(dict)  # by detector
    skills: dict[Stitch, SkillRow] = {}
    for folder in folders:
        for detector, rows in read_evaluations(folder).items():
            others = set()
            for row in rows:
                stitch = _stitch_of(row.place, folder)
                if stitch not in run_of_stitch:
                    continue
                if _is_on_data_of(run_of_stitch[stitch].row, row):
                    evaluations[stitch][detector] = row
                else:
                    others.add(str(row.dataset))
            for name in sorted(others):
                warn(
                    f"{folder}: the evaluation by {detector} on {name} is skipped: runs used other data"
                )
        n_skipped = 0
        for skill_row in read_skills(folder):
            stitch = _stitch_of(skill_row.place, folder)
            if stitch not in run_of_stitch:
                continue
            if are_same(run_of_stitch[stitch].row.test_images, skill_row.test_images):
                skills[stitch] = skill_row
            else:
                n_skipped += 1
        if n_skipped:
            warn(f"{skill_file(folder)}: {n_skipped} rows are skipped: runs used other test images")
    return [
        replace(run, evaluations=evaluations.get(stitch, {}), skill=skills.get(stitch))
        for stitch, run in zip(map(_stitch, runs), runs, strict=True)
    ]


def _stitch(run: StitchingRun) -> Stitch:
    return run.folder, run.row.pair


def _stitch_of(place: Place, folder: Path) -> Stitch:
    """Return the stitch that a row in a table of a folder is of: of a run in the folder, or of the
    run that the folder is."""
    if place.folder == folder.name:
        return folder, place.pair
    return folder / place.folder, place.pair


def _is_on_data_of(run: StitchResult, evaluation: EvaluationRow) -> bool:
    """Return whether an evaluation is on the data set and the images of a run, where recorded."""
    if evaluation.dataset is not None and evaluation.dataset != run.dataset:
        return False
    has_test_images = are_same(run.test_images, evaluation.test_images)
    return has_test_images and are_same(run.train_images, evaluation.train_images)
