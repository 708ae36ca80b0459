"""Statistical tests of whether stitched pairs of layers are functionally similar.

A stitch costs accuracy (the *accuracy drop*: end accuracy − stitched accuracy), and it follows the end
network within a class or not (its *skill*, at the end layer and at the output). Both decide.

    predictions = Predictions(stitched, front, end, labels)  # classes (N,) of the test images
    (verdict,) = judge([Stitches.single(predictions, skill)])  # a `StitchSkill`
    verdict.verdict, verdict.accuracy_drop.value, verdict.skill.low
"""

import math
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from src.core.values import IntervalEstimate, Predictions, StitchSkill
from src.statistics.chance import TOLERANCE, chance_of, is_close_to_chance
from src.statistics.intervals import (
    ALPHA,
    Evidence,
    images_needed,
    mean_of,
    of_difference,
    of_estimates,
    of_share,
)
from src.statistics.significance import false_discovery_rate

SIMILAR = "similar"
ACCURATE_ONLY = "accurate only"
NOT_MATCHED = "not matched"
INCONCLUSIVE = "inconclusive"
VERDICTS = (SIMILAR, ACCURATE_ONLY, NOT_MATCHED, INCONCLUSIVE)
UNDEFINED = IntervalEstimate(math.nan, math.nan, math.nan)
MORE_IMAGES = "give more test inputs"  # the remedy where intervals are too wide
HIGHEST = 0.9  # correlation: above it, untrained features do almost as well as the end network
FEWEST_IMAGES = 200  # with fewer, intervals of skill are too narrow
FEWEST_ROWS = 10  # that a baseline is fitted to, a channel: with fewer it is too low
FEW_CLASSES = (
    3  # whose logits have one or two dimensions: the output has hardly more than confidence
)


class Limits(NamedTuple):
    """The limits of a verdict."""

    tolerance: float = TOLERANCE  # the accuracy drop, in [0, 1], that a similar pair may have
    skill: float = 0.33  # at the output; a similar pair has more
    skill_at_end: float = (
        0.15  # at the end layer; with up to `FEW_CLASSES` classes, that at the output
    )
    pairwise: bool = False  # p-values are not adjusted for the number of pairs


class Stitches(NamedTuple):
    """The stitches of a pair of layers by one method, which are judged together.

    They repeat one experiment on several pairs of networks, and on each pair in several runs (seeds).
    `Stitches.single` makes them of one run.
    """

    # By pair of networks, and by run; empty if a run has none
    predictions: Sequence[Sequence[Predictions]]
    skills: Sequence[Sequence[StitchSkill]] = ()  # likewise
    # The mean accuracy of either network alone, in [0, 1]; NaN: unknown
    front_accuracy: float = math.nan
    end_accuracy: float = math.nan
    is_end_trained: bool = True
    has_converged: bool = True  # all training runs; stitches by a closed form count as converged
    # An obstacle to a verdict, in words, such as "the cutoff truncated the fit"; "": there is none
    obstacle: str = ""

    @classmethod
    def single(cls, predictions: Predictions, skill: StitchSkill | None = None) -> "Stitches":
        """Return a single run on one pair of networks; None: skill was not measured."""
        if skill is None:
            return cls([[predictions]])
        return cls([[predictions]], [[skill]])


class Verdict(NamedTuple):
    """The verdict on stitches. Estimates are NaN where they are not defined."""

    verdict: str  # one of `VERDICTS`
    reason: str  # and behind a colon its remedy; numbers of the stitches stand in brackets
    accuracy: IntervalEstimate  # of the stitches, in [0, 1]
    accuracy_drop: IntervalEstimate  # end accuracy − stitched accuracy
    # Tests of the accuracy drop against the tolerance; NaN if nothing can be said
    p_below: float  # small: the accuracy drop is below the tolerance
    p_above: float  # small: the accuracy drop is above the tolerance
    skill: IntervalEstimate = UNDEFINED  # at the output
    skill_at_end: IntervalEstimate = UNDEFINED  # at the end layer

    @property
    def numbers(self) -> dict[str, float]:
        """The p-values, and the estimates with the ends of their intervals, by column."""
        numbers = {"p_below": self.p_below, "p_above": self.p_above}
        for name in ("accuracy", "accuracy_drop", "skill", "skill_at_end"):
            value, low, high = getattr(self, name)
            numbers |= {name: value, f"{name}_low": low, f"{name}_high": high}
        return numbers


