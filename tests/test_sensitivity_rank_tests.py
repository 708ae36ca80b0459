"""Sensitivity and specificity: cases worked out by hand, and scipy as oracle."""

import math
from types import SimpleNamespace

import pytest
from scipy import stats

from src.results import rank_tests
from src.results.measurements import SIMILARITY, Measurement, NetworkLayer
from src.results.named_networks import NamedNetwork
from src.results.probe_rows import ProbeRow
from src.results.rank_measurements import FULL, Measurements
from src.results.rank_tests import BASELINE, correlation, summary_of_places
from tests.commands import says
from tests.result_rows import probe_row

X, Y = (
    NetworkLayer(NamedNetwork(f"{name}.pt", "resnet18", name), layer)
    for name, layer in ("ax", "by")
)
CKA = Measurement(SIMILARITY, "cka", X, Y, 0.5, setting="a.pt -- b.pt", dataset="digits")
FEW = "fewer than 10 ranks: no p-values"


def moved(of: Measurement, layers: tuple[str, str], ranks=(FULL, FULL), **values) -> Measurement:
    """A value at other layers and ranks."""
    front, end = (
        side._replace(layer=layer, rank=None if rank == FULL else rank)
        for side, layer, rank in zip((of.front, of.end), layers, ranks, strict=True)
    )
    return of._replace(front=front, end=end, **values)


def at(
    layers: tuple[str, str], values: dict[tuple[float, float], float], of: Measurement = CKA
) -> list[Measurement]:
    """Values at two layers, by their ranks."""
    return [moved(of, layers, ranks, value=value) for ranks, value in values.items()]


def at_full_rank(values: dict[tuple[str, str], float]) -> list[Measurement]:
    """Values by layers."""
    return [moved(CKA, layers, value=value) for layers, value in values.items()]


def over_first(values: dict[float, float], of: Measurement = CKA) -> list[Measurement]:
    """Values of x and y by the rank of x."""
    return at(("x", "y"), {(rank, FULL): value for rank, value in values.items()}, of)


def probes(accuracies: dict[float, float], *, width: float = FULL, **values) -> list[ProbeRow]:
    """Probes whose loss says their accuracy, and the same one for all ranks from the width on."""
    return [
        probe_row(
            rank=None if rank == FULL else rank,
            accuracy=accuracy,
            loss=accuracy if rank < width else -1.0,
            **values,
        )
        for rank, accuracy in accuracies.items()
    ]


def tables(
    values: list[Measurement], known: dict[tuple[str, str], list[ProbeRow]] | None = None
) -> Measurements:
    """Tables of these values and, by network and layer, probes."""
    curves: dict[tuple[str, str, str], dict[float, ProbeRow]] = {}
    for (network, layer), rows in (known or {}).items():
        for row in rows:
            curves.setdefault((network, layer, row.dataset), {})[
                FULL if row.rank is None else row.rank
            ] = row
    return Measurements(values, curves)


def of_measures(rows) -> list[SimpleNamespace]:
    """The tests of measures, without those of the baseline."""
    return [row for row in rows if row.measure != BASELINE]


def only(rows):
    (row,) = of_measures(rows)
    return row


def sensitivity(measured: Measurements) -> list[SimpleNamespace]:
    return [SimpleNamespace(**record) for record in rank_tests.sensitivity(measured)]


def specificity(measured: Measurements) -> list[SimpleNamespace]:
    return [SimpleNamespace(**record) for record in rank_tests.specificity(measured)]


def test_correlations_and_p_values_by_hand():
    # One discordant pair of six: tau = (5 - 1) / 6; rho = 1 - 6 · 2 / (4 · 15).
    found = correlation([0.1, 0.2, 0.3, 0.4], [0.5, 0.7, 0.6, 0.9])
    assert (found.n, found.note, found.kendall_p) == (4, FEW, None)
    assert found.kendall == pytest.approx(2 / 3) and found.spearman == pytest.approx(0.8)
    # One discordant pair. Of 10! orders, 1 has no inversion and 9 have one; as many lie at the
    # other end.
    found = correlation(range(10), [1, 0, 2, 3, 4, 5, 6, 7, 8, 9])
    assert found.kendall_p == pytest.approx(2 * (1 + 9) / math.factorial(10)) and found.note == ""
    rho = 1 - 6 * 2 / (10 * 99)
    assert found.spearman == pytest.approx(rho)
    assert found.spearman_p == pytest.approx(2 * stats.t.sf(rho * math.sqrt(8 / (1 - rho**2)), 8))


