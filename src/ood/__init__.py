"""Out-of-distribution detection: scores, detectors, metrics, evaluation of stitches."""

from src.ood.detectors import energy, make_detector
from src.statistics.detection import OODMetrics, ood_metrics

__all__ = [
    "OODMetrics",
    "energy",
    "make_detector",
    "ood_metrics",
]
