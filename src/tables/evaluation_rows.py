"""The rows of OOD evaluations, and their tables in a folder of stitching runs."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from src.choices.scores import ON_OTHER_DATA, SCORES
from src.ground.console import warn_once
from src.tables.experiments import StitchResult
from src.tables.tables import read_table
from src.values import StitchValidity

TYPICAL_AUROC = 0.25  # below it, stitched activations are more typical than the end network's own


@dataclass(frozen=True)
class IdentificationRow:
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

    # The title of the experiment among those of its folder; no column
    experiment: str = field(default="", compare=False)

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


def scores_file(folder: Path, detector: str, *, other_data: str = "") -> Path:
    """Return the path of the scores of all images; arguments as for `evaluation_file`."""
    name = f"energies_{detector}"
    if other_data:
        name += f"{ON_OTHER_DATA}{other_data}"
    return folder / f"{name}.npz"


class EvaluationFiles(NamedTuple):
    """The files of an evaluation, in a folder of stitching runs."""

    tables: dict[str, Path]  # by detector
    scores: dict[str, Path]  # of all images, by detector
    way: Path  # the shares of identified images


def evaluation_files(
    folder: Path, detectors: Iterable[str], *, other_data: str = ""
) -> EvaluationFiles:
    """Return the paths of an evaluation by detectors; arguments as for `evaluation_file`."""
    tables = {}
    scores = {}
    for detector in detectors:
        tables[detector] = evaluation_file(folder, detector, other_data=other_data)
        scores[detector] = scores_file(folder, detector, other_data=other_data)
    return EvaluationFiles(tables, scores, way_file(folder, other_data=other_data))


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


def read_ways(folder: Path) -> list[IdentificationRow]:
    """Read the shares of identified images of a folder of stitching runs; [] where it has none.

    Shares on other data than the runs' are left out.
    """
    path = way_file(folder)
    if not path.exists():
        return []
    return read_table(path, IdentificationRow)


def _without_earlier_identification(path: Path, row: EvaluationRow) -> EvaluationRow:
    """Return a row without an identification that was measured at the end layer only."""
    if row.identification is None or row.lost_at is not None:
        return row
    warn_once(
        f"{path} is of a version that identified images at the end layer alone; evaluate "
        f"{path.parent} again"
    )
    return replace(row, identification=None, identification_low=None, identification_high=None)
