"""The rows of OOD evaluations, and their tables in a folder of stitching runs.

The rule that turns doses into words stands here too. A *dose* is an amount of noise or of shrinkage
that gives the end network's own activations the same validity as stitched activations have. So 5 %
of noise means the same at every layer (see `src.ood.validity`)."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, NamedTuple

from src.choices.scores import ON_OTHER_DATA, SCORES
from src.console import warn
from src.results.tables import IntervalEstimate, read_table
from src.stitching.experiments import StitchResult
from src.stitching.folders import StitchingRun

IN_DISTRIBUTION = "in distribution"
OFF = "off the manifold"
COLLAPSED = "collapsed"
COLLAPSED_AUROC = 0.25  # below it, stitched activations are more typical than the end network's own


class StitchValidity(NamedTuple):
    """Validity of the activations of a stitch, beside that of the end network's own activations.

    `QUANTITIES` describes each number. A number that is not defined is NaN."""

    density: float
    recall: float
    frechet: float
    density_own: float
    recall_own: float
    frechet_own: float
    noise_dose: float
    shrinkage_dose: float

    @property
    def density_ratio(self) -> float:
        """The density of the stitch over the end network's own density; NaN if the latter is 0."""
        if self.density_own == 0:
            return math.nan
        return self.density / self.density_own

    @property
    def recall_ratio(self) -> float:
        """The recall of the stitch over the end network's own recall; NaN if the latter is 0."""
        if self.recall_own == 0:
            return math.nan
        return self.recall / self.recall_own


class ValidityLimits(NamedTuple):
    """The largest doses at which activations count as in distribution."""

    noise_dose: float = 0.05  # above it, activations are off the manifold
    shrinkage_dose: float = 0.15  # above it, activations are collapsed


def side_of(
    validity: StitchValidity,
    limits: ValidityLimits = ValidityLimits(),  # noqa: B008 - immutable
) -> str | None:
    """Return IN_DISTRIBUTION, OFF or COLLAPSED for the doses of a stitch; None if a dose is NaN.

    Activations that exceed both limits are OFF.
    """
    if math.isnan(validity.noise_dose) or math.isnan(validity.shrinkage_dose):
        return None
    if validity.noise_dose > limits.noise_dose:
        return OFF
    if validity.shrinkage_dose > limits.shrinkage_dose:
        return COLLAPSED
    return IN_DISTRIBUTION


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

    # None without a pass over the training images
    density: float | None = None
    recall: float | None = None
    frechet: float | None = None
    density_own: float | None = None
    recall_own: float | None = None
    frechet_own: float | None = None
    noise_dose: float | None = None
    shrinkage_dose: float | None = None
    identification: float | None = None
    identification_low: float | None = None
    identification_high: float | None = None
    noise_cost: float | None = None

    # None if the stitching run did not record its depths
    front_depth: int | None = None
    end_depth: int | None = None

    contents: ClassVar[str] = "OOD evaluation"
    written_by: ClassVar[str] = "exec_eval_stitcher_ood.py"

    @property
    def validity(self) -> StitchValidity | None:
        """The validity of the stitched activations; None if it was not measured."""
        values = [getattr(self, name) for name in StitchValidity._fields]
        if None in values:
            return None
        return StitchValidity(*values)

    @property
    def density_ratio(self) -> float | None:
        """The density over the end network's own density; None if it was not measured."""
        if self.validity is None:
            return None
        return self.validity.density_ratio

    @property
    def recall_ratio(self) -> float | None:
        """The recall over the end network's own recall; None if it was not measured."""
        if self.validity is None:
            return None
        return self.validity.recall_ratio

    @property
    def identified(self) -> IntervalEstimate | None:
        """The share of identified test images; None if it was not measured."""
        low = self.identification_low
        high = self.identification_high
        if self.identification is None or low is None or high is None:
            return None
        return IntervalEstimate(self.identification, low, high)


def evaluation_file(folder: Path, detector: str, *, other_data: str = "") -> Path:
    """Return the path of the table of an evaluation.

    Args:
        folder: the folder of the stitching runs.
        other_data: the data of the evaluation; empty if the stitches were made on the same data.
    """
    name = "ood_evaluation"
    if detector != "energy":  # the detector of the public code
        name += f"_{detector}"
    if other_data:
        name += f"{ON_OTHER_DATA}{other_data}"
    return folder / f"{name}.csv"


def scores_file(folder: Path, detector: str, *, other_data: str = "") -> Path:
    """Return the path of the scores of all images; arguments as for `evaluation_file`."""
    name = f"energies_{detector}"
    if other_data:
        name += f"{ON_OTHER_DATA}{other_data}"
    return folder / f"{name}.npz"


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


def with_evaluations(runs: Sequence[StitchingRun]) -> list[StitchingRun]:
    """Return the runs with their OOD evaluations, as far as their folders have evaluations.

    Evaluations on other data than the run's are skipped, with a warning.
    """
    datasets: dict[Path, dict[str, str | None]] = defaultdict(dict)  # by folder and run
    for run in runs:
        datasets[run.folder.parent][run.folder.name] = run.row.dataset

    evaluations: dict[Path, dict[str, EvaluationRow]] = defaultdict(dict)  # by run and detector
    for folder, dataset_of_run in datasets.items():
        for detector, rows in read_evaluations(folder).items():
            skipped = set()
            for row in rows:
                dataset = dataset_of_run.get(row.folder, row.dataset)
                if row.dataset is not None and row.dataset != dataset:
                    skipped.add(row.dataset)
                else:
                    evaluations[folder / row.folder][detector] = row
            for name in sorted(skipped):
                warn(
                    f"{folder}: the evaluation by {detector} on {name} is skipped: runs used other data"
                )
    return [replace(run, evaluations=evaluations.get(run.folder, {})) for run in runs]
