"""Tables of measurements, read back: what tells them apart, signs, full ranks, repetitions, and refused files."""

import math
import os
import shutil
from datetime import datetime

import pytest

from src.results.tables import write_table
from src.sensitivity.measurements import FULL, Measurement, describe, read_measurements
from tests.result_rows import probe_row, similarity_row, stitch_row


def write(path, *rows, end: str | None = None):
    """Write a table, and what says when."""
    write_table(path, type(rows[0]), rows)
    if end:
        path.with_suffix(".run.json").write_text(f'{{"end": "{end}"}}')
    return path


def settings_of(measurements: list[Measurement]) -> dict[tuple[str, str], list[float]]:
    """The values by measure and setting."""
    found: dict[tuple[str, str], list[float]] = {}
    for each in measurements:
        found.setdefault((each.measure, each.setting), []).append(each.value)
    return found


def test_distances_are_negated_and_what_was_not_measured_is_left_out(tmp_path):
    rows = [
        similarity_row(rank1=8, values={"cka": 0.5, "pwcca": 0.25, "procrustes": 0.125}),
        similarity_row(rank2=4, values={"cka": 0.75, "pwcca": math.nan, "procrustes": 0.5}),
    ]
    tables = read_measurements([write(tmp_path / "s.csv", *rows)])
    assert tables.probes == {} and {each.setting for each in tables.measurements} == {"a.pt -- b.pt"}
    models = {each.models for each in tables.measurements}
    assert [[tables.names[name].path for name in pair] for pair in models] == [["a.pt", "b.pt"]]
    assert all(each.layers == ("x", "y") and each.method == "" for each in tables.measurements)
    values = {(each.measure, each.ranks): each.value for each in tables.measurements}
    one, two = (8, FULL), (FULL, 4)
    assert math.isnan(values.pop(("pwcca", two)))
    assert values == {
        ("cka", one): 0.5, ("cka", two): 0.75, ("procrustes", one): -0.125, ("procrustes", two): -0.5,
        ("pwcca", one): -0.25,
    }  # fmt: skip


def test_tables_of_the_same_networks_become_one_and_the_last_of_repetitions_counts(tmp_path, capsys):
    one = write(tmp_path / "1.csv", similarity_row(model1="./m/a.pt", values={"cka": 0.5}))
    two = write(
        tmp_path / "2.csv",
        similarity_row(model1="m/a.pt", values={"cka": 0.7}),
        similarity_row(model1="m/a.pt", layer1="z", values={"cka": 0.1}),
    )
    measurements = read_measurements([one, two, one]).measurements
    assert {(each.setting, each.layers, each.ranks): each.value for each in measurements} == {
        ("m/a.pt -- b.pt", ("x", "y"), (FULL, FULL)): 0.7, ("m/a.pt -- b.pt", ("z", "y"), (FULL, FULL)): 0.1,
    }  # fmt: skip
    assert "1 result repeats another of the same experiment; the newest of each counts" in capsys.readouterr().err


