"""Features in an .npz file, in the place of a network whose layers are compared."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from src.core.tensors import save_state
from src.models import build_model
from src.results.feature_files import Images, check_same_images
from src.results.network_names import content_of
from tests.commands import ON_DIGITS, error_line, read_csv, read_json, run, says
from tests.conftest import few_images

SCRIPT = "exec_compute_low_rank_sim_metrics.py"
SHAPE = (1, 8, 8)
LAYERS = ["pool1", "pool3", "output"]
SAVE = "misc/save_features.py"
SAVED = ["pool[13],output", *ON_DIGITS, "-n", 50, "-o"]
MEASURES = ["--metrics", "cka", "pwcca", "procrustes", "mutual_knn", "-o"]


@pytest.fixture(scope="module", autouse=True)
def few():
    with few_images(128, n_test=60):
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with two networks, and their features for 50 test images, saved by the script."""
    path = tmp_path_factory.mktemp("features")
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = build_model("small_cnn", n_classes=10, n_channels=1, image_shape=SHAPE)
        save_state(path / f"{seed}.pt", network.state_dict())
        run(SAVE, f"{seed}.pt", "small_cnn", *SAVED, f"{seed}.npz", cwd=path)
    return path


@pytest.fixture
def folder(template, in_tmp_path):
    """The working folder is a copy of it."""
    return shutil.copytree(template, in_tmp_path, dirs_exist_ok=True)


def table(paths, layers=("pool1,pool3", "pool3,output"), *options) -> list[dict[str, str]]:
    """Compare the layers of networks, or of their features; return the rows."""
    types = ["features" if path.endswith(".npz") else "small_cnn" for path in paths]
    for earlier in Path().glob("m.*"):  # of other inputs, which keep their name
        earlier.unlink()
    run(SCRIPT, *paths, *types, *layers, *ON_DIGITS, "-n", 40, *options, *MEASURES, "m.csv")
    return read_csv("m.csv")


def numbers(rows) -> list[dict[str, float]]:
    columns = {"cka", "pwcca", "procrustes", "mutual_knn", "cka_p_value", "cka_null_95_within"}
    return [{name: float(row[name]) for name in columns & row.keys()} for row in rows]


@pytest.mark.parametrize("paths", [("0.npz", "1.pt"), ("0.pt", "1.npz"), ("0.npz", "1.npz")])
def test_features_give_what_their_network_gives(paths, folder):
    """With permutations within classes, as the file has labels."""
    options = [("pool1,pool3", "pool3,output"), "--permutations", "19", "-m2r", "3", "0"]
    expected = table(["0.pt", "1.pt"], *options)
    rows = table(paths, *options)
    for row, other in zip(numbers(rows), numbers(expected), strict=True):
        assert row == pytest.approx(other, abs=1e-5, nan_ok=True) and "cka_null_95_within" in row
    for name in ("dataset", "test_images", "relative_depth1", "layer1", "layer2", "n_samples"):
        assert [row[name] for row in rows] == [row[name] for row in expected]
    assert len(read_json("m.json")["options"]["model2_path_sha256"]) == 64


def test_two_files_need_no_images(folder):
    """Nor labels, or what they were made with."""
    for name in ("0.npz", "1.npz"):
        with np.load(name) as arrays:
            kept = {key: arrays[key] for key in ("ids", *LAYERS)}
        np.savez(name, **kept)
    given = ["0.npz", "1.npz", "features", "features", "all", "all", "-gpu", "-1", "-d", "imagenet"]
    said = run(SCRIPT, *given, "--permutations", 19, "-n", 60, *MEASURES, "m.csv").err
    assert says(said, "-n 60: ", "only 50 inputs") and "imagenet" not in said
    rows = read_csv("m.csv")
    assert len(rows) == 9 and rows[0]["dataset"] == "features"
    assert "cka_p_value" in rows[0] and "cka_p_value_within" not in rows[0]


IDS = np.arange(50)
POOL1 = np.ones((50, 3))
BAD = {
    "shifted": {"ids": IDS + 1},
    "reversed": {"ids": IDS[::-1]},
    "none": {"ids": None},
    "short": {"pool1": POOL1[:7]},
    "twice": {"ids": [7, *IDS[1:]]},
    "none_at_all": {"ids": 50},
    "text": {"pool1": np.full((50, 3), "x")},
    "number": {"pool1": 3.0},
    "one_image": {"ids": IDS[:1], "pool1": POOL1[:1]},
    "no_layer": {"pool1": None},
    "list": {"made_with": "[]"},
    "count": {"made_with": '{"test_images": 5}'},
    "depths": {"made_with": '{"relative_depths": ["x"]}'},
}


