"""Out-of-distribution detection: scores, detectors, metrics, evaluation of stitches."""

from src.ood.detectors import energy, make_detector
from src.ood.identifying import identification
from src.ood.metrics import OODMetrics, ood_metrics
from src.ood.validity import Validity

__all__ = ["OODMetrics", "Validity", "energy", "identification", "make_detector", "ood_metrics"]
