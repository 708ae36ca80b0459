#!/usr/bin/env python3
"""Do measures of similarity see how a network computes? The study of misc/docs/mechanisms.md: networks
that multiply in a group are stitched, compared, and set against what their weights tell."""

import csv
import math
import sys
from collections.abc import Callable, Mapping, Sequence
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
from src.ground.files import new_file, write_csv
from src.ground.tensors import load_tensors
from src.ground_truth.scores import rank_correlation
from src.statistics.intervals import ALPHA, student_half_width
from src.statistics.jackknife import jackknife_variance
from src.statistics.permutations import permutation_p

TYPE = f"{Path(__file__).resolve().with_name('multiplier.py')}:network"
METHODS = ("pinv", "covariance", "task:20")
SIMILARITIES = ("cka_debiased", "mutual_knn", "pwcca", "procrustes")
TRUTHS = ("representations", "subspaces", "neurons")
TESTED = TRUTHS[:2]
MATCHED, TESTING = 5 / 12, 5 / 24  # shares of all pairs of elements
LOW, POINTS = 0.5, 0.25  # H1: stitches that share less than LOW lose more than POINTS
N_PERMUTATIONS = 9999
ACCURATE = ("similar", "accurate only")  # words of stitches that keep their accuracy
TITLES = {"direct matching": "pinv", "covariance matching": "covariance", "task loss matching": "task"}
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
Statistic = Callable[[Values, Values], float]  # of measures and truths


# ---- The networks, and what their weights tell


def products_of(networks: Sequence[Multiplier]) -> NDArray:
    """Return the multiplication table (n, n) that most networks answer with."""
    from src.ground.errors import UserError

    n = len(networks[0].W_x)
    pairs = torch.cartesian_prod(torch.arange(n), torch.arange(n))
    with torch.no_grad():
        answers = torch.stack([network(pairs).argmax(1) for network in networks])
    products = answers.mode(0).values.view(n, n).numpy()
    if not (np.sort(products) == np.arange(n)).all() or not (np.sort(products.T) == np.arange(n)).all():
        raise UserError("the answers of the networks are no group; give networks that multiply without mistakes")
    return products


def representations_of(products: NDArray) -> list[NDArray]:
    """Return an orthonormal basis (n, d²) of each irreducible representation in the functions of a group.

    They are the joint eigenspaces of the sums over conjugacy classes (Serre 1977, section 2.6), so the
    eigenspaces of a random combination of these sums with their inverses."""
    n = len(products)
    unit = int(np.argmax((products == np.arange(n)).all(1)))
    inverse = np.argmax(products == unit, axis=1)
    conjugates = products[products, inverse[:, None]]  # (n, n): h g h⁻¹ by h and g
    classes = np.unique(np.sort(conjugates, axis=0).T, axis=0)
    weights = np.random.default_rng(0).normal(size=len(classes))
    total = np.zeros((n, n))
    for members, weight in zip(classes, weights, strict=True):
        for member in np.unique(members):
            total[products[member], np.arange(n)] += weight / len(np.unique(members))
    eigenvalues, vectors = np.linalg.eigh(total + total.T)
    ends = np.flatnonzero(np.diff(eigenvalues) > 1e-8) + 1
    return np.split(vectors, ends, axis=1)


def truths_of(networks: Sequence[Multiplier]) -> dict[str, NDArray]:
    """Return what two networks share by their weights, (n, n) of front and end; see the plan."""
    bases = representations_of(products_of(networks))
    functions = [network.functions() for network in networks]
    shares = []
    for of_network in functions:
        energy = np.array([sum(np.sum((basis.T @ f) ** 2) for f in of_network) for basis in bases])
        shares.append(energy / energy.sum())
    n = len(networks)
    truths = {name: np.full((n, n), np.nan) for name in TRUTHS}
    for front in range(n):
        for end in range(n):
            truths["representations"][front, end] = np.minimum(shares[front], shares[end]).sum()
            truths["subspaces"][front, end] = shared_subspaces(functions[front], functions[end])
            truths["neurons"][front, end] = shared_neurons(functions[front], functions[end])
    return truths


