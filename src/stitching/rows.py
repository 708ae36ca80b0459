"""The rows of stitching: `metrics.json`, `grid.csv`, and the comparison of two folders."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from src.results.experiments import StitchResult


@dataclass(frozen=True, kw_only=True)
class Metrics:
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


@dataclass(frozen=True, kw_only=True)
class StitchRow(StitchResult, Metrics):
    """A finished stitching run: a row of `grid.csv`."""

    end_accuracy: float = field()  # no file of the public code has it

    contents, written_by = "stitching", "exec_stitch.py"
    first_columns = (
        "front_layer", "end_layer", "stitching_type", "init", "front_stitch_rank", "front_pinv_rank", "seed",
        "accuracy", "front_accuracy", "end_accuracy", "matching_error", "representation_difference", "folder",
        "front_model_path", "end_model_path", "front_model_type", "end_model_type", "dataset", "objective", "n_epochs",
        "n_pinv_init_samples", "agreement", "kappa", "n_images", "pinv_cutoff", "n_matched", "matching_rank",
        "r2_matched", "r2_test",
    )  # fmt: skip

    @property
    def is_matched_on_few(self) -> bool:
        """Whether R² is so much lower on the test images that too few images were matched.

        Training since, or a source that is truncated further, would lower it as well.
        """
        ranks = [math.inf if rank is None else rank for rank in (self.front_pinv_rank, self.front_stitch_rank)]
        if self.n_epochs != 0 or ranks[0] > ranks[1] or self.r2_matched is None:
            return False
        return self.r2_test < self.r2_matched - 0.03 - 0.2 * abs(self.r2_matched)


class ComparisonRow(NamedTuple):
    """The accuracies of a pair of layers in two folders of stitches, and the second less the first."""

    front_layer: str
    end_layer: str
    accuracy_1: float
    accuracy_2: float
    difference: float
