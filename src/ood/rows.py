"""The rows of OOD evaluations and of the fine-tuning of detectors. Importing this spares torch."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from src.results.experiments import StitchResult


class StitchValidity(NamedTuple):
    """How stitched activations lie to those of training images; `_own`: the end network's own of the same images."""

    density: float  # less than its own: off the manifold; more: collapsed
    recall: float  # less than its own: collapsed
    frechet: float  # squared distance over the variance of the training images
    density_own: float
    recall_own: float
    frechet_own: float
    noise_dose: float  # share of noise that would give the own activations this density; NaN where that is not defined
    shrinkage_dose: float  # share of the way to the mean that would give them this recall, or this surplus of density

    @property
    def density_ratio(self) -> float:
        """The density over the end network's own; NaN where that is 0."""
        return self.density / self.density_own if self.density_own else math.nan

    @property
    def recall_ratio(self) -> float:
        """The recall over the end network's own; NaN where that is 0."""
        return self.recall / self.recall_own if self.recall_own else math.nan


@dataclass(frozen=True, kw_only=True)
class EvaluationRow(StitchResult):
    """A stitch and a detector of its end layer: a row of `ood_evaluation.csv`.

    Its settings are those of the run, but for `dataset`, whose images were stitched here.
    """

    accuracy: float
    auroc: float  # of telling the stitched activations, as OOD, from the end network's own
    aupr: float
    fpr95: float
    mean_energy: float  # the mean score of the stitched activations, of whatever detector
    mean_id_energy: float
    detector: str
    detector_id_data: str  # the data that the detector was made with
    detector_ood_data: str | None  # None: the detector needs none
    id_dataset: str
    sanity_dataset: str | None  # None: it was not checked
    sanity_auroc: float | None  # of telling the sanity-check data from the ID data
    auroc_low: float | None  # the interval of 95 %
    auroc_high: float | None
    density: float | None = None  # these and the following: None without a pass over training images
    recall: float | None = None
    frechet: float | None = None
    density_own: float | None = None
    recall_own: float | None = None
    frechet_own: float | None = None
    noise_dose: float | None = None
    shrinkage_dose: float | None = None
    front_depth: int | None = None  # of the run
    end_depth: int | None = None

    contents, written_by = "OOD evaluation", "exec_eval_stitcher_ood.py"
    first_columns = (
        "front_layer", "end_layer", "accuracy", "auroc", "aupr", "fpr95", "mean_energy", "mean_id_energy", "folder",
        "detector", "detector_id_data", "detector_ood_data", "id_dataset", "sanity_dataset", "sanity_auroc", "dataset",
        "front_model_path", "end_model_path", "front_model_type", "end_model_type", "stitching_type", "init",
        "objective", "n_epochs", "n_pinv_init_samples", "front_stitch_rank", "front_pinv_rank", "seed", "pinv_cutoff",
        "auroc_low", "auroc_high", *StitchValidity._fields,
    )  # fmt: skip

    @property
    def validity(self) -> StitchValidity | None:
        """How the stitched activations lie; None where it was not measured."""
        values = [getattr(self, name) for name in StitchValidity._fields]
        return None if None in values else StitchValidity(*values)


class FinetuningRow(NamedTuple):
    """An epoch of fine-tuning a detector: a row of `ft_logs.csv`."""

    ft_loss: float
    ce_loss: float
    train_acc: float
    val_ce_loss: float
    val_acc: float
