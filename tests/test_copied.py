"""A project that was copied elsewhere goes on, skips what is finished and judges: no path is a part of what
results are compared by."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from src.core.inputs import InputSpec
from src.core.seeds import seeded
from src.core.tensors import save_state
from src.models import build_model
from src.results.checkpoints import load_model
from src.results.network_names import NamedNetwork, training_of
from src.results.spec import difference, key_of
from src.results.stitches import read_stitches
from tests.commands import ROOT, error_line, read_csv, read_json, run, says
from tests.tiny_datasets import random_images

NETS = """from neighbour import build


def net(n_classes, n_channels):
    return build(n_classes, n_channels)
"""
NEIGHBOUR = """from src.models import build_model


def build(n_classes, n_channels):
    return build_model("small_cnn", n_classes=n_classes, n_channels=n_channels).module
"""
DATA = ["-d", "dd.npz", "-gpu", -1, "-b", 64]
STITCH = ["exec_stitch.py", "f.pt", "g.pt", "nets.py:net", "nets.py:net", "pool2,pool4", "pool4", "rc2c_pre", *DATA,
          "-e", 0, "-i", "pinv", "--mod-only-stitch", "-dir", "r", "--resume"]  # fmt: skip
EVALUATE = ["exec_eval_stitcher_ood.py", "results/r", *DATA, "--own-types", "nets.py:net"]
PROBE = [
    "exec_probe.py",
    "f.pt",
    "nets.py:net",
    "-l",
    "pool4",
    *DATA,
    "-e",
    1,
    "-o",
    "p.csv",
    "--resume",
]
MEASURE = ["exec_compute_low_rank_sim_metrics.py", "f.pt", "g.pt", "nets.py:net", "nets.py:net", "pool4", "pool4",
           *DATA, "-n", 40, "-o", "s.csv"]  # fmt: skip
PAIRS = ["misc/all_pairs.py", "networks.csv", "pool4", "rc2c_pre", *DATA, "-dir", "all", "-n", 40, "--methods",
         "pinv", "--probes", 1, "--own-types", "nets.py:net"]  # fmt: skip
COMPARE = ["misc/compare.py", "f.pt", "g.pt", "nets.py:net", "-l", "pool4", *DATA, "-n", 40, "--methods", "pinv",
           "-o", "two"]  # fmt: skip


@pytest.fixture(autouse=True)
def networks_at_chance(monkeypatch):
    """The networks of these tests are trained too little to be compared."""
    monkeypatch.setattr("misc.compare.check_accuracies", lambda *_: None)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with two networks of a user's code, and images; it is the working folder."""
    folder = tmp_path / "before"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for seed, name in enumerate("fg"):
        with seeded(seed):
            network = build_model("small_cnn", n_classes=3, n_channels=1, image_shape=(1, 8, 8))
        save_state(Path(f"{name}.pt"), network.state_dict())
    Path("nets.py").write_text(NETS)
    Path("neighbour.py").write_text(NEIGHBOUR)
    Path("networks.csv").write_text("name,path,type\na,f.pt,nets.py:net\nb,g.pt,nets.py:net\n")
    labels = {"y_train": np.arange(96) % 3, "y_test": np.arange(60) % 3}
    images = {"x_train": random_images(96, 8, 8, seed=0), "x_test": random_images(60, 8, 8, seed=1)}
    np.savez("dd.npz", **images, **labels)
    yield folder


@pytest.fixture
def moved(project, monkeypatch):
    """Moves the project, and makes its new place the working folder."""

    def move() -> None:
        place = project.parent / "after"
        monkeypatch.chdir(project.parent)
        shutil.move(project, place)
        monkeypatch.chdir(place)

    return move


def test_the_single_scripts(moved):
    for command in (STITCH, EVALUATE, PROBE, MEASURE):
        run(*command)
    before = read_csv("s.csv")
    moved()
    Path("f.pt").rename("renamed.pt")
    Path("other name").mkdir()
    shutil.copy("dd.npz", "other name")
    now = {"f.pt": "renamed.pt", "dd.npz": "other name/dd.npz"}

    def again(command):
        return run(*(now.get(word, word) for word in command))

    assert "2 of 2 stitches are finished" in again(STITCH).err
    assert says(again([*EVALUATE, "--front-model", "renamed.pt"]).err, "evaluated 2 stitches")
    assert "nothing is left to do" in again(PROBE).err
    again(MEASURE)
    assert [row["cka"] for row in read_csv("s.csv")] == [row["cka"] for row in before]
    said = run("misc/verdict.py", "results/r", "-sim", "s.csv").err
    assert not says(said, "repeat")
    assert {row["cka"] for row in read_csv("verdict.csv")} != {""}


def test_results_of_both_places_are_one_result(moved):
    run(*STITCH)
    moved()
    run(*STITCH[:-1])
    assert "2 results repeat others" in run("misc/verdict.py", "results/r").err
    assert len(read_csv("verdict.csv")) == 2
    keys = {read_json(path)["key"] for path in Path("results/r").glob("*/run.json")}
    assert len(keys) == 1


