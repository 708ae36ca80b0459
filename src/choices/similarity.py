"""The measures of similarity, one row each. Importing this spares torch.

To add a measure, write its row here, which options, help, tables, signs and figures read, and its
function in `src.similarity.measures`, which lists it under the same name."""

from collections.abc import Sequence
from typing import NamedTuple

from src.errors import unknown_name
from src.user_code import CODE, is_user_code, title_of

GRAMS = "grams"  # the inputs of a measure
SAMPLES = "samples"
ACTIVATIONS = "activations"
N_NEIGHBOURS = 10
# ends the name of a measure that is not symmetric, of the second layer to the first
REVERSED = "_reversed"


class Measure(NamedTuple):
    """A measure of similarity."""

    heading: str  # in printed tables; the first three are the public code's
    title: str  # in figures
    description: str  # one line for `--help`
    # GRAMS: the cosine of matrices of two layers; SAMPLES: of both as samples × features;
    # ACTIVATIONS: a function of a user's code, of both as they are
    of: str
    equal: float  # the value of equal representations
    unrelated: float  # the value of unrelated ones
    in_paper: bool = False  # measured unless something else is asked for
    companions: tuple[
        str, ...
    ] = ()  # measures that cost nothing beside this one; the CSV has them as well
    min_images: int = 2
    is_symmetric: bool = True  # otherwise tables have it both ways

    @property
    def sign(self) -> int:
        """The factor that makes higher values mean more similar."""
        return -1 if self.equal < self.unrelated else 1

    def similarity(self, value: float) -> float:
        """Return the value on a scale from 0, unrelated, to 1, equal."""
        return (value - self.unrelated) / (self.equal - self.unrelated)

    @property
    def similarity_title(self) -> str:
        """The title of `similarity` in figures."""
        if self.sign > 0:
            return self.title
        return f"1 − {self.title}" + (f" / {self.unrelated:g}" if self.unrelated != 1 else "")


MEASURES = {
    "cka": Measure("CKA", "linear CKA", "linear CKA (Kornblith et al. 2019)", GRAMS, 1, 0, in_paper=True),
    "pwcca": Measure("CCA", "PWCCA distance", "PWCCA distance in the form of the paper's code", SAMPLES, 0, 1,
                     in_paper=True, companions=("pwcca_morcos",), is_symmetric=False),
    "procrustes": Measure("Orth. Procr", "Procrustes distance", "orthogonal Procrustes distance (Ding et al. 2021)",
                          SAMPLES, 0, 2, in_paper=True),
    "pwcca_morcos": Measure("CCA (Morcos)", "PWCCA distance (Morcos)", "PWCCA distance (Morcos et al. 2018)",
                            SAMPLES, 0, 1, is_symmetric=False),
    "cka_debiased": Measure("CKA (debiased)", "debiased CKA", "linear CKA by unbiased HSIC (Song et al. 2012)",
                            GRAMS, 1, 0, min_images=4),
    "mutual_knn": Measure("Mutual kNN", f"mutual {N_NEIGHBOURS}-NN",
                          f"share of {N_NEIGHBOURS} nearest neighbours (Huh et al. 2024)", GRAMS, 1, 0,
                          min_images=N_NEIGHBOURS + 1),
}  # fmt: skip
PAPER = tuple(name for name, measure in MEASURES.items() if measure.in_paper)
DISTANCE = "_distance"  # ends the name of a user's function whose low values are similar


def measure_of(name: str) -> Measure:
    """Return the row of the measure that a column is named by.

    A name that is not in the table is that of a user's function. Its row follows from the name, so
    that reading a table needs no code.
    """
    if name in MEASURES:
        return MEASURES[name]
    equal, unrelated = (0, 1) if name.endswith(DISTANCE) else (1, 0)
    return Measure(name, name, "a function of a user's code", ACTIVATIONS, equal, unrelated)


def with_companions(names: Sequence[str]) -> list[str]:
    """Return the columns of measures, each once, with the measures that cost nothing beside them.

    Args:
        names: in `MEASURES`, or of user code, whose column is the name of the function.
    Raises:
        UserError: a name is unknown.
    """
    for name in names:
        if name not in MEASURES and not is_user_code(name):
            raise unknown_name("measure", name, [*MEASURES, CODE])
    columns = [title_of(name) for name in names]
    companions = [companion for name in columns for companion in measure_of(name).companions]
    return list(dict.fromkeys([*columns, *companions]))
