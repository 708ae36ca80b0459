"""The rows of OOD evaluations, and their tables in a folder of stitching runs."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

from src.choices.scores import ON_OTHER_DATA, SCORES
from src.results.experiments import Place, StitchResult
from src.results.tables import read_table
from src.values import Pair, Skill, StitchSkill

TYPICAL_AUROC = 0.25  # below it, stitched activations are more typical than the end network's own


@dataclass(frozen=True)
class SkillRow:
    """How a stitch follows the end network within a class: a row of `skill.csv`.

    A name that ends in `at_end` is of the end layer, the others are of the output. `_low` and `_high`
    are the ends of intervals of 95 %, over images. `QUANTITIES` describes the measurements."""

    folder: str  # of the stitching run
    front_layer: str
    end_layer: str
    correlation: float
    floor: float
    skill: float
    skill_low: float
    skill_high: float
    correlation_at_end: float
    floor_at_end: float
    skill_at_end: float
    skill_at_end_low: float
    skill_at_end_high: float
    n_images: int
    n_twins: int  # untrained twins side by side in the floor
    test_images: str | None = None  # the first digits of their fingerprint

    contents: ClassVar[str] = "skill of stitches"
    written_by: ClassVar[str] = "exec_eval_stitcher_ood.py"

    @property
    def place(self) -> Place:
        """The folder and the layers of the stitch."""
        return Place(self.folder, Pair(self.front_layer, self.end_layer))

    @classmethod
    def of(cls, folder: str, pair: Pair, skill: StitchSkill, test_images: str | None) -> "SkillRow":
        """Return the row of a stitch."""
        numbers = (skill.n_images, skill.n_twins)
        return cls(folder, *pair, *skill.output, *skill.end_layer, *numbers, test_images)

    @property
    def value(self) -> StitchSkill:
        """The skill of the stitch."""
        at_end = Skill(
            self.correlation_at_end,
            self.floor_at_end,
            self.skill_at_end,
            self.skill_at_end_low,
            self.skill_at_end_high,
        )
        output = Skill(self.correlation, self.floor, self.skill, self.skill_low, self.skill_high)
        return StitchSkill(at_end, output, self.n_images, self.n_twins)


@dataclass(frozen=True, kw_only=True)
class EvaluationRow(StitchResult):
    """The evaluation of a stitch by a detector of its end layer: a row of `ood_evaluation.csv`.

    The settings are those of the stitching run, except `dataset`: the images of the evaluation.
    `QUANTITIES` describes the measurements. `_low` and `_high` are the ends of intervals of 95 %.
    A measurement of activations that are not finite is NaN."""

    detector: str
    detector_id_data: str  # the data that the detector was made with
    detector_ood_data: str | None  # None: the detector needs no OOD data
    id_dataset: str
    sanity_dataset: str | None  # None: the detector was not checked
    sanity_auroc: float | None
    accuracy: float
    auroc: float
    auroc_low: float | None
    auroc_high: float | None
    aupr: float
    fpr95: float
    mean_energy: float
    mean_id_energy: float

    # None if the stitching run did not record its depths
    front_depth: int | None = None
    end_depth: int | None = None

    # The title of the experiment among those of its folder; no column
    experiment: str = field(default="", compare=False)

    contents: ClassVar[str] = "OOD evaluation"
    written_by: ClassVar[str] = "exec_eval_stitcher_ood.py"


def evaluation_file(folder: Path, detector: str, *, other_data: str = "") -> Path:
    """Return the path of the table of an evaluation.

    Args:
        folder: the folder of the stitching runs.
        other_data: the data of the evaluation; empty if the stitches were made on the same data.
    """
    name = "ood_evaluation"
    if detector != "energy":  # the detector of the public code
        name += f"_{detector}"
    return folder / f"{name}{_ending(other_data)}.csv"


def skill_file(folder: Path, *, other_data: str = "") -> Path:
    """Return the path of the table of skill; arguments as for `evaluation_file`."""
    return folder / f"skill{_ending(other_data)}.csv"


def scores_file(folder: Path, detector: str, *, other_data: str = "") -> Path:
    """Return the path of the scores of all images; arguments as for `evaluation_file`."""
    return folder / f"energies_{detector}{_ending(other_data)}.npz"


def _ending(other_data: str) -> str:
    """Return the ending of names of files that are of other data than the runs."""
    return other_data and f"{ON_OTHER_DATA}{other_data}"


class EvaluationFiles(NamedTuple):
    """The files of an evaluation, in a folder of stitching runs."""

    tables: dict[str, Path]  # by detector
    scores: dict[str, Path]  # of all images, by detector
    skill: Path


def evaluation_files(
    folder: Path, detectors: Iterable[str], *, other_data: str = ""
) -> EvaluationFiles:
    """Return the paths of an evaluation by detectors; arguments as for `evaluation_file`."""
    tables = {}
    scores = {}
    for detector in detectors:
        tables[detector] = evaluation_file(folder, detector, other_data=other_data)
        scores[detector] = scores_file(folder, detector, other_data=other_data)
    return EvaluationFiles(tables, scores, skill_file(folder, other_data=other_data))


def read_evaluations(folder: Path) -> dict[str, list[EvaluationRow]]:
    """Read the OOD evaluations of a folder of stitching runs; return the rows by detector.

    Detectors of the suite come first, in the order of `SCORES`, and then the detectors of a user's
    code. Evaluations on other data than the runs' are left out.
    """
    prefix = evaluation_file(folder, "").stem
    stems = sorted(path.stem for path in folder.glob(f"{prefix}*.csv"))
    names = [stem.removeprefix(prefix) for stem in stems if ON_OTHER_DATA not in stem]
    of_users = [name for name in names if name not in SCORES]
    evaluations = {}
    for detector in (*SCORES, *of_users):
        path = evaluation_file(folder, detector)
        if path.exists():
            evaluations[detector] = read_table(path, EvaluationRow)
    return evaluations


def read_skills(folder: Path) -> list[SkillRow]:
    """Read the skill of a folder of stitching runs; [] where it was not measured.

    Skill on other data than the runs' is left out.
    """
    path = skill_file(folder)
    if not path.exists():
        return []
    return read_table(path, SkillRow)
