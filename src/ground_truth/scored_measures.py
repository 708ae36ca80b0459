"""The measures that are put to the test, in one place. Every measure enters so that higher is more
alike."""

import math

from src.choices.similarity import MEASURES
from src.results.quantities import DETECTOR, IN_TRUTH, shown_in
from src.similarity.similarity_rows import SimilarityRow
from src.stitching.folders import StitchingRun
from src.verdict.groups import value_of

PROBE = "probe"  # the difference of accuracies of two linear probes


def similarities_of(row: SimilarityRow) -> dict[str, float]:
    """Return the measures of a row of a table of similarity, higher where layers are more alike."""
    values = {name: MEASURES[name].sign * value for name, value in row.measures.items()}
    values |= {f"{name} calibrated": null.calibrated for name, null in row.nulls().items()}
    return values | {
        f"{name} calibrated in classes": null.calibrated
        for name, null in row.nulls("_within").items()
    }


def measures_of(run: StitchingRun) -> dict[str, float]:
    """Return the measures of a stitch by title, higher where layers are more alike, without those
    not measured."""
    values = {}
    for name, quantity in shown_in(IN_TRUTH).items():
        if quantity.measured_by == DETECTOR:
            for detector, evaluation in run.evaluations.items():
                values[f"{quantity.title} of {detector}"] = quantity.similarity(
                    getattr(evaluation, name)
                )
            continue
        value = value_of(run, name)
        if name == "kappa_within" and value is not None and math.isnan(value):
            # label and front class tell all that the end network says, as those of a copy do
            value = 1.0
        if value is not None:
            values[quantity.title] = quantity.similarity(value)
    return values
