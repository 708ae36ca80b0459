"""The rows of `verdict.csv`."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from src.results.quantities import AUROC as AUROC
from src.results.quantities import JUDGED
from src.values import Pair

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, kw_only=True)
class VerdictRow:
    """A pair of layers stitched by one method, and the verdict on it. None: not known.

    The row has what the verdict rests on. The further measurements of its runs are in `grid.csv` and
    in the tables of evaluations, under the names in `folders`. Measurements, see `QUANTITIES`, are
    means over runs.
    `_low` and `_high` are the ends of intervals of 95 % of the pair by itself, while `p_below` and
    `p_above` are adjusted for all pairs that were judged together."""

    method: str
    networks: str  # the names of both, or the number of pairs that are taken together
    front_layer: str
    end_layer: str
    verdict: str
    reason: str
    # self: a layer stitched to itself; untrained: the front network was never trained; untrained_end: the
    # end network was never trained
    control: str | None
    n_runs: int
    n_networks: int  # pairs of networks
    folders: str  # the names of the folders of the runs, separated by ";"
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    accuracy_drop: float | None = None
    accuracy_drop_low: float | None = None
    accuracy_drop_high: float | None = None
    seed_spread: float | None = None  # None of single runs
    front_accuracy: float | None = None
    end_accuracy: float | None = None
    p_below: float | None = None
    p_above: float | None = None
    # At the output, and at the end layer; None: not measured
    skill: float | None = None
    skill_low: float | None = None
    skill_high: float | None = None
    skill_at_end: float | None = None
    skill_at_end_low: float | None = None
    skill_at_end_high: float | None = None
    correlation: float | None = None
    baseline: float | None = None
    correlation_at_end: float | None = None
    baseline_at_end: float | None = None
    front_depth: int | None  # of the layers in their networks
    end_depth: int | None
    front_weights: str | None  # the first digits of their SHA-256; None of several networks
    end_weights: str | None
    # The name in the list of networks, else the path; None of several networks
    front_network: str | None = None
    front_group: str | None = None  # the group in the list, else the type
    end_network: str | None = None
    end_group: str | None = None
    # Similar in both directions; None: one direction was not stitched
    both_ways: bool | None
    same_run: bool | None  # front and end are one network, at one or two epochs of its training
    front_model_type: str | None = None
    end_model_type: str | None = None
    front_relative_depth: float | None = None  # of the layers: the share of the blocks up to them
    end_relative_depth: float | None = None
    stitching_type: str | None = None  # None: the runs are of several types
    # Mean AUROC over the runs, `auroc_<detector>`; values of measures of similarity and their nulls
    further: dict[str, float]
    # The kind of the pair of networks, see `src.results.pair_kinds`; no column
    kind: str = field(default="", compare=False)
    # What was measured under which options, as far as all runs agree, and the training runs of the
    # networks; no columns
    settings: dict[str, Any] = field(default_factory=dict, compare=False)

    @cached_property
    def pair(self) -> Pair:
        """The layers."""
        return Pair(self.front_layer, self.end_layer)


def rows_of(frame: "DataFrame") -> list[VerdictRow]:
    """Return the verdicts of a frame as rows."""
    columns = list(frame.columns)
    further = columns[columns.index(JUDGED[-1]) + 1 : columns.index("kind")]
    known = frame.astype(object).where(frame.notna(), None)
    names = {"front_type": "front_model_type", "end_type": "end_model_type"}
    rows = []
    for record in known.rename(columns=names).to_dict("records"):
        values = {name: record[name] for name in further if record[name] is not None}
        fields = {name: record[name] for name in VerdictRow.__dataclass_fields__ if name in record}
        rows.append(VerdictRow(**fields, further=values))
    return rows
