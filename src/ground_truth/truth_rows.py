"""The rows of the tables of ground truth and of curves over depth."""

from typing import NamedTuple

MAIN = {  # scores of tests that are no interventions
    "accuracy": "spearman", "disagreement": "partial", "jensen_shannon": "partial", "layers": "spearman",
    "impostors": "share",
}  # fmt: skip


class TruthRow(NamedTuple):
    """A score of a measure in a test: a row of the table of `misc/ground_truth.py`. Higher is
    better."""

    test: str  # an intervention, a difference of outputs, layers, or impostors
    score: str  # see `is_main`; also conformity, and the share of each kind of impostor
    measure: str
    layer: str  # empty: by the mean of ranks over layers
    value: float
    low: float  # the interval of 95 %; NaN of few networks
    high: float
    chance: float  # of a measure that orders at random
    p: float | None  # of a random measure scoring as well; None where networks cannot be permuted
    is_above_chance: bool
    is_above_baselines: bool  # above the best of them by more than the interval of the difference
    is_baseline: bool  # a difference of two numbers, one of each network
    n_networks: int
    both_directions: bool  # the mean over both, of a measure of stitches

    contents, written_by = "ground truth", "misc/ground_truth.py"

    @property
    def is_main(self) -> bool:
        """Whether it is the score that counts in its test."""
        return self.score == MAIN.get(self.test.removesuffix("_dots"), "auprc")


class DotsRow(NamedTuple):
    """The accuracy of a network on test images with and without dots: a row of `FILE_dots.csv`."""

    network: str
    group: str
    true: float  # dots tell the class
    absent: float
    drawn: float  # dots tell a class that is drawn from all

    contents, written_by = "dots", "misc/ground_truth.py"


class DepthRow(NamedTuple):
    """A layer of two networks, means over pairs of them: a row of the table of
    `misc/collect_results.py --curves`."""

    quantity: str  # accuracy, density ratio, recall ratio, similarity, distance
    line: str  # a method of stitching, or a measure
    layer: str
    value: float
    low: float  # the interval of 95 %, see `resampling`; NaN of few networks
    high: float
    n_networks: int
    n_pairs: int
    networks: str = ""  # front group → end group, where there are several

    contents, written_by = "depth", "misc/collect_results.py --curves"
