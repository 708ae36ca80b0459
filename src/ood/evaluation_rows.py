"""The rows of OOD evaluations, their tables in a folder of stitching runs, and the rule that turns
doses into words."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from src.console import warn
from src.grouping import grouped
from src.results.tables import IntervalEstimate, read_table
from src.stitching.experiments import StitchResult
from src.stitching.folders import StitchingRun

IN_DISTRIBUTION, OFF, COLLAPSED = "in distribution", "off the manifold", "collapsed"
COLLAPSED_AUROC = 0.25  # below it, stitched activations are more typical than the end network's own


class StitchValidity(NamedTuple):
    """How stitched activations lie to those of training images. See `QUANTITIES`."""

    density: float
    recall: float
    frechet: float
    density_own: float
    recall_own: float
    frechet_own: float
    noise_dose: float  # NaN where it is not defined
    shrinkage_dose: float

    @property
    def density_ratio(self) -> float:
        """The density over the end network's own; NaN where that is 0."""
        return self.density / self.density_own if self.density_own else math.nan

    @property
    def recall_ratio(self) -> float:
        """The recall over the end network's own; NaN where that is 0."""
        return self.recall / self.recall_own if self.recall_own else math.nan


class ValidityLimits(NamedTuple):
    """The largest doses of activations that are in distribution."""

    noise_dose: float = 0.05  # above: off the manifold
    shrinkage_dose: float = 0.15  # above: collapsed


def side_of(
    validity: StitchValidity,
    limits: ValidityLimits = ValidityLimits(),  # noqa: B008 - immutable
) -> str | None:
    """Say whether activations are in distribution, else on which side they fail; None where that is
    not defined."""
    if math.isnan(validity.noise_dose) or math.isnan(validity.shrinkage_dose):
        return None
    if validity.noise_dose > limits.noise_dose:
        return OFF
    return COLLAPSED if validity.shrinkage_dose > limits.shrinkage_dose else IN_DISTRIBUTION


@dataclass(frozen=True, kw_only=True)
class EvaluationRow(StitchResult):
    """A stitch and a detector of its end layer: a row of `ood_evaluation.csv`.

    Its settings are those of the run, but for `dataset`, whose images were stitched here. For what
    was measured see `QUANTITIES`; `_low` and `_high` are the ends of intervals of 95 %."""

    detector: str
    detector_id_data: str  # the data that the detector was made with
    detector_ood_data: str | None  # None: the detector needs none
    id_dataset: str
    sanity_dataset: str | None  # None: it was not checked
    sanity_auroc: float | None
    accuracy: float
    auroc: float
    auroc_low: float | None
    auroc_high: float | None
    aupr: float
    fpr95: float
    mean_energy: float
    mean_id_energy: float
    density: float | None = (
        None  # these and the following: None without a pass over training images
    )
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
    front_depth: int | None = None  # of the run
    end_depth: int | None = None

    contents, written_by = "OOD evaluation", "exec_eval_stitcher_ood.py"

    @property
    def validity(self) -> StitchValidity | None:
        """How the stitched activations lie; None where it was not measured."""
        values = [getattr(self, name) for name in StitchValidity._fields]
        return None if None in values else StitchValidity(*values)

    @property
    def density_ratio(self) -> float | None:
        """The density over the end network's own; None where it was not measured."""
        return None if self.validity is None else self.validity.density_ratio

    @property
    def recall_ratio(self) -> float | None:
        """The recall over the end network's own; None where it was not measured."""
        return None if self.validity is None else self.validity.recall_ratio

    @property
    def identified(self) -> IntervalEstimate | None:
        """The share of test images that are identified, with its interval; None where it was not
        measured."""
        if self.identification is None:
            return None
        return IntervalEstimate(
            self.identification, self.identification_low, self.identification_high
        )


def evaluation_file(folder: Path, detector: str, *, other_data: str = "") -> Path:
    """Return the table of the evaluation of a folder by a detector, on the data of its stitches or
    on others."""
    name = "ood_evaluation" if detector == "energy" else f"ood_evaluation_{detector}"
    return folder / (f"{name}_on_{other_data}.csv" if other_data else f"{name}.csv")


def scores_file(folder: Path, detector: str, *, other_data: str = "") -> Path:
    """Return the file of the scores of all images that belong to the same evaluation."""
    return folder / (
        f"energies_{detector}_on_{other_data}.npz" if other_data else f"energies_{detector}.npz"
    )


def read_evaluations(folder: Path, detectors: Iterable[str]) -> dict[str, list[EvaluationRow]]:
    """Read the OOD evaluations of a folder by these detectors, as far as there are any."""
    tables = {name: evaluation_file(folder, name) for name in detectors}
    return {name: read_table(path, EvaluationRow) for name, path in tables.items() if path.exists()}


def with_evaluations(runs: Sequence[StitchingRun], detectors: Iterable[str]) -> list[StitchingRun]:
    """Add to runs their evaluations by these detectors; those on other data than were stitched on
    are left out."""
    detectors, found = list(detectors), {}
    for folder, of_folder in grouped(runs, lambda run: run.folder.parent).items():
        stitched_on = {run.folder.name: run.row.dataset for run in of_folder}
        for detector, rows in read_evaluations(folder, detectors).items():
            others = {
                row
                for row in rows
                if row.dataset not in (None, stitched_on.get(row.folder, row.dataset))
            }
            for dataset in {row.dataset for row in others}:
                warn(
                    f"{folder}: the evaluation by {detector} is of {dataset}, on which nothing was stitched"
                )
            for row in rows:
                if row not in others:
                    found.setdefault(folder / row.folder, {})[detector] = row
    return [replace(run, evaluations=found.get(run.folder, {})) for run in runs]
