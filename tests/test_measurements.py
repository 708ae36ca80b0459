"""Tables read back as measurements: what tells them apart, signs, full ranks, repetitions, and refused files."""

import math
import shutil

import pytest

from src.measurements import FULL, Measurement, describe, read_tables
from src.results.records import write_table
from src.results.rows import SimilarityRow
from src.similarity.registry import MEASURES
from tests.result_rows import probe_row, similarity_row, stitch_row


def write(path, *rows):
    keys = {"values": MEASURES, "nulls": MEASURES} if isinstance(rows[0], SimilarityRow) else {}
    write_table(path, type(rows[0]), rows, **keys)
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
    tables = read_tables([write(tmp_path / "s.csv", *rows)])
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
    measurements = read_tables([one, two, one]).measurements
    assert {(each.setting, each.layers, each.ranks): each.value for each in measurements} == {
        ("m/a.pt -- b.pt", ("x", "y"), (FULL, FULL)): 0.7, ("m/a.pt -- b.pt", ("z", "y"), (FULL, FULL)): 0.1,
    }  # fmt: skip
    assert "1 result repeats another of the same experiment; the newest of each counts" in capsys.readouterr().err


def test_a_copy_of_a_checkpoint_is_the_same_network(tmp_path, monkeypatch, capsys):
    """In tables of every kind: probes of a copy are those of the network."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.pt").write_bytes(b"weights")
    shutil.copy("f.pt", "copy.pt")
    tables = read_tables([
        write(tmp_path / "s.csv", similarity_row(model1="f.pt", values={"cka": 0.5}),
              similarity_row(model1="copy.pt", values={"cka": 0.7})),
        write(tmp_path / "p.csv", probe_row(model="copy.pt")),
        write(tmp_path / "grid.csv", stitch_row(front_model_path="copy.pt")),
    ])  # fmt: skip
    assert settings_of(tables.measurements) == {
        ("cka", "f.pt -- b.pt"): [0.7],  # by the name that was read first
        ("stitching accuracy", "f.pt -- b.pt: rc2c_pre, task loss matching"): [0.5],
    }
    assert list(tables.probes) == [(tables.measurements[0].models[0], "x")]
    assert "1 result repeats another" in capsys.readouterr().err


def test_values_of_other_alignments_are_kept_apart(tmp_path):
    rows = [
        similarity_row(alignment_option="auto", values={"cka": 0.5, "pwcca": 0.25}),
        similarity_row(alignment="average pool", alignment_option="pool", values={"cka": 0.5, "pwcca": 0.75}),
    ]
    measurements = read_tables([write(tmp_path / "s.csv", *rows)]).measurements
    assert settings_of(measurements) == {
        ("cka", "a.pt -- b.pt"): [0.5],
        ("pwcca", "a.pt -- b.pt"): [-0.25],
        ("pwcca", "a.pt -- b.pt, pool"): [-0.75],
    }
    assert [each.alignment for each in measurements] == ["", "positions", "average pool"]


def test_the_last_probe_of_a_rank_counts(tmp_path, capsys):
    rows = [
        probe_row(rank=4, accuracy=0.5, train_accuracy=None, loss=1.5),
        probe_row(rank=4, accuracy=0.75, loss=1.25, seed=1),
        probe_row(rank=None, accuracy=0.8, loss=1.0),
    ]
    tables = read_tables([write(tmp_path / "p.csv", *rows)])
    assert tables.measurements == [] and "1 result repeats another" in capsys.readouterr().err
    ((identity, layer),) = tables.probes
    assert (tables.names[identity].path, layer) == ("a.pt", "x")
    assert tables.probes[identity, layer] == {4: rows[1], FULL: rows[2]}


def test_stitches_are_kept_apart_by_networks_and_method(tmp_path, capsys):
    """Direct matching and training that goes on from it, and two directions of the same networks, never mix."""
    measured = ((0.1, "a.pt", "b.pt", 0), (0.9, "a.pt", "b.pt", 5), (0.2, "./b.pt", "a.pt", 0))
    rows = [
        stitch_row(init="pinv", accuracy=accuracy, front_model_path=front, end_model_path=end, n_epochs=n_epochs)
        for accuracy, front, end, n_epochs in measured
    ]
    tables = read_tables([write(tmp_path / "grid.csv", *rows)])
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


def test_ranks_of_the_front_network_are_measured_and_tell_no_methods_apart(tmp_path):
    rows = [stitch_row(front_stitch_rank=8, front_pinv_rank=8, accuracy=0.25), stitch_row(accuracy=0.5)]
    measurements = read_tables([write(tmp_path / "grid.csv", *rows)]).measurements
    assert [(each.setting, each.ranks, each.value) for each in measurements] == [
        ("a.pt -- b.pt: rc2c_pre, task loss matching", (8, FULL), 0.25),
        ("a.pt -- b.pt: rc2c_pre, task loss matching", (FULL, FULL), 0.5),
    ]


def test_the_caption_names_networks_data_and_images(tmp_path):
    tables = [
        write(tmp_path / "s.csv", similarity_row(model1="/home/me/m/a.pt", n_samples=500, values={"cka": 0.5})),
        write(tmp_path / "p.csv", probe_row(model="/home/me/m/a.pt"), probe_row(model="/home/me/m/a.pt", rank=4)),
        write(
            tmp_path / "grid.csv",
            stitch_row(front_model_path="/home/me/m/a.pt", dataset="/data/sets/flowers", init="pinv"),
        ),
    ]
    assert describe(tables) == (
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
    assert describe([table]).endswith("Images: 100, 400 (matching).")


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
    measurements = read_tables([write(tmp_path / "s.csv", *rows)]).measurements
    assert sorted(settings_of(measurements).values()) == [[0.25], [0.5]] and not capsys.readouterr().err
