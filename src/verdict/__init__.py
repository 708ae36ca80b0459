"""The verdict: the functionally similar pairs of stitched layers, and the certainty of it."""

from src.values import Predictions
from src.verdict.judging import (
    ACCURATE_ONLY,
    INCONCLUSIVE,
    NOT_MATCHED,
    SIMILAR,
    VERDICTS,
    Limits,
    Stitches,
    Verdict,
    judge,
)
from src.verdict.obstacles import obstacle_of

__all__ = [
    "ACCURATE_ONLY",
    "NOT_MATCHED",
    "SIMILAR",
    "INCONCLUSIVE",
    "VERDICTS",
    "Limits",
    "Predictions",
    "Stitches",
    "Verdict",
    "obstacle_of",
    "judge",
]
