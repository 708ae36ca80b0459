"""The statistics that misc/docs/study.md plans: measures of similarity against the
truth in the weights of networks."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy
import torch
from numpy.typing import NDArray

if __name__ == "__main__":
    sys.exit("misc/mechanism_statistics.py is no script; run misc/mechanisms.py")

from misc.group_mechanisms import (
    irreducible_representations,
    representation_shares,
    shared_representations,
    shared_subspaces,
    shared_units,
    spans,
)
from misc.multiplier import Multiplier
from src.core.errors import UserError
from src.core.tensors import load_tensors
from src.statistics.permutations import permutation_p
from src.statistics.resampling import Estimate, ScoreOfPairs, estimate, permuted_p
from src.statistics.significance import holm

TRUTHS = ("representations", "subspaces", "neurons")
BEHIND = "subspaces behind the ReLU"  # not planned: described only
LOW = 0.5  # of representations; H1 is of stitches that share less
LOSS = 0.25  # of accuracy; H1 says that they lose more
N_PERMUTATIONS = 9999
LEVEL = 0.05  # of adjusted p-values
NEEDED = {"H2": ("pinv accuracy", "representations"), "H4": ("cka_debiased", "subspaces")}
MEASURES = {  # measure: its method, its column in the table of measurements, its sign
    "pinv accuracy": ("pinv", "accuracy", 1),
    "covariance accuracy": ("covariance", "accuracy", 1),
    "task accuracy": ("task", "accuracy", 1),
    "pinv r2": ("pinv", "r2_test", 1),
    "pinv skill": ("pinv", "skill", 1),
    "pinv end_skill": ("pinv", "skill_at_end", 1),
    "cka_debiased": ("similarity", "cka_debiased", 1),
    "mutual_knn": ("similarity", "mutual_knn", 1),
    "pwcca": ("similarity", "pwcca", -1),
    "procrustes": ("similarity", "procrustes", -1),
}
WORD = "pinv word"  # 1: similar
IS_ACCURATE = "is accurate"  # 1: the stitch by pinv keeps its accuracy
COMPARED = (*MEASURES, WORD)
MOST = 1 - 1e-9  # correlation of which Fisher's z is taken

Values = Mapping[str, NDArray]  # (n, n) by measure or truth: front network, end network


def read_network(path: str) -> Multiplier:
    """Return the network of a state dict.

    Raises:
        UserError: the network is none of `Multiplier`, or of other sizes.
    """
    state = load_tensors(path)
    network = Multiplier(len(state.get("W_x", ())))
    expected = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in state.items()}
    if found != expected:
        raise UserError(
            f"{path}: has {found}; one of n elements has {expected}: train such networks, or change the sizes in "
            "misc/multiplier.py"
        )
    network.load_state_dict(state)
    return network


def products_of(networks: Sequence[Multiplier]) -> NDArray:
    """Return the multiplication table (n, n) that most networks answer with."""
    n = len(networks[0].W_x)
    elements = torch.arange(n)
    with torch.no_grad():
        answers = [
            network(torch.cartesian_prod(elements, elements)).argmax(1) for network in networks
        ]
    return torch.stack(answers).mode(0).values.view(n, n).numpy()


def truths_of(networks: Sequence[Multiplier], products: NDArray) -> dict[str, NDArray]:
    """Return the truths of the plan, and `BEHIND`, from the weights only: (n, n) of front and end."""
    functions = [network.functions() for network in networks]
    behind = [network.functions_behind_relu() for network in networks]
    bases = irreducible_representations(products)
    shares = [representation_shares(of_network, bases) for of_network in functions]
    of_fronts = [spans(of_network) for of_network in functions]
    truths = {}
    for name, share, fronts, ends in (
        ("representations", shared_representations, shares, shares),
        ("subspaces", shared_subspaces, of_fronts, functions),
        ("neurons", shared_units, functions, functions),
        (BEHIND, shared_subspaces, [spans(of_network) for of_network in behind], behind),
    ):
        truths[name] = np.array([[share(front, end) for end in ends] for front in fronts])
    return truths


class Test(NamedTuple):
    """A line of the result: a correlation or a difference."""

    hypothesis: str  # empty: a measure against a truth
    measure: str
    truth: str
    value: float
    low: float
    high: float
    p: float | None  # None: described
    adjusted_p: float | None = None

    @classmethod
    def of(
        cls, hypothesis: str, measure: str, truth: str, estimate: Estimate, p: float | None = None
    ) -> "Test":
        """Return the line of an estimate."""
        return cls(hypothesis, measure, truth, estimate.value, *estimate.interval(), p)

    @classmethod
    def of_correlation(
        cls,
        hypothesis: str,
        measure: str,
        truth: str,
        score: ScoreOfPairs,
        n: int,
        p: float | None = None,
    ) -> "Test":
        """Return the line of a correlation over the pairs of n networks, with the interval of its Fisher's z."""
        of_z = estimate(fishers_z(score), np.zeros(n))
        value, low, high = np.tanh([of_z.value, *of_z.interval()]).tolist()
        return cls(hypothesis, measure, truth, value, low, high, p)


