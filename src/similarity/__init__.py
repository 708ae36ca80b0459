"""Similarity of representations: linear CKA, PWCCA and orthogonal Procrustes, at any rank."""

from src.similarity.cca import pwcca_distance
from src.similarity.cka import linear_cka
from src.similarity.compare import Comparison, compare
from src.similarity.procrustes import procrustes_distance
from src.similarity.samples import Undefined

__all__ = ["Comparison", "Undefined", "compare", "linear_cka", "procrustes_distance", "pwcca_distance"]
