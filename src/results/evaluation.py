"""The evaluation of stitches, in the table `evaluation.csv` of a folder of runs or of a single run.

This module does not import torch.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

from src.choices.scores import ON_OTHER_DATA
from src.core.console import warn
from src.results.spec import on_same_images
from src.results.stitches import Stitch, holds_runs, read_stitches, warn_of_weights
from src.results.tables import read_table
from src.values import Pair, SkillEstimate, StitchSkill

TYPICAL_AUROC = 0.25  # below it, stitched activations are more typical than the end network's own


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """The evaluation of a stitch: a row of `evaluation.csv`.

    Skill: a name that ends in `at_end` is of the end layer, the others are of the output. `_low` and
    `_high` are the ends of intervals of 95 %, over images. `QUANTITIES` describes the measurements. A
    measurement of activations that are not finite is NaN."""

    folder: str  # of the stitching run
    front_layer: str
    end_layer: str
    # The images of the evaluation; the first digits of their fingerprints
    dataset: str | None = None
    shortcut: float | None = None
    train_images: str | None = None
    test_images: str | None = None
    id_dataset: str | None = None  # the activations that detectors compare with
    sanity_dataset: str | None = None  # None: the detectors were not checked
    accuracy: float | None = None
    correlation: float
    baseline: float
    skill: float
    skill_low: float
    skill_high: float
    correlation_at_end: float
    baseline_at_end: float
    skill_at_end: float
    skill_at_end_low: float
    skill_at_end_high: float
    n_images: int
    n_classes: int  # of the end network
    width: int  # of the random features in the baseline: the rank of the front's covariance
    n_copies: int  # untrained copies side by side in the baseline, at most
    rows_per_channel: float  # that the widest features of the baseline were fitted to
    # What detectors measured, such as `auroc_energy`
    further: dict[str, float] = field(default_factory=dict)

    contents: ClassVar[str] = "evaluation of stitches"
    written_by: ClassVar[str] = "exec_eval_stitcher_ood.py"

    @property
    def place(self) -> tuple[str, Pair]:
        """The folder and the layers of the stitch, which identify it in tables."""
        return self.folder, Pair(self.front_layer, self.end_layer)

    @property
    def value(self) -> StitchSkill:
        """The skill of the stitch."""
        at_end, output = (
            SkillEstimate(*(getattr(self, name) for name in _columns_of_skill(end)))
            for end in ("_at_end", "")
        )
        further = [getattr(self, name) for name in StitchSkill._fields[2:]]
        return StitchSkill(at_end, output, *further)

    @cached_property
    def detectors(self) -> dict[str, SimpleNamespace]:
        """The measurements of each detector: `auroc`, `auroc_low`, `aupr`, …"""
        values: dict[str, dict[str, float]] = {}
        for name, value in self.further.items():
            column, _, detector = name.rpartition("_")
            values.setdefault(detector, {})[column] = value
        return {detector: SimpleNamespace(**columns) for detector, columns in values.items()}


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

    def read(self) -> list[EvaluationRow]:
        """Return the rows of the table; [] without one."""
        if not self.table.exists():
            return []
        return read_table(self.table, EvaluationRow)

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
        stitches |= {(stitch.folder.resolve(), stitch.row.pair): stitch for stitch in of_folder}
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
        folder: {row.place: row for row in EvaluationFiles(folder).read()} for folder in folders
    }
    n_skipped: Counter[Path] = Counter()
    evaluated = []
    for stitch in stitches:
        for folder in (stitch.folder.parent, stitch.folder):
            row = tables[folder].get(stitch.row.place)
            if row and on_same_images(stitch.row, row):
                stitch = replace(stitch, skill=row, evaluations=row.detectors)
            elif row:
                n_skipped[folder] += 1
        evaluated.append(stitch)
    for folder, n in n_skipped.items():
        warn(
            f"{folder}: the evaluation of {n} stitches is skipped: it is on other data (--other-data)"
        )
    return evaluated
