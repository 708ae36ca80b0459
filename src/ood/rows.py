"""The rows of OOD evaluations and of the fine-tuning of detectors. Importing this spares torch."""

import math
from typing import NamedTuple

from src.results.experiments import Experiment, Pair


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


class EvaluationRow(NamedTuple):
    """A stitch and a detector of its end layer: a row of `ood_evaluation.csv`."""

    front_layer: str
    end_layer: str
    accuracy: float
    auroc: float  # of telling the stitched activations, as OOD, from the end network's own
    aupr: float
    fpr95: float
    mean_energy: float  # the mean score of the stitched activations, of whatever detector
    mean_id_energy: float
    folder: str  # of the stitching run
    detector: str
    detector_id_data: str  # the data that the detector was made with
    detector_ood_data: str | None  # None: the detector needs none
    id_dataset: str
    sanity_dataset: str | None  # None: it was not checked
    sanity_auroc: float | None  # of telling the sanity-check data from the ID data
    dataset: str | None  # whose images were stitched here; the other settings are those of the run
    front_model_path: str | None
    end_model_path: str | None
    front_model_type: str | None
    end_model_type: str | None
    stitching_type: str
    init: str
    objective: str
    n_epochs: int | None
    n_pinv_init_samples: int | str | None
    front_stitch_rank: int | None
    front_pinv_rank: int | None
    seed: int | None
    pinv_cutoff: str
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
    control: str = ""  # of the run, as are the depths of its layers
    front_depth: int | None = None
    end_depth: int | None = None

    contents, written_by = "OOD evaluation", "exec_eval_stitcher_ood.py"

    @property
    def pair(self) -> Pair:
        """The layers."""
        return Pair(self.front_layer, self.end_layer)

    @property
    def experiment(self) -> Experiment:
        """The settings that tell it from other stitches of these layers."""
        return Experiment.of_row(self)

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
