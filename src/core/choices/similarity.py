"""The measures of similarity. This module does not import torch.

To add a measure, write its function in `src.similarity.measures` and its row here. Options, help,
tables, signs and figures read the row. A test checks what it declares: invariances, symmetry and the
metric.
"""

from typing import Any, NamedTuple

SIMILARITY = "similarity"  # the method of measures without a stitch, and the folder of their tables
GRAMS = "grams"  # the inputs of a measure
SAMPLES = "samples"
ACTIVATIONS = "activations"
N_NEIGHBOURS = 10
# Maps of the features of either representation
PERMUTATION = "permutation"
ROTATION = "rotation"
SCALE = "scale"  # all features by one factor
SHIFT = "shift"  # by a constant vector

DISTANCE = "_distance"  # ends the name of a user's function whose low values are similar


class Measure(NamedTuple):
    """A measure of similarity."""

    heading: str  # in printed tables; the first three are the public code's
    title: str  # in figures
    description: str  # one line for `--help`
    # GRAMS: the cosine of matrices of two layers; SAMPLES: a function of samples × features of two
    # layers; ACTIVATIONS: a user's function of the activations of two layers
    of: str
    function: Any  # "module:function"; once it is loaded, the function itself
    equal: float  # the value of equal representations
    unrelated: float  # the value of unrelated representations
    in_paper: bool = False  # measured by default
    min_images: int = 2
    is_symmetric: bool = True  # otherwise tables have both directions
    # Maps of the features of either representation that leave the value as it is
    invariant_to: tuple[str, ...] = ()
    # The function of the value that is a metric (0 for equal representations, symmetric, with the
    # triangle inequality); "": none is known
    metric: str = ""

    @property
    def sign(self) -> int:
        """The factor that makes higher values mean more similar."""
        return -1 if self.equal < self.unrelated else 1

    def similarity(self, value: float) -> float:
        """Return the value on a scale from 0 (unrelated) to 1 (equal)."""
        return (value - self.unrelated) / (self.equal - self.unrelated)

    @property
    def similarity_title(self) -> str:
        """The title of `similarity` in figures."""
        if self.sign > 0:
            return self.title
        if self.unrelated == 1:
            return f"1 − {self.title}"
        return f"1 − {self.title} / {self.unrelated:g}"


MEASURES = {
    "cka": Measure(
        heading="CKA",
        title="linear CKA",
        description="centred kernel alignment with linear kernels (Kornblith et al. 2019)",
        of=GRAMS,
        function="src.similarity.measures:cka",
        equal=1,
        unrelated=0,
        in_paper=True,
        invariant_to=(PERMUTATION, ROTATION, SCALE, SHIFT),
        metric="arccos(v)",
    ),
    "pwcca": Measure(
        heading="CCA",
        title="PWCCA distance",
        description="projection-weighted CCA in the form of Balogh and Jelasity (2025)",
        of=SAMPLES,
        function="src.similarity.measures:pwcca",
        equal=0,
        unrelated=1,
        in_paper=True,
        is_symmetric=False,
        invariant_to=(PERMUTATION, SCALE, SHIFT),
    ),
    "procrustes": Measure(
        heading="Orth. Procr",
        title="Procrustes distance",
        description="distance after the best orthogonal map (Ding et al. 2021)",
        of=SAMPLES,
        function="src.similarity.measures:procrustes",
        equal=0,
        unrelated=2,
        in_paper=True,
        invariant_to=(PERMUTATION, ROTATION, SCALE, SHIFT),
        metric="sqrt(v)",
    ),
    "cka_debiased": Measure(
        heading="CKA (debiased)",
        title="debiased CKA",
        description="linear CKA with unbiased HSIC (Song et al. 2012)",
        of=GRAMS,
        function="src.similarity.measures:cka_debiased",
        equal=1,
        unrelated=0,
        min_images=4,
        invariant_to=(PERMUTATION, ROTATION, SCALE, SHIFT),
        metric="arccos(v)",
    ),
    "mutual_knn": Measure(
        heading="Mutual kNN",
        title=f"mutual {N_NEIGHBOURS}-NN",
        description=f"share of {N_NEIGHBOURS} nearest neighbours (Huh et al. 2024)",
        of=GRAMS,
        function="src.similarity.measures:mutual_knn",
        equal=1,
        unrelated=0,
        min_images=N_NEIGHBOURS + 1,
        invariant_to=(PERMUTATION, ROTATION, SCALE),
        metric="1 - v",
    ),
}
PAPER = tuple(name for name, measure in MEASURES.items() if measure.in_paper)


def measure_of(name: str) -> Measure:
    """Return the row of a measure by the name of its column.

    A name outside of the table is the name of a user's function. Its row follows from the name, so
    that reading a table needs no code.
    """
    if name in MEASURES:
        return MEASURES[name]
    equal = 1
    unrelated = 0
    if name.endswith(DISTANCE):
        equal = 0
        unrelated = 1
    return Measure(name, name, "a function of a user's code", ACTIVATIONS, "", equal, unrelated)
