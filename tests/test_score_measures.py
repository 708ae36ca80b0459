"""Sensitivity and specificity (misc/score_measures.py): tables of measurements at ranks, cases
worked out by hand, and scipy as oracle."""

import itertools
import math
import os
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from scipy import stats

from src.results import measurements, rank_tests
from src.results.measurements import Measurement, NetworkLayer
from src.results.named_networks import NamedNetwork
from src.results.probe_rows import ProbeRow
from src.results.rank_curves import curves_of_pair
from src.results.rank_measurements import FULL, Measurements, ranks_of, read_measurements
from src.results.rank_tests import BASELINE, correlation, summary_of_places
from src.results.tables import write_table as write_rows
from src.values import Pair
from tests.commands import error_line, read_csv, run, says
from tests.result_rows import probe_row, similarity_row, stitch_row
from tests.tables import PROBE, SIMILARITY, STITCH, write_table
from tests.written_runs import write_list, write_pairs


def write(path, *rows, year: int | None = None):
    """Write a table, as if in a year."""
    write_rows(path, type(rows[0]), rows)
    if year:
        os.utime(path, (datetime(year, 1, 1).timestamp(),) * 2)
    return path


def settings_of(values: list[Measurement]) -> dict[tuple[str, str], list[float]]:
    """The values by quantity and setting."""
    found: dict[tuple[str, str], list[float]] = {}
    for each in values:
        found.setdefault((each.quantity, each.setting), []).append(each.value)
    return found


def test_values_of_other_alignments_are_kept_apart(tmp_path):
    rows = [
        similarity_row(alignment_option="auto", values={"cka": 0.5, "pwcca": 0.25}),
        similarity_row(
            alignment="average pool", alignment_option="pool", values={"cka": 0.5, "pwcca": 0.75}
        ),
    ]
    values = read_measurements([write(tmp_path / "s.csv", *rows)]).values
    assert settings_of(values) == {
        ("cka", "a.pt -- b.pt"): [0.5],
        ("pwcca", "a.pt -- b.pt"): [0.25],
        ("pwcca", "a.pt -- b.pt, pool"): [0.75],
    }
    assert [each.alignment for each in values] == ["", "positions", "average pool"]


def test_the_newest_of_repetitions_counts_whatever_the_order_of_the_tables(tmp_path):
    """The time is that of the file; of stitches it is the name of the folder."""
    old = write(tmp_path / "1.csv", similarity_row(values={"cka": 0.5}), year=2025)
    new = write(tmp_path / "2.csv", similarity_row(values={"cka": 0.7}), year=2026)
    for tables in ([old, new], [new, old]):
        assert [each.value for each in read_measurements(tables).values] == [0.7]
    probes = [
        write(tmp_path / f"p{i}.csv", probe_row(accuracy=i / 8), year=2020 + i) for i in (3, 2)
    ]
    ((probe,),) = (by_rank.values() for by_rank in read_measurements(probes).probes.values())
    assert probe.accuracy == 3 / 8
    days = [stitch_row(folder=f"2026-01-0{day}", accuracy=day / 4) for day in (2, 1)]
    assert [
        each.value for each in read_measurements([write(tmp_path / "g.csv", *days)]).values
    ] == [0.5]


def test_similarities_of_other_data_or_numbers_of_images_are_kept_apart(tmp_path, capsys):
    for one, other, names in (
        ({}, {"dataset": "/data/sets/mnist"}, (", digits", ", sets/mnist")),
        ({"dataset": "mnist"}, {"n_samples": 5}, (", mnist, 10 images", ", digits, 5 images")),
    ):
        rows = [
            similarity_row(**given, values={"cka": value})
            for given, value in ((one, 0.25), (other, 0.5))
        ]
        same = similarity_row(
            model1="c.pt", values={"cka": 1.0}
        )  # of other networks: it needs no such name
        values = read_measurements([write(tmp_path / "s.csv", *rows, same)]).values
        first, second = (("cka", f"a.pt -- b.pt{name}") for name in names)
        assert settings_of(values) == {
            first: [0.25],
            second: [0.5],
            ("cka", "c.pt -- b.pt"): [1.0],
        }
        assert [each.dataset for each in values] == [row.dataset for row in (*rows, same)]
    assert not capsys.readouterr().err


