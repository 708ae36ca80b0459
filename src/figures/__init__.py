"""Figures, printed tables and words, and the page of an experiment.

Its modules are imported when they are first used, so that `--help` of a script loads neither torch nor pandas."""

from typing import TYPE_CHECKING

from src.core.lazy import when_used

if TYPE_CHECKING:  # the modules that scripts use so
    # ruff: noqa: F401
    from src.figures import (
        curves,
        groups,
        maps,
        matrices,
        page,
        pages,
        sections,
        similarities,
        verdicts,
        words,
    )
else:
    __getattr__ = when_used(__name__)
