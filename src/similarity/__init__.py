"""Similarity of representations, at any rank. Importing this does not import torch."""

from importlib import import_module
from typing import Any

_PLACES = {
    "Comparison": "comparison", "Undefined": "samples", "compare": "comparison", "debiased_cka": "cka",
    "linear_cka": "cka", "mutual_knn": "neighbours", "procrustes_distance": "procrustes", "pwcca_distance": "cca",
}  # fmt: skip
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
