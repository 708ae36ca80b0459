"""The rows of stitching: `metrics.json`, `grid.csv`, and the comparison of two folders."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from src.stitching.experiments import StitchResult


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The measurements of a stitch: `metrics.json`. See `QUANTITIES`.

    The public code keeps the accuracy and the two errors alone.
    """

    accuracy: float
    front_accuracy: float = math.nan
    end_accuracy: float = math.nan
    matching_error: float | None = None  # None where nothing was matched
    representation_difference: float = math.nan
    agreement: float = math.nan
    kappa: float = math.nan
    n_images: int | None = None
    n_matched: int | None = None
    matching_rank: int | None = None
    r2_matched: float | None = None
    r2_test: float = math.nan
    front_depth: int | None = (
        None  # place of the front layer among all layers of its network, in their order
    )
    end_depth: int | None = None


@dataclass(frozen=True, kw_only=True)
class StitchRow(Metrics, StitchResult):
    """A finished stitching run: a row of `grid.csv`."""

    end_accuracy: float = field()  # no file of the public code has it

    contents, written_by = "stitching", "exec_stitch.py"

    @property
    def penalty(self) -> float:
        """The accuracy of the end network less that of the stitch."""
        return self.end_accuracy - self.accuracy

    @property
    def is_matched_on_few(self) -> bool:
        """Whether R² is so much lower on the test images that too few images were matched.

        Training since, or a source that is truncated further, would lower it as well.
        """
        ranks = [
            math.inf if rank is None else rank
            for rank in (self.front_pinv_rank, self.front_stitch_rank)
        ]
        if self.n_epochs != 0 or ranks[0] > ranks[1] or self.r2_matched is None:
            return False
        return self.r2_test < self.r2_matched - 0.03 - 0.2 * abs(self.r2_matched)


class ComparisonRow(NamedTuple):
    """The accuracies of a pair of layers in two folders of stitches, and the second less the
    first."""

    front_layer: str
    end_layer: str
    accuracy_1: float
    accuracy_2: float
    difference: float
