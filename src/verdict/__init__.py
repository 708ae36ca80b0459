"""The verdict: which stitched pairs of layers are functionally similar, and how sure that is."""

from src.verdict.judging import Limits, judge
from src.verdict.kappa import kappa_within

__all__ = ["Limits", "judge", "kappa_within"]
