"""The OOD evaluations of stitches, read from the tables beside their runs.

This module does not import torch.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from src.core.console import warn
from src.results.evaluation_rows import (
    EvaluationRow,
    SkillRow,
    read_evaluations,
    read_skills,
)
from src.results.experiments import Place, StitchResult
from src.results.folders import Stitch, holds_runs, read_stitches, warn_of_weights
from src.results.spec import are_same, on_same_images
from src.values import Pair

SKILL = ""  # stands for skill among the detectors


def read_evaluated_stitches(
    source_dirs: Iterable[str | Path], *, recursive: bool = False
) -> list[Stitch]:
    """Read the stitches of folders with their evaluations; the oldest of a folder come first.

    A folder that holds no run stands for all folders of runs below it. A run that two folders have
    counts once. Warns of runs that are skipped, and of weights that have changed since.

    Args:
        recursive: read the runs below all folders, also below those that hold runs.
    """
    stitches: dict[tuple[Path, Pair], Stitch] = {}
    for source_dir in map(Path, source_dirs):
        is_above = not holds_runs(source_dir)
        of_folder, skipped = read_stitches(source_dir, recursive=recursive or is_above)
        for reason in skipped:
            warn(f"skipped: {reason}")
        stitches |= {(stitch.folder.resolve(), stitch.row.pair): stitch for stitch in of_folder}
    evaluated = with_evaluations(list(stitches.values()))
    warn_of_weights(evaluated)
    return evaluated


def with_evaluations(stitches: Sequence[Stitch]) -> list[Stitch]:
    """Return stitches with their OOD evaluations and their skill, as far as there are some.

    The tables are in the folder that holds the runs, or in the folder of a run. Evaluations on other
    data than the run's are skipped, with a warning.
    """
    parents = dict.fromkeys(stitch.folder.parent for stitch in stitches)
    folders = parents | dict.fromkeys(stitch.folder for stitch in stitches)
    tables = {folder: _tables_of(folder) for folder in folders}
    n_skipped: Counter[tuple[Path, str]] = Counter()
    evaluated = []
    for stitch in stitches:
        measured: dict[str, Any] = {}
        for folder in (stitch.folder.parent, stitch.folder):
            for name, rows in tables[folder].items():
                row = rows.get(stitch.row.place)
                if row is None:
                    continue
                if _is_on_data_of(stitch.row, row):
                    measured[name] = row
                else:
                    n_skipped[folder, name] += 1
        evaluated.append(replace(stitch, skill=measured.pop(SKILL, None), evaluations=measured))
    for (folder, name), n in n_skipped.items():
        warn(
            f"{folder}: {name or 'skill'} of {n} stitches is skipped: it was measured on other data (--other-data)"
        )
    return evaluated


def _tables_of(folder: Path) -> dict[str, dict[Place, EvaluationRow | SkillRow]]:
    """Return the rows of the tables in a folder by stitch, by detector; rows of skill have the
    name `SKILL`."""
    tables: dict[str, Sequence[EvaluationRow | SkillRow]] = {SKILL: read_skills(folder)}
    tables |= read_evaluations(folder)
    return {name: {row.place: row for row in rows} for name, rows in tables.items()}


def _is_on_data_of(run: StitchResult, row: EvaluationRow | SkillRow) -> bool:
    """Return whether a row is on the data set and the images of a run, where recorded."""
    if isinstance(row, EvaluationRow):
        return on_same_images(run, row)
    return are_same(run.test_images, row.test_images)