class SkillEvidence(NamedTuple):
    """The skill of stitches at the end layer or at the output, and the meaning of a low skill."""

    name: str
    limit: float
    meaning: str
    skill: Evidence
    correlation: float  # the mean over the runs
    baseline: float  # the highest of the runs; NaN: a run has none
    rows_per_channel: float  # that it was fitted to; the fewest of the runs

    @property
    def is_low(self) -> bool:
        """Whether skill is below its limit, at half the level.

        Where class and untrained features reach `HIGHEST` already, the correlation has to be below that as well.
        """
        is_below_limit = 2 * self.skill.p_below(self.limit) < ALPHA
        return is_below_limit and (self.baseline <= HIGHEST or self.correlation < HIGHEST)

    @property
    def numbers(self) -> str:
        """The skill and its parts, as a text in brackets."""
        return (
            f"(skill {self.skill.value:.2f}, below {self.limit:g}; correlation {self.correlation:.2f}, "
            f"baseline {self.baseline:.2f})"
        )


class Measured(NamedTuple):
    """The measurements of stitches, from predictions and activations.

    An end network is at chance if its accuracy may not exceed that of always predicting the commonest
    class by twice the tolerance: no stitch into it can lose much.
    """

    accuracy: Evidence  # of the stitches, in [0, 1]
    accuracy_drop: Evidence  # end accuracy − stitched accuracy
    places: Sequence[SkillEvidence]  # the end layer and the output; empty: skill was not measured
    is_end_at_chance: bool  # at least one end network is


class PValues(NamedTuple):
    """Tests of an accuracy drop against the tolerance, adjusted for all stitches that are judged together.

    NaN: not tested.
    """

    below: float = math.nan  # small: the accuracy drop is below the tolerance
    above: float = math.nan  # small: the accuracy drop is above the tolerance


