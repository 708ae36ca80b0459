"""The rows of the tables of ground truth."""

from dataclasses import dataclass, field
from typing import ClassVar

MAIN_SCORES = {  # of tests that are no interventions
    "accuracy": "spearman",
    "disagreement": "partial",
    "jensen_shannon": "partial",
    "layers": "spearman",
    "impostors": "share",
}
OTHER_MAIN_SCORES = ("auprc", "spearman")  # of interventions, and of truths in a file


@dataclass(frozen=True)
class TruthRow:
    """A score of a measure in a test: a row of the table of `misc/ground_truth.py`.

    Higher scores are better. Intervals are of 95 %."""

    test: str  # an intervention, a difference of outputs, layers, or impostors
    # See `is_main`; also conformity, the share of comparisons in the right order, and the share of each kind
    # of impostor
    score: str
    measure: str
    layer: str | None  # None: by the mean of ranks over layers
    value: float
    low: float  # of the interval; NaN of few networks
    high: float
    chance: float  # expected of a measure that orders at random
    p: float | None  # that a random measure scores as well; None: networks cannot be permuted
    is_above_chance: bool
    is_above_baselines: bool  # the interval of the difference from the best baseline is above 0
    is_baseline: bool  # the measure compares two numbers, one of each network
    n_networks: int
    both_directions: bool  # a measure of stitches, averaged over both directions
    # Of few networks p cannot be lower; None as of p, and in tables of earlier versions
    lowest_p: float | None = None
    # Of measures of which reports show the best, see `ScoredMeasure`; no column
    family: str = field(default="", compare=False)

    contents: ClassVar[str] = "ground truth"
    written_by: ClassVar[str] = "misc/ground_truth.py"

    @property
    def is_main(self) -> bool:
        """Whether this is the main score of its test, which reports show."""
        main = MAIN_SCORES.get(self.test.removesuffix("_dots"))
        return self.score in ([main] if main else OTHER_MAIN_SCORES)
