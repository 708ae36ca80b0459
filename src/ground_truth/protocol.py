"""The six tests of the protocol: scores every measure of the tables, with intervals over networks.

The column `group` of a list of networks names the intervention and its strength, such as `label_noise:0.5`; what stands
before the colon names the test. Networks of one group are the seeds that tests of outputs and of layers take.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from src.ground_truth.bootstrap import N_RESAMPLES, draw_counts, interval, weighted_mean
from src.ground_truth.rows import TruthRow, TruthScore
from src.ground_truth.scores import chance_scores, group_scores, layer_scores, output_correlation
from src.ground_truth.tables import Tables

ALL_LAYERS = ""  # the mean over layers
LAYER_TEST = "layers"
SCORES = ("auprc", "conformity", "spearman")  # in the order of the columns
NO_SCORE = (None,) * len(TruthScore._fields)


def score(
    tables: Tables,
    groups: Sequence[str],
    *,
    divergences: NDArray | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> list[TruthRow]:
    """Score all measures in all tests that the networks allow.

    Args:
        groups: (N,), of the networks.
        divergences: (N, N), Jensen–Shannon divergences of the outputs; None leaves that test out.
    """
    counts = draw_counts(groups, n_resamples=n_resamples, seed=seed)
    differences = output_matrices(tables, len(groups))
    if divergences is not None:
        differences["jensen_shannon"] = divergences
    rows = []
    for measure in tables.values:
        matrices = {layer: tables.alike(measure, layer) for layer in tables.layers}
        matrices = {layer: matrix for layer, matrix in matrices.items() if not np.isnan(matrix).all()}
        for test, members in tests_of(groups).items():
            rows += _by_groups(tables, test, measure, matrices, members, np.array(groups)[members], counts[:, members])
        for test, difference in differences.items():
            rows += _by_outputs(tables, test, measure, matrices, difference, groups, counts)
        rows += _by_layers(tables, measure, list(matrices), groups, counts)
    return rows


def tests_of(groups: Sequence[str]) -> dict[str, NDArray]:
    """Return the networks (indices) of each intervention that has two groups or more."""
    names = np.array([group.partition(":")[0] if ":" in group else "" for group in groups])
    tests = {name: np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist()) if name}
    return {name: members for name, members in tests.items() if len({groups[i] for i in members}) > 1}


def output_matrices(tables: Tables, n: int) -> dict[str, NDArray]:
    """Return the differences (N, N) of accuracies, and of predicted classes; NaN where a network has none."""
    found = {name: np.full((n, n), np.nan) for name in ("accuracy", "disagreement")}
    for i, first in tables.predictions.items():
        for j, second in tables.predictions.items():
            if np.array_equal(first["labels"], second["labels"]):
                right = [(each["classes"] == each["labels"]).mean() for each in (first, second)]
                found["accuracy"][i, j] = abs(right[0] - right[1])
                found["disagreement"][i, j] = (first["classes"] != second["classes"]).mean()
    return found


def _by_groups(
    tables: Tables, test: str, measure: str, matrices: Mapping, members: NDArray, groups: NDArray, counts: NDArray
) -> Iterator[TruthRow]:
    """Yield the scores of a test of an intervention at each layer, and of their mean over layers."""
    own = [matrix[np.ix_(members, members)] for matrix in matrices.values()]

    def scores_of(counts: NDArray) -> NDArray:  # (layers, 2, ...)
        return np.array([group_scores(matrix, groups, counts=counts) for matrix in own])

    chance = dict(zip(("auprc", "conformity"), chance_scores(groups), strict=True))
    yield from _rows(tables, test, measure, list(matrices), scores_of, counts, chance)


def _by_outputs(
    tables: Tables,
    test: str,
    measure: str,
    matrices: Mapping,
    difference: NDArray,
    groups: Sequence[str],
    counts: NDArray,
) -> Iterator[TruthRow]:
    """Yield the negative correlations of a measure with a difference of outputs, means over groups that have one."""
    members = [np.flatnonzero(np.array(groups) == group) for group in dict.fromkeys(groups)]

    def of_layer(matrix: NDArray, counts: NDArray) -> NDArray:  # (...)
        of_groups = [
            -output_correlation(matrix[np.ix_(own, own)], difference[np.ix_(own, own)], counts=counts[..., own])
            for own in members
        ]
        return weighted_mean(np.stack(of_groups, axis=-1))

    def scores_of(counts: NDArray) -> NDArray:  # (layers, 1, ...)
        return np.array([[of_layer(matrix, counts)] for matrix in matrices.values()])

    yield from _rows(tables, test, measure, list(matrices), scores_of, counts, {"spearman": 0.0})


def _by_layers(
    tables: Tables, measure: str, layers: Sequence[str], groups: Sequence[str], counts: NDArray
) -> Iterator[TruthRow]:
    """Yield how well a measure orders the layers of two networks of a group, means over pairs.

    Where it is the same for all layers, which are ties, its rank correlation counts as 0: it orders nothing.
    """
    pairs = [(i, j) for i, j in combinations(range(len(groups)), 2) if groups[i] == groups[j]]
    if len(layers) < 3 or not pairs:
        return
    first, second = np.transpose(pairs)
    of_pairs = np.array([layer_scores(tables.of_layers(measure, i, j, layers)) for i, j in pairs])  # (pairs, 2)
    of_pairs[:, 1] = np.where(np.isnan(of_pairs[:, 0]), np.nan, np.nan_to_num(of_pairs[:, 1]))

    def scores_of(counts: NDArray) -> NDArray:  # (1, 2, ...)
        return np.array([[weighted_mean(scores, counts[..., first] * counts[..., second]) for scores in of_pairs.T]])

    chance = {"conformity": 0.5, "spearman": 0.0}
    yield from _rows(tables, LAYER_TEST, measure, [], scores_of, counts, chance)


def _rows(
    tables: Tables,
    test: str,
    measure: str,
    layers: Sequence[str],
    scores_of: Callable[[NDArray], NDArray],
    counts: NDArray,
    chance: Mapping[str, float],
) -> Iterator[TruthRow]:
    """Yield a row for each layer and for the mean over layers; none where no layer has a score."""
    n_networks = counts.shape[1]
    values = scores_of(np.ones(n_networks))  # (layers, scores)
    if not values.size or np.isnan(values).all():
        return
    resampled = scores_of(counts)  # (layers, scores, resamples)
    of_layers = list(zip(layers, values, resampled, strict=True)) if layers else []
    for layer, value, of_draws in [*of_layers, (ALL_LAYERS, values.mean(0), resampled.mean(0))]:
        scores = dict.fromkeys(SCORES, NO_SCORE)
        for k, name in enumerate(chance):
            scores[name] = TruthScore(float(value[k]), *interval(of_draws[k], counts), chance[name])
        of_measure = n_networks, measure in tables.directed
        yield TruthRow(test, measure, layer, *chain.from_iterable(scores.values()), *of_measure)
