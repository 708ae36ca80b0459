"""The rows of `grid_intervals.csv` and `verdict.csv`. Importing this spares torch."""

from typing import NamedTuple

from src.ood.rows import StitchValidity
from src.results.experiments import Pair


class Summary(NamedTuple):
    """All runs that stitch the same layers by one method; `_low`, `_high`: the interval of 95 %, None where unknown."""

    n_runs: int
    n_networks: int  # pairs of networks
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    penalty: float | None  # accuracy of the end network less that of the stitch
    penalty_low: float | None
    penalty_high: float | None
    seed_spread: float | None  # largest difference of accuracies between runs on the same networks; None of single ones
    end_accuracy: float | None
    agreement: float | None
    kappa: float | None
    representation_difference: float | None


class IntervalRow(NamedTuple):
    """A pair of layers stitched by one method: a row of `grid_intervals.csv`; see `Summary`."""

    method: str
    networks: str  # both checkpoints, or how many pairs are taken together
    front_layer: str
    end_layer: str
    n_runs: int
    n_networks: int
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    penalty: float | None
    penalty_low: float | None
    penalty_high: float | None
    seed_spread: float | None
    end_accuracy: float | None
    agreement: float | None
    kappa: float | None
    representation_difference: float | None


class VerdictRow(NamedTuple):
    """A pair of layers stitched by one method, and the verdict on it: a row of `verdict.csv`; see `Summary`."""

    method: str
    networks: str
    front_layer: str
    end_layer: str
    verdict: str
    reason: str
    control: str | None  # self: a layer stitched to itself; fresh: the front network was never trained
    n_runs: int
    n_networks: int
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    penalty: float | None
    penalty_low: float | None
    penalty_high: float | None
    seed_spread: float | None
    end_accuracy: float | None
    agreement: float | None
    kappa: float | None
    representation_difference: float | None
    p_below: float | None  # of the penalty being below the tolerance, adjusted for all pairs of the method
    p_above: float | None
    side: str | None  # in distribution, or on which side of it
    density: float | None  # means over runs, see `StitchValidity`
    recall: float | None
    frechet: float | None
    density_own: float | None
    recall_own: float | None
    frechet_own: float | None
    others: dict[str, bool | float]  # AUROCs by detector, and values of measures of similarity

    @property
    def pair(self) -> Pair:
        """The layers."""
        return Pair(self.front_layer, self.end_layer)

    @property
    def validity(self) -> StitchValidity | None:
        """The mean validity; None where a run was not measured."""
        values = [getattr(self, name) for name in StitchValidity._fields]
        return None if None in values else StitchValidity(*values)
