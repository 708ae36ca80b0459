#!/usr/bin/env python3
"""Do measures of similarity see how a network computes? The study of misc/docs/mechanisms.md: networks
that multiply in a group are stitched, compared, and set against what their weights tell."""

import csv
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc import all_pairs, collect_results
from misc.multiplier import Multiplier
from misc.pairs import options_of
from src import cli
from src.figures.dots import draw_check
from src.figures.maps import draw_layers
from src.figures.shown import ABOVE_BASELINES, Shown, of_matrix
from src.ground.files import new_file, write_csv, write_text
from src.ground.tensors import load_tensors
from src.ground_truth.mechanisms import (
    irreducible_representations,
    representation_shares,
    shared_representations,
    shared_subspaces,
    shared_units,
    spans,
)
from src.ground_truth.scores import rank_correlation
from src.results.matrices import Matrix
from src.statistics.permutations import permutation_p
from src.statistics.resampling import Estimate, ScoreOfPairs, estimate, permuted_p
from src.statistics.significance import holm

TYPE = f"{Path(__file__).resolve().with_name('multiplier.py')}:network"
METHODS = ["pinv", "covariance", "task:20"]
SIMILARITIES = ["cka_debiased", "mutual_knn", "pwcca", "procrustes"]
CLEAN = "clean"  # the group of networks whose truths misc/ground_truth.py scores
TRUTHS = ("representations", "subspaces", "neurons")
MATCHED, TESTING = 5 / 12, 5 / 24  # shares of all pairs of elements
LOW = 0.5  # of representations; H1 is of stitches that share less
LOSS = 0.25  # of accuracy; H1 says that they lose more
N_PERMUTATIONS = 9999
LEVEL = 0.05  # of adjusted p-values
NEEDED = {"H2": ("pinv accuracy", "representations"), "H4": ("cka_debiased", "subspaces")}
IN_MAPS = ("task accuracy", "pinv accuracy", "pinv skill", "cka_debiased")
ACCURATE = ("similar", "accurate only")  # words of stitches that keep their accuracy
TITLES = {
    "direct matching": "pinv",
    "covariance matching": "covariance",
    "task loss matching": "task",
}
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

Values = Mapping[str, NDArray]  # (n, n) by measure or truth: front network, end network


# ---- The networks, and what their weights tell


def read_network(path: str) -> Multiplier:
    """Return the network of a state dict."""
    state = load_tensors(path)
    network = Multiplier(len(state["W_x"]))
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
    """Return what two networks share by their weights, (n, n) of front and end; see the plan."""
    functions = [network.functions() for network in networks]
    bases = irreducible_representations(products)
    shares = [representation_shares(of_network, bases) for of_network in functions]
    of_fronts = [spans(of_network) for of_network in functions]
    truths = {}
    for name, share, fronts, ends in (
        ("representations", shared_representations, shares, shares),
        ("subspaces", shared_subspaces, of_fronts, functions),
        ("neurons", shared_units, functions, functions),
    ):
        truths[name] = np.array([[share(front, end) for end in ends] for front in fronts])
    return truths


# ---- The plan's statistics


class Test(NamedTuple):
    """A line of the result: a correlation or a difference, and what it tells."""

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
    """Return all tests of the plan, adjusted together, and what is described."""
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
            tests.append(Test.of("", name, truth, estimates[name, truth], p))
            less = estimate(correlation(measures[name], truths[truth], truths[other]), groups)
            described.append(Test.of("", name, f"{truth} less {other}", less))
        neurons = estimate(correlation(measures[name], truths["neurons"]), groups)
        described.append(Test.of("", name, "neurons", neurons))

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
        of_pairs = estimate(score_of(measures, truths), groups)
        p = permuted(score_of, measures, truths)
        tests.append(Test.of(hypothesis, title, "subspaces", of_pairs, p))

    adjusted = holm([test.p for test in tests])
    tests = [test._replace(adjusted_p=p) for test, p in zip(tests, adjusted, strict=True)]
    return [*tests, *described]


# ---- The command


def parser() -> cli.Parser:
    options = cli.Parser(
        "Stitch and compare networks that multiply in a group, and set every measure against what their weights tell. "
        "The same command goes on after an interruption."
    )
    add = options.add_argument
    add("networks", nargs="+", metavar="FILE", help="state dicts of the networks, of one group")
    add(
        "-o",
        "--output",
        required=True,
        help="NAME of what is written: NAME.md and so on, and results/NAME",
    )
    add("--layer", default="hidden", help="layer that is stitched and compared")
    add("--methods", nargs="+", default=METHODS, type=all_pairs.method, help="of stitching")
    cli.add_gpu(options)
    return options


