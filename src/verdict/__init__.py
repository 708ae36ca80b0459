"""The verdict: the functionally similar pairs of stitched layers, and the certainty of it."""

from src.statistics.kappa import kappa_within
from src.verdict.judging import Limits, judge

__all__ = ["Limits", "judge", "kappa_within"]
