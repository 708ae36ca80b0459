"""Scores of how far activations are out of distribution, one row each.

To add a score, write its row here, and its detector in `src.ood.detectors`, where `DETECTORS` lists it.
"""

from typing import NamedTuple

N_NEIGHBOURS = 50  # or half of the smallest class, if that is less


class Score(NamedTuple):
    """A score of how far activations are out of distribution."""

    title: str  # in figures
    description: str  # for `--help`
    is_trained: bool = False  # its detectors are networks from a store


SCORES = {
    "energy": Score("energy", "of a detector from the store, as in the paper", is_trained=True),
    "mahalanobis": Score("Mahalanobis", "distance to the nearest class mean (Lee et al. 2018)"),
    "rmd": Score("relative Mahalanobis", "less that to the mean of all (Ren et al. 2021)"),
    "knn": Score("nearest neighbours", "distance to the k-th (Sun et al. 2022)"),
    "residual": Score("residual", "norm outside of the principal subspace (Wang et al. 2022)"),
}
