"""Stitching: layers, direct matching, and the grid that evaluates and trains many pairs on shared passes."""

from src.stitching.direct_matching import Matching, direct_matching, matching_batches, matching_samples
from src.stitching.grid import Grid
from src.stitching.layers import build_stitching_layer
from src.stitching.stitched_model import Pair, StitchedModel, build_layers

__all__ = [
    "Grid",
    "Matching",
    "Pair",
    "StitchedModel",
    "build_layers",
    "build_stitching_layer",
    "direct_matching",
    "matching_batches",
    "matching_samples",
]
