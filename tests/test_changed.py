"""Results know the weights, the images and the code they were made with: what is replaced is refused where
work resumes, and told apart where results are read."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from src import __version__
from src.core.seeds import seeded
from src.core.tensors import save_state
from src.datasets import load_dataset
from src.models import build_model
from src.results import checkpoints
from src.results import stitch_runs as runs
from src.results.checkpoints import load_model
from src.results.network_names import SHORT, NamedNetwork
from src.results.run import options_of_table
from tests.commands import error_line, names_in, read_csv, read_json, run, says, stitch_rows
from tests.result_rows import blank
from tests.tiny_datasets import random_images, write_mnist

DATA = ["-d", "dd.npz", "-gpu", -1, "-b", 64]
SMALL = ["f.pt", "g.pt", "small_cnn", "small_cnn"]
OWN = ["f.pt", "g.pt", "nets.py:net", "nets.py:net"]
LAYERS = ["pool2,pool4", "pool4", "rc2c_pre", *DATA, "--mod-only-stitch"]
MATCH = ["-e", 0, "-i", "pinv", "-dir", "r"]
STITCH = ["exec_stitch.py", *SMALL, *LAYERS, *MATCH]
EVALUATE = ["exec_eval_stitcher_ood.py", "results/r", *DATA, "--detector", "mahalanobis"]
PROBE = ["exec_probe.py", "f.pt", "small_cnn", "-l", "pool4", *DATA, "-e", 1, "-o", "probes.csv"]
COMPARE = ["exec_compute_low_rank_sim_metrics.py", *SMALL, "pool4", "pool4", *DATA, "-n", 40]
TRAIN = ["exec_train.py", "small_cnn", *DATA, "-dir", "m"]
ALL = ["misc/all_pairs.py", "networks.csv", "pool2,pool4", "rc2c_pre", *DATA, "-dir", "all", "-n", 40,
       "--methods", "pinv", "--metrics", "cka_debiased", "--no-verdict"]  # fmt: skip
CODE = Path("nets.py")
NETS = """import torch
from torch import nn
from src.models import build_model


def net(n_classes, n_channels):
    return build_model("small_cnn", n_classes=n_classes, n_channels=n_channels).module


def pretrained(n_classes, n_channels):
    network = net(n_classes, n_channels)
    with torch.no_grad():
        for i, values in enumerate(network.parameters(), start=1):
            values.copy_(torch.linspace(-1, 1, values.numel()).view_as(values).roll(i))
    return network
