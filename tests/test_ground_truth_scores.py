"""Scores of measures, their intervals and p-values (scikit-learn and loops as oracles), and the tests on
planted measures: the truth, a random one, one that knows accuracies alone; impostors; layers."""

import itertools
import math
from dataclasses import astuple
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.stats import rankdata
from scipy.stats import t as student

from src.figures.truth import table_of
from src.ground.errors import UserError
from src.ground_truth import chance_scores, group_scores, layer_scores, output_correlation
from src.ground_truth.outputs import BASELINES
from src.ground_truth.scored_measures import PROBE
from src.ground_truth.scores import group_scores_of_pairs, rank_correlation
from src.ground_truth.truth_protocol import ALL_LAYERS, has_tests, score
from src.ground_truth.truth_tables import Tables, read_truths
from src.statistics.resampling import Estimate, estimate, lowest_p, n_groupings, permuted_p
from tests.commands import says

GROUPS = np.repeat(["none", "half", "most"], 5)


def random_matrix(n: int, seed: int = 0, *, n_values: int | None = None) -> np.ndarray:
    """Symmetric (n, n); with `n_values`, only so many different values, so that there are ties."""
    rng = np.random.default_rng(seed)
    upper = np.triu(
        rng.random((n, n)) if n_values is None else rng.integers(0, n_values, (n, n)).astype(float),
        1,
    )
    return upper + upper.T + np.diag(np.full(n, math.nan))  # the diagonal is not read


def pairs_of_each_group(groups):
    """For each group, the index pairs within it and across; by loops."""
    n = len(groups)
    for group in sorted(set(groups)):
        within = [(i, j) for i in range(n) for j in range(i) if groups[i] == groups[j] == group]
        yield (
            within,
            [(i, j) for i in range(n) for j in range(n) if groups[i] == group != groups[j]],
        )


# Groups


@pytest.mark.parametrize("n_values", [None, 40, 4, 1])
@pytest.mark.parametrize(
    "groups", [GROUPS, [0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2], [3, 1, 3, 1, 1]], ids=str
)
def test_group_scores_are_those_of_scikit_learn_and_of_loops(groups, n_values):
    average_precision_score = pytest.importorskip("sklearn.metrics").average_precision_score
    similarity = random_matrix(len(groups), seed=1, n_values=n_values)
    precisions, rates = [], []
    for within, across in pairs_of_each_group(groups):
        values = [similarity[pair] for pair in within + across]
        precisions.append(average_precision_score([1] * len(within) + [0] * len(across), values))
        rates.append(
            np.mean([similarity[near] > similarity[far] for near in within for far in across])
        )
    found = group_scores(similarity, groups)
    assert found == pytest.approx((np.mean(precisions), np.mean(rates)), abs=1e-12)


def test_chance_is_the_mean_over_all_orders():
    """Two groups of two: six pairs of networks, in all 720 orders."""
    groups = ["a", "a", "b", "b"]
    scores = []
    pairs = list(combinations(range(4), 2))
    for order in permutations(range(6)):
        similarity = np.zeros((4, 4))
        for (i, j), value in zip(pairs, order, strict=True):
            similarity[i, j] = similarity[j, i] = value
        scores.append(group_scores(similarity, groups))
    assert chance_scores(groups) == pytest.approx(np.mean(scores, axis=0), abs=1e-12)
    assert chance_scores(GROUPS) == pytest.approx(
        (0.2186, 0.5), abs=1e-4
    )  # more than the share of pairs within, 10/60


@pytest.mark.parametrize(
    ("groups", "spoil"),
    [([0, 0, 0, 0], None), ([0, 0, 0, 1], None), ([0, 1, 2, 3], None), ([0, 0, 1, 1], (0, 2))],
)
def test_group_scores_that_are_undefined(groups, spoil):
    """One group, a group of one network, and a pair without a value."""
    similarity = random_matrix(4)
    if spoil:
        similarity[spoil] = similarity[spoil[::-1]] = math.nan
    assert all(map(math.isnan, group_scores(similarity, groups)))
    assert spoil or all(map(math.isnan, chance_scores(groups)))


# Outputs


