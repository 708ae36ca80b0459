"""The row of `verdict.csv`."""

from typing import NamedTuple

from src.stitching.experiments import WEIGHTS, Pair


class VerdictRow(NamedTuple):
    """A pair of layers stitched by one method, and the verdict on it. None: not known.

    What was measured, see `QUANTITIES`, is the mean over runs. `_low` and `_high` are the ends of
    intervals of 95 %."""

    method: str
    networks: str  # both checkpoints, or how many pairs are taken together
    front_layer: str
    end_layer: str
    verdict: str
    reason: str
    control: (
        str | None
    )  # self: a layer stitched to itself; fresh: the front network was never trained
    n_runs: int
    n_networks: int  # pairs of networks
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    penalty: float | None
    penalty_low: float | None
    penalty_high: float | None
    seed_spread: float | None  # None of single runs
    end_accuracy: float | None
    agreement: float | None
    kappa: float | None
    representation_difference: float | None
    p_below: float | None
    p_above: float | None
    kappa_within: float | None
    kappa_within_low: float | None
    kappa_within_high: float | None
    identification: float | None
    identification_low: float | None
    identification_high: float | None
    side: str | None  # in distribution, or on which side of it
    noise_dose: float | None
    shrinkage_dose: float | None
    noise_cost: float | None
    density: float | None
    recall: float | None
    frechet: float | None
    density_own: float | None
    recall_own: float | None
    frechet_own: float | None
    front_depth: int | None  # of the layers in their networks
    end_depth: int | None
    front_weights: str | None  # the first digits of their SHA-256; None of several networks
    end_weights: str | None
    others: dict[str, float]  # AUROCs by detector, and values of measures of similarity

    @property
    def pair(self) -> Pair:
        """The layers."""
        return Pair(self.front_layer, self.end_layer)


INTERVALS = [  # columns of `grid_intervals.csv`, which knows no tolerance
    *(name for name in VerdictRow._fields[: VerdictRow._fields.index("p_below")]
      if name not in ("verdict", "reason", "control")),
    *WEIGHTS,
]  # fmt: skip
