"""The verdict: the functionally similar pairs of stitched layers, and the certainty of it."""

from src.verdict.judging import Limits, judge
from src.verdict.kappa import kappa_within

__all__ = ["Limits", "judge", "kappa_within"]
