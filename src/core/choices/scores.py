"""Scores of how far activations are out of distribution.

To add a score, write its row here and its detector in `src.ood.detectors`.
"""

from typing import NamedTuple

NONE = "none"  # in place of a score: no detector
ON_OTHER_DATA = "_on_"  # in names of tables, between the score and the name of other data


class OodScore(NamedTuple):
    """A score of how far activations are out of distribution."""

    description: str  # for `--help`
    function: str  # "module:class" of the detector that computes the score
    is_trained: bool = False  # its detectors are networks from a store


SCORES = {
    "energy": OodScore(
        "energy of a trained detector, as in the paper",
        "src.ood.detectors:EnergyDetector",
        is_trained=True,
    ),
    "mahalanobis": OodScore(
        "distance to the nearest class mean (Lee et al. 2018)", "src.ood.detectors:Mahalanobis"
    ),
}
