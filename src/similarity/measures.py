"""The measures of similarity: one row each, next to the function that computes it. Importing this spares torch.

To add a measure, write its function and its row here: options, help, tables, signs and figures read the row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from src.errors import unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from src.similarity.cca import Canonical
    from src.similarity.grams import Grams
    from src.similarity.samples import SamplesPair

GRAMS, SAMPLES, CANONICAL = "grams", "samples", "canonical"  # what a measure is computed from
N_NEIGHBOURS = 10


class Measure(NamedTuple):
    """A measure of similarity.

    `of` says what `function` takes:

    * `GRAMS`: the Gram matrices of one layer -> (R, n, n). The value is the cosine of the matrices of two layers.
    * `SAMPLES`: both layers as samples × features, and two ranks (None: full) -> the value.
    * `CANONICAL`: the canonical directions of both layers -> the value.
    """

    heading: str  # in printed tables; the first three are the public code's
    title: str  # in figures
    description: str  # one line for `--help`
    of: str
    function: Callable[..., Any]
    equal: float  # the value of equal representations
    unrelated: float  # the value of unrelated ones
    in_paper: bool = False  # measured unless something else is asked for
    brings: tuple[str, ...] = ()  # measures that cost nothing beside this one; the CSV has them as well
    min_images: int = 2
    is_biased: bool = False  # grows where features outnumber images

    @property
    def is_distance(self) -> bool:
        """Whether lower means more similar."""
        return self.equal < self.unrelated

    @property
    def scale(self) -> tuple[float, float]:
        """The values of unrelated and of equal representations: the ends of a scale of colours."""
        return self.unrelated, self.equal

    @property
    def sign(self) -> int:
        """What makes higher mean more similar."""
        return -1 if self.is_distance else 1

    def similarity(self, value: float) -> float:
        """Return the value on a scale from 0, unrelated, to 1, equal."""
        return (value - self.unrelated) / (self.equal - self.unrelated)

    @property
    def similarity_title(self) -> str:
        """The title of `similarity` in figures."""
        if not self.is_distance:
            return self.title
        return f"1 − {self.title}" + (f" / {self.unrelated:g}" if self.unrelated != 1 else "")


def _centred(grams: Grams) -> Tensor:
    return grams.centred


def _u_centred(grams: Grams) -> Tensor:
    from src.similarity.cka import u_centred

    return u_centred(grams.centred)


def _nearest(grams: Grams) -> Tensor:
    from src.similarity.neighbours import nearest_by_cosine

    return nearest_by_cosine(grams.uncentred, N_NEIGHBOURS)


def _distance(canonical: Canonical) -> float:
    return canonical.distance


def _distance_morcos(canonical: Canonical) -> float:
    return canonical.distance_morcos


def _procrustes(samples: SamplesPair, rank1: int | None, rank2: int | None) -> float:
    from src.similarity.procrustes import procrustes_at

    return procrustes_at(samples, rank1, rank2)


MEASURES = {
    "cka": Measure(
        "CKA", "linear CKA", "linear CKA (Kornblith et al. 2019)",
        GRAMS, _centred, equal=1, unrelated=0, in_paper=True, is_biased=True,
    ),
    "pwcca": Measure(
        "CCA", "PWCCA distance", "PWCCA distance in the form of the paper's code",
        CANONICAL, _distance, equal=0, unrelated=1, in_paper=True, brings=("pwcca_morcos",),
    ),
    "procrustes": Measure(
        "Orth. Procr", "Procrustes distance", "orthogonal Procrustes distance (Ding et al. 2021)",
        SAMPLES, _procrustes, equal=0, unrelated=2, in_paper=True,
    ),
    "pwcca_morcos": Measure(
        "CCA (Morcos)", "PWCCA distance (Morcos)", "PWCCA distance (Morcos et al. 2018)",
        CANONICAL, _distance_morcos, equal=0, unrelated=1,
    ),
    "cka_debiased": Measure(
        "CKA (debiased)", "debiased CKA", "linear CKA by unbiased HSIC (Song et al. 2012)",
        GRAMS, _u_centred, equal=1, unrelated=0, min_images=4,
    ),
    "mutual_knn": Measure(
        "Mutual kNN", f"mutual {N_NEIGHBOURS}-NN", f"share of {N_NEIGHBOURS} nearest neighbours (Huh et al. 2024)",
        GRAMS, _nearest, equal=1, unrelated=0, min_images=N_NEIGHBOURS + 1,
    ),
}  # fmt: skip
PAPER = tuple(name for name, measure in MEASURES.items() if measure.in_paper)


def with_brought(names: Sequence[str]) -> list[str]:
    """Return the measures of the given names, each once, and behind them those that cost nothing beside them.

    Raises:
        UserError: one of them is unknown.
    """
    for name in names:
        if name not in MEASURES:
            raise unknown_name("measure", name, MEASURES)
    return list(dict.fromkeys([*names, *(other for name in names for other in MEASURES[name].brings)]))


def any_of(names: Sequence[str], *kinds: str) -> bool:
    """Return whether a measure of these names is computed from one of these kinds."""
    return any(MEASURES[name].of in kinds for name in names)
