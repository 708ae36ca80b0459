"""Sensitivity and specificity (misc/score_measures.py): tables of measurements at ranks, and cases
worked out by hand."""

import itertools
import math
import os
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from src.core.values import Pair
from src.results.frame import read_ranks
from src.results.ranks import (
    BASELINE,
    FULL,
    correlation,
    curves_of_pair,
    labels_of,
    over_ranks,
    rank_values,
    sensitivity,
    specificity,
)
from src.results.stitches import GRID
from src.results.tables import PROBES, SIMILARITIES
from src.results.tables import write_table as write_rows
from tests.commands import error_line, read_csv, run, says
from tests.result_rows import (
    PROBE,
    SIMILARITY,
    STITCH,
    probe_row,
    similarity_row,
    stitch_row,
    write_table,
)
from tests.written_runs import write_list, write_pairs


def write(path, *rows, year: int | None = None):
    """Write a table, as if in a year."""
    layout = GRID
    if "stitching_type" not in rows[0]:
        layout = SIMILARITIES if "layer1" in rows[0] else PROBES
    write_rows(path, layout, rows)
    if year:
        os.utime(path, (datetime(year, 1, 1).timestamp(),) * 2)
    return path


def read_values(*paths: Path) -> pd.DataFrame:
    return rank_values(read_ranks(*paths)[0])


def settings_of(values: pd.DataFrame) -> dict[tuple[str, str], list[float]]:
    """The values by quantity and setting."""
    return values.groupby(["quantity", "setting"]).value.agg(list).to_dict()


def test_values_of_other_alignments_are_kept_apart(tmp_path):
    rows = [
        similarity_row(alignment_option="auto", cka=0.5, pwcca=0.25),
        similarity_row(alignment="average pool", alignment_option="pool", cka=0.5, pwcca=0.75),
    ]
    values = read_values(write(tmp_path / "s.csv", *rows))
    assert settings_of(values) == {
        ("cka", "a.pt → b.pt"): [0.5],
        ("pwcca", "a.pt → b.pt"): [0.25],
        ("pwcca", "a.pt → b.pt, pool"): [0.75],
    }
    assert list(values.alignment.dropna()) == ["positions", "average pool"]


def test_the_newest_of_repetitions_counts_whatever_the_order_of_the_tables(tmp_path):
    """The time is that of the file; of stitches it is the name of the folder."""
    old = write(tmp_path / "1.csv", similarity_row(cka=0.5), year=2025)
    new = write(tmp_path / "2.csv", similarity_row(cka=0.7), year=2026)
    for tables in ([old, new], [new, old]):
        assert list(read_values(*tables).value) == [0.7]
    probes = [
        write(tmp_path / f"p{i}.csv", probe_row(accuracy=i / 8), year=2020 + i) for i in (3, 2)
    ]
    assert list(read_ranks(old, *probes)[1].accuracy) == [3 / 8]
    days = [stitch_row(folder=f"2026-01-0{day}", accuracy=day / 4) for day in (2, 1)]
    assert list(read_values(write(tmp_path / "g.csv", *days)).value) == [0.5]


@pytest.mark.parametrize(
    "first, second, names",
    [
        ({}, {"dataset": "/data/sets/mnist"}, (", digits", ", sets/mnist")),
        ({"dataset": "mnist"}, {"n_samples": 5}, (", mnist, 10 images", ", digits, 5 images")),
    ],
)
def test_similarities_of_other_data_or_numbers_of_images_are_kept_apart(
    tmp_path, capsys, first, second, names
):
    rows = [similarity_row(**first, cka=0.25)]
    rows.append(similarity_row(**second, cka=0.5))
    rows.append(similarity_row(model1="c.pt", cka=1.0))  # its name tells it apart
    values = read_values(write(tmp_path / "s.csv", *rows))
    assert settings_of(values) == {
        ("cka", f"a.pt → b.pt{names[0]}"): [0.25],
        ("cka", f"a.pt → b.pt{names[1]}"): [0.5],
        ("cka", "c.pt → b.pt"): [1.0],
    }
    assert list(values.dataset) == [row["dataset"] for row in rows]
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
    values = write(tmp_path / "s.csv", similarity_row(cka=0.5))
    probes = read_ranks(values, write(tmp_path / "p.csv", *rows))[1]
    found = probes.groupby("dataset")["rank"].agg(list).to_dict()
    assert found == {"digits": [4, 2, 1], "mnist": [FULL]}
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
    setting = "a.pt → b.pt: rc2c_pre, direct matching"
    values = read_values(write(tmp_path / "grid.csv", *rows))
    assert values.set_index(["setting", "front_rank"]).value.to_dict() == {
        (setting, 8): 0.5,
        (f"{setting}, --front-pinv-rank full", 8): 0.25,
        (setting, 4): 0.4,
        (f"{setting}, --front-pinv-rank 16", 4): 0.125,
        (setting, FULL): 0.9,
        ("a.pt → b.pt: rc2c_pre, task loss matching (-i rand)", 8): 0.75,
        ("a.pt → b.pt: rc2c_pre, task loss matching (-i pinv)", 2): 0.6,
    }
    assert "direct matching, --front-pinv-rank full (accuracy)" in labels_of(values)
    # Where no two of them collide, they are one series.
    values = read_values(write(tmp_path / "grid.csv", rows[1], rows[4]))
    assert set(values.setting) == {setting}
    assert not capsys.readouterr().err