def fishers_z(score: ScoreOfPairs) -> ScoreOfPairs:
    """Return Fisher's z of a correlation."""

    def of_pairs(measured: NDArray, true: NDArray) -> NDArray:
        return np.arctanh(np.clip(score(measured, true), -MOST, MOST))

    return of_pairs


def student_p(estimate: Estimate) -> float:
    """Return the p-value of Student's t in one direction."""
    return float(scipy.special.stdtr(estimate.freedom, -estimate.value / estimate.error()))


class Directions(NamedTuple):
    """The values of P pairs of networks, (P,) forth and back."""

    forth: NDArray
    back: NDArray

    @classmethod
    def of(cls, matrix: NDArray) -> "Directions":
        """Return the values of a matrix (n, n) of front and end networks."""
        pairs = np.triu_indices(len(matrix), 1)
        return cls(matrix[pairs], matrix.T[pairs])

    @property
    def mean(self) -> NDArray:
        """The value of each pair."""
        return (self.forth + self.back) / 2


def rank_correlation(x: NDArray, y: NDArray, control: NDArray | None = None) -> NDArray:
    """Return Spearman's correlation of values (..., P), or the partial correlation, (...).

    Args:
        control: (..., P), a variable whose part in `x` and in `y` is taken out. The correlation is
            0 if nothing is left of `x` or `y`.
    """
    x_with_y = _spearman(x, y)
    if control is None:
        return x_with_y
    x_with_control = _spearman(x, control)
    y_with_control = _spearman(y, control)
    unexplained = np.sqrt(np.maximum((1 - x_with_control**2) * (1 - y_with_control**2), 0))
    partial = (x_with_y - x_with_control * y_with_control) / np.maximum(unexplained, 1e-9)
    return np.where(unexplained < 1e-9, 0.0 * x_with_y, partial)  # 0 times NaN is NaN


def _spearman(x: NDArray, y: NDArray) -> NDArray:
    """Return Spearman's correlation over the last axis of (..., P), (...); NaN if it is not defined."""
    if x.shape[-1] < 2:
        return np.full(np.broadcast_shapes(x.shape, y.shape)[:-1], np.nan)
    x_ranks = _centred_ranks(x)
    y_ranks = _centred_ranks(y)
    scale = np.sqrt((x_ranks**2).sum(-1) * (y_ranks**2).sum(-1))
    return (x_ranks * y_ranks).sum(-1) / np.where(scale > 0, scale, np.nan)


def _centred_ranks(values: NDArray) -> NDArray:
    """Return the ranks along the last axis, less their mean."""
    ranks = scipy.stats.rankdata(values, axis=-1)
    return ranks - ranks.mean(-1, keepdims=True)


def correlation(measure: NDArray, truth: NDArray, control: NDArray | None = None) -> ScoreOfPairs:
    """Return the rank correlation of a measure with a truth over pairs, less another truth."""
    of_measure = Directions.of(measure).mean
    of_truth = Directions.of(truth).mean
    less = None if control is None else Directions.of(control).mean

    def score(measured: NDArray, true: NDArray) -> NDArray:
        return rank_correlation(
            of_measure[measured], of_truth[true], None if less is None else less[true]
        )

    return score


def loss_without_training(measures: Values, truths: Values) -> ScoreOfPairs:
    """H1: the mean accuracy that `pinv` lacks to TLM where little is shared, less the limit."""
    loss = Directions.of(measures["task accuracy"] - measures["pinv accuracy"]).mean
    is_low = Directions.of(truths["representations"]).mean < LOW

    def score(measured: NDArray, _: NDArray) -> NDArray:
        with np.errstate(invalid="ignore"):  # NaN where no pair shares so little
            return (loss * is_low)[measured].sum(-1) / is_low[measured].sum(-1) - LOSS

    return score


def skill_of_accurate(measures: Values, truths: Values) -> ScoreOfPairs:
    """H3: the rank correlation of skill with shared subspaces over stitches that keep their accuracy."""
    is_accurate, skill, shared = (
        np.stack(Directions.of(matrix))
        for matrix in (measures[IS_ACCURATE] == 1, measures["pinv skill"], truths["subspaces"])
    )

    def score(measured: NDArray, _: NDArray) -> NDArray:
        values = []
        for places in measured:
            chosen = is_accurate[:, places]
            values.append(rank_correlation(skill[:, places][chosen], shared[:, places][chosen]))
        return np.array(values)

    return score


def direction_of_skill(measures: Values, truths: Values) -> ScoreOfPairs:
    """H5: the rank correlation of differences between both directions of a pair."""
    skill = Directions.of(measures["pinv skill"])
    shared = Directions.of(truths["subspaces"])

    def score(measured: NDArray, _: NDArray) -> NDArray:
        return rank_correlation(
            (skill.forth - skill.back)[measured], (shared.forth - shared.back)[measured]
        )

    return score


