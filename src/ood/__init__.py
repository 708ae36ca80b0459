"""Out-of-distribution detection: scores, detectors, metrics, evaluation of stitches. Importing this spares torch."""

from src.doors import offers

_NAMES = {"OODMetrics": "metrics", "energy": "losses", "make_detector": "detectors", "ood_metrics": "metrics"}
__all__ = list(_NAMES)
__getattr__ = offers(__name__, _NAMES)
