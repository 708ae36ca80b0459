"""Scores of how far activations are out of distribution.

To add a score, write its row here and its detector in `src.ood.detectors`, and list the detector in
`DETECTORS` there.
"""

from collections.abc import Sequence
from typing import NamedTuple

from src.ground.errors import UserError
from src.ground.user_code import by_title

NONE = "none"  # in place of a score: no detector
N_NEIGHBOURS = 50  # or half of the smallest class, if that is less
ON_OTHER_DATA = "_on_"  # in names of tables, between the score and the name of other data


class OodScore(NamedTuple):
    """A score of how far activations are out of distribution."""

    title: str  # in figures
    description: str  # for `--help`
    is_trained: bool = False  # its detectors are networks from a store


SCORES = {
    "energy": OodScore("energy", "energy of a trained detector, as in the paper", is_trained=True),
    "mahalanobis": OodScore("Mahalanobis", "distance to the nearest class mean (Lee et al. 2018)"),
    "knn": OodScore(
        "nearest neighbours", "distance to the k-th nearest training image (Sun et al. 2022)"
    ),
}


class ChosenScore(NamedTuple):
    """A score that an evaluation computes."""

    name: str  # in `SCORES`, or FILE.py:CLASS of a user's code
    is_trained: bool  # its detectors are networks from a store


def scores_by_title(names: Sequence[str]) -> dict[str, ChosenScore]:
    """Return scores by the titles that tables and files have.

    Args:
        names: in `SCORES`, `NONE`, or the name of user code, whose title is the name of the class.
    Raises:
        UserError: a class has the name of another score, or a name that no table can have.
    """
    scores = {}
    chosen = [name for name in names if name != NONE]
    for title, name in by_title(chosen, taken=SCORES, noun="score").items():
        if ON_OTHER_DATA in title:
            raise UserError(
                f"{name}: {ON_OTHER_DATA!r} stands for other data in names of tables; "
                "rename the class"
            )
        scores[title] = ChosenScore(name, name in SCORES and SCORES[name].is_trained)
    return scores