def permuted(
    score: Callable[[Values, Values], ScoreOfPairs], measures: Values, truths: Values
) -> float:
    """Return the p-value of a score of directed stitches, by permuting the networks of the truths."""
    rng = np.random.default_rng(0)
    n = len(truths["subspaces"])
    pairs = np.arange(n * (n - 1) // 2)[None]
    values = []
    for order in [np.arange(n), *(rng.permutation(n) for _ in range(N_PERMUTATIONS))]:
        in_order = {"subspaces": truths["subspaces"][np.ix_(order, order)]}
        values.append(score(measures, in_order)(pairs, pairs)[0])
    return permutation_p(values[0], values[1:])


def tests_of(measures: Values, truths: Values) -> list[Test]:
    """Return all tests of the plan, adjusted together, and the described correlations."""
    n = len(truths["subspaces"])
    groups = np.zeros(n)
    tests = []
    described = []
    estimates = {}
    for name in COMPARED:
        for truth, other in ((TRUTHS[0], TRUTHS[1]), (TRUTHS[1], TRUTHS[0])):
            score = correlation(measures[name], truths[truth])
            estimates[name, truth] = estimate(score, groups)
            p = permuted_p(score, n, N_PERMUTATIONS)
            tests.append(Test.of_correlation("", name, truth, score, n, p))
            less = correlation(measures[name], truths[truth], truths[other])
            described.append(Test.of_correlation("", name, f"{truth} less {other}", less, n))
        for truth in ("neurons", BEHIND):
            score = correlation(measures[name], truths[truth])
            described.append(Test.of_correlation("", name, truth, score, n))

    loss = estimate(loss_without_training(measures, truths), groups)
    title = f"task accuracy − pinv accuracy − {LOSS}"
    tests.append(Test.of("H1", title, "representations", loss, student_p(loss)))
    for hypothesis, first, second in (
        ("H2", ("pinv accuracy", "representations"), ("cka_debiased", "representations")),
        ("H2", ("pinv accuracy", "representations"), ("task accuracy", "representations")),
        ("H4", ("cka_debiased", "subspaces"), ("cka_debiased", "representations")),
    ):
        names = [" − ".join(dict.fromkeys(pair)) for pair in zip(first, second, strict=True)]
        between = estimates[first].minus(estimates[second])
        tests.append(Test.of(hypothesis, *names, between, student_p(between)))
    for hypothesis, title, score_of in (
        ("H3", "pinv skill, of accurate stitches", skill_of_accurate),
        ("H5", "pinv skill, between directions", direction_of_skill),
    ):
        p = permuted(score_of, measures, truths)
        score = score_of(measures, truths)
        tests.append(Test.of_correlation(hypothesis, title, "subspaces", score, n, p))
        behind = {"subspaces": truths[BEHIND]}
        score = score_of(measures, behind)
        described.append(Test.of_correlation(hypothesis, title, BEHIND, score, n))
    return [*adjusted_tests(tests), *described]


def adjusted_tests(tests: Sequence[Test]) -> list[Test]:
    """Return tests with p-values adjusted together; that of a test without a value is NaN, and it counts
    among the planned tests."""
    p_values = np.array([test.p for test in tests], dtype=float)
    is_missing = np.isnan(p_values)
    adjusted = np.where(is_missing, np.nan, holm(np.where(is_missing, 1.0, p_values)))
    return [test._replace(adjusted_p=p) for test, p in zip(tests, adjusted.tolist(), strict=True)]


def table_of(tests: Sequence[Test]) -> list[str]:
    """Return the lines of a table in Markdown: a row a measure, a column a truth; NaN: not measured of all pairs."""
    cells: dict[str, dict[str, str]] = {}
    for test in tests:
        star = "*" if test.adjusted_p < LEVEL else ""
        cell = f"{test.value:.2f}{star} ({test.low:.2f} to {test.high:.2f})"
        cells.setdefault(test.measure, {})[test.truth] = cell
    lines = [f"| measure | {' | '.join(TRUTHS[:2])} |", "|---|---|---|"]
    for measure, of_measure in cells.items():
        lines.append(f"| `{measure}` | {' | '.join(of_measure[truth] for truth in TRUTHS[:2])} |")
    return lines


def outcomes(tests: Sequence[Test]) -> list[str]:
    """Return a line for each test of a hypothesis, and whether the hypothesis holds."""
    lines = []
    for hypothesis in sorted({test.hypothesis for test in tests} - {""}):
        of_hypothesis = [test for test in tests if test.hypothesis == hypothesis]
        needed = [test for test in tests if (test.measure, test.truth) == NEEDED.get(hypothesis)]
        needed += of_hypothesis
        missing = [test.measure for test in needed if np.isnan(test.adjusted_p)]
        outcome = "inconclusive"
        if missing:
            outcome = f"not answered, since NaN: {', '.join(dict.fromkeys(missing))}"
        elif all(test.adjusted_p < LEVEL for test in needed):
            outcome = "holds"
        elif any(test.high < 0 for test in needed):
            outcome = "refuted"
        lines.append(f"* {hypothesis}: {outcome}")
        for test in needed:
            interval = f"{test.value:.2f} ({test.low:.2f} to {test.high:.2f})"
            lines.append(f"  * {test.measure}, {test.truth}: {interval}, p = {test.adjusted_p:.4f}")
    return [*lines, ""]
