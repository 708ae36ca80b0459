"""Sensitivity and specificity: cases worked out by hand, and scipy as oracle."""

import math

import numpy as np
import pytest
from scipy import stats

from src.measurements import FULL, Key, Probe, Series, Tables
from src.rank_statistics import (
    correlation,
    place,
    sensitivity,
    specificity,
    summary_of_correlations,
    summary_of_places,
)

CKA = Series("cka", "a.pt -- b.pt", ("a.pt", "b.pt"))


def probes(accuracies: dict[float, float], *, width: float = FULL) -> dict[float, Probe]:
    """Probes whose loss says their accuracy, and the same one for all ranks from the width on."""
    return {rank: Probe(accuracy, (accuracy if rank < width else -1.0,)) for rank, accuracy in accuracies.items()}


def only(rows):
    (row,) = rows
    return row


def test_correlations_by_hand():
    # One discordant pair of six: tau = (5 - 1) / 6; rho = 1 - 6 · 2 / (4 · 15).
    found = correlation([0.1, 0.2, 0.3, 0.4], [0.5, 0.7, 0.6, 0.9])
    assert found.n == 4 and found.note == ""
    assert found.kendall == pytest.approx(2 / 3) and found.spearman == pytest.approx(0.8)
    # Of 24 orders, 1 has no inversion and 3 have one; as many lie at the other end.
    assert found.kendall_p == pytest.approx(2 * (1 + 3) / 24)


def test_correlations_are_those_of_ranks():
    x, y = np.random.RandomState(0).rand(2, 14)
    found, stretched = correlation(x, y), correlation(np.exp(5 * x), y**3)
    assert found[1:5] == pytest.approx(stretched[1:5])
    reversed_ = correlation(-x, y)
    assert (reversed_.spearman, reversed_.kendall) == pytest.approx((-found.spearman, -found.kendall))
    assert (reversed_.spearman_p, reversed_.kendall_p) == pytest.approx((found.spearman_p, found.kendall_p))