def shared_subspaces(front: Sequence[NDArray], end: Sequence[NDArray]) -> float:
    """Return the share of the end's functions in the span of the front's, averaged over both elements."""
    shares = []
    for of_front, of_end in zip(front, end, strict=True):
        vectors, values, _ = np.linalg.svd(of_front, full_matrices=False)
        span = vectors[:, values > 0.01 * values[0]]
        shares.append(np.sum((span.T @ of_end) ** 2) / np.sum(of_end**2))
    return float(np.mean(shares))


def shared_neurons(front: Sequence[NDArray], end: Sequence[NDArray]) -> float:
    """Return the mean squared cosine of the end's hidden units with the nearest unit of the front, weighted
    by the energy of the units."""
    of_front = np.concatenate(front)
    of_end = np.concatenate(end)  # (2n, n_hidden)
    units = of_front / np.maximum(np.linalg.norm(of_front, axis=0), 1e-9)
    nearest = np.maximum((units.T @ of_end).max(0), 0)
    return float(np.sum(nearest**2) / np.sum(of_end**2))


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


def both(matrix: NDArray) -> NDArray:
    """Return the mean over both directions of each pair of networks, (P,)."""
    pairs = np.triu_indices(len(matrix), 1)
    return (matrix[pairs] + matrix.T[pairs]) / 2


def correlation(measure: str, truth: str, control: str | None = None) -> Statistic:
    """Return the rank correlation over pairs of a measure with a truth, less another truth."""
    def statistic(measures: Values, truths: Values) -> float:
        less = both(truths[control]) if control else None
        return float(rank_correlation(both(measures[measure]), both(truths[truth]), less))

    return statistic


def difference(first: Statistic, second: Statistic) -> Statistic:
    return lambda measures, truths: first(measures, truths) - second(measures, truths)


def loss_without_training(measures: Values, truths: Values) -> float:
    """H1: the mean accuracy that `pinv` lacks to TLM where little is shared, less the limit."""
    is_low = (truths["representations"] < LOW) & ~np.eye(len(truths["representations"]), dtype=bool)
    return float((measures["task accuracy"] - measures["pinv accuracy"])[is_low].mean() - POINTS)


def skill_of_accurate(measures: Values, truths: Values) -> float:
    """H3: the rank correlation of skill with shared subspaces over stitches that keep their accuracy."""
    is_accurate = measures[IS_ACCURATE] == 1
    skill = measures["pinv skill"][is_accurate]
    return float(scipy.stats.spearmanr(skill, truths["subspaces"][is_accurate])[0])


def direction_of_skill(measures: Values, truths: Values) -> float:
    """H5: the rank correlation of differences between both directions of a pair."""
    pairs = np.triu_indices(len(truths["subspaces"]), 1)
    skill, shared = ((m - m.T)[pairs] for m in (measures["pinv skill"], truths["subspaces"]))
    return float(scipy.stats.spearmanr(skill, shared)[0])


def tested(
    key: tuple[str, str, str], statistic: Statistic, measures: Values, truths: Values, *, is_permuted: bool = False
) -> Test:
    """Return a statistic with its interval by the jackknife over networks, and its one-sided p-value, by the
    jackknife or by permuting the networks of the truths."""
    n = len(truths["subspaces"])
    value = statistic(measures, truths)
    without_network = []
    for place in range(n):
        others = np.delete(np.arange(n), place)
        without_network.append(statistic(in_order(measures, others), in_order(truths, others)))
    error = math.sqrt(jackknife_variance(without_network))
    half_width = student_half_width(error, ALPHA, freedom=n - 1)
    p = float(scipy.special.stdtr(n - 1, -value / error))
    if is_permuted:
        rng = np.random.default_rng(0)
        orders = [rng.permutation(n) for _ in range(N_PERMUTATIONS)]
        p = permutation_p(value, [statistic(measures, in_order(truths, order)) for order in orders])
    return Test(*key, value, value - half_width, value + half_width, p)


def in_order(values: Values, networks: NDArray) -> Values:
    """Return the values of some networks in an order."""
    return {name: matrix[np.ix_(networks, networks)] for name, matrix in values.items()}


