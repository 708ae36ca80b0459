"""Similarity of representations, at any rank. Importing this spares torch."""

from src.lazy import lazy_names

_PLACES = {
    "Comparison": "comparison", "Undefined": "samples", "compare": "comparison", "debiased_cka": "cka",
    "linear_cka": "cka", "mutual_knn": "neighbours", "procrustes_distance": "procrustes", "pwcca_distance": "cca",
}  # fmt: skip
__all__ = list(_PLACES)
__getattr__ = lazy_names(__name__, _PLACES)