def write_inputs(path: Path, products: NDArray) -> None:
    """Write pairs of elements and their products as a data set: some to match on, others to test on."""
    n = len(products)
    pairs = np.random.default_rng(0).permutation(n * n)
    matched, testing, _ = np.split(
        pairs, [round(MATCHED * n * n), round((MATCHED + TESTING) * n * n)]
    )
    arrays = {}
    for split, chosen in (("train", matched), ("test", testing)):
        arrays[f"x_{split}"] = np.stack([chosen // n, chosen % n], axis=1)
        arrays[f"y_{split}"] = products.ravel()[chosen]
    with new_file(path) as part:
        np.savez(part, **arrays)


def read_measures(table: str, verdict: str, names: Sequence[str]) -> dict[str, NDArray]:
    """Return the measures of two networks, (n, n) of front and end, from both tables."""
    measures = {
        name: np.full((len(names), len(names)), np.nan) for name in (*COMPARED, IS_ACCURATE)
    }
    columns = {(method, column): (name, sign) for name, (method, column, sign) in MEASURES.items()}
    for row in rows_of(table):
        name, sign = columns.get(
            (TITLES.get(row["method"], row["method"]), row["measure"]), (None, 1)
        )
        if name:
            place = names.index(row["front_network"]), names.index(row["end_network"])
            measures[name][place] = sign * float(row["value"])
    for row in rows_of(verdict):
        if TITLES[row["method"]] == "pinv":
            place = names.index(row["front_network"]), names.index(row["end_network"])
            measures[WORD][place] = row["verdict"] == ACCURATE[0]
            measures[IS_ACCURATE][place] = row["verdict"] in ACCURATE
    return measures


def rows_of(table: str) -> list[dict[str, str]]:
    """Return the rows of a CSV."""
    with open(table, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_result(
    path: Path, tests: Sequence[Test], measures: Values, truths: Values, names: Sequence[str]
) -> None:
    """Write all numbers (.csv), the table and the outcomes of hypotheses (.md), and both figures."""
    write_csv(path.with_suffix(".csv"), Test._fields, [test._asdict() for test in tests])
    shared = []
    for front, end in product(range(len(names)), repeat=2):
        of_pair = {name: truth[front, end] for name, truth in truths.items()}
        shared.append({"front": names[front], "end": names[end], **of_pair})
    write_csv(path.with_name(f"{path.name}_truths.csv"), ["front", "end", *TRUTHS], shared)
    adjusted = [test for test in tests if test.adjusted_p is not None]
    of_measures = [test for test in adjusted if not test.hypothesis]
    of_measures.sort(key=lambda test: (TRUTHS.index(test.truth), -test.value))
    write_text(
        path.with_suffix(".md"), "\n".join([*table_of(of_measures), "", *outcomes(adjusted)])
    )

    dots = []
    for test in of_measures:
        word = ABOVE_BASELINES if test.adjusted_p < LEVEL else ""
        interval = (test.low, test.high)
        dots.append(Shown(test.truth, test.value, *interval, method=test.measure, word=word))
    draw_check(path.with_suffix(".png"), dots)

    order = np.argsort(truths["representations"].mean(0))  # networks of one kind stand together
    n_alike = len(os.path.commonprefix(list(names)))
    labels = [names[place][n_alike:] for place in order]
    maps: list[Shown] = []
    for name in IN_MAPS:
        matrix = Matrix(labels, labels, measures[name][np.ix_(order, order)].tolist())
        maps += of_matrix(matrix, MEASURES[name][1], name)
    place = path.with_name(f"{path.name}_maps.png")
    draw_layers(place, maps, axes=("front network", "end network"))


def table_of(tests: Sequence[Test]) -> list[str]:
    """Return the lines of a table in Markdown: a row a measure, a column a truth."""
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
        outcome = "open"
        if all(test.adjusted_p < LEVEL for test in needed):
            outcome = "holds"
        elif any(test.high < 0 for test in needed):
            outcome = "refuted"
        lines.append(f"* {hypothesis}: {outcome}")
        for test in needed:
            interval = f"{test.value:.2f} ({test.low:.2f} to {test.high:.2f})"
            lines.append(f"  * {test.measure}, {test.truth}: {interval}, p = {test.adjusted_p:.4f}")
    return [*lines, ""]


def study(args) -> None:
    folder = Path("results", args.output)
    names = [Path(path).stem for path in args.networks]
    networks = [read_network(path) for path in args.networks]
    products = products_of(networks)
    truths = truths_of(networks, products)
    write_inputs(folder / "pairs.npz", products)
    rows = [
        {"name": name, "path": str(Path(path).resolve()), "type": TYPE, "group": CLEAN}
        for name, path in zip(names, args.networks, strict=True)
    ]
    write_csv(folder / "networks.csv", list(rows[0]), rows)
    pairs = options_of(
        all_pairs,
        args,
        networks=str(folder / "networks.csv"),
        layers=args.layer,
        stitching_type="auto",
        save_dir=args.output,
        methods=args.methods,
        own_types=[TYPE],
        dataset=str(folder / "pairs.npz"),
        batch_size=250,
        learning_rate=0.003,
        metrics=SIMILARITIES,
        alignment="pool",
    )
    verdict = f"{args.output}_verdict.csv"
    all_pairs.work_and_judge(pairs, verdict, f"{args.output}.html")
    table = ["-r", "--networks", pairs.networks, "-o", f"{args.output}_grid.csv"]
    collect_results.collect(collect_results.parser().parse_args([str(folder), *table]))
    measures = read_measures(f"{args.output}_grid_measurements.csv", verdict, names)
    write_result(Path(args.output), tests_of(measures, truths), measures, truths, names)


def main(argv=None) -> int:
    return cli.run(parser(), study, argv)


if __name__ == "__main__":
    sys.exit(main())
