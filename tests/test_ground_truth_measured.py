"""What the ground truth scores: tables of all pairs as arrays, differences of outputs and the numbers of
baselines, and a frozen run, on which another measure is scored."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from src.ground.errors import UserError
from src.ground_truth import output_differences
from src.ground_truth.frozen_truth import FrozenTest, read_frozen, write_frozen
from src.ground_truth.outputs import (
    BASELINES,
    NetworkPass,
    baseline_numbers,
    baselines,
    differences,
    effective_rank,
    features_of,
    pass_over,
)
from src.ground_truth.truth_protocol import clean_networks, score
from src.ground_truth.truth_tables import read_tables
from src.models import build_model
from src.results.network_list import ListedNetwork
from src.results.similarity_rows import SimilarityRow
from src.similarity.many import similarities_of_pairs
from src.values import ALL_IMAGES, WITHIN_CLASSES, ComparedLayers, Null, Similarity
from tests.commands import error_line, run, says
from tests.tables import PROBE, SIMILARITY, STITCH, write_table


def predictions(n=200, n_classes=10, seed=0) -> np.ndarray:
    logits = 3 * np.random.default_rng(seed).normal(size=(n, n_classes))
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_differences_by_hand():
    first, second = [[1, 0], [1, 0], [0.5, 0.5], [0, 1]], [[1, 0], [0, 1], [0.5, 0.5], [0, 1]]
    assert output_differences(first, second) == (1 / 4, 1 / 4)
    assert output_differences([[1.0, 0.0]], [[0.5, 0.5]]).jensen_shannon == pytest.approx(
        1.5 - 0.75 * math.log2(3)
    )
    assert output_differences(np.eye(3), np.eye(3)[[1, 2, 0]]) == (
        1,
        1,
    )  # certain of different classes: 1 bit
    for row in predictions(300):  # rounding gives less than 0 in some of them
        assert 0 <= output_differences(row[None], row[None] * (1 + 1e-9)).jensen_shannon < 1e-12


def test_divergence_is_that_of_scipy_and_has_no_order():
    first, second = predictions(), predictions(seed=1)
    expected = np.mean(
        [jensenshannon(p, q, base=2) ** 2 for p, q in zip(first, second, strict=True)]
    )
    found = output_differences(first, second)
    assert found.jensen_shannon == pytest.approx(expected, rel=1e-9)
    assert found.disagreement == (first.argmax(1) != second.argmax(1)).mean()
    assert output_differences(second, first) == found and output_differences(first, first) == (0, 0)


def test_what_is_refused():
    with pytest.raises(ValueError, match="of other images or classes"):
        output_differences(predictions(3), predictions(4))
    for spoilt in (np.log(predictions(3)), 2 * predictions(3), np.full((3, 10), np.nan)):
        with pytest.raises(ValueError, match="apply a softmax to logits"):
            output_differences(predictions(3), spoilt)


# One pass


def test_effective_rank_counts_the_axes_that_vary():
    rng = torch.Generator().manual_seed(0)
    axes = torch.randn(50, 6, generator=rng, dtype=torch.double)
    axes = torch.linalg.qr(axes - axes.mean(0))[0]  # centred
    assert effective_rank(3 * axes + 7) == pytest.approx(6)
    assert effective_rank(axes * torch.tensor([1, 1, 0, 0, 0, 0])) == pytest.approx(2)
    shares = np.array([0.9, 0.1])
    assert effective_rank(axes[:, :2] * torch.tensor(shares).sqrt()) == pytest.approx(
        math.exp(-shares @ np.log(shares))
    )
    assert effective_rank(torch.ones(5, 3)) == pytest.approx(1)


def test_a_pass_gives_what_the_network_gives():
    torch.manual_seed(0)
    network = build_model("small_cnn", n_classes=10, n_channels=1, image_shape=(1, 8, 8)).eval()
    images, labels = torch.rand(30, 1, 8, 8), torch.arange(30) % 10
    batches = [(images[:20], labels[:20]), (images[20:], labels[20:])]
    passed = pass_over(network, batches, ["pool1", "nothing", "pool4"])
    with torch.no_grad():
        logits, features = (
            network(images),
            network.activations(images, ["pool1"])["pool1"].mean((2, 3)).double(),
        )
    np.testing.assert_allclose(passed.probabilities, logits.softmax(1), atol=1e-6)
    assert passed.accuracy == (logits.argmax(1) == labels).double().mean()
    assert passed.mean_norms[0] == pytest.approx(features.norm(dim=1).mean().item(), rel=1e-5)
    assert passed.effective_ranks[0] == pytest.approx(effective_rank(features), rel=1e-4)
    assert (
        np.isnan(passed.mean_norms).tolist()
        == np.isnan(passed.effective_ranks).tolist()
        == [False, True, False]
    )


def test_a_pass_refuses_logits_that_are_not_finite():
    network = build_model("small_cnn", n_classes=10, n_channels=1, image_shape=(1, 8, 8)).eval()
    batch = (torch.full((3, 1, 8, 8), torch.inf), torch.arange(3))
    with pytest.raises(UserError, match="the logits of clean_0 are not finite"):
        pass_over(network, [batch], [], name="clean_0")


def test_baselines_are_negative_differences_of_one_number_of_each_network():
    passed = [
        NetworkPass(predictions(seed=i), 0.1 * i, np.array([i, 5.0]), np.array([7.0, i * i]))
        for i in range(3)
    ]
    found = baselines(baseline_numbers(passed))
    assert list(found) == list(BASELINES) and {each.shape for each in found.values()} == {
        (3, 3, 2, 2)
    }
    accuracy, rank, norm = found.values()
    assert (accuracy[0, 2] == -0.2).all() and rank[2, 1, 0, 0] == -1 and norm[2, 1, 1, 1] == -3
    assert (
        rank[1, 2, 0, 1] == -4 and norm[1, 2, 0, 1] == -3
    )  # of the first layer of one and the second of the other
    of_outputs = differences(passed)
    assert of_outputs["accuracy"][0, 2] == pytest.approx(0.2)
    assert (
        of_outputs["disagreement"][0, 1]
        == output_differences(predictions(seed=0), predictions(seed=1)).disagreement
    )


SOURCE = {
    "model1": "a.pt", "model2": "b.pt", "model1_type": "small_cnn", "model2_type": "small_cnn", "dataset": "digits",
    "n_samples": 10, "alignment_option": "auto", "n_permutations": 20, "seed": None,
}  # fmt: skip
NETWORKS = [ListedNetwork(name, f"{name}.pt", "resnet18") for name in "ab"]


def place(folder: Path, kind: str, name: str, usual: dict, *rows: dict) -> None:
    (folder / kind).mkdir(parents=True, exist_ok=True)
    write_table(folder / kind / name, usual | {key: "" for row in rows for key in row}, *rows)


def test_what_is_not_symmetric_has_a_value_each_way(tmp_path, capsys):
    """Whatever the order of the list; a table of an earlier version has one way only, and that is
    said."""
    calibrated = {f"pwcca{part}": 0.1 for part in ("_p_value", "_null_95", "_calibrated")}
    calibrated |= {f"pwcca_reversed{part}": 0.2 for part in ("_p_value", "_null_95", "_calibrated")}
    row = {
        "layer1": "x",
        "layer2": "y",
        "cka": 0.5,
        "pwcca": 0.3,
        "pwcca_reversed": 0.7,
        **calibrated,
    }
    place(tmp_path, "similarity", "a-b.csv", SIMILARITY, row)
    for networks, (a, b) in ((NETWORKS, (0, 1)), (NETWORKS[::-1], (1, 0))):
        tables = read_tables(tmp_path, networks)
        x, y = map(tables.layers.index, "xy")
        values = {name: (of[a, b, x, y], of[b, a, y, x]) for name, of in tables.values.items()}
        assert values == {"cka": (0.5, 0.5), "pwcca": (-0.3, -0.7), "pwcca calibrated": (0.1, 0.2)}
    assert capsys.readouterr().err == ""


def test_a_row_keeps_what_was_compared():
    nulls = {ALL_IMAGES: Null(0.05, 0.1, 0.2), WITHIN_CLASSES: Null(0.5, 0.3, 0.0)}
    back = {"pwcca": Similarity(0.5, {ALL_IMAGES: Null(0.25, 0.75, 0.125)})}
    values = {
        "cka": Similarity(0.5, nulls),
        "pwcca": Similarity(0.25),
        "own_distance": Similarity(2.0),
    }
    compared = ComparedLayers("x", "y", 4, None, "positions", values, back)
    row = SimilarityRow.of(compared, SOURCE)
    assert list(row.values)[:4] == ["cka", "pwcca", "own_distance", "pwcca_reversed"]
    assert row.values["cka_null_95_within"] == 0.3
    assert row.values["pwcca_reversed_p_value"] == 0.25
    assert row.measures == ["cka", "pwcca", "own_distance"] and len(row.values) == 4 + 3 * 3


@pytest.mark.parametrize(
    ("kind", "name", "usual"),
    [("similarity", "a-b.csv", SIMILARITY | {"cka": 0.5}), ("probes", "a.csv", PROBE)],
)
def test_tables_without_stitches_say_that_images_had_dots(kind, name, usual, tmp_path):
    place(tmp_path, kind, name, usual, {"shortcut": 0.0})
    place(tmp_path, "probes", "b.csv", PROBE, {"model": "b.pt", "shortcut": 0.0})
    assert read_tables(tmp_path, NETWORKS).shortcut == 0
    place(tmp_path, "a to b/pinv/t", "grid.csv", STITCH, {"shortcut": ""})
    (tmp_path / "a to b/pinv/t/config.txt").write_text('{"stitching_type": "rc2c_pre"}')
    with pytest.raises(UserError, match="with dots .--shortcut. and tables of images without"):
        read_tables(tmp_path, NETWORKS)


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
