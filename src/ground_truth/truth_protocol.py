"""The tests of measures: do similarities agree with the known differences of networks?

The column `group` of a list of networks has words with blanks between them:

* `label_noise:0.5` (an intervention and its strength): a measure should tell pairs of networks of
  one strength from pairs of different strengths.
* `clean`: networks of one experiment with different seeds. A measure should agree with the
  differences of their outputs, and with the depth of their layers.
* `impostor:KIND`: front networks that cannot show the image, planted against the clean networks. A
  measure should put them below all true fronts.
* `similar:KIND`: copies of clean networks, which count as true fronts.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
import scipy  # loads a part of it at its first use
from numpy.typing import NDArray

from src.ground_truth.outputs import BASELINES
from src.ground_truth.scored_measures import PROBE
from src.ground_truth.scores import (
    chance_scores,
    group_scores_of_pairs,
    layer_scores,
    rank_correlation,
)
from src.ground_truth.truth_tables import Tables
from src.results.truth_rows import TruthRow
from src.statistics.resampling import (
    LEVEL,
    MIN_NETWORKS,
    Estimate,
    estimate,
    lowest_p,
    n_groupings,
    permuted_p,
)

IMPOSTORS = "impostors"  # the test of impostors
OF_ANSWERS = ("disagreement", "jensen_shannon")  # differences that accuracies explain in part
ALPHA = (1 - LEVEL) / 2  # a score above chance has a p-value of at most this
ALL_LAYERS = None  # the layer of scores by the mean of ranks over layers

# Words of groups
CLEAN = "clean"
IMPOSTOR = "impostor"
COPY = "similar"

Words = Mapping[str, str]  # of a network: strengths of interventions, kinds of impostors


class Scored(NamedTuple):
    """A score of a measure in a test at a layer."""

    test: str
    score: str
    layer: str | None
    chance: float
    estimate: Estimate
    p: float | None = None  # None: networks cannot be permuted
    lowest_p: float | None = None


def score(tables: Tables, groups: Sequence[str], outputs: Mapping[str, NDArray]) -> list[TruthRow]:
    """Score all measures of the tables in all tests that the networks allow.

    The names of tests on test images with dots end in `_dots`.

    Args:
        tables: of N networks; they include the baselines.
        groups: (N,), the column of the list of networks.
        outputs: (N, N) by name, from `outputs.differences`; and further differences that a measure should
            go with, from `read_truths`.
    """
    words = [_words_of(group) for group in groups]
    clean = np.array(clean_networks(groups), dtype=int)
    pair_tests = [*_tests_of_groups(words), *_tests_of_outputs(outputs, clean)]

    tests: list[Callable[[Tables, str], Iterator[Scored]]] = []
    tests += [partial(_scores_of_pairs, test=test) for test in pair_tests]
    tests.append(partial(_scores_of_layers, members=clean))
    tests.append(partial(_scores_of_impostors, words=words))
    rows: list[TruthRow] = []
    for test in tests:
        scores = {measure: list(test(tables, measure)) for measure in tables.values}
        rows += _rows(tables, scores)
    if tables.shortcut is None:
        return rows
    return [replace(row, test=f"{row.test}_dots") for row in rows]


def clean_networks(groups: Sequence[str]) -> list[int]:
    """Return the places of the clean networks. Different layers of these are compared as well."""
    return [place for place, group in enumerate(groups) if CLEAN in _words_of(group)]


def has_tests(groups: Sequence[str]) -> bool:
    """Return whether groups have the names of a test: clean, or two strengths of an intervention."""
    words = [_words_of(group) for group in groups]
    return bool(clean_networks(groups)) or any(True for _ in _tests_of_groups(words))


def _words_of(group: str) -> Words:
    """Split the group of a network into words with their values, such as label_noise: 0.5."""
    words = {}
    for word in group.split():
        name, _, value = word.partition(":")
        words[name] = value
    return words


# Tests of the similarities of all pairs of some networks


class PairTest(NamedTuple):
    """A test of the similarities of all P pairs of n networks at a layer."""

    name: str
    score: str
    chance: float
    members: NDArray  # (n,): numbers of the networks in the list
    groups: NDArray  # (n,): networks of a group were made alike
    n_labelings: int  # the number of orders of networks that can score differently
    # (similarities (P,), places of measures, places of truths) -> scores; see `ScoreOfPairs`
    of: Callable[[NDArray, NDArray, NDArray], NDArray]


def _tests_of_groups(words: Sequence[Words]) -> Iterator[PairTest]:
    """Yield the tests of each intervention with at least two strengths."""
    interventions = dict.fromkeys(name for names in words for name in names)
    for intervention in interventions:
        if intervention in (CLEAN, IMPOSTOR, COPY):
            continue
        members = np.array([i for i, names in enumerate(words) if intervention in names])
        strengths = np.array([words[i][intervention] for i in members])
        if len(np.unique(strengths)) < 2:
            continue
        n_labelings = n_groupings(strengths.tolist())
        first, second = np.triu_indices(len(members), 1)
        for name, chance in chance_scores(strengths)._asdict().items():
            of = partial(_group_score, first=strengths[first], second=strengths[second], name=name)
            yield PairTest(intervention, name, chance, members, strengths, n_labelings, of)


def _group_score(
    similarities: NDArray,
    measured: NDArray,
    truth: NDArray,
    *,
    first: NDArray,
    second: NDArray,
    name: str,
) -> NDArray:
    """Return a field (...) of the `GroupScores` of similarities (P,) at places of pairs (..., P)."""
    scores = group_scores_of_pairs(similarities[measured], first[truth], second[truth])
    return getattr(scores, name)


def _tests_of_outputs(outputs: Mapping[str, NDArray], members: NDArray) -> Iterator[PairTest]:
    """Yield the tests of clean networks, `members` (n,), against the differences of their outputs."""
    if len(members) < MIN_NETWORKS:  # three networks have three pairs, too few for a correlation
        return
    n_labelings = math.factorial(len(members))
    pairs = _pairs_of(members)
    groups = np.zeros(len(members))
    accuracy = outputs["accuracy"][pairs]
    for name, matrix in outputs.items():
        of = partial(_output_score, difference=matrix[pairs], control=None)
        yield PairTest(name, "spearman", 0.0, members, groups, n_labelings, of)
        if name in OF_ANSWERS:
            of = partial(_output_score, difference=matrix[pairs], control=accuracy)
            yield PairTest(name, "partial", 0.0, members, groups, n_labelings, of)


def _output_score(
    similarities: NDArray,
    measured: NDArray,
    truth: NDArray,
    *,
    difference: NDArray,
    control: NDArray | None,
) -> NDArray:
    """Return the negative (partial) correlation (...) of similarities with differences, both (P,)."""
    if control is not None:
        control = control[truth]
    return -rank_correlation(similarities[measured], difference[truth], control)


def _pairs_of(members: NDArray) -> tuple[NDArray, NDArray]:
    """Return both members of all pairs of n networks, (P,) and (P,), P = n (n − 1) / 2."""
    first, second = np.triu_indices(len(members), 1)
    return members[first], members[second]


def _scores_of_pairs(tables: Tables, measure: str, test: PairTest) -> Iterator[Scored]:
    """Yield the scores of a measure in a test of pairs, by layer."""
    pairs = _pairs_of(test.members)
    lowest = lowest_p(test.n_labelings)
    values_of_layers = {layer: tables.at_layer(measure, layer)[pairs] for layer in tables.layers}
    for layer, similarities in _with_mean_ranks(values_of_layers):
        of = partial(test.of, similarities)
        # A sample of few labelings may have the observed one less often than all labelings have it
        p = float(np.maximum(permuted_p(of, len(test.members)), lowest))
        of_layer = estimate(of, test.groups)
        yield Scored(test.name, test.score, layer, test.chance, of_layer, p, lowest)


def _with_mean_ranks(
    values_of_layers: Mapping[str, NDArray],
) -> Iterator[tuple[str | None, NDArray]]:
    """Yield the similarities (P,) of each layer without NaN, and last, as ALL_LAYERS, their mean ranks."""
    ranks = []
    for layer, values in values_of_layers.items():
        if values.size > 1 and not np.isnan(values).any():
            ranks.append(scipy.stats.rankdata(values))
            yield layer, values
    if ranks:
        yield ALL_LAYERS, np.mean(ranks, axis=0)


# The test of layers


def _scores_of_layers(tables: Tables, measure: str, members: NDArray) -> Iterator[Scored]:
    """Yield how well a measure orders the layers of two clean networks, means over pairs."""
    pairs = _pairs_of(members)
    layers = []
    for layer in tables.layers:
        if not np.isnan(tables.at_layer(measure, layer)[pairs]).any():
            layers.append(layer)
    if len(members) < 2 or len(layers) < 3:
        return
    conformities = []
    correlations = []
    for first, second in combinations(members, 2):
        scores = layer_scores(tables.of_layers(measure, first, second, layers))
        correlation = scores.spearman
        if np.isnan(correlation) and not np.isnan(scores.conformity):
            correlation = 0.0  # a measure that is equal for all layers orders nothing
        conformities.append(scores.conformity)
        correlations.append(correlation)

    groups = np.zeros(len(members))
    spearman = estimate(partial(_mean_over_pairs, np.array(correlations)), groups)
    yield Scored("layers", "spearman", ALL_LAYERS, 0.0, spearman)
    conformity = estimate(partial(_mean_over_pairs, np.array(conformities)), groups)
    yield Scored("layers", "conformity", ALL_LAYERS, 0.5, conformity)


def _mean_over_pairs(values: NDArray, measured: NDArray, truth: NDArray) -> NDArray:
    """Return the mean (...) of the values (P,) at places (..., P)."""
    return values[measured].mean(-1)


# The test of impostors


def _scores_of_impostors(tables: Tables, measure: str, words: Sequence[Words]) -> Iterator[Scored]:
    """Yield the share of impostors that a measure puts below all true fronts, a mean over end networks."""
    # All kinds of impostors weigh the same, whatever their numbers. True fronts of a clean end network
    # are all clean networks but itself, and the planted copies
    impostors = [i for i, names in enumerate(words) if IMPOSTOR in names]
    kinds = np.array([words[i][IMPOSTOR] for i in impostors])
    copies = [i for i, names in enumerate(words) if COPY in names]
    ends = _ends_of_impostors(tables, impostors, words)
    if len(ends) < 2:
        return
    fronts = np.array([*impostors, *copies, *ends])
    n_true = len(copies) + len(ends) - 1
    is_pair = fronts[:, None] != np.array(ends)  # a network is no front of its own

    values_of_layers = {}
    for name in tables.layers:
        similarities = tables.into(measure, name)[np.ix_(fronts, np.array(ends))]
        values_of_layers[name] = similarities[is_pair]
    for layer, values in _with_mean_ranks(values_of_layers):
        similarity = np.full(is_pair.shape, np.inf)
        similarity[is_pair] = values
        least_of_true = similarity[len(impostors) :].min(0)  # (ends,)
        is_below = similarity[: len(impostors)] < least_of_true  # (impostors, ends)
        shares = {}  # (ends,), by kind
        for kind in dict.fromkeys(kinds.tolist()):
            shares[kind] = is_below[kinds == kind].mean(0)
        mean_share = np.mean(list(shares.values()), axis=0)
        for name, share in {"share": mean_share, **shares}.items():
            chance = 1 / (n_true + 1)
            yield Scored(IMPOSTORS, name, layer, chance, _estimate_over_networks(share))


def _ends_of_impostors(
    tables: Tables, impostors: Sequence[int], words: Sequence[Words]
) -> list[int]:
    """Return the clean networks that impostors were stitched into, or else compared with."""
    if not impostors:
        return []
    # Baselines and probes have values of all pairs, whatever was stitched
    stitched = tables.values.keys() & tables.directed
    compared = tables.values.keys() - {*BASELINES, PROBE.name}
    first = impostors[0]
    measures = stitched or compared or {PROBE.name}
    values = np.array([tables.values[name][first] for name in measures])
    has_values = np.isfinite(values).any((0, 2, 3))  # (N,)
    return [i for i, names in enumerate(words) if CLEAN in names and has_values[i]]


def _estimate_over_networks(values: NDArray) -> Estimate:
    """Return the mean of values (n,) of single networks, with its jackknife over networks."""
    means = [np.delete(values, i).mean() for i in range(len(values))]
    without_network = np.array(means)
    return Estimate(
        value=float(values.mean()),
        without_network=without_network,
        without_pair=np.zeros(1),
        groups=np.zeros(len(values)),
    )


# Rows


def _rows(tables: Tables, scores: Mapping[str, Sequence[Scored]]) -> Iterator[TruthRow]:
    """Yield the rows of a test from scores by measure; none if only baselines have scores."""
    if not any(scores[measure] for measure in scores if measure not in BASELINES):
        return
    best = _best_baselines(scores)
    for measure, scores_of_measure in scores.items():
        for scored in scores_of_measure:
            interval = scored.estimate.interval()
            if scored.p is None:
                is_above_chance = interval.low > scored.chance
            else:
                is_above_chance = scored.p <= ALPHA
            is_above_baselines = False
            baseline = best.get((scored.test, scored.score, scored.layer))
            if baseline is not None:
                is_above_baselines = scored.estimate.minus(baseline).interval().low > 0
            low, high = np.clip(interval, -1, 1).tolist()
            yield TruthRow(
                test=scored.test,
                score=scored.score,
                measure=measure,
                layer=scored.layer,
                value=scored.estimate.value,
                low=low,
                high=high,
                chance=scored.chance,
                p=scored.p,
                is_above_chance=bool(is_above_chance),
                is_above_baselines=bool(is_above_baselines),
                is_baseline=measure in BASELINES,
                n_networks=len(scored.estimate.groups),
                both_directions=measure in tables.directed and scored.test != IMPOSTORS,
                lowest_p=scored.lowest_p,
                family=tables.families.get(measure, measure),
            )


def _best_baselines(
    scores: Mapping[str, Sequence[Scored]],
) -> dict[tuple[str, str, str | None], Estimate]:
    """Return the best baseline by test, score and layer; one without a score is none."""
    best: dict[tuple[str, str, str | None], Estimate] = {}
    for measure in BASELINES:
        for scored in scores.get(measure, ()):
            key = (scored.test, scored.score, scored.layer)
            if math.isnan(scored.estimate.value):
                continue
            if key not in best or scored.estimate.value > best[key].value:
                best[key] = scored.estimate
    return best