def judge(
    stitches: Sequence[Stitches],
    *,
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> list[Verdict]:
    """Judge pairs of layers; return the verdict on each.

    The verdict is the first of this list that fits:

    * *inconclusive* if nothing can be said: the end network was never trained or may be close to chance,
      there are no predictions of the same images, or there is another obstacle;
    * if the accuracy drop is below the tolerance, *similar*, *accurate only* or *inconclusive* by skill, see
      `_decide_accurate`;
    * *not matched* if the accuracy drop is above the tolerance, and all training runs had converged: more
      training could still lower the accuracy drop;
    * *inconclusive* otherwise.

    Accuracy drops are tested by Tango's score test (1998), at 2.5 % in either direction. Their p-values
    are adjusted for the false discovery rate over the pairs of the call of which something can be
    said, unless `limits.pairwise`: judge the pairs together that one question is asked about.

    Args:
        stitches: of each pair of layers.
    Raises:
        ValueError: a limit is not in [0, 1].
    """
    if not all(0 <= limit <= 1 for limit in (limits.tolerance, limits.skill, limits.skill_at_end)):
        raise ValueError(f"limits are in [0, 1], not points or percent: {limits}")
    measured = [measure(of_pair, limits) for of_pair in stitches]
    obstacles = [_obstacle(*of_pair) for of_pair in zip(stitches, measured, strict=True)]
    tests = _tests(measured, obstacles, limits)
    of_pairs = zip(stitches, measured, obstacles, tests, strict=True)
    return [_verdict(*of_pair, limits) for of_pair in of_pairs]


def _obstacle(stitches: Stitches, measured: Measured | None) -> str:
    """Return the reason why stitches cannot be judged; "" if there is none."""
    if not stitches.is_end_trained:
        return "the end network was never trained"
    if measured is None:
        return "no predictions were kept (the paper's code keeps none), or those of different test inputs: stitch again"
    if measured.is_end_at_chance:
        return (
            "the end network is close to chance or below, where a stitch has no accuracy to lose: train it longer, or, "
            "if it is more accurate on its own test inputs, normalise inputs and order classes as in its training"
        )
    return stitches.obstacle


def _verdict(
    stitches: Stitches, measured: Measured | None, obstacle: str, p_values: PValues, limits: Limits
) -> Verdict:
    """Return the verdict on stitches, with its estimates."""
    if measured is None:
        return Verdict(INCONCLUSIVE, obstacle, UNDEFINED, UNDEFINED, *p_values)
    verdict = INCONCLUSIVE
    reason = obstacle
    if not obstacle:
        verdict, reason = decide(stitches, measured, limits, p_values)
    skills = [UNDEFINED, UNDEFINED]
    if measured.places:
        skills = [place.skill.interval() for place in measured.places]
    return Verdict(
        verdict,
        reason,
        measured.accuracy.interval(),
        measured.accuracy_drop.interval(),
        *p_values,
        *reversed(skills),
    )


def _tests(
    measured: Sequence[Measured | None], obstacles: Sequence[str], limits: Limits
) -> list[PValues]:
    """Test the accuracy drops together; stitches with an obstacle are not tested."""
    drops = {
        number: of_pair.accuracy_drop
        for number, (of_pair, obstacle) in enumerate(zip(measured, obstacles, strict=True))
        if of_pair is not None and not obstacle
    }
    below = [drop.p_below(limits.tolerance) for drop in drops.values()]
    above = [drop.p_above(limits.tolerance) for drop in drops.values()]
    if not limits.pairwise:
        below = false_discovery_rate(below).tolist()
        above = false_discovery_rate(above).tolist()
    tested = dict(zip(drops, map(PValues, below, above), strict=True))
    return [tested.get(number, PValues()) for number in range(len(measured))]


def measure(stitches: Stitches, limits: Limits) -> Measured | None:
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
    chance = chance_of(labels)
    is_end_at_chance = any(
        is_close_to_chance(is_right.mean(), len(labels), chance, tolerance=limits.tolerance)
        for is_right in chain.from_iterable(right_end)
    )
    return Measured(
        accuracy=of_share(right_stitched),
        accuracy_drop=of_difference(right_end, right_stitched),
        places=_places(stitches.skills, limits),
        is_end_at_chance=is_end_at_chance,
    )


def _places(skills: Sequence[Sequence[StitchSkill]], limits: Limits) -> list[SkillEvidence]:
    """Return the skill at the end layer and at the output; [] if it was not measured."""
    if not skills:
        return []
    limit_at_end = limits.skill_at_end
    if min(run.n_classes for run in chain.from_iterable(skills)) <= FEW_CLASSES:
        limit_at_end = max(limit_at_end, limits.skill)
    not_own = "the stitched activations do not follow those of the end network"
    class_only = "the answers follow the class and no more"
    return [
        _place("the end layer", limit_at_end, not_own, skills, place=0),
        _place("the output", limits.skill, class_only, skills, place=1),
    ]


def _place(
    name: str, limit: float, meaning: str, skills: Sequence[Sequence[StitchSkill]], *, place: int
) -> SkillEvidence:
    """Return the mean skill of runs at a place of `StitchSkill`."""
    at_place = [[run[:2][place] for run in runs] for runs in skills]
    all_runs = list(chain.from_iterable(skills))
    estimates = [
        [IntervalEstimate(run.skill, run.low, run.high) for run in runs] for runs in at_place
    ]
    return SkillEvidence(
        name,
        limit,
        meaning,
        of_estimates(estimates, n_images=min(run.n_images for run in all_runs)),
        correlation=mean_of([np.array([run.correlation for run in runs]) for runs in at_place]),
        baseline=float(
            np.max([run.baseline for run in chain.from_iterable(at_place)])
        ),  # keeps NaN
        rows_per_channel=min(run.rows_per_channel for run in all_runs),
    )


def decide(
    stitches: Stitches, measured: Measured, limits: Limits, p_values: PValues
) -> tuple[str, str]:
    """Return one of `VERDICTS` for stitches without an obstacle, and the reason as a text."""
    if p_values.below < ALPHA:
        return _decide_accurate(measured)
    if not stitches.has_converged:
        return (
            INCONCLUSIVE,
            "the training had not converged: train longer; if the loss hardly fell, with another learning rate",
        )
    if p_values.above < ALPHA:
        return NOT_MATCHED, _reason_of_loss(stitches, limits)
    n_images = measured.accuracy_drop.n_images
    n_needed = images_needed(limits.tolerance)
    if n_images < n_needed:
        reason = f"{n_images} test inputs are too few for this tolerance"
        if math.isfinite(n_needed):
            reason += f": at least {n_needed} are needed"
        return INCONCLUSIVE, reason
    low, high = measured.accuracy_drop.interval()[1:]
    side = "the accuracy drop may lie on either side of the tolerance"
    if low > limits.tolerance or high < limits.tolerance:
        side = "the accuracy drop is on one side of the tolerance, but not after the correction for several pairs"
    return INCONCLUSIVE, f"{side}: {MORE_IMAGES}"


def _decide_accurate(measured: Measured) -> tuple[str, str]:
    """Return the verdict on stitches with an accuracy drop below the tolerance, and the reason.

    A pair is similar if its skill is above the limit at both places. Both tests have to agree, so that
    each has the whole level (an intersection–union test, Berger 1982). It is accurate only if its
    skill is below the limit at one of them, each tested at half the level.
    """
    obstacle = _obstacle_of_skill(measured.places)
    if obstacle:
        return INCONCLUSIVE, f"accurate, but {obstacle}"
    for place in measured.places:
        if place.is_low:
            return (
                ACCURATE_ONLY,
                f"accurate, but at {place.name} {place.meaning} {place.numbers}, so that the "
                "accuracy is no evidence of similarity",
            )
    for place in measured.places:
        if place.baseline > HIGHEST:
            return (
                INCONCLUSIVE,
                f"accurate, but at {place.name} untrained features that are given the class do almost as well "
                f"(baseline {place.baseline:.2f}): take a deeper end layer",
            )
    if all(place.skill.p_above(place.limit) < ALPHA for place in measured.places):
        return SIMILAR, "accurate, and it follows the end network within a class"
    return INCONCLUSIVE, f"accurate, but skill may be on either side of its limit: {MORE_IMAGES}"


def _obstacle_of_skill(places: Sequence[SkillEvidence]) -> str:
    """Return the reason why skill cannot be judged; "" if there is none."""
    if not places:
        return "skill was not measured: evaluate the stitches by exec_eval_stitcher_ood.py"
    for place in places:
        n_images = place.skill.n_images
        is_defined = not math.isnan(place.skill.value)
        if place.rows_per_channel < FEWEST_ROWS:
            return (
                f"too few inputs for the baseline: {place.rows_per_channel:.1f} rows a channel of its widest "
                f"features, and it needs {FEWEST_ROWS}; give more training inputs"
            )
        if math.isnan(place.baseline):
            return "there is no baseline: activations of all untrained copies are not finite"
        if not is_defined and place.baseline > HIGHEST:
            return (
                f"at {place.name} untrained features that are given the class reach 1 already: choose a later "
                "layer"
            )
        if not is_defined:
            return f"at {place.name} skill is not defined: activations are constant or not finite"
        if n_images < FEWEST_IMAGES:
            return f"skill needs {FEWEST_IMAGES} test inputs, and there are {n_images}"
    return ""


def _reason_of_loss(stitches: Stitches, limits: Limits) -> str:
    """Return the reason of an accuracy drop above the tolerance; name a much worse front network."""
    reason = "the accuracy drop is above the tolerance"
    worse = stitches.end_accuracy - stitches.front_accuracy
    if worse > limits.tolerance:
        reason += f", and the front network alone is {100 * worse:.1f} points worse"
    return reason
