"""Out-of-distribution detection: scores, detectors, metrics, evaluation of stitches. Importing this spares torch."""

from src.doors import lazy_names

_NAMES = {
    "OODMetrics": "metrics",
    "Validity": "validity",
    "energy": "losses",
    "make_detector": "detectors",
    "ood_metrics": "metrics",
}
__all__ = list(_NAMES)
__getattr__ = lazy_names(__name__, _NAMES)
