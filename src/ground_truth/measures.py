"""The measures that are put to the test: signs, and the values of equal representations, in one place.

Every measure enters so that higher is more alike.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from src.choices.measures import MEASURES
from src.choices.scores import SCORES
from src.similarity.rows import SimilarityRow
from src.stitching.folders import StitchingRun
from src.verdict.judging import NOT_SIMILAR, SIMILAR

PROBE = "probe"  # the difference of accuracies of two linear probes
VERDICT = "verdict"
VERDICT_VALUES = {SIMILAR: 1.0, NOT_SIMILAR: 0.0}  # ½ of all others


class StitchMeasure(NamedTuple):
    """A measure of a stitch."""

    sign: int  # the factor that makes higher more alike
    equal: float  # the value of a layer that is stitched to itself without loss
    value: Callable[[StitchingRun], float | None]  # None: not measured


STITCH_MEASURES = {
    "penalty": StitchMeasure(-1, 0, lambda run: run.row.end_accuracy - run.row.accuracy),
    "disagreement": StitchMeasure(-1, 0, lambda run: 1 - run.row.agreement),
    "representation difference": StitchMeasure(-1, 0, lambda run: run.row.representation_difference),
    "R²": StitchMeasure(1, 1, lambda run: run.row.r2_test),
    # Both sides are failures. Half and twice the own density are equally far from it.
    "density": StitchMeasure(-1, 0, lambda run: run.validity and log_distance(run.validity.density_ratio)),
    # More than the own recall is no failure.
    "recall": StitchMeasure(1, 1, lambda run: run.validity and min(run.validity.recall_ratio, 1.0)),
    "Fréchet distance": StitchMeasure(-1, 0, lambda run: run.validity and run.validity.frechet),
    # Stitched activations that are more typical than the own ones have collapsed.
    **{
        f"AUROC of {name}": StitchMeasure(
            -1, 0, lambda run, name=name: abs(run.evaluations[name].auroc - 0.5) if name in run.evaluations else None
        )
        for name in SCORES
    },
}


def log_distance(ratio: float) -> float:
    """Return how far a ratio r is from 1, |r − 1|/(r + 1) = tanh(|log r|/2): as far as 1/r is, and 1 at 0."""
    return abs(ratio - 1) / (ratio + 1)


def equal_values(methods: Mapping[str, object] | list[str]) -> dict[str, float]:
    """Return the value of equal representations by measure, of measures of similarity and of stitches by methods."""
    values = {PROBE: 0.0}
    for name, measure in MEASURES.items():
        values |= {name: measure.sign * measure.equal, f"{name} calibrated": 1.0, f"{name} calibrated in classes": 1.0}
    for method in methods:
        values |= {f"{method} {name}": measure.sign * measure.equal for name, measure in STITCH_MEASURES.items()}
        values[f"{method} {VERDICT}"] = 1.0
    return values


def similarities_of(row: SimilarityRow) -> dict[str, float]:
    """Return the measures of a row of a table of similarity, higher where layers are more alike."""
    values = {name: MEASURES[name].sign * value for name, value in row.measures.items()}
    values |= {f"{name} calibrated": null.calibrated for name, null in row.nulls.items()}
    return values | {f"{name} calibrated in classes": null.calibrated for name, null in row.nulls_within.items()}


def measures_of(run: StitchingRun) -> dict[str, float]:
    """Return the measures of a stitch, higher where layers are more alike; what was not measured is left out."""
    values = {name: (measure.sign, measure.value(run)) for name, measure in STITCH_MEASURES.items()}
    return {name: sign * value for name, (sign, value) in values.items() if value is not None}
