"""Stitching: layers, direct matching, and the grid of many pairs on shared passes. Importing this spares torch."""

from src.doors import lazy_names
from src.results.experiments import Pair

_NAMES = {
    "Grid": "grid", "Matching": "matching", "StitchedModel": "stitched_model", "build_layers": "stitched_model",
    "build_stitching_layer": "layers", "check_options": "check", "direct_matching": "matching",
    "match_layers": "grid_matching", "match_until_settled": "sample_size", "matching_batches": "matching",
}  # fmt: skip
__all__ = ["Pair", *_NAMES]
__getattr__ = lazy_names(__name__, _NAMES)
