"""Similarity of representations, at any rank."""

from src.similarity.two_arrays import (
    Undefined,
    compare,
    debiased_cka,
    linear_cka,
    mutual_knn,
    procrustes_distance,
    pwcca_distance,
)

__all__ = [
    "Undefined", "compare", "debiased_cka", "linear_cka", "mutual_knn", "procrustes_distance", "pwcca_distance",
]  # fmt: skip
