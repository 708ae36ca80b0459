"""The rows of OOD evaluations, and their tables in a folder of stitching runs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from src.choices.scores import ON_OTHER_DATA, SCORES
from src.ground.console import warn, warn_once
from src.ground.files import readable
from src.runs.folders import StitchingRun
from src.runs.images import are_same
from src.tables.experiments import StitchResult
from src.tables.tables import read_table
from src.values import StitchValidity

TYPICAL_AUROC = 0.25  # below it, stitched activations are more typical than the end network's own


@dataclass(frozen=True)
class WayRow:
    """The share of images that a stitch identifies at one layer of the end network's rest.

    It is a row of `identification.csv`. The rows of a stitch go from its end layer to the output."""

    folder: str  # of the stitching run
    front_layer: str
    end_layer: str
    layer: str
    share: float  # NaN: the activations are not finite
    share_low: float  # the interval of 95 %, over images
    share_high: float
    n_images: int  # that have a foil
    test_images: str | None = None  # the first digits of their fingerprint

    contents: ClassVar[str] = "identification along the way"
    written_by: ClassVar[str] = "exec_eval_stitcher_ood.py"


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

    # The smallest share of identified images along the way, and the layer where it is; None: it was
    # not measured
    identification: float | None = None
    identification_low: float | None = None
    identification_high: float | None = None
    lost_at: str | None = None

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


def way_file(folder: Path, *, other_data: str = "") -> Path:
    """Return the path of the shares of identified images; arguments as for `evaluation_file`."""
    name = "identification"
    if other_data:
        name += f"{ON_OTHER_DATA}{other_data}"
    return folder / f"{name}.csv"


class IdentifiedImages(NamedTuple):
    """The images that a stitch identifies, from `identification.npz`."""

    images: np.ndarray  # (n,): indices among the test images
    foils: np.ndarray  # (n,): likewise
    values: np.ndarray  # (layers, n): 1, 0, ½ for a tie, or NaN, along the way


def identified_images(run: StitchingRun) -> IdentifiedImages | None:
    """Read the images that a run identifies; None if that was not measured.

    Raises:
        UserError: the file is damaged.
    """
    path = way_file(run.folder.parent).with_suffix(".npz")
    if not run.way or not path.exists():
        return None
    with readable(path, "evaluate the folder again"), np.load(path, allow_pickle=False) as arrays:
        if run.folder.name not in arrays:
            return None
        values = arrays[run.folder.name].astype(np.float64)
        return IdentifiedImages(arrays["images"], arrays["foils"], values)


def scores_file(folder: Path, detector: str, *, other_data: str = "") -> Path:
    """Return the path of the scores of all images; arguments as for `evaluation_file`."""
    name = f"energies_{detector}"
    if other_data:
        name += f"{ON_OTHER_DATA}{other_data}"
    return folder / f"{name}.npz"


def read_evaluations(folder: Path) -> dict[str, list[EvaluationRow]]:
    """Read the OOD evaluations of a folder of stitching runs; return the rows by detector.

    Detectors of the suite come first, in the order of `SCORES`, and then the detectors of a user's
    code. Evaluations on other data than the runs' are left out. So is the identification of earlier
    versions, which looked at the end layer alone; a warning says so.
    """
    prefix = evaluation_file(folder, "").stem
    stems = sorted(path.stem for path in folder.glob(f"{prefix}*.csv"))
    names = [stem.removeprefix(prefix) for stem in stems if ON_OTHER_DATA not in stem]
    of_users = [name for name in names if name not in SCORES]
    evaluations = {}
    for detector in (*SCORES, *of_users):
        path = evaluation_file(folder, detector)
        if path.exists():
            rows = read_table(path, EvaluationRow)
            evaluations[detector] = [_without_earlier_identification(path, row) for row in rows]
    return evaluations


def _without_earlier_identification(path: Path, row: EvaluationRow) -> EvaluationRow:
    """Return a row without an identification that was measured at the end layer alone."""
    if row.identification is None or row.lost_at is not None:
        return row
    warn_once(
        f"{path} is of a version that identified images at the end layer alone; evaluate "
        f"{path.parent} again"
    )
    return replace(row, identification=None, identification_low=None, identification_high=None)


def with_evaluations(runs: Sequence[StitchingRun]) -> list[StitchingRun]:
    """Return the runs with their OOD evaluations and their ways, as far as their folders have some.

    Evaluations on other data than the run's are skipped, with a warning.
    """
    rows_of_runs: dict[Path, dict[str, StitchResult]] = defaultdict(dict)  # by folder and run
    for run in runs:
        rows_of_runs[run.folder.parent][run.folder.name] = run.row

    evaluations: dict[Path, dict[str, EvaluationRow]] = defaultdict(dict)  # by run and detector
    ways: dict[Path, list[WayRow]] = defaultdict(list)  # by run
    for folder, row_of_run in rows_of_runs.items():
        for detector, rows in read_evaluations(folder).items():
            skipped = set()
            for row in rows:
                if _is_on_data_of(row_of_run.get(row.folder, row), row):
                    evaluations[folder / row.folder][detector] = row
                else:
                    skipped.add(str(row.dataset))
            for name in sorted(skipped):
                warn(
                    f"{folder}: the evaluation by {detector} on {name} is skipped: runs used other data"
                )
        if way_file(folder).exists():
            for way_row in read_table(way_file(folder), WayRow):
                run_row = row_of_run.get(way_row.folder)
                if run_row and are_same(run_row.test_images, way_row.test_images):
                    ways[folder / way_row.folder].append(way_row)
    return [
        replace(run, evaluations=evaluations.get(run.folder, {}), way=ways.get(run.folder, []))
        for run in runs
    ]


def _is_on_data_of(run: StitchResult, evaluation: EvaluationRow) -> bool:
    """Return whether an evaluation is on the data set and the images of a run, where recorded."""
    if evaluation.dataset is not None and evaluation.dataset != run.dataset:
        return False
    has_test_images = are_same(run.test_images, evaluation.test_images)
    return has_test_images and are_same(run.train_images, evaluation.train_images)