SETTING = "a.pt → b.pt"
FEW = "fewer than 10 ranks: no p-values"


def row(layers: str, value: float, ranks=(FULL, FULL), **columns) -> dict:
    """A similarity of two layers of the networks a.pt and b.pt at two ranks."""
    record = {"method": "similarity", "networks": SETTING, "dataset": "digits", "cka": value}
    for side, network, layer, rank in zip(("front", "end"), "ab", layers, ranks, strict=True):
        record |= {f"{side}_network": f"{network}.pt", f"{side}_layer": layer}
        record[f"{side}_rank"] = None if rank == FULL else rank
    return record | columns


def over_first(values: dict[float, float], **columns) -> list[dict]:
    """Similarities of x and y by the rank of x."""
    return [row("xy", value, (rank, FULL), **columns) for rank, value in values.items()]


def probes(*, network="a.pt", layer="x", dataset="digits", width=FULL, **accuracies) -> list[dict]:
    """Probes whose loss says their accuracy, and the same one for all ranks from the width on.

    Args:
        accuracies: by rank, as r1=0.5; r0 is the full rank.
    """
    known = {"network": network, "layer": layer, "dataset": dataset}
    ranks = {int(name[1:]) or FULL: accuracy for name, accuracy in accuracies.items()}
    return [
        known | {"rank": rank, "accuracy": accuracy, "loss": accuracy if rank < width else -1.0}
        for rank, accuracy in ranks.items()
    ]


def sensitivities(values: list[dict], known: list[dict], *, baseline: bool = False) -> pd.DataFrame:
    """The tests of sensitivity of measures, without those of the baseline unless these are asked for."""
    columns = ["network", "layer", "dataset", "rank", "accuracy", "loss"]
    found = sensitivity(
        pd.DataFrame(values), pd.DataFrame(known, columns=columns).astype({"rank": float})
    )
    return found if baseline else found[found.quantity != BASELINE].reset_index()


def test_correlations_and_p_values_by_hand():
    # One discordant pair of six: tau = (5 - 1) / 6; rho = 1 - 6 · 2 / (4 · 15).
    found = correlation([0.1, 0.2, 0.3, 0.4], [0.5, 0.7, 0.6, 0.9])
    assert found["n"] == 4 and found["note"] == FEW and math.isnan(found["kendall_p"])
    assert found["kendall"] == pytest.approx(2 / 3) and found["spearman"] == pytest.approx(0.8)
    # One discordant pair. Of 10! orders, 1 has no inversion and 9 have one; as many lie at the
    # other end.
    found = correlation(range(10), [1, 0, 2, 3, 4, 5, 6, 7, 8, 9])
    assert found["kendall_p"] == pytest.approx(2 * (1 + 9) / math.factorial(10))
    rho = 1 - 6 * 2 / (10 * 99)
    assert found["spearman"] == pytest.approx(rho) and found["note"] == ""
    p_value = 2 * stats.t.sf(rho * math.sqrt(8 / (1 - rho**2)), 8)
    assert found["spearman_p"] == pytest.approx(p_value)


@pytest.mark.parametrize(
    "values, accuracies, note",
    [
        ([], [], "fewer than 3 common ranks"),
        ([1, 3], [1, 2], "fewer than 3 common ranks"),
        ([1, 2, 3], [0.1, 0.1, 0.1], "the accuracy is constant"),
        ([1, 1, 1], [1, 2, 3], "the measure is constant"),
    ],
)
def test_what_has_no_correlation_says_why(values, accuracies, note):
    found = correlation(values, accuracies)
    assert (found["n"], found["note"]) == (len(values), note)
    assert math.isnan(found["spearman"]) and math.isnan(found["kendall"])


