"""The verdict: which stitched pairs of layers are functionally similar, and how sure that is."""

from src.verdict.judging import judge
from src.verdict.rows import Verdict
from src.verdict.stitches import read_stitches

__all__ = ["Verdict", "judge", "read_stitches"]