def test_what_has_no_correlation_says_why():
    for values, accuracies, n, note in (
        ([], [], 0, "fewer than 3 common ranks"),
        ([1, 2, 3], [0.1, 0.1, 0.1], 3, "the accuracy is constant"),
        (
            [1, math.nan, 3],
            [1, 2, 3],
            2,
            "ranks without a value: 1 of 3; fewer than 3 common ranks",
        ),
        (
            [math.nan, 1, 1, 1],
            [0, 1, 2, 3],
            3,
            "ranks without a value: 1 of 4; the measure is constant",
        ),
    ):
        found = correlation(values, accuracies)
        assert (found.n, found.note) == (n, note)
        assert (
            math.isnan(found.spearman)
            and math.isnan(found.kendall)
            and found.spearman_p is found.kendall_p is None
        )


def test_sensitivity_of_either_side():
    first = over_first({1: 0.1, 2: 0.2, 4: 0.4, FULL: 0.3})
    second = at(("x", "y"), {(FULL, 1): 0.9, (FULL, 2): 0.6, (FULL, 4): 0.5})
    known = {
        ("a.pt", "x"): probes({1: 0.2, 2: 0.5, 4: 0.6, FULL: 0.9}),
        ("b.pt", "y"): probes({1: 0.2, 2: 0.5, 4: 0.6}),
    }
    one, two = of_measures(sensitivity(tables(first + second, known)))
    assert (one.varied, one.n, one.note) == ("layer1", 4, FEW)
    assert one.spearman == pytest.approx(0.8) and one.kendall == pytest.approx(2 / 3)
    assert (two.varied, two.n) == ("layer2", 3)
    assert two.spearman == pytest.approx(-1) and two.kendall == pytest.approx(-1)
    assert (two.test, two.measure, two.layer1, two.layer2) == ("sensitivity", "cka", "x", "y")


def test_where_full_rank_was_not_measured_the_highest_rank_counts():
    values = {(rank1, rank2): rank1 * rank2 for rank1 in (1, 2, 4) for rank2 in (8, 16)}
    values[1, 8] = 100.0
    known = {("a.pt", "x"): probes({1: 0.2, 2: 0.5, 4: 0.6})}
    row, other = of_measures(sensitivity(tables(at(("x", "y"), values), known)))
    assert row.spearman == pytest.approx(1) and row.note == f"y at rank 16; {FEW}"
    assert other.varied == "layer2"
    assert says(other.note, "x at rank 4; ", "no probes", "y of b.pt on digits")


def test_ranks_above_the_width_count_once():
    ranks = (1, 2, 4, 8, 16, FULL)
    values = over_first({rank: min(rank, 4.0) for rank in ranks})
    known = probes(
        {rank: [0.5, 0.2, 0.9, 0.9, 0.9, 0.9][i] for i, rank in enumerate(ranks)}, width=4
    )
    row = only(sensitivity(tables(values, {("a.pt", "x"): known})))
    assert row.n == 3 and says(row.note, "above the width", "left out: 3; ", FEW)
    assert row.kendall == pytest.approx(1 / 3)


