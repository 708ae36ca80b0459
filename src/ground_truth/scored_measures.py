"""The measures that are put to the test. Higher values are more similar."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from src.choices.similarity import measure_of
from src.results.measured import MeasuredValue
from src.results.quantities import QUANTITIES
from src.values import ALL_IMAGES, WITHIN_CLASSES

# Ends of the names of calibrated measures, by the images that were permuted
CALIBRATED = {ALL_IMAGES: " calibrated", WITHIN_CLASSES: " calibrated in classes"}


class ScoredMeasure(NamedTuple):
    """A measure under test: its name and its family."""

    name: str  # such as "pinv penalty", "pinv AUROC of knn" or "cka calibrated"
    # Reports show the best measure of a family. All methods and detectors of a quantity of stitches
    # are a family, and so are a measure of similarity and its calibrated values.
    family: str


PROBE = ScoredMeasure("probe", "probe")  # the difference of accuracies of two linear probes


def scored_similarities(
    values: Iterable[MeasuredValue],
) -> Iterator[tuple[ScoredMeasure, MeasuredValue]]:
    """Yield each measure of similarity, and then its calibrated values, where images were permuted.

    Args:
        values: of two layers, by all measures.
    """
    values = list(values)
    for value in values:
        similarity = measure_of(value.quantity).sign * value.value
        yield ScoredMeasure(value.quantity, value.quantity), value._replace(value=similarity)
    for images, ending in CALIBRATED.items():
        for value in values:
            if images in value.nulls:
                measure = ScoredMeasure(value.quantity + ending, value.quantity)
                yield measure, value._replace(value=value.nulls[images].calibrated)


def scored_stitch(value: MeasuredValue) -> tuple[ScoredMeasure, MeasuredValue]:
    """Return a quantity of a stitch as a measure of its method."""
    quantity = QUANTITIES[value.quantity]
    name = f"{value.method} {quantity.title}"
    if value.detector:
        name += f" of {value.detector}"
    similarity = quantity.similarity(value.value)
    return ScoredMeasure(name, quantity.title), value._replace(value=similarity)