def test_a_copy_of_a_checkpoint_is_the_same_network(tmp_path, monkeypatch, capsys):
    """In tables of every kind: probes of a copy are those of the network."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.pt").write_bytes(b"weights")
    shutil.copy("f.pt", "copy.pt")
    tables = read_measurements([
        write(tmp_path / "s.csv", similarity_row(model1="f.pt", values={"cka": 0.5}),
              similarity_row(model1="copy.pt", values={"cka": 0.7})),
        write(tmp_path / "p.csv", probe_row(model="copy.pt")),
        write(tmp_path / "grid.csv", stitch_row(front_model_path="copy.pt")),
    ])  # fmt: skip
    assert settings_of(tables.measurements) == {
        ("cka", "f.pt -- b.pt"): [0.7],  # by the name that was read first
        ("stitching accuracy", "f.pt -- b.pt: rc2c_pre, task loss matching"): [0.5],
    }
    assert list(tables.probes) == [(tables.measurements[0].models[0], "x", "digits", 10)]
    assert "1 result repeats another" in capsys.readouterr().err


def test_values_of_other_alignments_are_kept_apart(tmp_path):
    rows = [
        similarity_row(alignment_option="auto", values={"cka": 0.5, "pwcca": 0.25}),
        similarity_row(alignment="average pool", alignment_option="pool", values={"cka": 0.5, "pwcca": 0.75}),
    ]
    measurements = read_measurements([write(tmp_path / "s.csv", *rows)]).measurements
    assert settings_of(measurements) == {
        ("cka", "a.pt -- b.pt"): [0.5],
        ("pwcca", "a.pt -- b.pt"): [-0.25],
        ("pwcca", "a.pt -- b.pt, pool"): [-0.75],
    }
    assert [each.alignment for each in measurements] == ["", "positions", "average pool"]


def test_the_newest_of_repetitions_counts_whatever_the_order_of_the_tables(tmp_path):
    """The time is in `run.json`, or else that of the file; of stitches it is the name of the folder."""
    old = write(tmp_path / "1.csv", similarity_row(values={"cka": 0.5}), end="2025-01-01T00:00:00")
    new = write(tmp_path / "2.csv", similarity_row(values={"cka": 0.7}), end="2026-01-01T00:00:00")
    for tables in ([old, new], [new, old]):
        assert [each.value for each in read_measurements(tables).measurements] == [0.7]
    for path, year in ((old, 2027), (new, 2024)):
        path.with_suffix(".run.json").unlink()
        os.utime(path, (datetime(year, 1, 1).timestamp(),) * 2)
    for tables in ([old, new], [new, old]):
        assert [each.value for each in read_measurements(tables).measurements] == [0.5]
    probes = [write(tmp_path / f"p{i}.csv", probe_row(accuracy=i / 8), end=f"202{i}-01-01T00:00:00") for i in (3, 2)]
    ((probe,),) = (by_rank.values() for by_rank in read_measurements(probes).probes.values())
    assert probe.accuracy == 3 / 8
    grid = write(
        tmp_path / "g.csv", *(stitch_row(folder=f"2026-01-0{day}", accuracy=accuracy)
                              for day, accuracy in ((2, 0.75), (1, 0.25)))
    )  # fmt: skip
    assert [each.value for each in read_measurements([grid]).measurements] == [0.75]


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ({}, {"dataset": "/data/sets/mnist"}, (", digits", ", sets/mnist")),
        ({"n_samples": 360}, {"n_samples": 1000}, (", 360 images", ", 1000 images")),
        ({"dataset": "mnist"}, {"n_samples": 5}, (", mnist, 10 images", ", digits, 5 images")),
    ],
)
def test_similarities_of_other_data_or_numbers_of_images_are_kept_apart(one, other, names, tmp_path, capsys):
    rows = [similarity_row(**given, values={"cka": value}) for given, value in ((one, 0.25), (other, 0.5))]
    same = similarity_row(model1="c.pt", values={"cka": 1.0})  # of other networks: it needs no such name
    measurements = read_measurements([write(tmp_path / "s.csv", *rows, same)]).measurements
    first, second = ("cka", f"a.pt -- b.pt{names[0]}"), ("cka", f"a.pt -- b.pt{names[1]}")
    assert settings_of(measurements) == {first: [0.25], second: [0.5], ("cka", "c.pt -- b.pt"): [1.0]}
    assert [each.dataset for each in measurements] == [row.dataset for row in (*rows, same)]
    assert not capsys.readouterr().err


def test_probes_of_other_data_and_epochs_are_kept_apart(tmp_path, capsys):
    rows = [
        probe_row(epochs=20, rank=4), probe_row(), probe_row(rank=8), probe_row(dataset="mnist"),
        probe_row(epochs=20, rank=2),
    ]  # fmt: skip
    probes = read_measurements([write(tmp_path / "p.csv", *rows)]).probes
    found = {(key.dataset, key.epochs): list(by_rank) for key, by_rank in probes.items()}
    assert found == {("digits", 10): [FULL, 8], ("mnist", 10): [FULL], ("digits", 20): [4, 2]}
    assert list(found)[-1] == ("digits", 20) and not capsys.readouterr().err  # the newest last


def test_stitches_that_differ_in_the_matching_rank_alone_are_kept_apart(tmp_path, capsys):
    def row(stitch_rank, pinv_rank, accuracy, **options):
        return stitch_row(
            init="pinv", n_epochs=0, front_stitch_rank=stitch_rank, front_pinv_rank=pinv_rank, accuracy=accuracy,
            **options,
        )  # fmt: skip

    cut = [row(8, 8, 0.5), row(8, None, 0.25), row(4, 4, 0.4), row(4, 16, 0.125), row(None, None, 0.9)]
    setting = "a.pt -- b.pt: rc2c_pre, direct matching"
    measurements = read_measurements([write(tmp_path / "grid.csv", *cut)]).measurements
    assert {(each.setting, each.ranks[0]): each.value for each in measurements} == {
        (setting, 8): 0.5, (f"{setting}, front_pinv_rank=full", 8): 0.25, (setting, 4): 0.4,
        (f"{setting}, front_pinv_rank=16", 4): 0.125, (setting, FULL): 0.9,
    }  # fmt: skip
    # Where no two of them collide, they are one series.
    measurements = read_measurements([write(tmp_path / "grid.csv", cut[1], cut[4])]).measurements
    assert {each.setting for each in measurements} == {setting}
    # A random start matches nothing, so the rank of the matching is none of its settings.
    rows = [stitch_row(front_stitch_rank=8, front_pinv_rank=rank, folder=f"{rank}") for rank in (4, 8)]
    (measurement,) = read_measurements([write(tmp_path / "grid.csv", *rows)]).measurements
    assert measurement.setting == "a.pt -- b.pt: rc2c_pre, task loss matching"


def test_stitches_are_kept_apart_by_networks_and_method(tmp_path, capsys):
    """Direct matching and training that goes on from it, and two directions of the same networks, never mix."""
    measured = ((0.1, "a.pt", "b.pt", 0), (0.9, "a.pt", "b.pt", 5), (0.2, "./b.pt", "a.pt", 0))
    rows = [
        stitch_row(init="pinv", accuracy=accuracy, front_model_path=front, end_model_path=end, n_epochs=n_epochs)
        for accuracy, front, end, n_epochs in measured
    ]
    tables = read_measurements([write(tmp_path / "grid.csv", *rows)])
    found = {
        (tuple(tables.names[name].path for name in each.models), each.method): each.value
        for each in tables.measurements
    }
    assert found == {
        (("a.pt", "b.pt"), "direct matching"): 0.1,
        (("a.pt", "b.pt"), "task loss matching"): 0.9,
        (("b.pt", "a.pt"), "direct matching"): 0.2,
    }
    assert not capsys.readouterr().err


def test_the_caption_names_networks_data_and_images(tmp_path):
    tables = [
        write(tmp_path / "s.csv", similarity_row(model1="/home/me/m/a.pt", n_samples=500, values={"cka": 0.5})),
        write(tmp_path / "p.csv", probe_row(model="/home/me/m/a.pt"), probe_row(model="/home/me/m/a.pt", rank=4)),
        write(
            tmp_path / "grid.csv",
            stitch_row(front_model_path="/home/me/m/a.pt", dataset="/data/sets/flowers", init="pinv"),
        ),
    ]
    assert describe(read_measurements(tables)) == (
        "Networks: m/a.pt (resnet18), b.pt (resnet18). Data: digits, sets/flowers. "
        "Images: 500 (similarity), 360 (probes), 100 (matching)."
    )


def test_the_number_of_images_is_that_of_the_matching(tmp_path):
    """Each pair has a number of its own under `auto`, and a random start none."""
    table = write(
        tmp_path / "grid.csv",
        stitch_row(init="pinv", n_pinv_init_samples="auto", n_matched=400),
        stitch_row(init="pinv", n_matched=100, seed=1),
        stitch_row(init="repair", seed=2),  # does not say how many
        stitch_row(init="rand", n_pinv_init_samples="auto", seed=3),
    )
    assert describe(read_measurements([table])).endswith("Images: 100, 400 (matching).")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"model2": "-", "seed": 0}, {"model2": "-", "seed": 1}),
        ({"model2": "DEFAULT", "model2_type": "tv_resnet18"}, {"model2": "DEFAULT", "model2_type": "tv_resnet34"}),
    ],
)
def test_networks_without_a_file_are_kept_apart(one, other, tmp_path, capsys):
    """Fresh weights of several seeds, and torchvision's weights of several types, have one path."""
    rows = [similarity_row(**names, values={"cka": value}) for names, value in ((one, 0.25), (other, 0.5))]
    measurements = read_measurements([write(tmp_path / "s.csv", *rows)]).measurements
    assert sorted(settings_of(measurements).values()) == [[0.25], [0.5]] and not capsys.readouterr().err