def test_probes_belong_to_the_network_that_was_cut_and_to_the_data_of_the_measurement():
    values, rising = over_first({1: 1, 2: 2, 4: 4}), probes({1: 0.2, 2: 0.5, 4: 0.6})
    row = only(sensitivity(tables(values, {("b.pt", "x"): rising, ("a.pt", "y"): rising})))
    assert row.n == 0 and math.isnan(row.spearman)
    assert says(row.note, "no probes", "x of a.pt on digits")
    back = []
    for value in values:
        front = value.front._replace(network=Y.network)
        back.append(value._replace(front=front, end=value.end._replace(network=X.network)))
    assert only(sensitivity(tables(back, {("b.pt", "x"): rising}))).note == FEW
    on_mnist = [each._replace(dataset="mnist") for each in values]
    both = rising + probes({1: 0.6, 2: 0.5, 4: 0.2}, dataset="mnist")
    found = [
        only(sensitivity(tables(each, {("a.pt", "x"): both}))).spearman
        for each in (values, on_mnist)
    ]
    assert found == pytest.approx([1, -1])
    assert only(sensitivity(tables(on_mnist, {("a.pt", "x"): rising}))).note.endswith(
        "x of a.pt on mnist"
    )


def test_the_rank_itself_is_the_baseline():
    """Beside the measures of a setting, over the same ranks of the same layers."""
    cka = over_first({rank: rank / 20 for rank in (1, 2, 4, 8, 16)})
    fewer = [each._replace(quantity="procrustes", value=-each.value) for each in cka[:4]]
    other = [each._replace(quantity="pwcca", setting="pool") for each in cka]
    known = {("a.pt", "x"): probes({1: 0.1, 2: 0.3, 4: 0.2, 8: 0.5, 16: 0.4})}
    rows = list(sensitivity(tables([*cka, *other, *fewer], known)))
    assert [(row.measure, row.setting, row.n) for row in rows] == [
        ("cka", CKA.setting, 5),
        ("procrustes", CKA.setting, 4),
        (BASELINE, CKA.setting, 5),
        (BASELINE, CKA.setting, 4),
        ("pwcca", "pool", 5),
        (BASELINE, "pool", 5),
    ]
    # Distances that rise with the rank fall with the similarity
    assert (
        rows[2].spearman
        == rows[0].spearman
        == pytest.approx(1 - 6 * 4 / (5 * 24))
        == -rows[4].spearman
    )
    assert rows[3].spearman == rows[1].spearman and rows[2].kendall == rows[0].kendall
    assert (rows[2].test, rows[2].layer1, rows[2].layer2, rows[2].varied) == (
        "sensitivity",
        "x",
        "y",
        "layer1",
    )
    assert list(sensitivity(tables(cka)))[1:] == []  # without probes there is no baseline


def test_specificity_by_hand():
    # Layer "a" is found in its row and in its column; "b" in its column only; "c" is known to the
    # second network alone.
    matrix = {
        ("a", "a"): 0.9,
        ("a", "b"): 0.2,
        ("a", "c"): 0.1,
        ("b", "a"): 0.3,
        ("b", "b"): 0.6,
        ("b", "c"): 0.7,
    }
    truncated = at(("a", "b"), {(4, FULL): 5.0, (FULL, 4): 5.0})  # which is another matter
    rows = list(specificity(tables(at_full_rank(matrix) + truncated)))
    ties = specificity(tables(at_full_rank({("a", "a"): 0.9, ("a", "b"): 0.9})))
    assert [row.place for row in ties] == [2]  # ties count against it
    near = [
        value._replace(quantity="procrustes", value=1 - value.value)
        for value in at_full_rank(matrix)
    ]
    assert [row.place for row in specificity(tables(near))] == [row.place for row in rows]
    assert [(row.layer1, row.varied, row.n, row.place) for row in rows] == [
        ("a", "layer2", 3, 1),
        ("a", "layer1", 2, 1),
        ("b", "layer2", 3, 2),
        ("b", "layer1", 2, 1),
    ]


def test_a_missing_pair_has_no_place():
    values = {("a", "b"): 0.5, ("a", "c"): 0.5, ("b", "b"): math.nan, ("b", "c"): 0.1}
    rows = list(specificity(tables(at_full_rank(values))))
    assert [(row.layer1, row.varied, row.n) for row in rows] == [
        ("b", "layer2", 1),
        ("b", "layer1", 1),
    ]
    assert all(math.isnan(row.place) and "no value" in row.note for row in rows)
    assert summary_of_places(list(map(vars, rows))) == "no place is defined"