def test_all_pairs_and_its_verdict(moved):
    run(*PAIRS)
    before = Path("all_verdict.csv").read_bytes()
    moved()
    said = run(*PAIRS).err
    assert says(said, "0 of 5 units") and "does not list" not in said
    assert Path("all_verdict.csv").read_bytes() == before
    said = run("misc/verdict.py", "results/all", "--networks", "networks.csv", "-o", "v.csv").err
    assert "does not list" not in said
    assert {row["front_network"] for row in read_csv("v.csv")} == {"a", "b"}


def test_compare(moved):
    run(*COMPARE)
    moved()
    Path("f.pt").rename("renamed.pt")
    command = ["renamed.pt" if word == "f.pt" else word for word in COMPARE]
    assert says(run(*command).err, "0 of 3 units")
    swapped = [{"f.pt": "g.pt", "g.pt": "renamed.pt"}.get(word, word) for word in COMPARE]
    assert says(error_line(*swapped), "results of other networks", "another -o")


def test_a_spec_has_no_path_and_the_code_beside_the_function_counts(project):
    run(*STITCH)
    (record,) = (read_json(path) for path in Path("results/r").glob("*/run.json"))
    spec = record["spec"]
    assert record["key"] == key_of(spec)
    text = json.dumps(spec)
    assert not any(word in text for word in (str(project), ".pt", ".npz", ".py", '"r"'))
    assert spec["front_model_type"] == "net" and len(spec["front_model_weights"]) == 64
    Path("neighbour.py").write_text(f"{NEIGHBOUR}# changed\n")
    assert says(error_line(*STITCH), "front_model_type_code was")
    assert says(error_line(*EVALUATE), "nets.py is not the code", "stitch again")


def test_a_checkpoint_under_another_type_or_changed_code_is_told_and_the_verdict_repeats_it(
    project,
):
    run("exec_train.py", "nets.py:net", *DATA, "-e", 0, "-dir", "m")
    stitch = [{"f.pt": "m/model_0.pt", "g.pt": "m/model_0.pt"}.get(word, word) for word in STITCH]
    assert "was trained as" not in run(*stitch).err
    again = [*stitch[:-3], "-dir", "other"]
    again[3:5] = ["small_cnn", "small_cnn"]
    said = run(*again).err
    assert says(said, "m/model_0.pt was trained as net, and is loaded as small_cnn")
    said = run("misc/verdict.py", "results/other").err
    assert says(said, "when stitches were made: checkpoint m/model_0.pt was trained as net")
    Path("neighbour.py").write_text(f"{NEIGHBOUR}# changed\n")
    said = run(*stitch[:-3], "-dir", "changed").err
    assert says(said, "m/model_0.pt was trained with other code of net")


def test_epochs_of_a_training_are_one_network_wherever_its_code_lies(project):
    run("exec_train.py", "nets.py:net", *DATA, "-e", 2, "-sf", 1, "-dir", "m")
    types = (str(project / "nets.py:net"), "/elsewhere/nets.py:net")
    names = [NamedNetwork(f"m/model_{epoch}.pt", kind) for epoch in (1, 2) for kind in types]
    assert len({training_of(name) for name in names}) == 1