def test_probes_of_other_data_are_kept_apart_and_of_other_epochs_the_newest_count(tmp_path, capsys):
    rows = [
        probe_row(epochs=20, rank=4),
        probe_row(),
        probe_row(rank=8),
        probe_row(dataset="mnist"),
        probe_row(epochs=20, rank=2),
        probe_row(epochs=20, rank=1),
    ]
    probes = read_measurements([write(tmp_path / "p.csv", *rows)]).probes
    assert {data: list(by_rank) for (_, _, data), by_rank in probes.items()} == {
        "digits": [4, 2, 1],
        "mnist": [FULL],
    }
    assert says(capsys.readouterr().err, "2 probes have other options or epochs")


def test_stitches_are_kept_apart_by_networks_method_and_rank_of_matching(tmp_path, capsys):
    ranks = {(8, 8): 0.5, (8, None): 0.25, (4, 4): 0.4, (4, 16): 0.125, (None, None): 0.9}
    rows = [
        stitch_row(
            init="pinv",
            n_epochs=0,
            front_stitch_rank=rank,
            front_pinv_rank=matched,
            accuracy=accuracy,
        )
        for (rank, matched), accuracy in ranks.items()
    ]
    # A random start matches nothing, so the rank of the matching is none of its settings.
    rows.append(stitch_row(front_stitch_rank=8, front_pinv_rank=4, accuracy=0.75))
    # Training that goes on from a matching is a setting of its own.
    rows.append(stitch_row(init="pinv", front_stitch_rank=2, accuracy=0.6))
    setting = "a.pt -- b.pt: rc2c_pre, direct matching"
    values = read_measurements([write(tmp_path / "grid.csv", *rows)]).values
    assert {(each.setting, ranks_of(each)[0]): each.value for each in values} == {
        (setting, 8): 0.5,
        (f"{setting}, --front-pinv-rank full", 8): 0.25,
        (setting, 4): 0.4,
        (f"{setting}, --front-pinv-rank 16", 4): 0.125,
        (setting, FULL): 0.9,
        ("a.pt -- b.pt: rc2c_pre, task loss matching (-i rand)", 8): 0.75,
        ("a.pt -- b.pt: rc2c_pre, task loss matching (-i pinv)", 2): 0.6,
    }
    # Where no two of them collide, they are one series.
    values = read_measurements([write(tmp_path / "grid.csv", rows[1], rows[4])]).values
    assert {each.setting for each in values} == {setting}
    assert not capsys.readouterr().err


X, Y = (
    NetworkLayer(NamedNetwork(f"{name}.pt", "resnet18", name), layer)
    for name, layer in ("ax", "by")
)
CKA = Measurement(
    measurements.SIMILARITY, "cka", X, Y, 0.5, setting="a.pt -- b.pt", dataset="digits"
)
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


STATISTICS = "misc/score_measures.py"
RANKS = [4, 2, 1]


@pytest.fixture
def paths(in_tmp_path) -> list[Path]:
    """Layers of two networks: over the ranks of `x`, CKA and PWCCA go with the probes in opposite
    directions."""
    cka = {("x", "x"): 0.9, ("x", "y"): 0.2, ("y", "x"): 0.3, ("y", "y"): 0.25}
    whole = [
        {"layer1": one, "layer2": two, "cka": value, "pwcca": 1 - value}
        for (one, two), value in cka.items()
    ]
    measured = [
        {"rank1": rank, "cka": rank / 10, "pwcca": rank / 20, "procrustes": 0.1} for rank in RANKS
    ]
    cut = [{"layer1": a, "layer2": b} | row for a, b in ("xx", "xy", "yy") for row in measured]
    probes = [
        {"model": f"{name}.pt", "rank": rank, "accuracy": rank / 8, "loss": 1 / rank}
        for name in "ab"
        for rank in (8, *RANKS)
    ]
    stitches = [
        {"end_layer": "x", "front_stitch_rank": rank, "accuracy": rank / 9} for rank in RANKS
    ]
    return [
        write_table(in_tmp_path / "similarity.csv", SIMILARITY, *whole, *cut),
        write_table(
            in_tmp_path / "probes.csv",
            PROBE,
            *probes,
            probes[0] | {"dataset": "mnist", "accuracy": 0},
        ),
        write_table(in_tmp_path / "dm.csv", STITCH, *stitches),
        write_table(in_tmp_path / "tlm.csv", STITCH | {"init": "rand", "n_epochs": 3}, *stitches),
    ]


