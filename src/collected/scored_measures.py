"""The measures that are put to the test. Higher values are more similar."""

import math

from src.choices.similarity import measure_of
from src.collected.groups import value_of
from src.runs.folders import StitchingRun
from src.tables.quantities import DETECTOR, IN_TRUTH, shown_in
from src.values import ALL_IMAGES, WITHIN_CLASSES, ComparedLayers

PROBE = "probe"  # the difference of accuracies of two linear probes

# Ends of the names of calibrated measures, by the images that were permuted
CALIBRATED = {ALL_IMAGES: " calibrated", WITHIN_CLASSES: " calibrated in classes"}


def similarities_of(compared: ComparedLayers) -> dict[str, float]:
    """Return the measures of two layers by name; higher is more similar.

    Calibrated measures are added where images were permuted.
    """
    values = {}
    for name, similarity in compared.values.items():
        values[name] = measure_of(name).sign * similarity.value
    for images, ending in CALIBRATED.items():
        for name, similarity in compared.values.items():
            if images in similarity.nulls:
                values[name + ending] = similarity.nulls[images].calibrated
    return values


def measures_of(run: StitchingRun) -> dict[str, float]:
    """Return the measures of a stitch that were measured, by title; higher is more similar."""
    values = {}
    for name, quantity in shown_in(IN_TRUTH).items():
        if quantity.measured_by == DETECTOR:
            for detector, evaluation in run.evaluations.items():
                value = getattr(evaluation, name)
                values[f"{quantity.title} of {detector}"] = quantity.similarity(value)
            continue
        value = value_of(run, name)
        if value is None:
            continue
        if name == "kappa_within" and math.isnan(value):
            # Label and front class determine the class of the end network, as for a copy
            value = 1.0
        values[quantity.title] = quantity.similarity(value)
    return values


def family_of(measure: str) -> str:
    """Return the family of a measure, of which reports show the best.

    All methods and detectors of a quantity of stitches are a family, under its title. A measure of
    similarity and its calibrated values are one, under its name.

    Args:
        measure: a key of `Tables.values`, such as "pinv penalty" or "cka calibrated".
    """
    for quantity in shown_in(IN_TRUTH).values():
        if measure.endswith(f" {quantity.title}") or f" {quantity.title} of " in measure:
            return quantity.title
    for ending in CALIBRATED.values():
        measure = measure.removesuffix(ending)
    return measure
