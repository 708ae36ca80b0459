"""Ground truth: scores of similarity measures on networks that differ by construction.

The protocol is that of ReSi (Klabunde et al., ICLR 2025, arXiv 2408.00531). Baselines and impostors
are added."""

from src.ground_truth.outputs import output_differences
from src.ground_truth.scores import chance_scores, group_scores, layer_scores, output_correlation

__all__ = [
    "chance_scores",
    "group_scores",
    "layer_scores",
    "output_correlation",
    "output_differences",
]
