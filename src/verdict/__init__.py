"""The verdict: the functionally similar pairs of stitched layers, and the certainty of it."""

from src.statistics.kappa import kappa_within
from src.values import Predictions
from src.verdict.controls import Compared, compare_with_controls
from src.verdict.flaws import flaw_of
from src.verdict.judging import (
    LOST,
    NOT_MATCHED,
    SIMILAR,
    UNDECIDED,
    VERDICTS,
    Limits,
    Stitches,
    Verdict,
    judge,
)

__all__ = [
    "LOST",
    "NOT_MATCHED",
    "SIMILAR",
    "UNDECIDED",
    "VERDICTS",
    "Compared",
    "Limits",
    "Predictions",
    "Stitches",
    "Verdict",
    "compare_with_controls",
    "flaw_of",
    "judge",
    "kappa_within",
]
