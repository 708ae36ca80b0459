"""Stitching: layers, direct matching, and the grid of many pairs on shared passes."""

from src.core.values import Pair
from src.stitching.grid import Grid
from src.stitching.layers import build_stitching_layer
from src.stitching.matching import (
    Matching,
    direct_matching,
    match,
    match_layers,
)
from src.stitching.stitched_model import StitchedModel, build_layers, chosen_options

__all__ = [
    "Grid",
    "Matching",
    "Pair",
    "StitchedModel",
    "build_layers",
    "build_stitching_layer",
    "chosen_options",
    "direct_matching",
    "match",
    "match_layers",
]
