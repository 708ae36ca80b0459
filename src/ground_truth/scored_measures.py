"""The measures that are put to the test. Higher values are more similar."""

from typing import NamedTuple

from src.choices.similarity import measure_of
from src.results.measurements import SIMILARITY, Measurement
from src.results.quantities import IN_TRUTH, QUANTITIES

# Ends of the names of measures of similarity, by the part of a row that is scored
ENDINGS = {"": "", "calibrated": " calibrated", "calibrated_within": " calibrated in classes"}


class ScoredMeasure(NamedTuple):
    """A measure under test: its name and its family."""

    name: str  # such as "pinv penalty", "pinv AUROC of knn" or "cka calibrated"
    # Reports show the best measure of a family. All methods and detectors of a quantity of stitches
    # are a family, and so are a measure of similarity and its calibrated values.
    family: str
    is_directed: bool = False  # a quantity of stitches


PROBE = ScoredMeasure("probe", "probe")  # the difference of accuracies of two linear probes


def is_scored(row: Measurement) -> bool:
    """Return whether the value is put to the test."""
    if row.method == SIMILARITY:
        return row.part in ENDINGS
    return row.quantity == PROBE.name or IN_TRUTH in QUANTITIES[row.quantity].shown_in


def scored_as(row: Measurement) -> ScoredMeasure:
    """Return the measure that a value is scored as."""
    if row.method == SIMILARITY:
        return ScoredMeasure(row.quantity + ENDINGS[row.part], row.quantity)
    if row.quantity == PROBE.name:
        return PROBE
    title = QUANTITIES[row.quantity].title
    detector = f" of {row.part}" if row.part else ""
    return ScoredMeasure(f"{row.method} {title}{detector}", title, is_directed=True)


def score_of(row: Measurement) -> float:
    """Return the value, higher for more similar layers."""
    if row.method == SIMILARITY:
        return row.value if row.part else measure_of(row.quantity).sign * row.value
    if row.quantity == PROBE.name:
        return row.value
    return QUANTITIES[row.quantity].similarity(row.value)
