"""The results of an OOD evaluation: a row for each stitch, and the scores of all images."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.errors import UserError
from src.files import write_bytes
from src.ood.evaluation import StitchEvaluation
from src.ood.metrics import OODMetrics, ood_metrics
from src.ood.scorers import Scorer
from src.ood.scores import SCORES
from src.records import read_record
from src.stitching.rows import EXPERIMENT

TRUSTED = 0.8  # AUROC on the sanity-check data, from which on a detector does its job


class Row(NamedTuple):
    """One stitch: a row of `ood_evaluation.csv`."""

    front_layer: str
    end_layer: str
    accuracy: float
    auroc: float
    aupr: float
    fpr95: float
    mean_energy: float  # the mean score, of whatever detector
    mean_id_energy: float
    folder: str
    detector: str = "energy"
    detector_id_data: str = ""  # what the detector was made with
    detector_ood_data: str = ""
    id_dataset: str = ""
    sanity_dataset: str = ""
    sanity_auroc: float | None = None  # of the detector of the end layer; None: not checked
    dataset: str = ""  # whose images are stitched; all that follows is that of the run
    front_model_path: str = ""
    end_model_path: str = ""
    front_model_type: str = ""
    end_model_type: str = ""
    stitching_type: str = ""
    init: str | None = None
    objective: str | None = None
    n_epochs: int | None = None
    n_pinv_init_samples: int | None = None
    front_stitch_rank: int | None = None
    front_pinv_rank: int | None = None
    seed: int | None = None

    @property
    def is_trusted(self) -> bool | None:
        """Whether the detector does its job; None where that was not checked."""
        return None if self.sanity_auroc is None else self.sanity_auroc >= TRUSTED

    @classmethod
    def read(cls, record: Mapping[str, str]) -> "Row":
        """Return the row that a line of the file holds; columns that an older file lacks have their defaults.

        Raises:
            ValueError: it is damaged.
        """
        return read_record(cls, record)


def file_stem(detector: str) -> str:
    """Return the name of the files of an evaluation, without their suffixes."""
    return "ood_evaluation" if detector == "energy" else f"ood_evaluation_{detector}"


def energy_folder(detector: str, folder: Path, given: str | None, *, of_several: bool) -> Path:
    """Return the folder of the scores of all images: in the evaluated one, or the one that the user gave.

    Args:
        of_several: several detectors are evaluated together, each with a folder in the given one.
    """
    if given:
        return Path(given, detector) if of_several else Path(given)
    return folder / ("energies" if detector == "energy" else f"energies_{detector}")


def read_evaluations(folder: Path, detectors: Iterable[str] = tuple(SCORES)) -> dict[str, list[Row]]:
    """Return the OOD evaluations of a folder of stitching runs by these detectors, as far as there are any.

    Raises:
        UserError: a file is damaged; names it.
    """
    evaluations: dict[str, list[Row]] = {}
    for detector in detectors:
        path = folder / f"{file_stem(detector)}.csv"
        if not path.exists():
            continue
        try:
            with open(path, newline="", encoding="utf-8") as file:
                evaluations[detector] = [Row.read(record) for record in csv.DictReader(file)]
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}); evaluate the folder again") from error
    return evaluations


def check(
    id_energies: Mapping[str, np.ndarray], energies: Mapping[str, np.ndarray], folder: Path, *, name: str
) -> dict[str, OODMetrics]:
    """Measure how well the detector of each layer tells ID data from the data `name`; save the scores of these."""
    for layer, values in energies.items():
        write_energies(folder / layer / f"{name}.npy", values)
    return {layer: ood_metrics(id_energies[layer], values) for layer, values in energies.items()}


def rows_of(
    scorers: Mapping[str, Scorer],
    id_energies: Mapping[str, np.ndarray],
    sanity: Mapping[str, OODMetrics],
    evaluations: Sequence[StitchEvaluation],
    made_with: Mapping[str, str],
    energies_to: Path,
) -> list[Row]:
    """Make the row of each stitch, one end layer after the other; save the scores.

    Args:
        scorers, id_energies, sanity: by end layer; `sanity` may be empty.
        made_with: the detector and the data: the fields of the rows that all of them share.
        energies_to: the folder that the scores are saved in, as END_LAYER/FRONT_LAYER.npy; where a pair has several
            runs, behind the name of its front layer stands that of the run's folder.
    """
    rows, n_runs = [], Counter(evaluation.run.row.pair for evaluation in evaluations)
    for layer, scorer in scorers.items():
        for run, accuracy, energies in evaluations:
            if run.row.end_layer != layer:
                continue
            metrics = ood_metrics(id_energies[layer], energies)
            means = (float(energies.mean()), float(id_energies[layer].mean()))
            of_run = {name: getattr(run.row, name) for name in EXPERIMENT} | dict(made_with)
            row = Row(*run.row.pair, accuracy, *metrics, *means, run.folder.name, **of_run, **scorer.data)
            rows.append(row._replace(sanity_auroc=sanity[layer].auroc) if layer in sanity else row)
            name = run.row.front_layer if n_runs[run.row.pair] == 1 else f"{run.row.front_layer} {run.folder.name}"
            write_energies(energies_to / layer / f"{name}.npy", energies)
    return rows


def write_energies(path: Path, energies: np.ndarray) -> None:
    """Write energies (N,) as float32 `.npy`."""
    buffer = io.BytesIO()
    np.save(buffer, energies.astype(np.float32), allow_pickle=False)
    write_bytes(path, buffer.getvalue())
