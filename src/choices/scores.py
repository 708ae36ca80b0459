"""Scores of how far activations are out of distribution, one row each.

To add a score, write its row here, and its detector in `src.ood.detectors`, where `DETECTORS` lists
it."""

from typing import NamedTuple

N_NEIGHBOURS = 50  # or half of the smallest class, if that is less


class OodScore(NamedTuple):
    """A score of how far activations are out of distribution."""

    title: str  # in figures
    description: str  # for `--help`
    is_trained: bool = False  # its detectors are networks from a store


SCORES = {
    "energy": OodScore("energy", "of a detector from the store, as in the paper", is_trained=True),
    "mahalanobis": OodScore("Mahalanobis", "distance to the nearest class mean (Lee et al. 2018)"),
    "rmd": OodScore("relative Mahalanobis", "less that to the mean of all (Ren et al. 2021)"),
    "knn": OodScore("nearest neighbours", "distance to the k-th (Sun et al. 2022)"),
    "residual": OodScore("residual", "norm outside of the principal subspace (Wang et al. 2022)"),
}
