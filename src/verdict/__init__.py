"""The verdict: which stitched pairs of layers are functionally similar, and how sure that is."""

from src.verdict.judging import Limits, judge

__all__ = ["Limits", "judge"]
