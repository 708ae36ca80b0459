"""Tables of measurements, read back: what tells them apart, full ranks, repetitions, and
refused files."""

import math
import os
import shutil
from datetime import datetime

from src.results.measurements import Measurement
from src.results.rank_measurements import FULL, ranks_of, read_measurements
from src.results.tables import write_table
from tests.commands import says
from tests.result_rows import probe_row, similarity_row, stitch_row


def write(path, *rows, year: int | None = None):
    """Write a table, as if in a year."""
    write_table(path, type(rows[0]), rows)
    if year:
        os.utime(path, (datetime(year, 1, 1).timestamp(),) * 2)
    return path


def settings_of(values: list[Measurement]) -> dict[tuple[str, str], list[float]]:
    """The values by quantity and setting."""
    found: dict[tuple[str, str], list[float]] = {}
    for each in values:
        found.setdefault((each.quantity, each.setting), []).append(each.value)
    return found


def test_values_at_ranks_and_what_was_not_measured_is_left_out(tmp_path):
    rows = [
        similarity_row(rank1=8, values={"cka": 0.5, "pwcca": 0.25, "procrustes": 0.125}),
        similarity_row(rank2=4, values={"cka": 0.75, "pwcca": math.nan, "procrustes": 0.5}),
    ]
    tables = read_measurements([write(tmp_path / "s.csv", *rows)])
    assert [network.name for network in tables.values[0].networks] == ["a.pt", "b.pt"]
    assert {(each.setting, each.pair) for each in tables.values} == {("a.pt -- b.pt", ("x", "y"))}
    values = {(each.quantity, ranks_of(each)): each.value for each in tables.values}
    one, two = (8, FULL), (FULL, 4)
    assert math.isnan(values.pop(("pwcca", two)))
    assert values == {
        ("cka", one): 0.5,
        ("cka", two): 0.75,
        ("procrustes", one): 0.125,
        ("procrustes", two): 0.5,
        ("pwcca", one): 0.25,
    }


def test_a_copy_of_a_checkpoint_is_the_same_network(tmp_path, monkeypatch, capsys):
    """In tables of every kind: probes of a copy are those of the network."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.pt").write_bytes(b"weights")
    shutil.copy("f.pt", "copy.pt")
    rows = [
        similarity_row(model1=name, values={"cka": value})
        for name, value in (("f.pt", 0.5), ("copy.pt", 0.7))
    ]
    of_tables = [rows, [probe_row(model="copy.pt")], [stitch_row(front_model_path="copy.pt")]]
    tables = read_measurements(
        [write(tmp_path / f"{i}.csv", *of_table) for i, of_table in enumerate(of_tables)]
    )
    assert settings_of(tables.values) == {
        ("cka", "f.pt -- b.pt"): [0.7],  # by the name that was read first
        ("accuracy", "f.pt -- b.pt: rc2c_pre, task loss matching"): [0.5],
    }
    assert list(tables.probes) == [("f.pt", "x", "digits")]
    assert "1 result repeats another" in capsys.readouterr().err


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


def test_probes_of_other_learning_rates_are_no_repetition(tmp_path, capsys):
    rows = [probe_row(), probe_row(accuracy=0.7, further_options='{"learning_rate": 0.1}')]
    ((probe,),) = (
        by_rank.values()
        for by_rank in read_measurements([write(tmp_path / "p.csv", *rows)]).probes.values()
    )
    printed = capsys.readouterr().err
    assert probe.accuracy == 0.7
    assert says(printed, "1 probes have other options") and "repeat" not in printed


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
