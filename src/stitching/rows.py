"""The rows of stitching: `metrics.json`, `grid.csv`, and the comparison of two folders. Importing this spares torch."""

import math
from typing import NamedTuple

from src.network_names import NetworkName
from src.results.experiments import Experiment, Pair
from src.results.tables import to_record


class Metrics(NamedTuple):
    """The measurements of a stitch: `metrics.json`. The public code keeps the accuracy and the two errors alone."""

    accuracy: float  # in [0, 1], like all accuracies
    front_accuracy: float = math.nan  # of the front network alone
    end_accuracy: float = math.nan
    matching_error: float | None = None  # ‖XW+b−Y‖²/‖Y‖² on the matched images; None where nothing was matched
    representation_difference: float = math.nan  # the same ratio, of stitched to end activations of the test images
    agreement: float = math.nan  # share of test images for which stitched and end network predict the same class
    kappa: float = math.nan  # Cohen's kappa of these predictions
    n_images: int | None = None  # test images
    n_matched: int | None = None  # images that it was matched on
    matching_rank: int | None = None  # directions of the source that the matching keeps
    r2_matched: float | None = None  # 1 − residual over variance about the mean, on the matched images
    r2_test: float = math.nan  # the same of stitched against end activations of the test images
    front_depth: int | None = None  # place of the front layer among all layers of its network, in their order
    end_depth: int | None = None


class StitchRow(NamedTuple):
    """A finished stitching run: a row of `grid.csv`; see `Experiment` and `Metrics`."""

    front_layer: str
    end_layer: str
    stitching_type: str
    init: str
    front_stitch_rank: int | None
    front_pinv_rank: int | None
    seed: int | None
    accuracy: float
    front_accuracy: float
    end_accuracy: float
    matching_error: float | None
    representation_difference: float
    folder: str  # the name of the run's folder
    front_model_path: str | None
    end_model_path: str | None
    front_model_type: str | None
    end_model_type: str | None
    dataset: str | None
    objective: str
    n_epochs: int | None
    n_pinv_init_samples: int | str | None
    agreement: float
    kappa: float
    n_images: int | None
    pinv_cutoff: str
    n_matched: int | None
    matching_rank: int | None
    r2_matched: float | None
    r2_test: float
    control: str = ""  # labels: made on other images of the same class
    front_depth: int | None = None  # tables and figures have the layers in this order
    end_depth: int | None = None

    contents, written_by = "stitching", "exec_stitch.py"

    @classmethod
    def of(cls, pair: Pair, experiment: Experiment, metrics: Metrics, *, folder: str) -> "StitchRow":
        """Make the row of a run."""
        return cls(**pair._asdict(), **to_record(experiment), **metrics._asdict(), folder=folder)

    @property
    def pair(self) -> Pair:
        """The layers."""
        return Pair(self.front_layer, self.end_layer)

    @property
    def experiment(self) -> Experiment:
        """The settings that tell it from other stitches of these layers."""
        return Experiment.of_row(self)

    @property
    def is_matched_on_few(self) -> bool:
        """Whether R² is so much lower on the test images that too few images were matched.

        Training since, or a source that is truncated further, would lower it as well.
        """
        ranks = [math.inf if rank is None else rank for rank in (self.front_pinv_rank, self.front_stitch_rank)]
        if self.n_epochs != 0 or ranks[0] > ranks[1] or self.r2_matched is None:
            return False
        return self.r2_test < self.r2_matched - 0.03 - 0.2 * abs(self.r2_matched)

    @property
    def networks(self) -> tuple[NetworkName, NetworkName]:
        """The front and the end network."""
        return self.experiment.front, self.experiment.end


class ComparisonRow(NamedTuple):
    """The accuracies of a pair of layers in two folders of stitches, and the second less the first."""

    front_layer: str
    end_layer: str
    accuracy_1: float
    accuracy_2: float
    difference: float
