"""Out-of-distribution detection: energies, their metrics, detectors of activations, evaluation of stitches."""

from src.ood.energy import energy
from src.ood.metrics import OODMetrics, ood_metrics

__all__ = ["OODMetrics", "energy", "ood_metrics"]
