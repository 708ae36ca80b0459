"""The rows of the tables of ground truth and of curves over depth. Importing this spares torch."""

from typing import NamedTuple


class TruthScore(NamedTuple):
    """A score of a measure in a test of ground truth; higher is better."""

    value: float
    low: float  # the interval of 95 %, by a bootstrap over networks
    high: float
    chance: float  # of a measure that orders at random


class TruthRow(NamedTuple):
    """A measure in a test of ground truth: a row of the table of `misc/ground_truth.py`; see `TruthScore`."""

    test: str  # an intervention, a difference of outputs, or layers
    measure: str
    layer: str  # empty: the mean over layers
    auprc_value: float | None  # a test has two of the three scores, or Spearman alone
    auprc_low: float | None
    auprc_high: float | None
    auprc_chance: float | None
    conformity_value: float | None
    conformity_low: float | None
    conformity_high: float | None
    conformity_chance: float | None
    spearman_value: float | None
    spearman_low: float | None
    spearman_high: float | None
    spearman_chance: float | None
    n_networks: int
    both_directions: bool  # the mean over both, of a measure of stitches

    contents, written_by = "ground truth", "misc/ground_truth.py"

    def score(self, name: str) -> TruthScore | None:
        """Return the score auprc, conformity or spearman; None where the test has it not."""
        values = [getattr(self, f"{name}_{part}") for part in TruthScore._fields]
        return None if None in values else TruthScore(*values)


class DepthRow(NamedTuple):
    """A layer of two networks, means over pairs of them: a row of the table of `misc/collect_results.py --curves`."""

    quantity: str  # accuracy, density ratio, recall ratio, similarity, distance
    line: str  # a method of stitching, or a measure
    layer: str
    value: float
    low: float  # the interval of 95 %, by a bootstrap over networks; NaN of few
    high: float
    n_networks: int
    n_pairs: int
    networks: str = ""  # front group → end group, where there are several

    contents, written_by = "depth", "misc/collect_results.py --curves"
