"""Similarity of representations, at any rank. Importing this spares torch."""

__all__ = [
    "Undefined", "compare", "debiased_cka", "linear_cka", "mutual_knn", "procrustes_distance", "pwcca_distance",
]  # fmt: skip


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from src.similarity import two_arrays

    return getattr(two_arrays, name)
