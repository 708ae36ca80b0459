"""The measures that are put to the test, in one place. Every measure enters so that higher is more alike."""

from collections.abc import Callable
from typing import NamedTuple

from src.choices.measures import MEASURES
from src.choices.scores import SCORES
from src.similarity.rows import SimilarityRow
from src.stitching.folders import StitchingRun

PROBE = "probe"  # the difference of accuracies of two linear probes
DISAGREEMENT, RHO, BETA = "disagreement", "rho", "beta"
CONTROL = "disagreement of the label-only control"


class StitchMeasure(NamedTuple):
    """A measure of a stitch."""

    sign: int  # the factor that makes higher more alike
    value: Callable[[StitchingRun], float | None]  # None: not measured


STITCH_MEASURES = {
    "penalty": StitchMeasure(-1, lambda run: run.row.end_accuracy - run.row.accuracy),
    DISAGREEMENT: StitchMeasure(-1, lambda run: 1 - run.row.agreement),
    "representation difference": StitchMeasure(-1, lambda run: run.row.representation_difference),
    "R²": StitchMeasure(1, lambda run: run.row.r2_test),
    "noise dose": StitchMeasure(-1, lambda run: run.validity and run.validity.noise_dose),
    "shrinkage dose": StitchMeasure(-1, lambda run: run.validity and run.validity.shrinkage_dose),
    "Fréchet distance": StitchMeasure(-1, lambda run: run.validity and run.validity.frechet),
    # Stitched activations that are more typical than the own ones have collapsed.
    **{
        f"AUROC of {name}": StitchMeasure(
            -1, lambda run, name=name: abs(run.evaluations[name].auroc - 0.5) if name in run.evaluations else None
        )
        for name in SCORES
    },
}


def similarities_of(row: SimilarityRow) -> dict[str, float]:
    """Return the measures of a row of a table of similarity, higher where layers are more alike."""
    values = {name: MEASURES[name].sign * value for name, value in row.measures.items()}
    values |= {f"{name} calibrated": null.calibrated for name, null in row.nulls().items()}
    return values | {f"{name} calibrated in classes": null.calibrated for name, null in row.nulls("_within").items()}


def measures_of(run: StitchingRun) -> dict[str, float]:
    """Return the measures of a stitch, higher where layers are more alike; what was not measured is left out."""
    if run.row.control:
        return {CONTROL: run.row.agreement - 1}
    values = {name: (measure.sign, measure.value(run)) for name, measure in STITCH_MEASURES.items()}
    return {name: sign * value for name, (sign, value) in values.items() if value is not None}
