"""The verdict: which stitched pairs of layers are functionally similar, with tests and intervals."""

from src.core.values import Predictions
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
