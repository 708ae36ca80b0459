"""Out-of-distribution detection: scores, detectors, their metrics, evaluation of stitches. Imports no torch itself."""

from importlib import import_module
from typing import Any

_PLACES = {"OODMetrics": "metrics", "energy": "losses", "make_detector": "scores", "ood_metrics": "metrics"}
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
