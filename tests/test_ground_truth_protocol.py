"""The tests on planted measures: the truth, a random one, one that knows accuracies alone;
impostors; layers."""

import math
from dataclasses import astuple
from itertools import combinations, permutations

import numpy as np
import pytest

from src.figures.truth import table_of
from src.ground.errors import UserError
from src.ground_truth import chance_scores, layer_scores
from src.ground_truth.outputs import BASELINES
from src.ground_truth.scored_measures import PROBE
from src.ground_truth.truth_protocol import ALL_LAYERS, has_tests, score
from src.ground_truth.truth_tables import Tables, read_truths
from tests.commands import says

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


def test_too_few_networks_are_named_once_and_have_no_star():
    """Three and three have ten labelings; three clean ones have three pairs, and no correlation."""
    groups = [f"shortcut:{i}" for i in (0, 0, 0, 1, 1, 1)] + ["clean"] * 3
    tables, outputs = tables_of(groups)
    rows = score(tables, groups, outputs)
    assert {row.test for row in rows} == {"shortcut", "layers"}
    assert not any(row.is_above_chance for row in rows)
    of_groups = [row for row in rows if row.test == "shortcut"]
    assert {row.lowest_p for row in of_groups} == {0.1}
    assert min(row.p for row in of_groups) >= 0.1
    table, few, few_layers = table_of(rows).rsplit("\n", 2)
    assert says(
        few, "No star", "shortcut: 6 networks", "10 labelings", "below 0.10", "five or more"
    )
    assert says(few_layers, "layers: 3 networks", "no interval")
    assert says(table, "| truth |", "1.00") and "*" not in table.replace("* above", "")


def test_luck_of_few_permutations_gives_no_star():
    """Four and four have 35 labelings: more than 2.5 % of all score as well as the truth."""
    groups = [f"shortcut:{i}" for i in (0, 0, 0, 0, 1, 1, 1, 1)]
    tables, outputs = tables_of(groups)
    truth = [row for row in score(tables, groups, outputs) if row.measure == "truth"]
    assert {row.value for row in truth} == {1} and min(row.p for row in truth) >= 1 / 35


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


def test_the_order_of_a_list_does_not_matter():
    values = planted()
    first = impostor_rows(values)
    for order in list(permutations(range(8)))[5::9000]:
        moved = impostor_rows(values[np.ix_(order, order)], [PLANTED[i] for i in order])
        assert {key: row.value for key, row in moved.items()} == {
            key: row.value for key, row in first.items()
        }


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