def tests_of(measures: Values, truths: Values) -> list[Test]:
    """Return all tests of the plan, adjusted together by Holm (1979), and what is described."""
    of_dm = correlation("pinv accuracy", "representations")
    of_cka = correlation("cka_debiased", "representations")
    of_tlm = correlation("task accuracy", "representations")
    by_permuting = {("", name, truth): correlation(name, truth) for name in COMPARED for truth in TESTED}
    by_permuting["H3", "pinv skill, of accurate stitches", "subspaces"] = skill_of_accurate
    by_permuting["H5", "pinv skill, between directions", "subspaces"] = direction_of_skill
    by_jackknife = {
        ("H1", "task accuracy − pinv accuracy − 0.25", "representations"): loss_without_training,
        ("H2", "pinv accuracy − cka_debiased", "representations"): difference(of_dm, of_cka),
        ("H2", "pinv accuracy − task accuracy", "representations"): difference(of_dm, of_tlm),
        ("H4", "cka_debiased", "subspaces − representations"): difference(
            correlation("cka_debiased", "subspaces"), of_cka
        ),
    }
    tests = [tested(key, statistic, measures, truths, is_permuted=True) for key, statistic in by_permuting.items()]
    tests += [tested(key, statistic, measures, truths) for key, statistic in by_jackknife.items()]
    order = np.argsort([test.p for test in tests])
    least = 0.0
    for place, number in enumerate(order):
        least = max(least, min(1.0, (len(tests) - place) * tests[number].p))
        tests[number] = tests[number]._replace(adjusted_p=least)
    for name in COMPARED:
        for truth, other in (TESTED, TESTED[::-1]):
            statistic = correlation(name, truth, other)
            described = tested(("", name, f"{truth} less {other}"), statistic, measures, truths)
            tests.append(described._replace(p=None))
    return tests


# ---- The command


def parser() -> cli.Parser:
    options = cli.Parser(
        "Stitch and compare networks that multiply in a group, and set every measure against what their weights tell. "
        "The same command goes on after an interruption."
    )
    add = options.add_argument
    add("networks", nargs="+", metavar="FILE", help="state dicts of the networks, of one group")
    add("-o", "--output", required=True, help="NAME of what is written: NAME.md and so on, and results/NAME")
    add("--layer", default="hidden", help="layer that is stitched and compared")
    add("--methods", nargs="+", default=METHODS, type=all_pairs.method, help="of stitching")
    cli.add_gpu(options)
    return options


def read_network(path: str) -> Multiplier:
    """Return the network of a state dict."""
    state = load_tensors(path)
    network = Multiplier(*state["W_x"].shape, state["W"].shape[1])
    network.load_state_dict(state)
    return network


def write_inputs(path: Path, products: NDArray) -> None:
    """Write pairs of elements and their products as a data set: some to match on, others to test on."""
    n = len(products)
    pairs = np.random.default_rng(0).permutation(n * n)
    matched, testing, _ = np.split(pairs, [round(MATCHED * n * n), round((MATCHED + TESTING) * n * n)])
    arrays = {}
    for split, chosen in (("train", matched), ("test", testing)):
        arrays[f"x_{split}"] = np.stack([chosen // n, chosen % n], axis=1)
        arrays[f"y_{split}"] = products.ravel()[chosen]
    with new_file(path) as part:
        np.savez(part, **arrays)


def study(args) -> None:
    folder = Path("results", args.output)
    networks = {Path(path).stem: read_network(path) for path in args.networks}
    write_inputs(folder / "pairs.npz", products_of(list(networks.values())))
    rows = [
        {"name": Path(path).stem, "path": str(Path(path).resolve()), "type": TYPE} for path in args.networks
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
    verdict, table = f"{args.output}_verdict.csv", f"{args.output}_grid.csv"
    all_pairs.work_and_judge(pairs, verdict, f"{args.output}.html")
    collect_results.collect(
        options_of(
            collect_results, args, source_dir=str(folder), recursive=True, networks=pairs.networks, output=table
        )
    )
    measures = read_measures(table.replace(".csv", "_measurements.csv"), verdict, list(networks))
    write_result(Path(args.output), tests_of(measures, truths_of(list(networks.values()))), measures)


def main(argv=None) -> int:
    return cli.run(parser(), study, argv)


if __name__ == "__main__":
    sys.exit(main())