def test_sensitivity_of_either_side():
    values = over_first({1: 0.1, 2: 0.2, 4: 0.4, FULL: 0.3, 8: math.nan})
    values += [row("xy", value, (FULL, rank)) for rank, value in ((1, 0.9), (2, 0.6), (4, 0.5))]
    known = probes(r1=0.2, r2=0.5, r4=0.6, r8=0.7, r0=0.9)
    known += probes(network="b.pt", layer="y", r1=0.2, r2=0.5, r4=0.6)
    found = sensitivities(values, known)
    assert list(found.varied) == ["front", "end"] and list(found.n) == [4, 3]  # NaN are left out
    assert list(found.spearman) == pytest.approx([0.8, -1])
    assert list(found.kendall) == pytest.approx([2 / 3, -1])
    assert set(found.test) == {"sensitivity"} and set(found.note) == {FEW}
    assert set(found.front_layer) == {"x"} and set(found.end_layer) == {"y"}


def test_where_full_rank_was_not_measured_the_highest_rank_counts():
    values = [
        row("xy", 100.0 if ranks == (1, 8) else math.prod(ranks), ranks)
        for ranks in itertools.product((1, 2, 4), (8, 16))
    ]
    found = sensitivities(values, probes(r1=0.2, r2=0.5, r4=0.6))
    assert found.spearman[0] == pytest.approx(1) and found.note[0] == f"y at rank 16; {FEW}"
    assert found.varied[1] == "end"
    assert found.note[1] == "x at rank 4; no probes of y of b.pt on digits"


def test_ranks_above_the_width_count_once():
    values = over_first({rank: min(rank, 4.0) for rank in (1, 2, 4, 8, 16, FULL)})
    known = probes(r1=0.5, r2=0.2, r4=0.9, r8=0.9, r16=0.9, r0=0.9, width=4)
    found = sensitivities(values, known)
    assert found.n[0] == 3 and found.note[0] == f"ranks above the width left out: 3; {FEW}"
    assert found.kendall[0] == pytest.approx(1 / 3)


def test_probes_belong_to_the_network_that_was_cut_and_to_the_data_of_the_measurement():
    measured = {1: 1.0, 2: 2.0, 4: 4.0}
    rising = {"r1": 0.2, "r2": 0.5, "r4": 0.6}
    others = probes(network="b.pt", **rising) + probes(layer="y", **rising)
    found = sensitivities(over_first(measured), others)
    assert found.n[0] == 0 and math.isnan(found.spearman[0])
    assert found.note[0] == "no probes of x of a.pt on digits"
    swapped = over_first(measured, front_network="b.pt", end_network="a.pt")
    assert sensitivities(swapped, others).note[0] == FEW
    both = probes(**rising) + probes(r1=0.6, r2=0.5, r4=0.2, dataset="mnist")
    for dataset, rho in (("digits", 1), ("mnist", -1), (None, -1)):  # None: the last data
        found = sensitivities(over_first(measured, dataset=dataset), both)
        assert found.spearman[0] == pytest.approx(rho)


def test_the_rank_itself_is_the_baseline():
    """Beside the measures of a setting, over the same ranks of the same layers."""
    values = over_first({rank: rank / 20 for rank in (1, 2, 4, 8, 16)})
    for record in values[:4]:
        record["procrustes"] = -record["cka"]
    pooled = {"alignment_option": "pool", "alignment": "average pool", "cka": math.nan}
    values += [
        record | pooled | {"pwcca": record["cka"], "procrustes": math.nan} for record in values
    ]
    known = probes(r1=0.1, r2=0.3, r4=0.2, r8=0.5, r16=0.4)
    found = sensitivities(values, known, baseline=True)
    columns = ["quantity", "setting", "n"]
    assert list(found[columns].itertuples(index=False, name=None)) == [
        ("cka", SETTING, 5),
        ("procrustes", SETTING, 4),
        (BASELINE, SETTING, 5),
        (BASELINE, SETTING, 4),
        ("pwcca", f"{SETTING}, pool", 5),
        (BASELINE, f"{SETTING}, pool", 5),
    ]
    # Distances that rise with the rank fall with the similarity
    rho = found.spearman
    assert rho[2] == rho[0] == pytest.approx(1 - 6 * 4 / (5 * 24)) == -rho[4]
    assert rho[3] == rho[1] and found.kendall[2] == found.kendall[0]
    assert list(found.loc[2, ["test", "front_layer", "end_layer", "varied"]]) == [
        "sensitivity",
        "x",
        "y",
        "front",
    ]
    without_probes = sensitivities(values, [], baseline=True)
    assert BASELINE not in set(without_probes.quantity)


