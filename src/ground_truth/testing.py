"""The six tests of the protocol: scores every measure of the tables, with intervals over networks.

The column `group` of a list of networks names the intervention and its strength, such as `label_noise:0.5`; what stands
before the colon names the test. Networks of one group are the seeds that tests of outputs and of layers take.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.ground_truth.bootstrap import N_RESAMPLES, interval, resamples
from src.ground_truth.scores import chance_scores, group_scores, layer_scores, output_correlation
from src.ground_truth.tables import Tables
from src.results.rows import TruthRow, TruthScore

ALL_LAYERS = ""  # the mean over layers
LAYER_TEST = "layers"


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
    draws = {"n_resamples": n_resamples, "seed": seed}
    differences = output_matrices(tables, len(groups))
    if divergences is not None:
        differences["jensen_shannon"] = divergences
    rows = []
    for measure in tables.values:
        matrices = {layer: tables.alike(measure, layer) for layer in tables.layers}
        matrices = {layer: matrix for layer, matrix in matrices.items() if not np.isnan(matrix).all()}
        for test, members in tests_of(groups).items():
            rows += _by_groups(tables, test, measure, matrices, members, np.array(groups)[members], draws)
        for test, difference in differences.items():
            rows += _by_outputs(tables, test, measure, matrices, difference, groups, draws)
        rows += _by_layers(tables, measure, groups, draws)
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
    tables: Tables, test: str, measure: str, matrices: dict, members: NDArray, groups: NDArray, draws: dict
) -> Iterator[TruthRow]:
    """Yield the scores of a test of an intervention at each layer, and of their mean over layers."""
    own = [matrix[np.ix_(members, members)] for matrix in matrices.values()]

    def scores_of(drawn: NDArray) -> NDArray:  # (layers, 2)
        return np.array([group_scores(matrix[np.ix_(drawn, drawn)], groups[drawn], networks=drawn) for matrix in own])

    chance = dict(zip(("auprc", "conformity"), chance_scores(groups), strict=True))
    yield from _rows(tables, test, measure, list(matrices), scores_of, groups, chance, draws)


def _by_outputs(
    tables: Tables, test: str, measure: str, matrices: dict, difference: NDArray, groups: Sequence[str], draws: dict
) -> Iterator[TruthRow]:
    """Yield the negative correlations of a measure with a difference of outputs, means over groups that have one."""
    kinds = np.array(groups)
    known: dict[tuple, list[float]] = {}  # the order of networks does not count, and few sets of a small group differ

    def of_group(drawn: NDArray) -> list[float]:  # (layers,)
        key = tuple(np.sort(drawn))
        if key not in known:
            at = np.ix_(key, key)
            known[key] = [-output_correlation(m[at], difference[at], networks=key) for m in matrices.values()]
        return known[key]

    def scores_of(drawn: NDArray) -> NDArray:  # (layers, 1)
        of_groups = [of_group(drawn[kinds == kind]) for kind in dict.fromkeys(groups)]
        return _mean(np.array(of_groups), 0)[:, None]

    yield from _rows(tables, test, measure, list(matrices), scores_of, kinds, {"spearman": 0.0}, draws)


def _by_layers(tables: Tables, measure: str, groups: Sequence[str], draws: dict) -> Iterator[TruthRow]:
    """Yield how well a measure orders the layers of two networks of a group, means over pairs."""
    if len(tables.layers) < 3:
        return
    kinds, n = np.array(groups), len(groups)
    of_pairs = np.full((n, n, 2), np.nan)
    for i, j in zip(*np.triu_indices(n, 1), strict=True):
        if kinds[i] == kinds[j]:
            of_pairs[i, j] = of_pairs[j, i] = layer_scores(tables.of_layers(measure, i, j))

    def scores_of(drawn: NDArray) -> NDArray:  # (1, 2); a network is no pair with its own copy: NaN
        return _mean(of_pairs[np.ix_(drawn, drawn)].reshape(-1, 2), 0)[None]

    chance = {"conformity": 0.5, "spearman": 0.0}
    yield from _rows(tables, LAYER_TEST, measure, [], scores_of, kinds, chance, draws)


def _rows(
    tables: Tables,
    test: str,
    measure: str,
    layers: Sequence[str],
    scores_of: Callable[[NDArray], NDArray],
    groups: ArrayLike,
    chance: dict[str, float],
    draws: dict,
) -> Iterator[TruthRow]:
    """Yield a row for each layer and for the mean over layers; one without a score is left out."""
    values = scores_of(np.arange(len(groups)))
    if not values.size or np.isnan(values).all():
        return
    resampled = np.array([scores_of(drawn) for drawn in resamples(groups, **draws)])  # (resamples, layers, scores)
    places = [(layer, values[i], resampled[:, i]) for i, layer in enumerate(layers)]
    for layer, value, of_draws in [*places, (ALL_LAYERS, values.mean(0), resampled.mean(1))]:
        scores = {
            name: TruthScore(float(value[k]), *interval(of_draws[:, k]), chance[name]) for k, name in enumerate(chance)
        }
        yield TruthRow(test, measure, layer, scores, len(groups), measure in tables.directed)


def _mean(values: NDArray, axis: int) -> NDArray:
    """Return the mean of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    n = known.sum(axis)
    return np.where(n > 0, np.where(known, values, 0).sum(axis) / np.maximum(n, 1), np.nan)
