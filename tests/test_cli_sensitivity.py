"""misc/rank_statistics.py as a user runs it, on tables made by hand."""

import math
from pathlib import Path

import pytest

from src.results.rank_curves import curves_of_pair
from src.results.rank_measurements import read_measurements
from src.values import Pair
from tests.commands import read_csv, run, says
from tests.tables import PROBE, SIMILARITY, STITCH, write_table

STATISTICS = "misc/rank_statistics.py"
RANKS = [4, 2, 1]


@pytest.fixture
def tables(in_tmp_path) -> list[Path]:
    """Layers of two networks: over the ranks of `x`, CKA and PWCCA go with the probes in opposite
    directions."""
    cka = {("x", "x"): 0.9, ("x", "y"): 0.2, ("y", "x"): 0.3, ("y", "y"): 0.25}
    whole = [
        {"layer1": one, "layer2": two, "cka": value, "pwcca": 1 - value}
        for (one, two), value in cka.items()
    ]
    measured = [
        {"rank1": rank, "cka": rank / 10, "pwcca": rank / 20, "pwcca_morcos": 0.1} for rank in RANKS
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


def test_prints_and_writes_both_tests(tables):
    out = run(STATISTICS, *tables[:3], "-o", "statistics.csv").out
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
        ("pwcca_morcos", "a.pt -- b.pt"): "nan",
        ("rank itself", "a.pt -- b.pt"): "1.0",
        ("stitching accuracy", stitch): "1.0",
        ("rank itself", stitch): "1.0",
    }
    places = [row["place"] for row in rows if row["measure"] == "pwcca" and row["place"]]
    assert places == ["1", "1", "2", "1"]


def test_curves_rise_with_similarity_and_are_of_the_truncated_network(tables):
    assert curves_of_pair(read_measurements(tables), Pair("x", "x")) == {
        "linear CKA": {4: 0.4, 2: 0.2, 1: 0.1},
        "1 − PWCCA distance": {4: 0.8, 2: 0.9, 1: 0.95},
        "direct matching (accuracy)": {4: 4 / 9, 2: 2 / 9, 1: 1 / 9},
        "task loss matching (accuracy)": {4: 4 / 9, 2: 2 / 9, 1: 1 / 9},
        "linear probe (accuracy)": {8: 1, 4: 0.5, 2: 0.25, 1: 0.125},
    }
    assert not any(
        "matching" in name for name in curves_of_pair(read_measurements(tables), Pair("x", "y"))
    )
    other = tables[2].with_name("2.csv")
    other.write_text(tables[2].read_text().replace("b.pt", "c.pt"))
    one, two, probe = curves_of_pair(read_measurements([*tables[1:3], other]), Pair("x", "x"))
    assert says(one, "direct matching", "a.pt -- b.pt")
    assert says(two, "direct matching", "a.pt -- c.pt")  # of one name
    assert probe == "linear probe (accuracy)"


def test_functions_of_users_have_their_name_and_no_curve_without_values(tables, capsys):
    """They are measured at full rank only; their values below are NaN."""
    for value, has_curve in ((0.5, True), (math.nan, False)):
        rows = [
            {"layer1": "x", "layer2": "x", "rank1": rank, "own": value if rank else 1.0}
            for rank in ("", *RANKS)
        ]
        table = write_table(tables[0], SIMILARITY | {"own": ""}, *rows)
        curves = curves_of_pair(read_measurements([table]), Pair("x", "x"))
        assert curves == ({"own": dict.fromkeys(RANKS, 0.5)} if has_curve else {})
    assert says(capsys.readouterr().err, "no curve of the own at x", "below full rank")
