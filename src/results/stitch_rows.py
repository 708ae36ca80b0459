"""The row of stitching, in `grid.csv`."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from src.results.experiments import StitchResult
from src.values import Metrics


@dataclass(frozen=True, kw_only=True)
class StitchRow(Metrics, StitchResult):
    """A stitch of a finished run: a row of `grid.csv`."""

    contents: ClassVar[str] = "stitching"
    written_by: ClassVar[str] = "exec_stitch.py"

    end_accuracy: float = field()  # required: every `grid.csv` has it
    # The share of the layer's weights up to each threshold, as `sparsity_<threshold>`
    further: dict[str, float] = field(default_factory=dict, hash=False)

    @property
    def accuracy_drop(self) -> float:
        """The accuracy of the end network less the accuracy of the stitch."""
        return self.end_accuracy - self.accuracy

    @property
    def is_truncated(self) -> bool:
        """Whether the cutoff truncated the fit, and no training has changed it since."""
        return bool(self.truncated) and self.n_epochs == 0

    def has_few_fitting_samples(self, *, keeps_variance: bool) -> bool:
        """Return whether the map was fitted to too few samples: R² is much lower on the test images.

        It is False if something else may have lowered R²: training after the matching, or a
        stitching rank below the rank that was matched.
        """
        matched_rank = math.inf if self.front_pinv_rank is None else self.front_pinv_rank
        stitched_rank = math.inf if self.front_stitch_rank is None else self.front_stitch_rank
        if self.n_epochs != 0 or matched_rank > stitched_rank:
            return False
        return super().has_few_fitting_samples(keeps_variance=keeps_variance)