@pytest.mark.parametrize(
    ("paths", "line", "options"),
    [
        ("shifted.npz 1.pt", "shifted.npz: other ids than the test inputs of digits; store", []),
        (
            "0.npz shifted.npz",
            "shifted.npz: other ids than 0.npz; store the features of the same",
            [],
        ),
        (
            "0.npz reversed.npz",
            "reversed.npz: the ids stand in another order than those of 0.npz",
            [],
        ),
        ("none.npz 1.npz", r"none.npz has no array ids; give an \.npz file with an array", []),
        ("short.npz 1.npz", r"short.npz: pool1 has shape \(7, 3\), and there are 50 ids", []),
        ("text.npz 1.npz", "text.npz: pool1 holds no numbers", []),
        (
            "twice.npz 1.npz",
            "twice.npz: the id 7 is repeated; give every input an id of its own",
            [],
        ),
        ("none_at_all.npz 1.npz", r"ids has shape \(\); give one id for each input, \(N,\)", []),
        (
            "number.npz 1.npz",
            r"number.npz: pool1 has shape \(\); give \(N, C, H, W\), \(N, T, D\) or \(N, D\)",
            [],
        ),
        (
            "one_image.npz 1.npz",
            r"one_image.npz: ids has shape \(1,\); give at least two inputs",
            [],
        ),
        ("no_layer.npz 1.npz", r"no_layer.npz has no array of a layer; give an \.npz file", []),
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
    for name in BAD.keys() & {path.removesuffix(".npz") for path in paths.split()}:
        arrays = {"ids": IDS, "pool1": POOL1} | BAD[name]
        np.savez(name, **{key: array for key, array in arrays.items() if array is not None})
    paths = paths.split()
    types = ["features" if path.endswith(".npz") else "small_cnn" for path in paths]
    if options[:1] == ["features"]:
        types, options = options, []
    given = [*paths, *types, "pool1", "pool1", *ON_DIGITS, "-n", 40, *options, *MEASURES, "m.csv"]
    assert re.search(line, error_line(SCRIPT, *given))


def test_layers_and_scripts_that_need_a_network(folder):
    given = ["0.npz", "1.npz", "features", "features", "pool2", "all", "-gpu", "-1"]
    assert says(error_line(SCRIPT, *given), "0.npz", "'pool2'", "mean pool3 or pool1")
    stitch = ["0.npz", "1.pt", "features", "small_cnn", "pool1", "pool1", "rc2c_pre", *ON_DIGITS]
    line = "0.npz holds features, and this needs a network; give a checkpoint and its type"
    assert line in error_line("exec_stitch.py", *stitch)
    assert line in error_line("exec_eval.py", "0.npz", "features", *ON_DIGITS)


# ---- Files that the suite writes


@pytest.mark.parametrize("name", ["ids", "labels", "made_with", "file"])
def test_a_layer_with_the_name_of_another_array_is_not_saved(name, folder):
    """Before the pass over the images."""
    Path("mine.py").write_text(
        "from collections import OrderedDict\n"
        "from torch import nn\n"
        "def build(n_classes):\n"
        f"    return nn.Sequential(OrderedDict({name}=nn.Flatten(), fc=nn.Linear(64, n_classes)))\n"
    )
    given = ["-", "mine.py:build", name, *ON_DIGITS, "-o", "saved.npz"]
    line = error_line(SAVE, *given)
    assert f"a layer called {name} cannot be saved" in line and not Path("saved.npz").exists()


def test_labels_may_be_names_of_classes(folder):
    """Names, numbers in any order, and numbers of any type are the same classes."""
    with np.load("0.npz") as arrays:
        arrays = dict(arrays)
    words = np.array("zero one two three four five six seven eight nine".split())[arrays["labels"]]
    labels = {
        "words": words,
        "swapped": arrays["labels"].astype(">i8"),
        "others": np.roll(words, 1),
    }
    for name, values in labels.items():
        np.savez(f"{name}.npz", **arrays | {"labels": values})
    options = [("pool1", "output"), "--permutations", "19"]
    expected = table(["0.npz", "0.npz"], *options)
    for paths in (["words.npz"] * 2, ["words.npz", "0.npz"], ["swapped.npz"] * 2):
        assert numbers(table(paths, *options)) == numbers(expected)
    given = ["0.pt", "others.npz", "small_cnn", "features", "pool1", "all", *ON_DIGITS, "-n", 40]
    assert "others.npz: other labels of the same ids than" in error_line(SCRIPT, *given)


def test_a_file_says_what_it_was_made_with(folder):
    with np.load("0.npz") as arrays:
        assert {*arrays.files} == {*LAYERS, "ids", "labels", "made_with"}
        assert np.array_equal(arrays["ids"], np.arange(50)) and len(arrays["labels"]) == 50
        made_with = json.loads(str(arrays["made_with"]))
    assert made_with["weights"] == content_of("0.pt")
    assert made_with["test_images"] == read_json("0.json")["options"]["test_images_sha256"]
    assert made_with["preprocessing"] == "1×8×8, values in [0, 1]"
    run(SAVE, "0.pt", "small_cnn", *SAVED, "again.npz")
    assert Path("again.npz").read_bytes() == Path("0.npz").read_bytes()


def test_files_of_a_list_are_compared_with_all_and_never_stitched(folder):
    np.savez_compressed("own.npz", ids=np.arange(45), pool1=np.ones((45, 3)) * np.arange(3))
    lines = [
        "a,0.npz,features,",
        'b,1.npz,features,"pool1,out*"',
        "own,own.npz,features,all",
    ]
    Path("list.csv").write_text(
        "\n".join(["name,path,type,layers", *lines, "net,0.pt,small_cnn,pool3"])
    )
    given = [
        "misc/all_pairs.py",
        "list.csv",
        "pool[13]",
        *ON_DIGITS,
        "-n",
        40,
        "--no-figures",
        "--probes",
        1,
    ]
    run(*given, "--metrics", "cka_debiased", "-dir", "all")
    assert sorted(path.name for path in Path("results/all").iterdir()) == ["probes", "similarity"]
    assert sorted(path.stem for path in Path("results/all").rglob("*.csv")) == sorted(
        ["a-b", "a-own", "a-net", "b-own", "b-net", "own-net", "net"]
    )
    rows = read_csv("results/all/similarity/a-net.csv")
    assert [(row["layer1"], row["layer2"]) for row in rows] == [
        ("pool1", "pool3"),
        ("pool3", "pool3"),
    ]
    assert float(rows[1]["cka_debiased"]) == pytest.approx(1)


def test_files_of_other_images_are_named_before_any_work(folder):
    run(SAVE, "0.pt", "small_cnn", *SAVED, "dots.npz", "--shortcut", 0.5)
    with np.load("0.npz") as arrays:
        arrays = dict(arrays)
    np.savez("shuffled.npz", **arrays | {"ids": arrays["ids"][::-1]})
    np.savez("relabelled.npz", **arrays | {"labels": arrays["labels"] + 1})
    lines = [f"{name},{name}.npz,features" for name in ("0", "shuffled", "relabelled", "dots")]
    Path("list.csv").write_text("\n".join(["name,path,type", *lines]))
    line = error_line("misc/all_pairs.py", "list.csv", *ON_DIGITS, "-n", 40, "-dir", "all")
    assert "shuffled.npz: the ids stand in another order than those of 0.npz" in line
    assert "relabelled.npz: other labels of the same ids than 0.npz" in line
    assert "dots.npz: other inputs of the same ids than 0.npz" in line
    assert not Path("results").exists()


def test_images_that_are_prepared_otherwise_are_noted(capsys):
    """A network may need it; of networks that were trained alike it is a mistake."""
    ids = np.arange(3)
    plain = Images("a.npz", ids, None, None, "1×8×8, values in [0, 1]")
    normalised = Images("b.npz", ids, None, None, "1×8×8, normalised")
    check_same_images(plain, [normalised], n_images=3)
    assert says(capsys.readouterr().err, "a.npz", "b.npz", "normalised", "[0, 1]")
    check_same_images(plain, [plain], n_images=3)
    assert capsys.readouterr().err == ""