def test_correlations_with_ties_equal_the_pearson_correlation_of_mean_ranks():
    x, y = [1, 2, 2, 3, 5, 5, 5], [0.1, 0.4, 0.3, 0.3, 0.8, 0.9, 0.9]
    r = np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1]
    t = r * math.sqrt(5 / (1 - r**2))  # follows Student's distribution with n - 2 degrees of freedom
    found = correlation(x, y)
    assert found.spearman == pytest.approx(r) and found.spearman_p == pytest.approx(2 * stats.t.sf(t, 5))
    pairs = [(i, j) for i in range(7) for j in range(i)]
    signs = np.array([(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in pairs])
    tau_b = signs.prod(1).sum() / math.sqrt(np.prod((signs**2).sum(0)))
    assert found.kendall == pytest.approx(tau_b)


@pytest.mark.parametrize(
    ("values", "accuracies", "n", "note"),
    [
        ([], [], 0, "fewer than 3 common ranks"),
        ([1, 2], [1, 2], 2, "fewer than 3 common ranks"),
        ([1, 1, 1], [1, 2, 3], 3, "the measure is constant"),
        ([1, 2, 3], [0.1, 0.1, 0.1], 3, "the accuracy is constant"),
        ([1, math.nan, 3], [1, 2, 3], 2, "ranks without a value: 1 of 3; fewer than 3 common ranks"),
    ],
)
def test_what_has_no_correlation_says_why(values, accuracies, n, note):
    found = correlation(values, accuracies)
    assert (found.n, found.note) == (n, note) and all(map(math.isnan, found[1:5]))


def test_ranks_without_a_value_are_left_out():
    found = correlation([1, 2, math.nan, 3], [1, 2, 0, 3])
    assert (found.n, found.spearman, found.kendall) == (3, pytest.approx(1), pytest.approx(1))
    assert found.note == "ranks without a value: 1 of 4"


def test_places():
    assert place({"a": 0.9, "b": 0.5, "c": 0.7}, "a") == (3, 1)
    assert place({"a": 0.9, "b": 0.5, "c": 0.7}, "b") == (3, 3)
    assert place({"a": 0.9, "b": 0.9, "c": 0.1}, "a") == (3, 2)  # ties count against it
    assert place({"a": 0.9, "b": math.nan, "c": 0.95}, "a") == (2, 2)
    n, found = place({"a": math.nan, "b": 1.0}, "a")
    assert n == 1 and math.isnan(found)


def test_sensitivity_of_either_side():
    first = {Key("x", "y", rank, FULL): value for rank, value in {1: 0.1, 2: 0.2, 4: 0.4, FULL: 0.3}.items()}
    second = {Key("x", "y", FULL, rank): value for rank, value in {1: 0.9, 2: 0.6, 4: 0.5}.items()}
    known = {
        ("a.pt", "x"): probes({1: 0.2, 2: 0.5, 4: 0.6, FULL: 0.9}),
        ("b.pt", "y"): probes({1: 0.2, 2: 0.5, 4: 0.6}),
    }
    one, two = sensitivity(Tables({CKA: first | second}, known))
    assert (one["varied"], one["n"], one["note"]) == ("layer1", 4, "")
    assert one["spearman"] == pytest.approx(0.8) and one["kendall"] == pytest.approx(2 / 3)
    assert (two["varied"], two["n"]) == ("layer2", 3)
    assert two["spearman"] == pytest.approx(-1) and two["kendall"] == pytest.approx(-1)
    assert (two["test"], two["measure"], two["layer1"], two["layer2"]) == ("sensitivity", "cka", "x", "y")


def test_where_full_rank_was_not_measured_the_highest_rank_counts():
    values = {Key("x", "y", rank1, rank2): rank1 * rank2 for rank1 in (1, 2, 4) for rank2 in (8, 16)}
    values[Key("x", "y", 1, 8)] = 100.0
    row, other = sensitivity(Tables({CKA: values}, {("a.pt", "x"): probes({1: 0.2, 2: 0.5, 4: 0.6})}))
    assert row["spearman"] == pytest.approx(1) and row["note"] == "y at rank 16"
    assert other["varied"] == "layer2" and other["note"] == "x at rank 4; no probes of y of b.pt"


def test_ranks_above_the_width_count_once():
    ranks = (1, 2, 4, 8, 16, FULL)
    values = {Key("x", "y", rank, FULL): min(rank, 4.0) for rank in ranks}
    known = probes({rank: [0.5, 0.2, 0.9, 0.9, 0.9, 0.9][i] for i, rank in enumerate(ranks)}, width=4)
    row = only(sensitivity(Tables({CKA: values}, {("a.pt", "x"): known})))
    assert row["n"] == 3 and row["note"] == "ranks above the width left out: 3"
    assert row["kendall"] == pytest.approx(1 / 3)


def test_probes_belong_to_the_network_that_was_cut():
    values = {Key("x", "y", rank, FULL): rank for rank in (1, 2, 4)}
    stitching = Series("stitching accuracy", "grid.csv: rc2c_pre, pinv", (None, None))
    three = probes({1: 0.2, 2: 0.5, 4: 0.6})

    def note(series, known) -> str:
        return only(sensitivity(Tables({series: values}, known)))["note"]

    assert note(CKA, {}) == "no probes of x of a.pt" and note(stitching, {}) == "no probes of x"
    assert note(CKA, {("b.pt", "x"): three}) == "no probes of x of a.pt"
    assert note(stitching, {("b.pt", "x"): three}) == ""
    several = {("b.pt", "x"): three, ("a.pt", "x"): three}
    assert note(stitching, several) == "probes of x of several networks; give those of the front network alone"
    assert note(CKA, several) == ""
    assert note(CKA, {("a.pt", "x"): probes({1: 0.2, 2: 0.5, 64: 0.9})}) == "fewer than 3 common ranks"


def test_specificity_by_hand():
    # Layer "a" is found in its row and in its column; "b" in its column only; "c" is known to the second network alone.
    matrix = {("a", "a"): 0.9, ("a", "b"): 0.2, ("a", "c"): 0.1, ("b", "a"): 0.3, ("b", "b"): 0.6, ("b", "c"): 0.7}
    values = {Key(*pair, FULL, FULL): value for pair, value in matrix.items()}
    values |= {Key("a", "b", 4, FULL): 5.0, Key("a", "b", FULL, 4): 5.0}  # truncated ones are another matter
    rows = list(specificity(Tables({CKA: values}, {})))
    assert [(row["layer1"], row["varied"], row["n"], row["place"]) for row in rows] == [
        ("a", "layer2", 3, 1),
        ("a", "layer1", 2, 1),
        ("b", "layer2", 3, 2),
        ("b", "layer1", 2, 1),
    ]
    assert (
        summary_of_places(rows) == "layer2: first in 1 of 2, mean place 1.50; layer1: first in 2 of 2, mean place 1.00"
    )


def test_specificity_says_where_alignments_differ():
    values = {Key(*pair, FULL, FULL): 0.5 for pair in [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]}
    alignments = {key: "positions" for key in values} | {Key("a", "b", FULL, FULL): "average pool"}
    rows = list(specificity(Tables({CKA: values}, {}, {CKA: alignments})))
    notes = {(row["layer1"], row["varied"]): row["note"] for row in rows}
    assert notes["a", "layer2"] == notes["b", "layer1"].replace("average pool, positions", "positions, average pool")
    assert notes["a", "layer2"] == "alignments differ: positions, average pool"
    assert notes["b", "layer2"] == notes["a", "layer1"] == ""


def test_a_single_pair_or_other_names_have_no_specificity():
    for pairs in ([("a", "a")], [("a", "b"), ("a", "c"), ("d", "b")]):
        values = {Key(*pair, FULL, FULL): 0.5 for pair in pairs}
        assert not list(specificity(Tables({CKA: values}, {})))


def test_a_missing_pair_has_no_place():
    values = {Key("a", "b", FULL, FULL): 0.5, Key("a", "c", FULL, FULL): 0.5, Key("b", "b", FULL, FULL): math.nan}
    values[Key("b", "c", FULL, FULL)] = 0.1
    rows = list(specificity(Tables({CKA: values}, {})))
    assert [(row["layer1"], row["varied"], row["n"]) for row in rows] == [("b", "layer2", 1), ("b", "layer1", 1)]
    assert all(math.isnan(row["place"]) and row["note"] == "its similarity has no value" for row in rows)
    assert summary_of_places(rows) == "no place is defined"


def test_summary_of_correlations():
    rows = [
        {"spearman": 1.0, "spearman_p": 0.01, "kendall": 0.5, "kendall_p": 0.2},
        {"spearman": 0.5, "spearman_p": 0.3, "kendall": 0.25, "kendall_p": 0.4},
        dict.fromkeys(["spearman", "spearman_p", "kendall", "kendall_p"], math.nan),
    ]
    said = "mean rho 0.7500 (p < 0.05 in 1 of 2), mean tau 0.3750 (p < 0.05 in 0 of 2)"
    assert summary_of_correlations(rows) == said
    assert summary_of_correlations(rows[2:]) == "no correlation is defined"
