"""Reads and writes results: runs, tables, and the frame of results from which reports are computed.

Its modules are imported when they are first used, so that `--help` of a script loads neither torch nor pandas."""

from typing import TYPE_CHECKING

from src.core.lazy import when_used

if TYPE_CHECKING:  # the modules that scripts use so
    # ruff: noqa: F401
    from src.results import (
        checkpoints,
        feature_files,
        frame,
        public,
        ranks,
        reports,
        run,
        scoring,
        similarities,
        stitch_runs,
        stitches,
        tables,
    )
    from src.results.frame import read
else:
    __getattr__ = when_used(__name__, read="frame")
