"""The rows of OOD evaluations, and their tables in a folder of stitching runs."""

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
    width: (
        int  # of the random features in the baseline: the rank of the front's covariance, rounded
    )
    n_copies: int  # untrained copies side by side in the baseline, at most
    rows_per_channel: float  # that the widest features of the baseline were fitted to
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
        return cls(
            folder,
            *pair,
            *skill.output,
            *skill.end_layer,
            skill.n_images,
            skill.n_classes,
            skill.width,
            skill.n_copies,
            skill.rows_per_channel,
            test_images,
        )

    @property
    def value(self) -> StitchSkill:
        """The skill of the stitch."""
        at_end = Skill(
            self.correlation_at_end,
            self.baseline_at_end,
            self.skill_at_end,
            self.skill_at_end_low,
            self.skill_at_end_high,
        )
        output = Skill(self.correlation, self.baseline, self.skill, self.skill_low, self.skill_high)
        return StitchSkill(
            at_end,
            output,
            self.n_images,
            self.n_classes,
            self.width,
            self.n_copies,
            self.rows_per_channel,
        )


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


class EvaluationFiles(NamedTuple):
    """The paths of evaluations, in a folder of stitching runs."""

    folder: Path
    other_data: str = ""  # the data of the evaluation, if the stitches were made on other data

    def table(self, detector: str) -> Path:
        """Return the table of a detector; that of the public code has no name in it."""
        name = "ood_evaluation"
        if detector != "energy":
            name += f"_{detector}"
        return self.folder / f"{name}{self._ending}.csv"

    def scores(self, detector: str) -> Path:
        """Return the file of the scores of all images."""
        return self.folder / f"energies_{detector}{self._ending}.npz"

    @property
    def skill(self) -> Path:
        """The table of skill."""
        return self.folder / f"skill{self._ending}.csv"

    @property
    def _ending(self) -> str:
        return self.other_data and f"{ON_OTHER_DATA}{self.other_data}"


def read_evaluations(folder: Path) -> dict[str, list[EvaluationRow]]:
    """Read the OOD evaluations of a folder of stitching runs; return the rows by detector.

    Evaluations on other data than the runs' are left out.
    """
    files = EvaluationFiles(folder)
    evaluations = {}
    for detector in SCORES:
        path = files.table(detector)
        if path.exists():
            evaluations[detector] = read_table(path, EvaluationRow)
    return evaluations


def read_skills(folder: Path) -> list[SkillRow]:
    """Read the skill of a folder of stitching runs; [] where it was not measured.

    Skill on other data than the runs' is left out.
    """
    path = EvaluationFiles(folder).skill
    if not path.exists():
        return []
    return read_table(path, SkillRow)
