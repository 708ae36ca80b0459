"""Similarity of representations, at any rank. Importing this spares torch."""

from src.doors import lazy_names

_NAMES = {
    "Comparison": "comparison", "Undefined": "samples", "compare": "one_pair", "debiased_cka": "cka",
    "linear_cka": "cka", "mutual_knn": "neighbours", "procrustes_distance": "procrustes", "pwcca_distance": "cca",
}  # fmt: skip
__all__ = list(_NAMES)
__getattr__ = lazy_names(__name__, _NAMES)