@pytest.mark.parametrize("n_values", [None, 5])
def test_correlation_is_pearsons_of_mean_ranks(n_values):
    similarity, difference = (
        random_matrix(9, 1, n_values=n_values),
        random_matrix(9, 2, n_values=n_values),
    )
    pairs = np.array(list(combinations(range(9), 2)))
    ranks = [rankdata(matrix[tuple(pairs.T)]) for matrix in (similarity, difference)]
    expected = np.corrcoef(*ranks)[0, 1]
    assert output_correlation(similarity, difference) == pytest.approx(expected, abs=1e-12)


def test_partial_correlation_is_that_of_residuals():
    """Of ranks, each less what a regression on the third says; 0 of a measure that is the third."""
    x, y, z = (pairs_of(random_matrix(9, seed)) for seed in range(3))
    x, y = x + z, y + z
    ranks = [rankdata(values) for values in (x, y, z)]
    one, two = (np.polyval(np.polyfit(ranks[2], each, 1), ranks[2]) - each for each in ranks[:2])
    assert rank_correlation(x, y, z) == pytest.approx(np.corrcoef(one, two)[0, 1], abs=1e-12)
    assert rank_correlation(-z, y, z) == 0 < abs(rank_correlation(-z, y))


def test_correlations_that_are_undefined(recwarn):
    similarity, flat = random_matrix(5), np.ones((5, 5))
    spoilt = similarity.copy()
    spoilt[0, 1] = spoilt[1, 0] = math.nan
    for pair in ((similarity, flat), (spoilt, similarity)):
        assert math.isnan(output_correlation(*pair))
    assert (
        math.isnan(output_correlation(similarity[:2, :2], similarity[:2, :2])) and not recwarn.list
    )


# Layers


@pytest.mark.parametrize("n_values", [None, 3])
@pytest.mark.parametrize("n", [3, 4, 8])
def test_layer_scores_are_those_of_loops(n, n_values):
    similarity = random_matrix(n, 5, n_values=n_values)
    right, total, depths, values = 0, 0, [], []
    for anchor in range(n):
        for near in range(n):
            for far in range(n):
                if anchor < near < far or anchor > near > far:  # on one side, and farther away
                    right += similarity[anchor, near] >= similarity[anchor, far]
                    total += 1
    for i, j in combinations(range(n), 2):
        depths.append(i - j)
        values.append(similarity[i, j])
    expected = (right / total, np.corrcoef(rankdata(depths), rankdata(values))[0, 1])
    assert layer_scores(similarity) == pytest.approx(expected, abs=1e-12)


def test_limits_of_layer_scores():
    conformity, spearman = layer_scores(
        np.ones((5, 5))
    )  # ties are right; a constant has no correlation
    assert conformity == 1 and math.isnan(spearman)
    spoilt = random_matrix(4)
    spoilt[0, 3] = spoilt[3, 0] = math.nan
    for matrix in (random_matrix(2), spoilt):
        assert all(map(math.isnan, layer_scores(matrix)))


# Errors


