"""Judges stitches: is a pair of layers functionally similar, and how sure is that?

A stitch costs accuracy (the *penalty*: end accuracy − stitched accuracy), and its activations may
show another image (*identification*), at the end layer or further on its way to the output. Both
decide.

    predictions = Predictions(stitched, front, end, labels)  # classes (N,) of the test images
    shares = {"layer4.1": 0.93, "output": 0.90}  # of the images that are identified
    (verdict,) = judge([Stitches.single(predictions, shares, n_identified=2000)])
    verdict.word, verdict.penalty.value, verdict.identification.low
"""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from src.statistics.intervals import (
    ALPHA,
    Evidence,
    images_needed,
    may_be_below,
    of_difference,
    of_intervals,
    of_share,
    of_shares,
)
from src.statistics.kappa import kappa_of
from src.statistics.significance import false_discovery_rate
from src.values import IntervalEstimate, Predictions, weakest_layer

SIMILAR = "similar"
LOST = "the image is lost"
NOT_MATCHED = "not matched"
UNDECIDED = "undecided"
VERDICTS = (SIMILAR, LOST, NOT_MATCHED, UNDECIDED)
UNDEFINED = IntervalEstimate(math.nan, math.nan, math.nan)
MORE_IMAGES = "give more test images"  # the remedy where intervals are too wide


class Limits(NamedTuple):
    """The limits of a verdict."""

    tolerance: float = 0.05  # the penalty, in [0, 1], that a similar pair may have
    # The share of images, in [0, 1], that a similar pair identifies, half-way from chance to certainty
    identification: float = 0.75
    pairwise: bool = False  # p-values are not adjusted for the number of pairs


class Stitches(NamedTuple):
    """The stitches of a pair of layers by one method, which are judged together.

    They repeat one experiment on several pairs of networks, and on each pair in several runs (seeds).
    `Stitches.single` makes them of one run.
    """

    # By pair of networks, and by run; empty if a run has none
    predictions: Sequence[Sequence[Predictions]]
    # Shares of the images that each run identifies, in [0, 1], NaN where activations are not finite:
    # by layer from the end layer to the output, and by pair of networks, (runs,). Empty: not measured
    way: Mapping[str, Sequence[np.ndarray]] = {}
    n_identified: int = 0  # the number of images that these are shares of
    # The mean accuracy of either network alone, in [0, 1]; NaN: unknown
    front_accuracy: float = math.nan
    end_accuracy: float = math.nan
    is_end_trained: bool = True
    has_converged: bool = True  # all trainings; stitches by a closed form count as converged
    # A flaw that leaves nothing to say of the stitches, in words, such as "the cutoff truncated the
    # fit"; "": there is none
    flaw: str = ""

    @classmethod
    def single(
        cls, predictions: Predictions, shares: Mapping[str, float], *, n_identified: int
    ) -> "Stitches":
        """Return a single run on one pair of networks.

        Args:
            shares: of the images that it identifies, by layer from the end layer to the output, see
                `src.ood.along_the_way`; empty: not measured.
            n_identified: the number of images that these are shares of.
        """
        way = {layer: [np.array([share])] for layer, share in shares.items()}
        return cls([[predictions]], way, n_identified)


class Verdict(NamedTuple):
    """The verdict on stitches. Estimates are NaN where they are not defined."""

    word: str  # one of `VERDICTS`
    reason: str
    accuracy: IntervalEstimate  # of the stitches, in [0, 1]
    penalty: IntervalEstimate  # end accuracy − stitched accuracy
    # Tests of the penalty against the tolerance; NaN if nothing can be said
    p_below: float  # small: the penalty is below the tolerance
    p_above: float  # small: the penalty is above the tolerance
    # Agreement with the end network beyond the labels and the front network's predictions
    kappa_within: IntervalEstimate
    # The share of identified images by layer of the way; empty: not measured, or no predictions
    way: dict[str, IntervalEstimate]
    # The layer with the smallest share, or the first with a share of NaN, and its share; "" without any
    lost_at: str = ""
    identification: IntervalEstimate = UNDEFINED