def test_prints_and_writes_both_tests(paths):
    out = run(STATISTICS, *paths[:3], "-o", "statistics.csv").out
    assert says(out, "mean rho -1.0000", "mean tau -1.0000") and "no p-values" in out
    rows = read_csv("statistics.csv")
    found = {
        (row["measure"], row["setting"]): row["spearman"]
        for row in rows
        if row["layer2"] == row["layer1"] == "x" and row["test"] == "sensitivity"
    }
    stitch = "a.pt -- b.pt: rc2c_pre, direct matching"
    assert found == {
        ("cka", "a.pt -- b.pt"): "1.0",
        ("pwcca", "a.pt -- b.pt"): "-1.0",
        ("procrustes", "a.pt -- b.pt"): "nan",
        ("rank itself", "a.pt -- b.pt"): "1.0",
        ("stitching accuracy", stitch): "1.0",
        ("rank itself", stitch): "1.0",
    }
    places = [row["place"] for row in rows if row["measure"] == "pwcca" and row["place"]]
    assert places == ["1", "1", "2", "1"]


def test_curves_rise_with_similarity_and_are_of_the_truncated_network(paths):
    assert curves_of_pair(read_measurements(paths), Pair("x", "x")) == {
        "linear CKA": {4: 0.4, 2: 0.2, 1: 0.1},
        "1 − PWCCA distance": {4: 0.8, 2: 0.9, 1: 0.95},
        "1 − Procrustes distance / 2": dict.fromkeys([4, 2, 1], 0.95),
        "direct matching (accuracy)": {4: 4 / 9, 2: 2 / 9, 1: 1 / 9},
        "task loss matching (accuracy)": {4: 4 / 9, 2: 2 / 9, 1: 1 / 9},
        "linear probe (accuracy)": {8: 1, 4: 0.5, 2: 0.25, 1: 0.125},
    }
    assert not any(
        "matching" in name for name in curves_of_pair(read_measurements(paths), Pair("x", "y"))
    )
    other = paths[2].with_name("2.csv")
    other.write_text(paths[2].read_text().replace("b.pt", "c.pt"))
    one, two, probe = curves_of_pair(read_measurements([*paths[1:3], other]), Pair("x", "x"))
    assert says(one, "direct matching", "a.pt -- b.pt")
    assert says(two, "direct matching", "a.pt -- c.pt")  # of one name
    assert probe == "linear probe (accuracy)"


def test_functions_of_users_have_their_name_and_no_curve_without_values(paths, capsys):
    """They are measured at full rank only; their values below are NaN."""
    for value, has_curve in ((0.5, True), (math.nan, False)):
        rows = [
            {"layer1": "x", "layer2": "x", "rank1": rank, "own": value if rank else 1.0}
            for rank in ("", *RANKS)
        ]
        table = write_table(paths[0], SIMILARITY | {"own": ""}, *rows)
        curves = curves_of_pair(read_measurements([table]), Pair("x", "x"))
        assert curves == ({"own": dict.fromkeys(RANKS, 0.5)} if has_curve else {})
    assert says(capsys.readouterr().err, "no curve of the own at x", "below full rank")


def test_measures_are_scored_by_known_differences(in_tmp_path):
    """Accuracy falls with the difference of networks, and CKA does not."""
    types = dict.fromkeys("abcd", "resnet18")

    def n_right(front, end, *_):
        return 950 - 50 * abs(ord(front) - ord(end))

    write_pairs(in_tmp_path / "all", types, {"resnet18": {"x": 1.0}}, n_right)
    write_list(in_tmp_path / "networks.csv", types)
    lines = ["front_network,end_network,value"]
    for front, end in itertools.combinations("abcd", 2):
        lines.append(f"{end},{front},{ord(end) - ord(front)}")
    (in_tmp_path / "truth.csv").write_text("\n".join(lines))
    command = ["misc/score_measures.py", "all", "--networks", "networks.csv", "--truth"]
    out = run(*command, "truth.csv", "-o", "scores.csv").out
    (row,) = [row for row in read_csv("scores.csv") if row["quantity"] == "accuracy"]
    assert (float(row["value"]), row["n_networks"], row["n_pairs"]) == (1, "4", "6")
    assert float(row["p_value"]) == pytest.approx(2 / 24, abs=0.02)
    assert says(out, "direct matching, digits") and says(out, "rank correlation", "low", "networks")
    assert says(out, "accuracy ", " 1 ")
    (in_tmp_path / "lacks.csv").write_text("front_network,value\na,1")
    assert says(error_line(*command, "lacks.csv"), "lacks end_network")
    (in_tmp_path / "words.csv").write_text(f"{lines[0]}\na,b,far")
    assert says(error_line(*command, "words.csv"), "no number")
    (in_tmp_path / "others.csv").write_text(f"{lines[0]}\nx,y,1")
    assert says(error_line(*command, "others.csv"), "no results of two", "x, y")
    assert "nowhere.csv" in error_line(*command, "nowhere.csv")
