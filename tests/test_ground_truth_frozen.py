"""A frozen run of the ground truth: planted features, what is kept, and what another measure
scores."""

import itertools

import numpy as np
import pytest
import torch

from src.ground_truth.frozen_truth import FrozenTest, read_frozen, write_frozen
from src.ground_truth.outputs import features_of
from src.ground_truth.truth_protocol import clean_networks, score
from src.models import build_model
from src.similarity.many import similarities_of_pairs
from tests.commands import error_line, run, says

SCRIPT = "misc/ground_truth.py"
LAYERS = ["x1", "x2", "x3"]
GROUPS = ["clean"] * 4 + ["impostor:far", "impostor:near", "similar:copy"]
NAMES = [f"n{number}" for number in range(len(GROUPS))]
PLACES = (0.1, 0.2, 0.4, 0.8, 9.0, 0.25, 0.25)  # of the networks, on a line
CODE = """
def gap(x, y):
    return -(x - y).abs().mean()

def minus_gap(x, y):
    return (x - y).abs().mean()

def nothing(x, y):
    return float("nan")

def ratio(x, y):
    return x.mean() / y.mean()
ratio.symmetric = False
"""


@pytest.fixture
def mine(tmp_path):
    """The path of a file of measures; networks are as similar as their features are equal."""
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def planted() -> FrozenTest:
    """Seven networks on a line; layers lie on another line. Four clean networks are the ends."""
    features = {}
    for name, place in zip(NAMES, PLACES, strict=True):
        features[name] = {
            layer: torch.full((5, 2), place + depth) for depth, layer in enumerate(LAYERS)
        }
    pairs = [
        (first, second)
        for first, second in itertools.combinations(NAMES, 2)
        if first in NAMES[:4] or second in NAMES[:4]
    ]
    gaps = np.abs(np.subtract.outer(PLACES, PLACES))
    outputs = {"accuracy": np.zeros_like(gaps), "disagreement": gaps}
    numbers = np.random.default_rng(0).random((3, len(NAMES), len(LAYERS)))
    return FrozenTest(features, pairs, GROUPS, LAYERS, outputs, numbers, "pool", None)


def values_of(test: FrozenTest, *metrics: str) -> dict[str, np.ndarray]:
    clean = [NAMES[place] for place in clean_networks(test.groups)]
    return similarities_of_pairs(
        test.features,
        test.pairs,
        metrics,
        layers=test.layers,
        across_layers=clean,
        alignment=test.alignment,
    )


def test_a_measure_sees_the_planted_counterfeit_and_the_planted_order(tmp_path, mine):
    write_frozen(tmp_path / "frozen", [planted()], [])
    (test,) = read_frozen(tmp_path / "frozen")
    values = values_of(test, f"{mine}:gap", f"{mine}:minus_gap")
    rows = score(test.tables(values), test.groups, test.outputs)
    found = {(row.test, row.score, row.measure): row for row in rows if row.layer is None}
    for measure, sign in (("gap", 1), ("minus_gap", -1)):
        assert found["disagreement", "spearman", measure].value == pytest.approx(sign)
        assert sign * found["layers", "spearman", measure].value > 0.8
    assert found["impostors", "far", "gap"].value == 1
    assert found["impostors", "near", "gap"].value == 0  # as near as the copy
    assert found["impostors", "share", "gap"].value == 0.5
    assert found["impostors", "far", "minus_gap"].value == 0
    baselines = {row.measure for row in rows if row.is_baseline}
    assert len(baselines) == 3


def test_a_frozen_test_is_read_as_it_was_written(tmp_path):
    further = {"shortcut": 0.0, "alignment": "auto", "groups": GROUPS[::-1], "is_pooled": True}
    tests = [planted(), planted()._replace(**further)]
    write_frozen(tmp_path, tests, [])
    for test, again in zip(tests, read_frozen(tmp_path), strict=True):
        np.testing.assert_array_equal(again.numbers, test.numbers)
        np.testing.assert_array_equal(again.outputs["disagreement"], test.outputs["disagreement"])
        for name, features in test.features.items():
            assert all(
                torch.equal(again.features[name][layer], features[layer]) for layer in LAYERS
            )
        plain = {"features": {}, "numbers": None, "outputs": {}}
        assert again._replace(**plain) == test._replace(**plain)


def test_only_measured_pairs_have_values_and_only_clean_ones_across_layers(mine):
    values = values_of(planted(), f"{mine}:ratio")["ratio"]
    assert np.isnan(values[4, 5]).all() and np.isnan(values[0, 0]).all()
    assert values[0, 4].diagonal() == pytest.approx([0.1 / 9, 1.1 / 10, 2.1 / 11])
    assert values[4, 0].diagonal() == pytest.approx([9 / 0.1, 10 / 1.1, 11 / 2.1])
    assert np.isnan(values[0, 4][0, 1]) and values[0, 1][0, 2] == pytest.approx(0.1 / 2.2)
    assert values[1, 0][2, 0] == pytest.approx(2.2 / 0.1)


def test_layers_that_a_network_lacks_are_left_out(mine):
    test = planted()
    del test.features["n1"]["x2"]
    values = values_of(test, f"{mine}:gap")["gap"]
    assert np.isnan(values[0, 1][1]).all() and np.isfinite(values[0, 1][0, 2])
    assert np.isfinite(values[0, 2]).all()


def test_values_that_are_not_defined_are_named(mine, capsys):
    test = planted()
    values = values_of(test, f"{mine}:nothing")
    said = capsys.readouterr().err
    assert says(said, "nothing", "x1 of n0 and x1 of n1")
    assert len(said.splitlines()) == 1 and "more" in said
    rows = score(test.tables(values), test.groups, test.outputs)
    assert not [row for row in rows if row.measure == "nothing"]


def test_features_are_those_of_the_layers_that_a_network_has():
    torch.manual_seed(0)
    network = build_model("small_cnn", n_classes=10, n_channels=1, image_shape=(1, 8, 8)).eval()
    images = torch.rand(30, 1, 8, 8)
    batches = [(part, torch.zeros(len(part))) for part in images.split(20)]
    whole = features_of(network, batches, ["pool1", "none"])
    pooled = features_of(network, batches, ["pool1", "none"], pooled=True)
    assert list(whole) == list(pooled) == ["pool1"]
    with torch.no_grad():
        torch.testing.assert_close(whole["pool1"], network(images, until="pool1"))
    torch.testing.assert_close(pooled["pool1"], whole["pool1"].mean((2, 3)))


def test_what_averages_over_positions_cannot_say_is_named():
    """Measures whose samples are images need no positions."""
    whole = planted()
    assert whole.of_whole_layers(["cka", "procrustes"]) == []
    assert whole._replace(is_pooled=True).of_whole_layers(["cka", "procrustes"]) == ["cka"]


def test_user_errors(tmp_path, mine):
    measure = ["--score", f"{mine}:gap"]
    write_frozen(tmp_path / "damaged", [planted()], [])
    undefined = ["--score", f"{mine}:nothing", "damaged"]
    line = run(SCRIPT, *undefined, cwd=tmp_path, status=2).err.splitlines()[-1]
    assert says(line, "all its pairs", "measure that is defined")
    archive = tmp_path / "damaged" / "features.npz"
    archive.write_bytes(archive.read_bytes()[:1000])
    assert "cannot read" in error_line(SCRIPT, *measure, "damaged", cwd=tmp_path)