def test_what_is_refused():
    similarity = random_matrix(4)
    directed = similarity + np.triu(np.ones((4, 4)), 1)
    for call, message in (
        (
            lambda: group_scores(directed, [0, 0, 1, 1]),
            "average a directed measure over both directions",
        ),
        (lambda: output_correlation(similarity, directed), "not symmetric"),
        (lambda: layer_scores(similarity[:3]), "square"),
        (lambda: group_scores(similarity, [0, 0, 1]), r"\(3,\) groups for a matrix of 4 networks"),
        (
            lambda: output_correlation(similarity, random_matrix(3)),
            r"\(4, 4\) similarities and \(3, 3\) differences: give both of the same networks",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    rounded = similarity + 1e-7 * np.triu(np.ones((4, 4)))  # of float32
    assert group_scores(rounded, [0, 0, 1, 1]) == group_scores(similarity, [0, 0, 1, 1])


# Intervals and p-values


def pairs_of(matrix):
    return matrix[np.triu_indices(len(matrix), 1)]


def of_groups(matrix):
    first, second = (GROUPS[ends] for ends in np.triu_indices(len(GROUPS), 1))
    return lambda at, known: (
        group_scores_of_pairs(pairs_of(matrix)[at], first[known], second[known]).auprc
    )


def of_outputs(matrix, difference):
    return lambda at, known: -rank_correlation(pairs_of(matrix)[at], pairs_of(difference)[known])


def test_scores_without_each_network_are_those_of_smaller_matrices():
    matrix, other = (random_matrix(15, seed, n_values=40) for seed in range(2))
    found, rho = estimate(of_groups(matrix), GROUPS), estimate(of_outputs(matrix, other), GROUPS)
    assert found.value == group_scores(matrix, GROUPS).auprc and rho.value == -output_correlation(
        matrix, other
    )
    for i in range(15):
        left = np.delete(np.arange(15), i)
        small, small_other = (each[np.ix_(left, left)] for each in (matrix, other))
        assert found.without_network[i] == pytest.approx(
            group_scores(small, GROUPS[left]).auprc, abs=1e-12
        )
        assert rho.without_network[i] == pytest.approx(
            -output_correlation(small, small_other), abs=1e-12
        )
    lacking = [pair for pair in range(105) if pair != 7]
    expected = -rank_correlation(pairs_of(matrix)[lacking], pairs_of(other)[lacking])
    assert (
        rho.without_pair[7] == pytest.approx(expected, abs=1e-12) and len(rho.without_pair) == 105
    )


def test_the_interval_of_a_mean_over_networks_is_students():
    values, groups = np.array([3.0, 1, 4, 1, 5]), np.zeros(5)
    without = np.array([np.delete(values, i).mean() for i in range(5)])
    low, high = Estimate(values.mean(), without, np.zeros(1), groups).interval()
    assert (low, high) == pytest.approx(
        student.interval(0.95, 4, values.mean(), values.std(ddof=1) / 5**0.5)
    )
    assert all(
        map(math.isnan, Estimate(0.5, without[:3], np.zeros(1), groups[:3]).interval())
    )  # of few
    same = Estimate(values.mean(), without, np.zeros(1), groups)
    assert same.minus(same).interval() == (0, 0)


def test_p_values_are_shares_of_orders_of_networks():
    """By a loop; a constant measure scores as any."""
    rng, matrix, other = np.random.default_rng(0), random_matrix(10), random_matrix(10, 1)
    value, scores = -output_correlation(matrix, other), []
    for _ in range(2000):
        order = rng.permutation(10)
        scores.append(-output_correlation(matrix[np.ix_(order, order)], other))
    assert permuted_p(of_outputs(matrix, other), 10) == pytest.approx(
        np.mean(np.array(scores) >= value), abs=0.12
    )
    assert permuted_p(of_groups(np.ones((15, 15))), 15) == 1
    assert permuted_p(of_outputs(matrix, -matrix), 10) == 1 / 200


def test_networks_are_divided_into_groups_in_so_many_ways():
    """By listing all orders of the groups' names; names of groups of one size may change places."""
    for groups in ("aabb", "aaabbb", "aaabb", "aabbcc", "abcc"):
        divisions = set()
        for order in itertools.permutations(groups):
            members = {
                frozenset(i for i, group in enumerate(order) if group == name) for name in groups
            }
            divisions.add(frozenset(members))
        assert n_groupings(groups) == len(divisions), groups
    assert lowest_p(n_groupings("aaabbb")) == 0.1
    assert lowest_p(n_groupings("a" * 9 + "b" * 9)) == 1 / 200  # of 199 permutations


LAYERS = ["x1", "x2", "x3"]
NOISES = (
    ["label_noise:0 clean"] * 5 + ["clean"] * 3 + ["label_noise:0.5"] * 5 + ["label_noise:1"] * 5
)
PLANTED = ["clean"] * 4 + [
    "impostor:fresh",
    "impostor:one_hot",
    "similar:rotated",
    "similar:permuted",
]


def over_layers(matrix: np.ndarray, *, by_depth: float = 0.0) -> np.ndarray:
    """(N, N, L, L): the same at all layers, less by their distance."""
    steps = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
    return matrix[:, :, None, None] - by_depth * steps


def gaps(values) -> np.ndarray:
    return np.abs(np.subtract.outer(values, values))


def tables_of(groups) -> tuple[Tables, dict[str, np.ndarray]]:
    """Tables of these measures and of baselines; outputs differ by places on a line, accuracies by
    others."""
    rng, n = np.random.default_rng(2), len(groups)
    places, accuracies = rng.random(n), rng.random(n)
    names = [group.removesuffix(" clean") if ":" in group else "label_noise:0" for group in groups]
    same = np.equal.outer(names, names) * 2.0
    known = {
        "truth": over_layers(same - gaps(places), by_depth=9),
        "random": (lambda values: values + values.transpose(1, 0, 3, 2))(rng.random((n, n, 3, 3))),
        "accuracy alone": over_layers(-gaps(accuracies)),
    }
    baselines = {
        BASELINES[0]: known["accuracy alone"],
        BASELINES[1]: over_layers(-gaps(rng.random(n))),
    }
    outputs = {"accuracy": gaps(accuracies), "disagreement": gaps(places)}
    outputs["jensen_shannon"] = gaps(places) + 0.01 * gaps(accuracies)
    return Tables(LAYERS, known | baselines, frozenset({"random"})), outputs


@pytest.fixture(scope="module")
def rows():
    """The rows of all tests but that of impostors, by test, score, measure and layer."""
    tables, outputs = tables_of(NOISES)
    return {
        (row.test, row.score, row.measure, row.layer): row for row in score(tables, NOISES, outputs)
    }


def test_the_truth_scores_1_in_every_test(rows):
    tests = {(test, score) for test, score, measure, _ in rows if measure == "truth"}
    assert tests == {
        ("label_noise", "auprc"),
        ("label_noise", "conformity"),
        ("accuracy", "spearman"),
        ("disagreement", "partial"),
        ("disagreement", "spearman"),
        ("jensen_shannon", "partial"),
        ("jensen_shannon", "spearman"),
        ("layers", "spearman"),
        ("layers", "conformity"),
    }
    for (test, name, measure, layer), row in rows.items():
        if measure == "truth" and test != "accuracy":
            assert row.value == pytest.approx(1, abs=0.02), (test, name, layer)
            assert row.is_above_chance and row.low <= 1
            assert row.is_above_baselines or test == "layers"  # where ties are right
    assert {row.n_networks for (test, *_), row in rows.items() if test == "label_noise"} == {15}
    assert {row.n_networks for (test, *_), row in rows.items() if test == "disagreement"} == {8}
    assert {layer for test, _, _, layer in rows if test == "label_noise"} == {*LAYERS, ALL_LAYERS}


def test_a_random_measure_scores_chance(rows):
    own = {key: row for key, row in rows.items() if key[2] == "random"}
    assert rows["label_noise", "auprc", "random", None].chance == chance_scores([0, 1, 2] * 5).auprc
    for (test, *_), row in own.items():
        assert row.value == pytest.approx(row.chance, abs=0.3 if test == "label_noise" else 0.6)
        assert row.both_directions
    assert not any(row.is_above_baselines and row.is_above_chance for row in own.values())


def test_a_measure_of_accuracies_alone_is_the_baseline(rows):
    for (test, name, measure, layer), row in rows.items():
        if measure == "accuracy alone":
            assert (
                astuple(row)[4:11] == astuple(rows[test, name, BASELINES[0], layer])[4:11]
                and not row.is_above_baselines
            )
    assert rows["accuracy", "spearman", "accuracy alone", None].value == pytest.approx(1)
    assert rows["disagreement", "partial", "accuracy alone", None].value == 0
    assert rows["layers", "spearman", "accuracy alone", None].value == 0
    assert {row.measure for row in rows.values() if row.is_baseline} == set(BASELINES[:2])


def test_the_table_marks_what_beats_chance_and_the_baselines(rows):
    table = table_of(list(rows.values()))
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if "|" in line]
    cells = {measure: scores for measure, *scores in lines}
    place = cells["measure"].index("disagreement")
    assert {name for name, scores in cells.items() if scores[place].endswith("†")} == {"truth"}
    assert cells["chance"][cells["measure"].index("label_noise")] == "0.22"


def test_too_few_networks_have_no_star():
    """Three and three have ten labelings; three clean ones have three pairs, and no correlation."""
    groups = [f"shortcut:{i}" for i in (0, 0, 0, 1, 1, 1)] + ["clean"] * 3
    tables, outputs = tables_of(groups)
    rows = score(tables, groups, outputs)
    assert {row.test for row in rows} == {"shortcut", "layers"}
    assert not any(row.is_above_chance for row in rows)
    assert {(row.lowest_p, row.p >= 0.1) for row in rows if row.test == "shortcut"} == {(0.1, True)}
    assert says(table_of(rows), "No star", "shortcut: 6 networks", "10 labelings")


def test_groups_of_other_names_make_no_test():
    assert not has_tests(["cnn", "cnn", "mlp", ""])
    assert not has_tests(["shortcut:1", "shortcut:1", "impostor:one_hot"])
    assert has_tests(["shortcut:0", "shortcut:1"]) and has_tests(["cnn", "clean"])


def test_over_layers_counts_the_mean_of_ranks():
    """Layers of other scales count alike: the order of one layer is noise a thousand times as
    large."""
    groups = [f"label_noise:{g}" for g in "aabb"]
    tables, outputs = tables_of(groups)
    values = tables.values["truth"].copy()
    values[:, :, 0, 0] = 1000 * tables.values["random"][:, :, 0, 0]
    found = score(tables._replace(values={"mixed": values}), groups, outputs)
    rows = {row.layer: row.value for row in found if row.score == "conformity"}
    ranks = np.mean(
        [np.argsort(np.argsort(values[:, :, i, i][np.triu_indices(4, 1)])) for i in range(3)],
        axis=0,
    )
    within, across = ranks[[0, 5]], ranks[1:5]
    assert (
        rows[ALL_LAYERS] == pytest.approx(np.mean(np.greater.outer(within, across)))
        and rows["x2"] == 1
    )


def test_a_measure_that_lacks_a_pair_has_no_score_there():
    groups = [f"label_noise:{g}" for g in "aaabbb"]
    tables, outputs = tables_of(groups)
    spoilt = tables.values["truth"].copy()
    spoilt[0, 1, 2, 2] = math.nan
    rows = score(
        tables._replace(values={"truth": tables.values["truth"], "spoilt": spoilt}), groups, outputs
    )
    assert {row.layer for row in rows if row.measure == "spoilt"} == {"x1", "x2", ALL_LAYERS}
    nothing = {"spoilt": spoilt * math.nan, BASELINES[0]: tables.values[BASELINES[0]]}
    assert score(tables._replace(values=nothing), groups, outputs) == []


def test_layers_are_ordered_by_means_over_pairs_of_clean_networks():
    groups = ["clean"] * 5 + ["label_noise:1"] * 2
    values = np.random.default_rng(1).random((7, 7, 3, 3))
    _, outputs = tables_of(groups)
    (row,) = (
        row
        for row in score(Tables(LAYERS, {"x": values}, frozenset()), groups, outputs)
        if (row.test, row.score) == ("layers", "conformity")
    )
    sums = {
        (i, j): sum(values[a, b] + values[a, b].T for a, b in ((i, j), (j, i)))
        for i, j in combinations(range(5), 2)
    }
    assert row.value == pytest.approx(
        np.mean([layer_scores(each).conformity for each in sums.values()])
    )


# Impostors


def impostor_rows(values, groups=PLANTED) -> dict[tuple[str, str], float]:
    _, outputs = tables_of(groups)
    found = score(Tables(LAYERS, {"x": over_layers(values)}, frozenset({"x"})), groups, outputs)
    return {(row.score, row.layer): row for row in found if row.test == "impostors"}


def planted(clean=0.8, fresh=0.1, one_hot=0.9, copies=1.0) -> np.ndarray:
    """Rows are fronts; the last four are stitched into the clean networks alone."""
    values = np.full((8, 8), math.nan)
    values[:, :4] = np.repeat([clean, fresh, one_hot, copies, copies], [4, 1, 1, 1, 1])[:, None]
    np.fill_diagonal(values, math.nan)
    return values


def test_impostors_below_all_true_fronts():
    rows = impostor_rows(planted(one_hot=0.3))
    assert {name for name, _ in rows} == {"share", "fresh", "one_hot"}
    for row in rows.values():
        assert (row.value, row.chance, row.n_networks) == (1, 1 / 6, 4) and row.is_above_chance
        assert not row.both_directions
    rows = impostor_rows(planted())  # the label is as good as a true front
    assert [rows[name, None].value for name in ("share", "fresh", "one_hot")] == [0.5, 1, 0]
    assert impostor_rows(planted(one_hot=0.8))["one_hot", None].value == 0  # as good is not below
    rows = impostor_rows(planted(fresh=0.85, copies=0.05))  # a measure that does not see a copy
    assert rows["share", None].value == 0


def test_networks_that_were_not_stitched_into_are_no_ends_of_impostors():
    """`--ends` of two clean networks: the other two are fronts. All pairs have probes and CKA."""
    stitches = planted(one_hot=0.3)
    stitches[:, 2:4] = math.nan
    _, outputs = tables_of(PLANTED)
    values = {"x": over_layers(stitches), "cka": over_layers(-gaps(np.arange(8.0)))}
    values[PROBE] = values["cka"]
    found = score(Tables(LAYERS, values, frozenset({"x"})), PLANTED, outputs)
    rows = {
        (row.measure, row.layer): row
        for row in found
        if (row.test, row.score) == ("impostors", "share")
    }
    assert rows["x", None].value == 1 and rows["x", None].n_networks == 2
    for measure in ("cka", PROBE):
        assert rows[measure, None].n_networks == 2  # the same ends, so that scores can be compared
        alone = score(Tables(LAYERS, {measure: values[measure]}, frozenset()), PLANTED, outputs)
        assert {row.n_networks for row in alone if row.test == "impostors"} == {4}


def test_each_kind_counts_alike_however_many_impostors_there_are_of_it():
    groups = [*PLANTED, "impostor:one_hot", "impostor:one_hot"]
    values = np.full((10, 10), math.nan)
    values[:8, :8] = planted()
    values[8:, :4] = 0.9
    rows = impostor_rows(values, groups)
    assert [rows[name, None].value for name in ("share", "fresh", "one_hot")] == [0.5, 1, 0]
    values[8:, :4] = 0.3  # now two of three labels are below
    assert impostor_rows(values, groups)["share", None].value == pytest.approx((1 + 2 / 3) / 2)


def test_the_share_is_a_mean_over_end_networks():
    values = planted(one_hot=0.3)
    values[5, 0] = 0.9  # fools one of four
    row = impostor_rows(values)["share", "x1"]
    assert row.value == pytest.approx(7 / 8) and row.low < 7 / 8 < row.high <= 1
    values[2, 3] = 0.05  # a true front that looks worse than all impostors of one end network
    assert impostor_rows(values)["share", "x1"].value == pytest.approx(5 / 8)
    values[:, 3] = math.nan  # nothing was stitched into that one
    assert impostor_rows(values)["share", "x1"].n_networks == 3


def test_truths_of_a_file_score_by_rank_correlation(tmp_path, rng):
    names = list("abcdef")
    path = tmp_path / "truths.csv"
    lines = ["front,end,shared"]
    for front in names:
        lines += [f"{front},{end},{rng.random()}" for end in names]
    path.write_text("\n".join(lines))
    truths = read_truths(path, names, range(6))
    groups = ["clean"] * 6
    tables, outputs = tables_of(groups)
    tables = tables._replace(
        values={"shared": np.broadcast_to(-truths["shared"][..., None, None], (6, 6, 3, 3))}
    )
    rows = [row for row in score(tables, groups, outputs | truths) if row.test == "shared"]
    assert {(row.score, row.layer) for row in rows} == {
        ("spearman", layer) for layer in (*tables.layers, None)
    }
    assert all(row.value == pytest.approx(1) and row.is_main for row in rows)
    path.write_text("\n".join(lines[:-2]))
    with pytest.raises(UserError, match="lacks a pair"):
        read_truths(path, names, range(6))