class Measured(NamedTuple):
    """The measurements of stitches, from predictions and activations.

    A network is at chance if it may be no better than always predicting the commonest class.
    """

    accuracy: Evidence  # of the stitches, in [0, 1]
    penalty: Evidence  # end accuracy − stitched accuracy
    kappa_within: IntervalEstimate  # the mean over the runs, NaN where no run defines it
    way: dict[str, Evidence]  # the share of identified images at each layer
    is_end_at_chance: bool  # at least one end network is


class PValues(NamedTuple):
    """Tests of a penalty against the tolerance, adjusted for all stitches that are judged together.

    NaN: not tested.
    """

    below: float = math.nan  # small: the penalty is below the tolerance
    above: float = math.nan  # small: the penalty is above the tolerance


def judge(
    stitches: Sequence[Stitches],
    *,
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> list[Verdict]:
    """Judge pairs of layers; return the verdict on each.

    The verdict is the first word of this list that fits:

    * *undecided* if nothing can be said: the end network was never trained or may be at chance,
      there are no predictions of the same images, or the stitches have a flaw;
    * if the penalty is below the tolerance, *similar*, *the image is lost* or *undecided* by
      identification, see `_decide_accurate`;
    * *not matched* if the penalty is above the tolerance, and all trainings had converged: more
      training could still lower the penalty;
    * *undecided* otherwise.

    Penalties are tested by Tango's score test (1998), at 2.5 % in either direction. Their p-values
    are adjusted for the false discovery rate over the pairs of the call of which something can be
    said, unless `limits.pairwise`: judge the pairs together that one question is asked about.

    Args:
        stitches: of each pair of layers.
    Raises:
        ValueError: a limit is no share.
    """
    if not (0 <= limits.tolerance <= 1 and 0 <= limits.identification <= 1):
        raise ValueError(f"limits are shares in [0, 1], not points or percent: {limits}")
    measured = [measure(of_pair) for of_pair in stitches]
    obstacles = [_obstacle(*of_pair) for of_pair in zip(stitches, measured, strict=True)]
    tests = _tests(measured, obstacles, limits)
    verdicts = []
    for of_pair, measured_of_pair, obstacle, p_values in zip(
        stitches, measured, obstacles, tests, strict=True
    ):
        word = UNDECIDED
        reason = obstacle
        if measured_of_pair is not None and not obstacle:
            word, reason = decide(of_pair, measured_of_pair, limits, p_values)
        verdicts.append(_verdict(word, reason, measured_of_pair, p_values))
    return verdicts


def _obstacle(stitches: Stitches, measured: Measured | None) -> str:
    """Return the reason why stitches cannot be judged; "" if there is none."""
    if not stitches.is_end_trained:
        return "the end network was never trained"
    if measured is None:
        return "no predictions, or those of different test images"
    if measured.is_end_at_chance:
        return "the end network is at chance"
    return stitches.flaw


def _verdict(word: str, reason: str, measured: Measured | None, p_values: PValues) -> Verdict:
    """Return a verdict with its estimates."""
    if measured is None:
        return Verdict(word, reason, UNDEFINED, UNDEFINED, *p_values, UNDEFINED, way={})
    accuracy = measured.accuracy.interval()
    penalty = measured.penalty.interval()
    way = {layer: share.interval() for layer, share in measured.way.items()}
    lost_at = _weakest(way) if way else ""
    return Verdict(
        word,
        reason,
        accuracy=accuracy,
        penalty=penalty,
        p_below=p_values.below,
        p_above=p_values.above,
        kappa_within=measured.kappa_within,
        way=way,
        lost_at=lost_at,
        identification=way.get(lost_at, UNDEFINED),
    )


def _weakest(way: Mapping[str, Evidence] | Mapping[str, IntervalEstimate]) -> str:
    """Return the layer of a way that identifies fewest images."""
    return weakest_layer({layer: share.value for layer, share in way.items()})


def _tests(
    measured: Sequence[Measured | None], obstacles: Sequence[str], limits: Limits
) -> list[PValues]:
    """Test the penalties together; stitches with an obstacle are not tested."""
    tested = {}
    for number, (of_pair, obstacle) in enumerate(zip(measured, obstacles, strict=True)):
        if of_pair is not None and not obstacle:
            tested[number] = of_pair.penalty
    below = [penalty.p_below(limits.tolerance) for penalty in tested.values()]
    above = [penalty.p_above(limits.tolerance) for penalty in tested.values()]
    if not limits.pairwise:
        below = false_discovery_rate(below).tolist()
        above = false_discovery_rate(above).tolist()
    p_values = [PValues()] * len(measured)
    for number, p_below, p_above in zip(tested, below, above, strict=True):
        p_values[number] = PValues(p_below, p_above)
    return p_values


def measure(stitches: Stitches) -> Measured | None:
    """Return the measurements of stitches.

    None if there are no predictions, or if the labels of the test images differ between runs.
    """
    labels_of_runs = [run.labels for run in chain.from_iterable(stitches.predictions)]
    if not labels_of_runs:
        return None
    labels = labels_of_runs[0]
    if not all(np.array_equal(labels_of_run, labels) for labels_of_run in labels_of_runs):
        return None

    # Right or wrong on each image, by pair of networks: (runs, N)
    right_end = [
        np.stack([run.end == labels for run in of_networks]) for of_networks in stitches.predictions
    ]
    right_stitched = [
        np.stack([run.stitched == labels for run in of_networks])
        for of_networks in stitches.predictions
    ]
    chance = np.bincount(labels).max() / len(labels)
    kappas = [[kappa_of(run) for run in of_networks] for of_networks in stitches.predictions]
    way = {
        layer: of_shares(shares, n_images=stitches.n_identified)
        for layer, shares in stitches.way.items()
    }
    return Measured(
        accuracy=of_share(right_stitched),
        penalty=of_difference(right_end, right_stitched),
        kappa_within=of_intervals(kappas, bounds=(-1.0, 1.0)),
        way=way,
        is_end_at_chance=may_be_below(right_end, chance),
    )


def decide(
    stitches: Stitches, measured: Measured, limits: Limits, p_values: PValues
) -> tuple[str, str]:
    """Return one of `VERDICTS` for stitches without an obstacle, and the reason as a text."""
    if p_values.below < ALPHA:
        return _decide_accurate(measured, limits)
    if not stitches.has_converged:
        return (
            UNDECIDED,
            "the training had not converged: train longer, or at a higher learning rate",
        )
    if p_values.above < ALPHA:
        return NOT_MATCHED, _reason_of_loss(stitches, limits)
    n_images = measured.penalty.n_images
    n_needed = images_needed(limits.tolerance)
    if n_images < n_needed:
        reason = f"{n_images} test images are too few for this tolerance"
        if math.isfinite(n_needed):
            reason += f": at least {n_needed} are needed"
        return UNDECIDED, reason
    low, high = measured.penalty.interval()[1:]
    side = "the penalty may lie on either side of the tolerance"
    if low > limits.tolerance or high < limits.tolerance:
        side = (
            "the penalty is on one side of the tolerance, but not certainly as one of several pairs"
        )
    return UNDECIDED, f"{side}: {MORE_IMAGES}"


def _decide_accurate(measured: Measured, limits: Limits) -> tuple[str, str]:
    """Return the verdict on stitches with a penalty below the tolerance, and the reason.

    A pair is similar if the share of identified images is above its limit at every layer of the
    way. All tests have to agree, so that each has the whole level (an intersection–union test,
    Berger 1982). The image is lost if the smallest share of L layers is below the limit; the test
    has the level α/L, as the layer was chosen among L.
    """
    if not measured.way:
        return UNDECIDED, "accurate, but identification was not measured"
    layer = _weakest(measured.way)
    weakest = measured.way[layer]
    if math.isnan(weakest.value):
        return UNDECIDED, f"accurate, but the activations at {layer} are not finite"
    if weakest.p_below(limits.identification) * len(measured.way) < ALPHA:
        return LOST, f"accurate, but the image is lost at {layer}"
    if all(share.p_above(limits.identification) < ALPHA for share in measured.way.values()):
        return SIMILAR, "accurate, and images are identified all the way"
    return (
        UNDECIDED,
        f"accurate, but images may or may not be identified all the way: {MORE_IMAGES}",
    )


def _reason_of_loss(stitches: Stitches, limits: Limits) -> str:
    """Return the reason of a penalty above the tolerance; name a much worse front network."""
    reason = "the penalty is above the tolerance"
    worse = stitches.end_accuracy - stitches.front_accuracy
    if worse > limits.tolerance:
        reason += f", and the front network alone is {100 * worse:.1f} points worse"
    return reason
