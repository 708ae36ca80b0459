"""The tests: a test takes the similarities of all pairs of networks at a layer and gives scores
with intervals.

The column `group` of a list of networks names the groups of each, with blanks between them:

* `label_noise:0.5`: a test, which tells the networks of one strength from those of others, and the strength;
* `clean`: seeds of one experiment, for the tests of outputs and of layers;
* `impostor:KIND`, `similar:KIND`: front networks that are planted against the clean ones (see `impostors`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from src.ground_truth.outputs import BASELINES
from src.ground_truth.resampling import LEVEL, Estimate, estimate, permuted_p
from src.ground_truth.scores import (
    chance_scores,
    group_scores_of_pairs,
    layer_scores,
    rank_correlation,
)
from src.ground_truth.tables import Tables
from src.ground_truth.truth_rows import TruthRow

ALL_LAYERS = ""  # by the mean of ranks over layers
CLEAN, IMPOSTOR, COPY = "clean", "impostor", "similar"


class Scored(NamedTuple):
    """A measure in a test at a layer."""

    test: str
    score: str
    layer: str
    chance: float
    estimate: Estimate
    p: float | None = None  # None: networks cannot be permuted


def score(tables: Tables, groups: Sequence[str], outputs: Mapping[str, NDArray]) -> list[TruthRow]:
    """Score all measures of the tables, baselines among them, in all tests that the networks allow.

    Args:
        groups: (N,), as in the list of networks.
        outputs: from `outputs.differences`.
    """
    named = [
        dict(name.partition(":")[::2] for name in group.split()) for group in groups
    ]  # strengths, or kinds
    clean = np.array([i for i, names in enumerate(named) if CLEAN in names], dtype=int)
    of_pairs = [*_tests_of_groups(named), *_tests_of_outputs(outputs, clean)]
    tests = [partial(_of_pairs, test=test) for test in of_pairs]
    tests += [partial(_of_layers, members=clean), partial(_of_impostors, named=named)]
    rows = []
    for test in tests:
        rows += _rows(tables, {measure: list(test(tables, measure)) for measure in tables.values})
    return rows


class Test(NamedTuple):
    """A test of the similarities of all pairs of some networks at a layer."""

    name: str
    score: str
    chance: float
    members: NDArray  # the networks (indices)
    groups: NDArray  # of these: which were made alike
    of: Callable[
        [NDArray, NDArray, NDArray], NDArray
    ]  # of similarities (P,), then as `ScoreOfPairs`


def _tests_of_groups(named: Sequence[Mapping[str, str]]) -> Iterator[Test]:
    """Yield the test of each intervention that has two groups or more."""
    for test in dict.fromkeys(
        test for names in named for test in names if test not in (CLEAN, IMPOSTOR, COPY)
    ):
        strengths = {i: names[test] for i, names in enumerate(named) if test in names}
        members, groups = np.array(list(strengths)), np.array(list(strengths.values()))
        first, second = (groups[ends] for ends in np.triu_indices(len(groups), 1))

        def of(values, at, known, name, first=first, second=second):
            return getattr(group_scores_of_pairs(values[at], first[known], second[known]), name)

        if len(np.unique(groups)) > 1:
            for name, chance in chance_scores(groups)._asdict().items():
                yield Test(test, name, chance, members, groups, partial(of, name=name))


def _tests_of_outputs(outputs: Mapping[str, NDArray], members: NDArray) -> Iterator[Test]:
    """Yield the tests of clean networks: does a measure go with the differences of their
    outputs?"""
    pairs = tuple(members[np.array(np.triu_indices(len(members), 1))])

    def of(values, at, known, difference, given=None):
        return -rank_correlation(
            values[at], difference[known], None if given is None else given[known]
        )

    for name, difference in outputs.items():
        for score, given in {"spearman": None, "partial": outputs["accuracy"][pairs]}.items():
            if name != "accuracy" or given is None:
                of_score = partial(of, difference=difference[pairs], given=given)
                yield Test(name, score, 0.0, members, np.zeros(len(members)), of_score)


def _of_pairs(tables: Tables, measure: str, test: Test) -> Iterator[Scored]:
    """Yield the scores of a measure in a test of pairs of networks."""
    pairs = tuple(test.members[np.array(np.triu_indices(len(test.members), 1))])
    for layer, values in _at_layers(tables, lambda layer: tables.at_layer(measure, layer)[pairs]):
        of = partial(test.of, values)
        p = permuted_p(of, len(test.members))
        yield Scored(test.name, test.score, layer, test.chance, estimate(of, test.groups), p)


def _at_layers(
    tables: Tables, values_at: Callable[[str], NDArray]
) -> Iterator[tuple[str, NDArray]]:
    """Yield the similarities of pairs at each layer that has all of them, and their mean ranks over
    these layers."""
    found = {layer: values_at(layer) for layer in tables.layers}
    found = {
        layer: values
        for layer, values in found.items()
        if values.size > 1 and not np.isnan(values).any()
    }
    yield from found.items()
    if found:
        yield (
            ALL_LAYERS,
            np.mean([rankdata(values).reshape(values.shape) for values in found.values()], axis=0),
        )


def _of_layers(tables: Tables, measure: str, members: NDArray) -> Iterator[Scored]:
    """Yield how well a measure orders the layers of two clean networks, means over pairs.

    Where it is the same for all layers, which are ties, its rank correlation counts as 0: it orders
    nothing."""
    pairs = list(zip(*members[np.array(np.triu_indices(len(members), 1))], strict=True))
    complete = {
        layer: tables.at_layer(measure, layer)[tuple(np.transpose(pairs))]
        for layer in tables.layers
        if pairs
    }
    layers = [layer for layer, values in complete.items() if not np.isnan(values).any()]
    if len(layers) < 3:
        return
    of_pairs = np.array(
        [layer_scores(tables.of_layers(measure, i, j, layers)) for i, j in pairs]
    )  # (pairs, 2)
    of_pairs[:, 1] = np.where(np.isnan(of_pairs[:, 0]), np.nan, np.nan_to_num(of_pairs[:, 1]))
    for name, chance, values in (
        ("spearman", 0.0, of_pairs[:, 1]),
        ("conformity", 0.5, of_pairs[:, 0]),
    ):
        found = estimate(lambda at, _, values=values: values[at].mean(-1), np.zeros(len(members)))
        yield Scored("layers", name, ALL_LAYERS, chance, found)


def _of_impostors(
    tables: Tables, measure: str, named: Sequence[Mapping[str, str]]
) -> Iterator[Scored]:
    """Yield the share of impostors that a measure puts below all true fronts of an end network,
    means over these.

    Each kind of impostor counts alike, however many there are of it. True are all other end
    networks, which are clean, and the planted copies. Intervals are over end networks."""
    kinds = {i: names[IMPOSTOR] for i, names in enumerate(named) if IMPOSTOR in names}
    impostors, copies = list(kinds), [i for i, names in enumerate(named) if COPY in names]
    measured = [values for name, values in tables.values.items() if name not in BASELINES]
    has_pair = np.any([np.isfinite(values).any((2, 3)) for values in measured], axis=0)  # (N, N)
    ends = [
        i
        for i, names in enumerate(named)
        if CLEAN in names and impostors and has_pair[impostors[0], i]
    ]
    if len(ends) < 2:
        return
    fronts = np.array([*impostors, *copies, *ends])
    n, n_true, are_two = len(impostors), len(copies) + len(ends) - 1, fronts[:, None] != ends

    def values_at(layer: str) -> NDArray:
        return tables.into(measure, layer)[np.ix_(fronts, ends)][are_two]

    for layer, values in _at_layers(tables, values_at):
        similarity = np.full(are_two.shape, np.inf)  # a network itself is no front of its own
        similarity[are_two] = values
        is_below = similarity[:n] < similarity[n:].min(0)  # (impostors, ends)
        shares = {}
        for kind in dict.fromkeys(kinds.values()):
            shares[kind] = is_below[[kinds[i] == kind for i in impostors]].mean(0)  # (ends,)
        for name, of_ends in {"share": np.mean(list(shares.values()), axis=0), **shares}.items():
            without_each = np.array([np.delete(of_ends, end).mean() for end in range(len(ends))])
            found = Estimate(float(of_ends.mean()), without_each, np.zeros(1), np.zeros(len(ends)))
            yield Scored("impostors", name, layer, 1 / (n_true + 1), found)


def _rows(tables: Tables, scored: Mapping[str, Sequence[Scored]]) -> Iterator[TruthRow]:
    """Yield the rows of a test, if any measure but the baselines has a score there."""
    if not any(each for measure, each in scored.items() if measure not in BASELINES):
        return
    best: dict[tuple, Estimate] = {}
    for each in (each for measure in BASELINES for each in scored.get(measure, ())):
        key = each.test, each.score, each.layer
        if key not in best or np.nan_to_num(each.estimate.value, nan=-np.inf) > best[key].value:
            best[key] = each.estimate
    for measure, of_measure in scored.items():
        for each in of_measure:
            baseline = best.get((each.test, each.score, each.layer))
            is_above = baseline is not None and each.estimate.minus(baseline).interval().low > 0
            interval = each.estimate.interval()
            is_above_chance = (
                interval.low > each.chance if each.p is None else each.p <= (1 - LEVEL) / 2
            )
            low, high = np.clip(interval, -1, 1).tolist()
            yield TruthRow(
                each.test, each.score, measure, each.layer, each.estimate.value, low, high, each.chance, each.p,
                bool(is_above_chance), bool(is_above), measure in BASELINES, len(each.estimate.groups),
                measure in tables.directed and each.test != "impostors",
            )  # fmt: skip
