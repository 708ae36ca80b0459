"""The measures that are put to the test, in one place. Every measure enters so that higher is more alike."""

import math
from collections.abc import Callable

from src.choices.measures import MEASURES
from src.similarity.rows import SimilarityRow
from src.stitching.folders import StitchingRun
from src.verdict.groups import kappa_of

PROBE = "probe"  # the difference of accuracies of two linear probes
DISAGREEMENT = "disagreement"


def kappa(run: StitchingRun) -> float | None:
    """Return κ within strata of a run; None for a run without predictions.

    It is 1 where it is not defined: there the front network's class and the label tell all that the end network says,
    as a copy of it does.
    """
    if run.predictions is None:
        return None
    value = kappa_of(run).value
    return 1.0 if math.isnan(value) else value


STITCH_MEASURES: dict[str, Callable[[StitchingRun], float | None]] = {  # None: not measured
    "penalty": lambda run: run.row.accuracy - run.row.end_accuracy,
    DISAGREEMENT: lambda run: run.row.agreement - 1,
    "representation difference": lambda run: -run.row.representation_difference,
    "R²": lambda run: run.row.r2_test,
    "identification": lambda run: run.identified and run.identified.value,
    "κ within strata": kappa,
    "noise dose": lambda run: run.validity and -run.validity.noise_dose,
    "shrinkage dose": lambda run: run.validity and -run.validity.shrinkage_dose,
    "Fréchet distance": lambda run: run.validity and -run.validity.frechet,
}


def similarities_of(row: SimilarityRow) -> dict[str, float]:
    """Return the measures of a row of a table of similarity, higher where layers are more alike."""
    values = {name: MEASURES[name].sign * value for name, value in row.measures.items()}
    values |= {f"{name} calibrated": null.calibrated for name, null in row.nulls().items()}
    return values | {f"{name} calibrated in classes": null.calibrated for name, null in row.nulls("_within").items()}


def measures_of(run: StitchingRun) -> dict[str, float]:
    """Return the measures of a stitch, higher where layers are more alike; what was not measured is left out."""
    values = {name: measure(run) for name, measure in STITCH_MEASURES.items()}
    # Stitched activations that are more typical than the own ones have collapsed.
    values |= {f"AUROC of {name}": -abs(each.auroc - 0.5) for name, each in run.evaluations.items()}
    return {name: value for name, value in values.items() if value is not None}
