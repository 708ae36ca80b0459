"""Stitching: layers, direct matching, and the grid of many pairs on shared passes. Importing this spares torch."""

from src.lazy import lazy_names

_PLACES = {
    "Grid": "grid", "Matching": "matching", "Pair": "rows", "StitchedModel": "stitched_model",
    "build_layers": "stitched_model", "build_stitching_layer": "layers", "check_options": "check",
    "direct_matching": "matching", "matching_batches": "matching", "matching_samples": "matching",
}  # fmt: skip
__all__ = list(_PLACES)
__getattr__ = lazy_names(__name__, _PLACES)
