"""Out-of-distribution detection: scores, detectors, metrics, evaluation of stitches. Importing this spares torch."""

from src.lazy import lazy_names

_PLACES = {"OODMetrics": "metrics", "energy": "losses", "make_detector": "scores", "ood_metrics": "metrics"}
__all__ = list(_PLACES)
__getattr__ = lazy_names(__name__, _PLACES)
