"""Out-of-distribution detection: scores, detectors, metrics, evaluation of stitches."""

from src.ood.detectors import energy, make_detector
from src.ood.identifying import along_the_way, identification
from src.ood.validity import Validity
from src.statistics.detection import OODMetrics, ood_metrics

__all__ = [
    "OODMetrics",
    "Validity",
    "along_the_way",
    "energy",
    "identification",
    "make_detector",
    "ood_metrics",
]
