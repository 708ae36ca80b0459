"""Stitches two networks and judges which of their layers are similar, in one call from Python."""

from src.judge.judgement import Judgement
from src.judge.recipe import judge

__all__ = ["Judgement", "judge"]