def test_specificity_by_hand():
    # Layer "a" is found in its row and in its column; "b" in its column only; "c" is known to the
    # end network alone.
    matrix = {"aa": 0.9, "ab": 0.2, "ac": 0.1, "ba": 0.3, "bb": 0.6, "bc": 0.7}
    values = [row(layers, value) for layers, value in matrix.items()]
    cut = [row("ab", 5.0, ranks) for ranks in ((4, FULL), (FULL, 4))]  # which is another matter
    found = specificity(pd.DataFrame(values + cut))
    columns = ["front_layer", "varied", "n", "place"]
    assert list(found[columns].itertuples(index=False, name=None)) == [
        ("a", "end", 3, 1),
        ("a", "front", 2, 1),
        ("b", "end", 3, 2),
        ("b", "front", 2, 1),
    ]
    distances = [record | {"procrustes": 1 - record.pop("cka")} for record in values]
    assert list(specificity(pd.DataFrame(distances)).place) == list(found.place)
    ties = specificity(pd.DataFrame([row("aa", 0.9), row("ab", 0.9)]))
    assert list(ties.place) == [2]  # ties count against it


def test_a_missing_pair_has_no_place():
    matrix = {"ab": 0.5, "ac": 0.5, "bb": math.nan, "bc": 0.1, "bd": 0.2}
    found = specificity(pd.DataFrame([row(layers, value) for layers, value in matrix.items()]))
    assert list(zip(found.front_layer, found.varied, found.n, strict=True)) == [("b", "end", 2)]
    assert found.place.isna().all() and "no value" in found.note[0]


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
        (row["quantity"], row["setting"]): row["spearman"]
        for row in rows
        if row["end_layer"] == row["front_layer"] == "x" and row["test"] == "sensitivity"
    }
    stitch = "a.pt → b.pt: rc2c_pre, direct matching"
    assert found == {
        ("cka", "a.pt → b.pt"): "1.0",
        ("pwcca", "a.pt → b.pt"): "-1.0",
        ("procrustes", "a.pt → b.pt"): "",
        ("rank itself", "a.pt → b.pt"): "1.0",
        ("accuracy", stitch): "1.0",
        ("rank itself", stitch): "1.0",
    }
    places = [row["place"] for row in rows if row["quantity"] == "pwcca" and row["place"]]
    assert places == ["1", "1", "2", "1"]


def curves_of(paths, layers: str):
    frame, probes = read_ranks(*paths)
    return curves_of_pair(over_ranks(rank_values(frame)), probes, Pair(*layers))


def test_curves_rise_with_similarity_and_are_of_the_truncated_network(paths):
    assert curves_of(paths, "xx") == {
        "linear CKA": {4: 0.4, 2: 0.2, 1: 0.1},
        "1 − PWCCA distance": {4: 0.8, 2: 0.9, 1: 0.95},
        "1 − Procrustes distance / 2": dict.fromkeys([4, 2, 1], 0.95),
        "direct matching (accuracy)": {4: 4 / 9, 2: 2 / 9, 1: 1 / 9},
        "task loss matching (accuracy)": {4: 4 / 9, 2: 2 / 9, 1: 1 / 9},
        "linear probe (accuracy)": {8: 1, 4: 0.5, 2: 0.25, 1: 0.125},
    }
    assert not any("matching" in name for name in curves_of(paths, "xy"))
    other = paths[2].with_name("2.csv")
    other.write_text(paths[2].read_text().replace("b.pt", "c.pt"))
    one, two, probe = curves_of([*paths[1:3], other], "xx")
    assert says(one, "direct matching", "a.pt → b.pt")
    assert says(two, "direct matching", "a.pt → c.pt")  # of one name
    assert probe == "linear probe (accuracy)"


def test_functions_of_users_have_their_name_and_no_curve_without_values(paths):
    """They are measured at full rank only; their values below are NaN."""
    for value, has_curve in ((0.5, True), (math.nan, False)):
        rows = [
            {"layer1": "x", "layer2": "x", "rank1": rank, "own": value if rank else 1.0}
            for rank in ("", *RANKS)
        ]
        table = write_table(paths[0], SIMILARITY | {"own": ""}, *rows)
        assert curves_of([table], "xx") == ({"own": dict.fromkeys(RANKS, 0.5)} if has_curve else {})


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