def test_training_inputs_that_are_test_inputs_are_repeated_by_the_verdict(project, monkeypatch):
    with np.load("dd.npz") as arrays:
        x, y = arrays["x_test"], arrays["y_test"]
    np.savez("dd.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    assert "training and test inputs are the same" in run(*STITCH).err
    said = run("misc/verdict.py", "results/r").err
    assert says(said, "when stitches were made: ", "training and test inputs are the same")
    monkeypatch.setattr("misc.verdict.MAX_WARNINGS", 9)
    run(*COMPARE)
    page = " ".join(Path("two.html").read_text().split())
    assert page.count("training and test inputs are the same") == 1


@pytest.mark.parametrize("second", ["copy.pt", "-", "DEFAULT"])
def test_equal_weights_under_two_names_are_refused(project, second):
    first = second
    if second == "copy.pt":
        shutil.copy("f.pt", second)
        first = "f.pt"
    lines = [
        "name,path,type",
        f"a,{first},nets.py:net",
        f"b,{second},nets.py:net",
        "c,g.pt,nets.py:net",
    ]
    Path("networks.csv").write_text("\n".join(lines) + "\n")
    line = error_line(*PAIRS)
    assert says(line, "networks.csv: a and b have equal weights", "list it once")


def test_an_output_belongs_to_its_inputs(project):
    """Other inputs need another name; the same ones, or more, do not."""
    run(*MEASURE)
    run(*MEASURE[:-2], "--metrics", "cka", "-o", "s.csv")
    before = Path("s.csv").read_bytes()
    other = [{"f.pt": "g.pt"}.get(word, word) for word in MEASURE]
    assert says(error_line(*other), "s.csv has results of other inputs (model1_weights was", "-o")
    assert Path("s.csv").read_bytes() == before
    run(*STITCH)
    run("misc/verdict.py", "results/r", "-o", "v.csv")
    same = [{"f.pt": "g.pt"}.get(word, word) for word in STITCH]
    run(*same[:-2], "other")
    run("misc/verdict.py", "results/r", "-o", "v.csv")
    line = error_line("misc/verdict.py", "results/other", "-o", "v.csv")
    assert says(line, "v.csv has results of other inputs (stitches_weights was", "another -o")
    run("misc/verdict.py", "results/r", "results/other", "-o", "v.csv")


def test_compare_refuses_a_table_of_other_inputs_before_the_work(project, monkeypatch):
    run(*STITCH)
    run("misc/verdict.py", "results/r", "-o", "two.csv")
    spoilt = [{"f.pt": "g.pt", "g.pt": "f.pt"}.get(word, word) for word in STITCH]
    run(*spoilt[:-2], "back")
    run("misc/verdict.py", "results/r", "results/back", "-o", "two.csv")
    monkeypatch.setattr("misc.all_pairs.run_units", None)  # no unit runs
    with np.load("dd.npz") as arrays:
        contents = dict(arrays)
    contents["x_test"] = 255 - contents["x_test"]
    np.savez("other.npz", **contents)
    other = [{"dd.npz": "other.npz"}.get(word, word) for word in COMPARE]
    assert says(error_line(*other), "two.csv has results of other inputs", "another -o")


def test_compare_needs_a_name_and_a_folder_of_its_own(project):
    for name in ("", ".", "two/.."):
        line = error_line(*COMPARE[:-1], name)
        assert "argument -o" in line
    run(*STITCH)
    assert says(
        error_line(*COMPARE[:-1], "r"), "results/r has results of other commands", "another -o"
    )


def test_compare_from_another_folder_replaces_no_results(project, monkeypatch):
    command = [*COMPARE[:-1], str(project.parent / "two")]
    run(*command)
    table = project.parent / "two.csv"
    before = table.read_bytes()
    elsewhere = shutil.copytree(
        project, project.parent / "elsewhere", ignore=shutil.ignore_patterns("two", "results")
    )
    monkeypatch.chdir(elsewhere)
    with seeded(7):
        network = build_model("small_cnn", n_classes=3, n_channels=1, image_shape=(1, 8, 8))
    save_state(Path("f.pt"), network.state_dict())
    assert says(error_line(*command), "two has results of other networks", "another -o")
    assert table.read_bytes() == before


def test_rolled_labels_are_noticed_by_all_scripts(project):
    """A network that is right on all images, and test labels of the next class."""
    run("exec_train.py", "small_cnn", *DATA, "-e", 0, "-dir", "m")
    Path("m/model_0.pt").rename("f.pt")
    shutil.rmtree("m")
    model = load_model(NamedNetwork("f.pt", "small_cnn"), InputSpec(3, (1, 8, 8)))
    with np.load("dd.npz") as arrays:
        contents = dict(arrays)
    images = torch.from_numpy(contents["x_test"])[:, None] / 255
    with torch.no_grad():
        predicted = model(images).argmax(1).numpy()
    contents["y_test"] = (predicted + 1) % 3
    np.savez("dd.npz", **contents)
    networks = ["f.pt", "f.pt", "small_cnn", "small_cnn", "pool4", "pool4"]
    commands = (
        ["exec_eval.py", "f.pt", "small_cnn", *DATA],
        ["exec_stitch.py", *networks, *STITCH[7:-1]],
        ["exec_eval_stitcher_ood.py", "results/r", *DATA],
        ["exec_probe.py", "f.pt", "small_cnn", "-l", "pool4", *DATA, "-e", 1],
        ["exec_compute_low_rank_sim_metrics.py", *networks, *DATA, "-n", 40],
    )
    for command in commands:
        assert "classes in another order" in run(*command).err, command[0]


def test_a_run_of_the_public_code_has_the_weights_of_checkpoints_that_are_found(in_tmp_path):
    """What it did not record is unknown, and agrees with anything."""
    run_of_public = min((ROOT / "tests/data/public_runs/trained").iterdir())
    shutil.copytree(run_of_public, Path("runs", run_of_public.name))
    (unknown,) = (stitch.spec for stitch in read_stitches("runs")[0])
    assert unknown["front_model_weights"] is None and unknown["test_images"] is None
    checkpoint = Path(read_json(run_of_public / "config.txt")["front_model_path"])
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    (known,) = (stitch.spec for stitch in read_stitches("runs")[0])
    assert known["front_model_weights"] == hashlib.sha256(b"weights").hexdigest()
    assert difference(unknown, known) == {}
    other = known | {"front_model_weights": "0" * 64, "seed": 7}
    assert list(difference(known, other)) == ["front_model_weights", "seed"]
    assert list(difference(unknown, other)) == ["seed"]
