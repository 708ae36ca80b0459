"""A row of `verdict.csv`."""

import math
from typing import Any, NamedTuple

from src.intervals import Interval, wider
from src.ood.scores import SCORES

SIMILAR, FAR, NOT_SIMILAR, UNDECIDED = (
    "similar", "accurate but out of distribution", "not similar", "undecided",
)  # fmt: skip
VERDICTS = (SIMILAR, FAR, NOT_SIMILAR, UNDECIDED)
MEASURES = ("cka", "cka_debiased")  # whose values and nulls the table shows


class Mean(NamedTuple):
    """A mean with its intervals over images and over independent runs; the verdict uses the wider one."""

    value: float
    images: Interval
    runs: Interval

    @property
    def interval(self) -> Interval:
        """The wider one."""
        return wider(self.images, self.runs)


class Auroc(NamedTuple):
    """How well a detector tells stitched activations from those of the end network."""

    value: float
    is_trusted: bool  # it passed its sanity check


class Verdict(NamedTuple):
    """One pair of layers stitched by one method: a row of `verdict.csv`."""

    method: str
    networks: str  # both checkpoints, or how many pairs are taken together
    front_layer: str
    end_layer: str
    verdict: str
    reason: str
    n_runs: int
    n_networks: int  # pairs of networks
    accuracy: Mean
    penalty: Mean
    seed_spread: float  # largest difference of accuracies between runs on the same networks; NaN of single ones
    end_accuracy: float
    agreement: float
    kappa: float
    representation_difference: float
    aurocs: dict[str, Auroc]  # by detector
    similarities: dict[str, float]  # by column of similarity.csv

    @staticmethod
    def columns() -> list[str]:
        """Return the columns of the file."""
        columns = []
        for field in Verdict._fields:
            if field in ("accuracy", "penalty"):
                columns += [
                    field,
                    *(f"{field}_{kind}_{end}" for kind in ("images", "runs") for end in Interval._fields),
                ]
            elif field == "aurocs":
                columns += [column for name in SCORES for column in (f"auroc_{name}", f"trusted_{name}")]
            else:
                columns += similarity_columns() if field == "similarities" else [field]
        return columns

    def record(self) -> dict[str, Any]:
        """Return the row by columns; what was not measured is missing."""
        record = self._asdict() | self.similarities
        for field in ("accuracy", "penalty"):
            mean = record[field]
            record[field] = mean.value
            for kind in ("images", "runs"):
                record |= {f"{field}_{kind}_{end}": limit for end, limit in getattr(mean, kind)._asdict().items()}
        for name, auroc in self.aurocs.items():
            record |= {f"auroc_{name}": auroc.value, f"trusted_{name}": auroc.is_trusted}
        nan = {name for name, value in record.items() if isinstance(value, float) and math.isnan(value)}
        return {name: value for name, value in record.items() if name in self.columns() and name not in nan}


def similarity_columns() -> list[str]:
    """Return the columns that are taken over from a table of similarity."""
    return [f"{name}{end}" for name in MEASURES for end in ("", "_p_value", "_null_95", "_calibrated")]
