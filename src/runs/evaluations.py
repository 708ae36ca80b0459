"""The OOD evaluations of stitching runs, read from the tables in their folders.

This module does not import torch.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from src.ground.console import warn
from src.runs.folders import StitchingRun, folders_meant, read_runs, warn_of_weights
from src.tables.evaluation_rows import (
    EvaluationRow,
    SkillRow,
    read_evaluations,
    read_skills,
    skill_file,
)
from src.tables.experiments import StitchResult
from src.tables.image_records import are_same


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
    runs: dict[Path, StitchingRun] = {}
    for folder in folders:
        runs_of_folder, skipped = read_runs(folder, recursive=recursive)
        for reason in skipped:
            warn(f"skipped: {reason}")
        runs |= {run.folder.resolve(): run for run in runs_of_folder}
    evaluated_runs = with_evaluations(list(runs.values()))
    warn_of_weights(evaluated_runs)
    return evaluated_runs


def with_evaluations(runs: Sequence[StitchingRun]) -> list[StitchingRun]:
    """Return the runs with their OOD evaluations and their skill, as far as the folder that holds the
    runs has some.

    Evaluations on other data than the run's are skipped, with a warning.
    """
    rows_of_runs: dict[Path, dict[str, StitchResult]] = defaultdict(dict)  # by folder and run
    for run in runs:
        rows_of_runs[run.folder.parent][run.folder.name] = run.row

    evaluations: dict[Path, dict[str, EvaluationRow]] = defaultdict(dict)  # by run and detector
    skills: dict[Path, SkillRow] = {}  # by run
    for folder, row_of_run in rows_of_runs.items():
        evaluations_of_folder = read_evaluations(folder)
        for detector, rows in evaluations_of_folder.items():
            skipped = set()
            for row in rows:
                run_row = row_of_run.get(row.folder)
                if run_row is None:
                    continue
                if _is_on_data_of(run_row, row):
                    evaluations[folder / row.folder][detector] = row
                else:
                    skipped.add(str(row.dataset))
            for name in sorted(skipped):
                warn(
                    f"{folder}: the evaluation by {detector} on {name} is skipped: runs used other data"
                )
        n_skipped = 0
        for skill_row in read_skills(folder):
            run_row = row_of_run.get(skill_row.folder)
            if run_row is None:
                continue
            if are_same(run_row.test_images, skill_row.test_images):
                skills[folder / skill_row.folder] = skill_row
            else:
                n_skipped += 1
        if n_skipped:
            warn(f"{skill_file(folder)}: {n_skipped} rows are skipped: runs used other test images")
    return [
        replace(run, evaluations=evaluations.get(run.folder, {}), skill=skills.get(run.folder))
        for run in runs
    ]


def _is_on_data_of(run: StitchResult, evaluation: EvaluationRow) -> bool:
    """Return whether an evaluation is on the data set and the images of a run, where recorded."""
    if evaluation.dataset is not None and evaluation.dataset != run.dataset:
        return False
    has_test_images = are_same(run.test_images, evaluation.test_images)
    return has_test_images and are_same(run.train_images, evaluation.train_images)
