"""The evaluation of stitches, in the table `evaluation.csv` of a folder of runs or of a single run.

This module does not import torch.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from src.core.choices.scores import ON_OTHER_DATA
from src.core.console import warn
from src.core.values import Pair, SkillEstimate, StitchSkill
from src.results.spec import on_same_images
from src.results.stitches import Stitch, holds_runs, read_stitches, warn_of_weights
from src.results.tables import EVALUATIONS, read_table

TYPICAL_AUROC = 0.25  # below it, stitched activations are more typical than the end network's own


def place_of(record: Mapping[str, Any]) -> tuple[str, Pair]:
    """Return the folder and the layers of an evaluated stitch, which identify it in tables."""
    return record["folder"], Pair(record["front_layer"], record["end_layer"])


def skill_of(record: Mapping[str, Any]) -> StitchSkill:
    """Return the skill in the record of an evaluation."""
    at_end, output = (
        SkillEstimate(*(record[name] for name in _columns_of_skill(end))) for end in ("_at_end", "")
    )
    return StitchSkill(at_end, output, *(record[name] for name in StitchSkill._fields[2:]))


def by_detector(record: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return what detectors measured, by detector and by column, such as `auroc_energy`."""
    values: dict[str, dict[str, float]] = {}
    for name in record:
        if name in EVALUATIONS.types:
            continue
        values.setdefault(name.rpartition("_")[2], {})[name] = record[name]
    return values


def _columns_of_skill(place: str) -> list[str]:
    """Return the names of the columns of skill and its interval, at the end layer or the output.

    Args:
        place: the end of the names: "_at_end", or "" for the output.
    """
    correlation, baseline, skill, *ends = SkillEstimate._fields
    names = [f"{name}{place}" for name in (correlation, baseline, skill)]
    return [*names, *(f"{skill}{place}_{end}" for end in ends)]


def columns_of_skill(skill: StitchSkill) -> dict[str, Any]:
    """Return the skill of a stitch by column."""
    columns: dict[str, Any] = {}
    for place, of_place in (("", skill.output), ("_at_end", skill.end_layer)):
        columns |= zip(_columns_of_skill(place), of_place, strict=True)
    return columns | {name: getattr(skill, name) for name in StitchSkill._fields[2:]}


class EvaluationFiles(NamedTuple):
    """The paths of an evaluation, in a folder of stitching runs."""

    folder: Path
    other_data: str = ""  # the data of the evaluation, if the stitches were made on other data

    @property
    def table(self) -> Path:
        """The path of the table of evaluations."""
        return self.folder / f"evaluation{self._ending}.csv"

    def scores(self, detector: str) -> Path:
        """Return the path of the scores of all images by one detector."""
        return self.folder / f"energies_{detector}{self._ending}.npz"

    def read(self) -> list[dict[str, Any]]:
        """Return the records of the table; [] without one."""
        if not self.table.exists():
            return []
        return read_table(self.table, EVALUATIONS)

    @property
    def _ending(self) -> str:
        return self.other_data and f"{ON_OTHER_DATA}{self.other_data}"


def read_evaluated_stitches(
    source_dirs: Iterable[str | Path], *, recursive: bool = False
) -> list[Stitch]:
    """Read the stitches in folders with their evaluations, the oldest of a folder first.

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
        stitches |= {(stitch.folder.resolve(), stitch.pair): stitch for stitch in of_folder}
    evaluated = with_evaluations(list(stitches.values()))
    warn_of_weights(evaluated)
    return evaluated


def with_evaluations(stitches: Sequence[Stitch]) -> list[Stitch]:
    """Return stitches with their evaluations, where these exist.

    The tables are in the folder that holds the runs, or in the folder of a run. Evaluations on other
    data than the run's are skipped, with a warning.
    """
    parents = dict.fromkeys(stitch.folder.parent for stitch in stitches)
    folders = parents | dict.fromkeys(stitch.folder for stitch in stitches)
    tables = {
        folder: {place_of(row): row for row in EvaluationFiles(folder).read()} for folder in folders
    }
    n_skipped: Counter[Path] = Counter()
    evaluated = []
    for stitch in stitches:
        for folder in (stitch.folder.parent, stitch.folder):
            row = tables[folder].get(stitch.place)
            if row and on_same_images(stitch.record, row):
                stitch = replace(stitch, evaluation=row)
            elif row:
                n_skipped[folder] += 1
        evaluated.append(stitch)
    for folder, n in n_skipped.items():
        warn(
            f"{folder}: the evaluation of {n} stitches is skipped: it is on other data (--other-data)"
        )
    return evaluated
