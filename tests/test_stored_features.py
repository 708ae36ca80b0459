"""Features in an .npz file, in the place of a network whose layers are compared."""

import re

import numpy as np
import pytest
import torch

from src.datasets import load_dataset
from src.ground.images import ImageSpec
from src.models import build_model
from src.runs.checkpoints import load_model, save_state
from src.tables.network_names import NetworkName
from tests.commands import ON_DIGITS, error_line, read_csv, read_json, run
from tests.conftest import few_images

SCRIPT = "exec_compute_low_rank_sim_metrics.py"
SHAPE = (1, 8, 8)
LAYERS = ["pool1", "pool3", "output"]
MEASURES = ["--metrics", "cka", "pwcca", "procrustes", "mutual_knn", "-o"]


@pytest.fixture(scope="module", autouse=True)
def few():
    with few_images(128, n_test=60):
        yield


@pytest.fixture
def folder(in_tmp_path):
    """A working folder with two networks, and the features of both for 50 test images."""
    images = torch.cat([batch for batch, _ in load_dataset("digits", "", train=False).batches(60)])
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = build_model("small_cnn", n_classes=10, n_channels=1, image_shape=SHAPE)
        save_state(in_tmp_path / f"{seed}.pt", network.state_dict())
        network = load_model(NetworkName(f"{seed}.pt", "small_cnn"), ImageSpec(10, SHAPE))
        with torch.no_grad():
            activations = network.activations(images[:50], LAYERS)
        arrays = {name: activation.numpy() for name, activation in activations.items()}
        np.savez(f"{seed}.npz", ids=np.arange(50), **arrays)
    return in_tmp_path


def table(paths, types, layers=("pool1,pool3", "pool3,output"), *options) -> list[dict[str, str]]:
    run(SCRIPT, *paths, *types, *layers, *ON_DIGITS, "-n", 40, *options, *MEASURES, "m.csv")
    return read_csv("m.csv")


def numbers(rows) -> list[dict[str, float]]:
    columns = {"cka", "pwcca", "procrustes", "mutual_knn", "cka_p_value", "cka_null_95_within"}
    return [{name: float(row[name]) for name in columns & row.keys()} for row in rows]


def test_features_give_what_their_network_gives(folder):
    options = ["--permutations", "19", "-m2r", "3", "0"]
    expected = table(
        ["0.pt", "1.pt"], ["small_cnn"] * 2, *[["pool1,pool3", "pool3,output"]], *options
    )
    for paths in (["0.npz", "1.pt"], ["0.pt", "1.npz"]):
        types = ["features" if path.endswith(".npz") else "small_cnn" for path in paths]
        rows = table(paths, types, ("pool1,pool3", "pool3,output"), *options)
        for row, other in zip(numbers(rows), numbers(expected), strict=True):
            assert row == pytest.approx(other, abs=1e-5)
    assert rows[0]["model2_type"] == "features" and rows[0]["n_samples"] == "40"
    assert len(read_json("m.config.txt")["model2_path_sha256"]) == 64


def test_two_files_need_no_images(folder):
    expected = numbers(table(["0.pt", "1.pt"], ["small_cnn"] * 2))
    given = ["0.npz", "1.npz", "features", "features", "pool1,pool3", "pool3,output"]
    said = run(SCRIPT, *given, "-gpu", "-1", "-n", 40, "-d", "imagenet", *MEASURES, "m.csv")
    rows = read_csv("m.csv")
    for row, other in zip(numbers(rows), expected, strict=True):
        assert row == pytest.approx(other, abs=1e-5)
    assert rows[0]["dataset"] == "features" and "imagenet" not in said.err
    given[4:] = "all", "all"
    said = run(SCRIPT, *given, "-gpu", "-1", "--permutations", 19, *MEASURES, "m.csv")
    assert "-n 1000: there are features of 50 images only" in said.err
    rows = read_csv("m.csv")
    assert len(rows) == 9 and "cka_p_value" in rows[0] and "cka_p_value_within" not in rows[0]


@pytest.mark.parametrize(
    ("paths", "line", "options"),
    [
        ("shifted.npz 1.pt", "shifted.npz: the ids are not 0, 1, 2, …, the places of the test", []),
        ("0.npz shifted.npz", "0.npz and shifted.npz have other ids", []),
        ("none.npz 1.npz", r"none.npz has no array ids; give an \.npz file with an array", []),
        ("short.npz 1.npz", r"short.npz: pool1 has shape \(7, 3\), and there are 50 ids", []),
        ("text.npz 1.npz", "text.npz: pool1 holds no numbers", []),
        (
            "twice.npz 1.npz",
            "twice.npz: the id 7 stands there twice or more; give every image another id",
            [],
        ),
        (
            "rows.npz 1.npz",
            r"rows.npz: ids has shape \(50, 1\); give one id for each image, \(N,\)",
            [],
        ),
        ("none_at_all.npz 1.npz", r"ids has shape \(\); give one id for each image, \(N,\)", []),
        ("missing.npz 1.npz", "cannot read missing.npz: No such file", []),
        ("0.pt 1.npz", "0.pt has no array ids", ["features", "features"]),
        (
            "0.npz 1.pt",
            "--shortcut changes images, and 0.npz holds features",
            ["--shortcut", "0.5"],
        ),
        (
            "0.npz 1.pt",
            "--channels-last 1 is of a network, and 0.npz holds features",
            ["--channels-last", "1"],
        ),
    ],
)
def test_refusals(paths, line, options, folder):
    pool1 = np.ones((50, 3))
    np.savez("shifted.npz", ids=np.arange(1, 51), pool1=pool1)
    np.savez("none.npz", pool1=pool1)
    np.savez("short.npz", ids=np.arange(50), pool1=np.ones((7, 3)))
    np.savez("twice.npz", ids=[7, *range(1, 50)], pool1=pool1)
    np.savez("rows.npz", ids=np.arange(50)[:, None], pool1=pool1)
    np.savez("none_at_all.npz", ids=50, pool1=pool1)
    np.savez("text.npz", ids=np.arange(50), pool1=np.full((50, 3), "x"))
    paths = paths.split()
    types = ["features" if path.endswith(".npz") else "small_cnn" for path in paths]
    if options[:1] == ["features"]:
        types, options = options, []
    given = [*paths, *types, "pool1", "pool1", *ON_DIGITS, "-n", 40, *options, *MEASURES, "m.csv"]
    assert re.search(line, error_line(SCRIPT, *given))


def test_layers_and_scripts_that_need_a_network(folder):
    given = ["0.npz", "1.npz", "features", "features", "pool2", "all", "-gpu", "-1"]
    assert "unknown layer of 0.npz 'pool2'; did you mean pool3 or pool1" in error_line(
        SCRIPT, *given
    )
    stitch = ["0.npz", "1.pt", "features", "small_cnn", "pool1", "pool1", "rc2c_pre", *ON_DIGITS]
    line = "0.npz holds features, and this needs a network; give a checkpoint and its type"
    assert line in error_line("exec_stitch.py", *stitch)
    assert line in error_line("exec_eval.py", "0.npz", "features", *ON_DIGITS)