"""


@pytest.fixture(autouse=True)
def networks(in_tmp_path):
    """A folder with two networks, the code of further ones, and images."""
    for seed, name in enumerate("fg"):
        train(name, seed)
    CODE.write_text(NETS)
    write_images()
    return in_tmp_path


@pytest.fixture
def loads(monkeypatch):
    """The names of the networks that sessions have loaded."""
    names, load = [], checkpoints.load_model

    def note_and_load(name, *images, **options):
        names.append(name)
        return load(name, *images, **options)

    monkeypatch.setattr(checkpoints, "load_model", note_and_load)
    return names


def train(name: str, seed: int) -> None:
    """Write NAME.pt, over what was there, and with other bytes for another seed."""
    with seeded(seed):
        network = build_model("small_cnn", n_classes=3, n_channels=1, image_shape=(1, 8, 8))
    save_state(Path(f"{name}.pt"), network.state_dict())


def write_images(*, train: int = 0, test: int = 1) -> None:
    """Write images drawn by two seeds, over what was there."""
    np.savez(
        "dd.npz",
        x_train=random_images(96, 8, 8, seed=train),
        y_train=np.arange(96) % 3,
        x_test=random_images(60, 8, 8, seed=test),
        y_test=np.arange(60) % 3,
    )


def write_list(*lines: str) -> None:
    Path("networks.csv").write_text("\n".join(["name,path,type", *lines]) + "\n")


CHANGES = {
    "front_model_weights was": (lambda: train("f", 7), lambda: train("f", 0)),
    "train_images was": (lambda: write_images(train=7), write_images),
    "test_images was": (lambda: write_images(test=7), write_images),
    "model_type_code was": (
        lambda: CODE.write_text(f"{NETS}# changed\n"),
        lambda: CODE.write_text(NETS),
    ),
}


def digest(*, train: bool) -> str:
    """The fingerprint of the images that are in the file now."""
    return load_dataset(str(Path("dd.npz").absolute()), "", train=train).fingerprint


def sha256(name: str) -> str:
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()


def forget(pattern: str) -> None:
    """Make results those of the public code: without fingerprints of images."""
    for path in Path().glob(pattern):
        options = read_json(path)
        kept = {name: value for name, value in options.items() if "images_sha256" not in name}
        assert kept != options
        path.write_text(json.dumps(kept))
        for table in path.parent.glob("grid.csv"):
            blank(table, "train_images", "test_images")


def test_runs_and_tables_record_weights_and_images():
    run(*STITCH)
    run(*EVALUATE)
    run(*PROBE)
    run(*COMPARE, "-o", "sim.csv")
    run(*TRAIN, "-e", 1)
    run("misc/verdict.py", "results/r")
    run("misc/collect_results.py", "results", "-o", "all.csv")
    f, g, train, test = sha256("f.pt"), sha256("g.pt"), digest(train=True), digest(train=False)
    of_run = {
        "front_model_path_sha256": f,
        "end_model_path_sha256": g,
        "train_images_sha256": train,
    }
    config = next(Path("results/r").glob("*/config.txt"))
    recorded = {
        config: of_run | {"test_images_sha256": test},
        "results/r/evaluation.json": of_run | {"test_images_sha256": test},
        "probes.json": {"model_path_sha256": f, "test_images_sha256": test},
        "sim.json": {"model2_path_sha256": g, "test_images_sha256": test},
        "m/config.txt": {"train_images_sha256": train, "test_images_sha256": test},
    }
    for path, expected in recorded.items():
        content = read_json(path)
        assert expected.items() <= content.get("options", content).items(), path
    of_pair = {"front_weights": f[:SHORT], "end_weights": g[:SHORT]}
    images = {"train_images": train[:SHORT], "test_images": test[:SHORT]}
    tables = {
        next(Path("results/r").glob("*/grid.csv")): of_pair | images,
        "results/r/evaluation.csv": images,
        "verdict.csv": of_pair | images,
        "all.csv": of_pair | images,
        "probes.csv": {"model_weights": f[:SHORT]} | images,
        "sim.csv": {"model2_weights": g[:SHORT], "test_images": test[:SHORT]},
    }
    for path, expected in tables.items():
        assert all(expected.items() <= row.items() for row in read_csv(path)), path
    run("exec_stitch.py", "--config", config, "-dir", "again")  # which knows no such option


def test_a_verdict_says_by_which_limits_and_version_and_on_which_images_it_was_given():
    """In files beside its table, and in its sentences."""
    run(*STITCH)
    run("misc/verdict.py", "results/r", "--tolerance", 7, "-o", "out/v.csv")
    made_with = read_json("out/v.json")
    options = made_with["options"]
    assert (options["tolerance"], options["skill"], options["pairwise"]) == (7, 0.33, False)
    name, test = "dd", digest(train=False)
    assert options["train_images_sha256"] == {name: [digest(train=True)]}
    assert options["test_images_sha256"] == {name: [test]}
    assert made_with["suite"] == __version__ and "--tolerance 7" in made_with["command"]
    *_, made, command, _ = Path("out/v.md").read_text().split("\n")
    assert says(made, f"Given by version {__version__}", f"{name} ({test[:SHORT]})")
    assert made_with["command"] in command
    again = Path("out/v.csv").read_bytes()
    run("misc/verdict.py", "--config", "out/v.json")
    assert Path("out/v.csv").read_bytes() == again


@pytest.mark.parametrize("changed", CHANGES)
def test_what_was_replaced_is_refused_where_work_goes_on(changed, monkeypatch):
    """Also by a run that was interrupted; and taken up where it is as it was."""
    stitch = ["exec_stitch.py", *OWN, *LAYERS]
    finished, half = [*stitch, *MATCH], [*stitch, "-e", 2, "-dir", "half"]
    probe = ["exec_probe.py", "f.pt", "nets.py:net", *PROBE[3:]]
    run(*finished)
    run(*probe)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "report_epoch", Mock(side_effect=KeyboardInterrupt))
        run(*half, status=130)
    change, undo = CHANGES[changed]
    change()
    for command, where in ((finished, "results/r"), (half, "half"), (probe, "probes.json")):
        assert says(error_line(*command, "--resume"), where, changed.removeprefix("front_"))
    undo()
    assert "2 of 2 stitches are finished" in run(*finished, "--resume").err
    assert "nothing is left to do" in run(*probe, "--resume").err


def test_weights_are_known_wherever_they_lie_and_results_wherever_they_were_moved():
    run(*STITCH)
    os.rename("f.pt", "old.pt")
    train("f", 7)
    os.rename("results/r", "results/renamed")
    moved = [{"f.pt": "old.pt", "r": "renamed"}.get(word, word) for word in STITCH]
    assert "2 of 2 stitches are finished" in run(*moved, "--resume").err
    run(*PROBE)
    for name in ("csv", "json"):
        os.rename(f"probes.{name}", f"others.{name}")
    assert "nothing is left to do" in run(*PROBE[:-1], "others.csv", "--resume").err


def test_a_network_knows_its_training_images():
    run(*TRAIN, "-e", 1)
    words = [*STITCH[:1], "m/model_1.pt", "m/model_1.pt", *STITCH[3:]]
    write_images(test=7)
    assert "was trained on" not in run(*words).err
    write_images(train=7)
    said = run(*words[:-1], "t").err
    assert said.count("other training inputs of") == 1 and "m/model_1.pt" in said
    refused = error_line(*TRAIN, "-e", 1)  # a finished run of other images is not replaced
    assert "give --overwrite" in refused


def test_images_of_another_root_have_not_changed():
    write_mnist(Path("a"))
    write_mnist(Path("b"), n_train=60, n_test=30)
    here = ["-d", "mnist", "-gpu", -1, "-b", 64, "-data"]
    run("exec_train.py", "small_cnn", *here, "a", "-e", 0, "-dir", "m")
    networks = ["m/model_0.pt", "m/model_0.pt", "small_cnn", "small_cnn"]
    stitch = ["exec_stitch.py", *networks, "pool4", "pool4", "rc2c_pre", *MATCH, *here]
    run(*stitch, "a")
    line = error_line(*EVALUATE[:2], *here, "b", "--detector", "mahalanobis")
    assert says(line, "1 of 1 runs", "-d mnist -data a", "--other-data")
    assert says(error_line(*stitch, "b", "--resume"), "test_images was", "train_images was")
    assert says(run(*stitch, "b", "-dir", "s").err, "trained on other", "mnist")


def test_an_evaluation_takes_the_weights_and_images_that_the_stitches_were_made_with():
    run(*STITCH)
    shutil.copy("g.pt", "old.pt")
    train("g", 7)
    assert says(error_line(*EVALUATE), "g.pt has other weights", "--end-model")
    run(*EVALUATE, "--end-model", "old.pt")
    table = Path("results/r/evaluation.csv")
    assert options_of_table(table)["end_model_path_sha256"] == sha256("old.pt")
    run(*STITCH)
    assert says(error_line(*EVALUATE), "differ in end_model_path")
    shutil.copy("old.pt", "g.pt")
    shutil.rmtree("results/r")
    run(*STITCH)
    write_images(test=7)
    line = error_line(*EVALUATE)
    assert says(line, "dd.npz has changed since 1 of 1 runs", "restore", "--other-data")
    assert not table.exists()
    run(*EVALUATE, "--other-data")
    (row, _) = read_csv(table.with_stem(f"{table.stem}_on_dd"))
    assert row["test_images"] == digest(train=False)[:SHORT]
    write_images(train=7)
    assert says(error_line(*EVALUATE), "has changed since 1 of 1 runs")


def test_images_without_a_record_are_accepted():
    run(*STITCH)
    forget("results/r/*/config.txt")
    write_images(test=7)
    assert "2 of 2 stitches are finished" in run(*STITCH, "--resume").err
    run(*EVALUATE)
    (row, _) = read_csv("results/r/evaluation.csv")
    assert row["test_images"] == digest(train=False)[:SHORT]
    run("misc/verdict.py", "results/r")
    assert options_of_table("verdict.csv")["test_images_sha256"] == {"dd": []}
    run(*STITCH)  # beside them, with a record
    said = run("misc/verdict.py", "results/r").err
    assert (
        says(said, "2 results repeat others of the same experiment (", ".pt)")
        and len(read_csv("verdict.csv")) == 2
    )


WARNINGS = {
    "front_model_weights was": "there are results of earlier weights of f.pt",
    "test_images was": "count as results of different",
}


@pytest.mark.parametrize("changed", WARNINGS)
def test_old_and_new_are_told_apart_where_results_are_read(changed):
    """Each run has the similarity that was measured of the same."""
    run(*STITCH)
    run(*COMPARE, "-o", "old.csv")
    os.rename("results/r", "results/old")
    CHANGES[changed][0]()
    run(*STITCH)
    run(*COMPARE, "-o", "r.csv")
    verdict = ["misc/verdict.py", "results/old", "results/r", "-sim", "old.csv", "r.csv"]
    said = run(*verdict).err
    assert said.count(WARNINGS[changed]) == 1
    assert "repeat" not in said
    rows = [row for row in read_csv("verdict.csv") if row["front_layer"] == "pool4"]
    assert len(rows) == 2
    for row in rows:
        (name,) = (
            name for name in ("old", "r") if row["folders"] in names_in(Path("results", name))
        )
        assert row["cka"] == read_csv(f"{name}.csv")[0]["cka"]
    said = run("misc/collect_results.py", "results", "-o", "all.csv").err
    assert said.count(WARNINGS[changed]) == 1
    networks = {(row["front_network"], row["dataset"]) for row in read_csv("all.csv")}
    assert len(networks) == 2
    run("misc/score_measures.py", "old.csv", "r.csv", "results/old", "results/r", "-o", "ranks.csv")
    assert len({row["setting"] for row in read_csv("ranks.csv")}) >= 2


def test_results_of_changed_code_are_named_where_they_are_read():
    run("exec_stitch.py", *OWN, *LAYERS, *MATCH)
    run(COMPARE[0], *OWN, *COMPARE[5:], "-o", "all/similarity/a-b.csv")
    readers = (
        ["misc/verdict.py", "results/r"],
        ["misc/collect_results.py", "all", "-o", "all.csv"],
    )
    for is_changed in (False, True):
        for reader in readers:
            assert ("earlier code of" in run(*reader).err) == is_changed
        CHANGES["model_type_code was"][0]()


def test_probes_and_similarity_on_other_images_are_not_compared():
    run(*PROBE, "-ranks", 1, 2, 4)
    command = [*COMPARE, "-m1r", 1, 2, 4, "-o"]
    run(*command, "sim.csv")
    write_images(test=7)
    run(*command, "new.csv")
    for tables, note in (
        (["sim.csv"], ""),
        (["new.csv"], "no probes"),
        (["sim.csv", "new.csv"], "no probes"),
    ):
        run("misc/score_measures.py", *tables, "probes.csv", "-o", "ranks.csv")
        rows = [row for row in read_csv("ranks.csv") if row["varied"] == "front"]
        notes = {row["note"] for row in rows if row["test"] == "sensitivity"}
        assert any(note in text for text in notes), (tables, notes)
        assert len({row["setting"] for row in rows}) == len(tables)


def test_a_checkpoint_that_is_written_while_it_is_read_is_refused(monkeypatch):
    def load(name, images, **options):
        network = load_model(name, images, **options)
        train("f", 7)
        return network

    monkeypatch.setattr(checkpoints, "load_model", load)
    assert says(error_line(*STITCH), "f.pt", "written while")


def test_dots_are_other_images():
    run(*STITCH, "--shortcut", 0.5)
    for dots in (["--shortcut", 0.75], []):
        assert says(
            error_line(*EVALUATE, *dots),
            "1 of 1 runs",
            "other inputs",
            "--shortcut",
        )
    run(*EVALUATE, "--shortcut", 0.5)
    run(*STITCH, "--resume")  # without dots: a further experiment, of images that never changed
    assert len(list(Path("results/r").glob("2*"))) == 2


# ---- All pairs


def test_all_pairs_refuses_what_was_made_with_others():
    write_list("a,f.pt,small_cnn", "b,g.pt,small_cnn", "c,DEFAULT,nets.py:pretrained")
    command = [*ALL, "--probes", 1, "--own-types", "nets.py:pretrained"]
    run(*command)
    os.rename("results/all", "results/moved")
    command[command.index("all")] = "moved"
    folder = Path("results/moved")
    assert "0 of 12 units" in run(*command).err
    pair = folder / "b to a/pinv"
    runs_before = names_in(pair)
    for changed, n in (
        ("front_model_weights was", 7),
        ("train_images was", 11),
        ("test_images was", 12),
    ):
        CHANGES[changed][0]()
        line = error_line(*command)
        assert says(
            line,
            f"{n} of 12 units",
            changed.removeprefix("front_"),
            "-dir",
            "remove results/moved/",
        )
        assert names_in(pair) == runs_before
    shutil.rmtree(folder)
    run(*command)
    weights, images = sha256("f.pt")[:SHORT], digest(train=False)[:SHORT]
    assert {(row["end_weights"], row["test_images"]) for row in stitch_rows(pair)} == {
        (weights, images)
    }
    for name, side in (("similarity/a-b", "model1"), ("probes/a", "model")):
        rows = read_csv(folder / f"{name}.csv")
        assert {(row[f"{side}_weights"], row["test_images"]) for row in rows} == {(weights, images)}
    assert "0 of 12 units" in run(*command).err
    CODE.write_text(NETS.replace(".roll(i)", ".roll(2 * i)"))
    assert says(error_line(*command), "model_type_code was")
    CODE.write_text(f"{NETS}# changed\n")
    assert says(error_line(*command), "7 of 12 units", "model_type_code was")


# ---- Weights that are drawn and weights that are given


def test_given_weights_are_one_network_whatever_the_seed_and_untrained_ones_are_not():
    own = ["nets.py:net", "nets.py:pretrained"]
    layers = ["pool3,pool4", "pool3", *LAYERS[2:], *MATCH]
    for seed in (0, 1):
        run("exec_stitch.py", "-", "DEFAULT", *own, *layers, "-s", seed)
    rows = stitch_rows("results/r")
    assert [len({row[f"{side}_weights"] for row in rows}) for side in ("front", "end")] == [2, 1]
    evaluate = [*EVALUATE, "--own-types", *own]
    assert "differ in front_model" in error_line(*evaluate)
    run("exec_stitch.py", "DEFAULT", "DEFAULT", own[1], own[1], *layers[:-1], "given", "-s", 2)
    run("misc/verdict.py", "results/r", "results/given")
    rows = read_csv("verdict.csv")
    assert [row["control"] for row in rows] == ["untrained"] * 4 + ["self", ""]
    assert not any("never trained" in row["reason"] for row in rows)


def test_a_function_that_only_builds_is_untrained_and_one_that_gives_its_weights_is_warned_of(
    networks,
):
    layers = ["pool3", "pool3", *LAYERS[2:], *MATCH]
    said = run("exec_stitch.py", "-", "-", "nets.py:net", "nets.py:pretrained", *layers).err
    assert said.count("whatever the seed") == 1
    assert says(said, f"{networks}/nets.py:pretrained gives", "DEFAULT")
    run("misc/verdict.py", "results/r")
    assert "never trained" in read_csv("verdict.csv")[0]["reason"]
    line = error_line("exec_stitch.py", "DEFAULT", "-", *SMALL[2:], *layers)
    assert says(line, "DEFAULT", "small_cnn", "- for randomly initialised weights")


def test_untrained_networks_of_a_list_are_loaded_once_and_known_by_their_seed(loads):
    lines = [f"n{i},{name}.pt,small_cnn" for i, name in enumerate("fghi")]
    for i, name in enumerate("hi"):
        train(name, i + 2)
    write_list(*lines, "untrained,-,small_cnn")
    run(*ALL, "--methods", "none", "-s", 3)
    assert [name.seed for name in loads] == [None] * 4 + [3]


def test_a_file_is_hashed_once(monkeypatch):
    reads, read = [], Path.read_bytes
    train("f", 100)
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read(path))
    Path("link.pt").symlink_to("f.pt")
    for _ in range(64):
        names = [NamedNetwork(name, "small_cnn") for name in ("f.pt", "link.pt")]
        assert names[0].identity == names[1].identity
    assert len(reads) == 1
