"""Results know the weights they were made with: networks that are trained again, exchanged, moved,
given or fresh."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from src.figures import pages
from src.ground import console, user_code
from src.ground.errors import UserError
from src.ground.runtime import seeded
from src.ground_truth.truth_tables import read_tables
from src.models import build_model
from src.results import session
from src.results import stitch_runs as runs
from src.results.checkpoints import load_model, save_state
from src.results.network_list import read_networks
from src.results.network_names import NetworkName
from tests.commands import (
    ON_DIGITS,
    error_line,
    names_in,
    read_csv,
    read_json,
    run,
    says,
    stitch_rows,
)
from tests.conftest import few_images
from tests.tables import blank

SMALL = ["small_cnn", "small_cnn"]
LAYERS = ["pool2,pool4", "pool4", "rc2c_pre", *ON_DIGITS]
MATCH = ["-e", 0, "-i", "pinv", "--mod-only-stitch", "-dir", "r"]
STITCH = ["exec_stitch.py", "f.pt", "g.pt", *SMALL, *LAYERS, *MATCH]
EVALUATE = ["exec_eval_stitcher_ood.py", "results/r", *ON_DIGITS, "--detector", "mahalanobis"]
PROBE = [
    "exec_probe.py",
    "f.pt",
    "small_cnn",
    "-l",
    "pool4",
    *ON_DIGITS,
    "-e",
    1,
    "-o",
    "probes.csv",
]
COMPARE = [
    "exec_compute_low_rank_sim_metrics.py",
    "f.pt",
    "g.pt",
    *SMALL,
    "pool4",
    "pool4",
    *ON_DIGITS,
    "-n",
    60,
]
NETS = """import torch
from torch import nn
from src.models import build_model


def drawn(n_classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, n_classes))


def pretrained(n_classes):
    network = drawn(n_classes)
    with torch.no_grad():
        for i, values in enumerate(network.parameters(), start=1):
            values.copy_(torch.linspace(-1, 1, values.numel()).view_as(values).roll(i))
    return network
"""
ALL = ["misc/all_pairs.py", "networks.csv", "pool2,pool4", "rc2c_pre", *ON_DIGITS, "-b", 128, "-dir", "all", "-n", 60,
       "--methods", "pinv", "--metrics", "cka_debiased", "--no-verdict"]  # fmt: skip


@pytest.fixture(autouse=True)
def few():
    """Scripts take few images, and draw the figure of one test."""
    with few_images(160, n_test=60), pages.left_out(except_for=["probes.png"]):
        yield


@pytest.fixture
def networks(in_tmp_path):
    """A folder with two networks."""
    for seed, name in enumerate("fg"):
        train(name, seed)
    return in_tmp_path


@pytest.fixture
def loads(monkeypatch):
    """The names of the networks that sessions have loaded."""
    names, load = [], session.load_model

    def note_and_load(name, *images, **options):
        names.append(name)
        return load(name, *images, **options)

    monkeypatch.setattr(session, "load_model", note_and_load)
    return names


def train(name: str, seed: int) -> None:
    """Write NAME.pt, over what was there, and with other bytes for another seed."""
    with seeded(seed):
        network = build_model("small_cnn", n_classes=10, n_channels=1, image_shape=(1, 8, 8))
    save_state(Path(f"{name}.pt"), network.state_dict())


def run_anew(script: str, *arguments):
    """Run a script that gives its warnings as in a process of its own."""
    console._said.clear()
    return run(script, *arguments)


def sha256(name: str) -> str:
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()


def exchange() -> None:
    for one, other in (("f.pt", "h.pt"), ("g.pt", "f.pt"), ("h.pt", "g.pt")):
        os.replace(one, other)


def forget(folder: Path) -> None:
    """Make runs in a folder ones of the public code, which keeps no hash."""
    for path in folder.glob("*/config.txt"):
        options = {
            name: value for name, value in read_json(path).items() if not name.endswith("_sha256")
        }
        path.write_text(json.dumps(options))
        blank(path.with_name("grid.csv"), "front_weights", "end_weights")


def test_runs_and_tables_record_the_weights(networks):
    run(*STITCH)
    run(*EVALUATE)
    run(*PROBE)
    run(*COMPARE, "-o", "sim.csv")
    run("misc/verdict.py", "results/r")
    run("misc/collect_results.py", "results", "-r", "-o", "all.csv")
    f, g = sha256("f.pt"), sha256("g.pt")
    for config in [
        *Path("results/r").glob("*/config.txt"),
        Path("results/r/ood_evaluation_mahalanobis.config.txt"),
    ]:
        options = read_json(config)
        assert (options["front_model_path_sha256"], options["end_model_path_sha256"]) == (f, g)
    assert read_json("probes.config.txt")["model_path_sha256"] == f
    assert read_json("sim.config.txt")["model2_path_sha256"] == g
    tables = (
        next(Path("results/r").glob("*/grid.csv")),
        "results/r/ood_evaluation_mahalanobis.csv",
        "verdict.csv",
        "all_intervals.csv",
        "all_measurements.csv",
    )
    for table in tables:
        rows = read_csv(table)
        assert rows and {(row["front_weights"], row["end_weights"]) for row in rows} == {
            (f[:12], g[:12])
        }, table
    assert {row["model_weights"] for row in read_csv("probes.csv")} == {f[:12]}
    assert {(row["model1_weights"], row["model2_weights"]) for row in read_csv("sim.csv")} == {
        (f[:12], g[:12])
    }
    config = str(next(Path("results/r").glob("*/config.txt")))
    run("exec_stitch.py", "--config", config, "-dir", "again")  # which knows no such option


def test_a_resumed_run_of_a_network_that_was_trained_again_is_refused(networks):
    run(*STITCH)
    shutil.copy("f.pt", "old.pt")
    train("f", 7)
    line = error_line(*STITCH, "--resume")
    assert says(line, "results/r has runs", "earlier weights of f.pt;", "-dir")
    old = [word if word != "f.pt" else "old.pt" for word in STITCH]
    assert "2 of 2 stitches are finished" in run(*old, "--resume").err
    os.remove("old.pt")
    train("f", 0)
    assert "2 of 2 stitches are finished" in run(*STITCH, "--resume").err


def test_exchanged_checkpoints_are_refused(networks):
    run(*STITCH)
    exchange()
    assert says(error_line(*STITCH, "--resume"), "earlier weights of f.pt", "weights of g.pt")
    back = [{"f.pt": "g.pt", "g.pt": "f.pt"}.get(word, word) for word in STITCH]
    assert "2 of 2 stitches are finished" in run(*back, "--resume").err


def test_an_interrupted_run_of_a_network_that_was_trained_again_is_refused(networks, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    trained = [*STITCH[:-7], "-e", 2, "--mod-only-stitch", "-dir", "r"]
    with monkeypatch.context() as patch:
        patch.setattr(runs, "report_epoch", stop)
        run(*trained, status=130)
    train("g", 7)
    assert says(error_line(*trained, "--resume"), "earlier weights of g.pt;")


def test_probes_of_a_network_that_was_trained_again_are_refused(networks):
    run(*PROBE)
    train("f", 7)
    line = error_line(*PROBE, "--resume")
    assert says(line, "probes.config.txt", "earlier weights of f.pt;")
    run(*PROBE)
    assert read_csv("probes.csv")[0]["model_weights"] == sha256("f.pt")[:12]


def test_an_evaluation_takes_the_networks_that_the_stitches_were_made_with(networks):
    run(*STITCH)
    shutil.copy("g.pt", "old.pt")
    train("g", 7)
    line = error_line(*EVALUATE)
    assert says(line, "g.pt has other weights", "--end-model")
    line = error_line(*EVALUATE, "--end-model", "f.pt")
    assert says(line, "f.pt has other weights", "--end-model")
    run(*EVALUATE, "--end-model", "old.pt")
    (row, _) = read_csv("results/r/ood_evaluation_mahalanobis.csv")
    assert row["end_weights"] == sha256("old.pt")[:12]
    run(*STITCH)
    assert says(error_line(*EVALUATE), "differ in end_model_path")


def test_old_and_new_weights_of_one_path_are_two_networks_to_readers(networks):
    run_anew(*STITCH)
    run_anew(*COMPARE, "-o", "sim.csv")
    before = sha256("g.pt")[:12]
    train("g", 7)
    run_anew(*STITCH)
    run_anew(*COMPARE, "-o", "new.csv")
    said = run_anew("misc/verdict.py", "results/r", "-sim", "sim.csv", "new.csv").err
    assert says(said, "warning: ", "earlier weights of g.pt")
    assert said.count("warning: there are results") == 1 and "repeat" not in said
    rows = read_csv("verdict.csv")
    assert len(rows) == 4 and {row["end_weights"] for row in rows} == {before, sha256("g.pt")[:12]}
    assert len({row["networks"] for row in rows}) == 2
    similarities = {row["end_weights"]: row["cka"] for row in rows if row["front_layer"] == "pool4"}
    assert similarities == {
        row["model2_weights"]: row["cka"]
        for file in ("sim.csv", "new.csv")
        for row in read_csv(file)
    }
    said = run_anew("misc/collect_results.py", "results", "-r", "-o", "all.csv")
    assert says(said.err, "warning: ", "earlier weights of g.pt")
    assert said.err.count("warning: there are results") == 1
    assert f"end_weights={before}" in said.out
    said = run_anew("misc/rank_statistics.py", "sim.csv", "new.csv", "results/r", "-o", "ranks.csv")
    assert says(said.err, "warning: ", "earlier weights of g.pt")
    assert "repeat" not in said.err
    assert len({row["setting"] for row in read_csv("ranks.csv")}) >= 2
    os.remove("g.pt")
    assert "earlier weights" not in run_anew("misc/verdict.py", "results/r").err
    assert len(read_csv("verdict.csv")) == 4


def test_a_checkpoint_that_is_written_while_it_is_read_is_refused(networks, monkeypatch):
    def load(name, images, **options):
        network = load_model(name, images, **options)
        train("f", 7)
        return network

    monkeypatch.setattr(session, "load_model", load)
    line = error_line(*STITCH)
    assert says(line, "f.pt", "written while")


def test_a_renamed_results_folder_is_resumed(networks):
    run(*STITCH)
    os.rename("results/r", "results/renamed")
    assert "2 of 2 stitches are finished" in run(*STITCH[:-1], "renamed", "--resume").err
    run(*PROBE)
    for name in ("csv", "config.txt", "run.json", "png"):
        os.rename(f"probes.{name}", f"others.{name}")
    assert "nothing is left to do" in run(*PROBE[:-1], "others.csv", "--resume").err
    (networks / "networks.csv").write_text("name,path,type\na,f.pt,small_cnn\nb,g.pt,small_cnn\n")
    run(*ALL)
    os.rename("results/all", "results/other")
    assert "0 of 3 units" in run(*ALL, "-dir", "other").err


# ---- All pairs


def test_all_pairs_of_a_network_that_was_trained_again(networks):
    lines = [
        "name,path,type",
        "a,f.pt,small_cnn",
        "b,g.pt,small_cnn",
        "c,DEFAULT,nets.py:pretrained",
    ]
    (networks / "networks.csv").write_text("\n".join(lines) + "\n")
    (networks / "nets.py").write_text(
        NETS.replace("drawn(n_classes)\n", "build_model('small_cnn', n_channels=1).module\n")
    )
    command = [*ALL, "--probes", 1, "--own-types", "nets.py:pretrained"]
    run(*command)
    assert "0 of 12 units" in run(*command).err
    pair, before = Path("results/all/b to a/pinv"), stitch_rows("results/all/c to b/pinv")
    folders = names_in(pair)
    figure = {f"a-b{page}.{end}" for page in ("", "_2") for end in ("png", "pdf", "txt")}
    for name in figure:
        Path("results/all/similarity", name).touch()
    train("f", 7)
    line = error_line(*command)
    assert says(line, "7 of 12 units", "earlier weights of f.pt;", "--redo-changed", "-dir")
    assert names_in(pair) == folders
    assert "7 of 12 units" in run(*command, "--redo-changed").err
    new = sha256("f.pt")[:12]
    assert {row["end_weights"] for row in stitch_rows(pair)} == {new}
    assert {row["model_weights"] for row in read_csv("results/all/probes/a.csv")} == {new}
    assert {row["model1_weights"] for row in read_csv("results/all/similarity/a-b.csv")} == {new}
    assert stitch_rows("results/all/c to b/pinv") == before
    stale = list(Path("results/all").glob("* to */stale-*/pinv"))
    assert {path.parents[1].name for path in stale} == {"a to b", "b to a", "a to c", "c to a"}
    (stale,) = pair.parent.glob("stale-*/pinv")
    assert names_in(stale) == folders
    (stale,) = Path("results/all/similarity").glob("stale-*")
    assert names_in(stale) == figure | {
        f"{name}.{end}" for name in ("a-b", "a-c") for end in ("csv", "config.txt", "run.json")
    }
    assert "0 of 12 units" in run(*command).err
    said = run("misc/collect_results.py", "results", "-r", "-o", "all.csv").err
    assert "earlier" not in said and "repeat" not in said  # what was moved aside is left out
    text = Path("nets.py").read_text()
    Path("nets.py").write_text(text.replace(".roll(i)", ".roll(2 * i)"))
    user_code._run.cache_clear()
    assert says(error_line(*command), "earlier weights", "DEFAULT (")


def test_ground_truth_leaves_out_earlier_weights(networks):
    (networks / "networks.csv").write_text(
        "name,path,type,group\na,f.pt,small_cnn,x\nb,g.pt,small_cnn,y\n"
    )
    run(*ALL)
    listed = read_networks("networks.csv")
    whole = read_tables(Path("results/all"), listed)
    stitches = Path("results/all").glob("a to b/pinv/2*/grid.csv")
    old = {path: path.read_text() for path in (*stitches, Path("results/all/similarity/a-b.csv"))}
    train("f", 7)
    for path, text in old.items():
        path.write_text(text.replace(sha256("f.pt")[:12], "0" * 12))
    with pytest.raises(UserError, match="no pair of the networks"):
        read_tables(Path("results/all"), listed)
    run(*ALL, "--redo-changed")
    again = read_tables(Path("results/all"), listed)
    assert again.values.keys() == whole.values.keys()


# ---- Weights that are drawn and weights that are given


def test_given_weights_are_one_network_whatever_the_seed_and_fresh_ones_are_not(networks):
    (networks / "nets.py").write_text(NETS)
    own = ["nets.py:pretrained", "nets.py:drawn"]
    layers = ["0,1", "0", "rc2c_pre", *ON_DIGITS, *MATCH]
    for seed in (0, 1):
        run("exec_stitch.py", "-", "DEFAULT", own[1], own[0], *layers, "-s", seed)
    rows = stitch_rows("results/r")
    assert (
        len({row["end_weights"] for row in rows}) == 1
        and len({row["front_weights"] for row in rows}) == 2
    )
    evaluate = [*EVALUATE, "--front-type", own[1], "--end-type", own[0]]
    assert "differ in front_model" in error_line(*evaluate)
    run("exec_stitch.py", "DEFAULT", "DEFAULT", own[0], own[0], *layers[:-1], "given", "-s", 2)
    run("exec_eval_stitcher_ood.py", "results/given", *ON_DIGITS, "--detector", "mahalanobis", "--front-type", own[0],
        "--end-type", own[0])  # fmt: skip
    run("misc/verdict.py", "results/r", "results/given")
    rows = read_csv("verdict.csv")
    assert [row["control"] for row in rows] == ["fresh"] * 4 + ["self", ""]
    assert not any("never trained" in row["reason"] for row in rows)


def test_a_function_that_only_builds_is_fresh_and_one_that_gives_its_weights_is_warned_of(networks):
    (networks / "nets.py").write_text(NETS)
    layers = ["0", "0", "rc2c_pre", *ON_DIGITS, *MATCH]
    said = run("exec_stitch.py", "-", "-", "nets.py:drawn", "nets.py:pretrained", *layers).err
    assert said.count("whatever the seed") == 1
    assert f"{networks}/nets.py:pretrained gives" in said and "DEFAULT" in said
    run("misc/verdict.py", "results/r")
    assert "never trained" in read_csv("verdict.csv")[0]["reason"]
    line = error_line(
        "exec_stitch.py", "DEFAULT", "-", "small_cnn", "small_cnn", "pool4", *LAYERS[1:], *MATCH
    )
    assert says(line, "DEFAULT", "small_cnn", "- for fresh weights")


def test_fresh_networks_of_all_pairs_are_loaded_once_and_known_by_the_list(networks, loads):
    (networks / "networks.csv").write_text(
        "name,path,type,group\na,f.pt,small_cnn,x\nb,-,small_cnn,y\nc,g.pt,small_cnn,x\n"
    )
    run(*ALL, "-s", 3)
    assert len(loads) == 3 and {name.seed for name in loads} == {None, 3}
    run("misc/compare_layers.py", "results/all", "--networks", "networks.csv")
    assert {row["networks"] for row in read_csv("results/all/curves.csv")} == {
        "x → x",
        "x → y (untrained)",
        "y (untrained) → x",
    }
    run("misc/collect_results.py", "results/all", "-r", "--networks", "networks.csv")
    rows = read_csv("results/all/grid_measurements.csv")
    assert {row["front_network"] for row in rows} == {"a", "b", "c"}


def test_ground_truth_loads_fresh_networks_of_the_seed_of_the_tables(networks, loads):
    lines = ["name,path,type,group"]
    for i in range(4):
        train(f"n{i}", i)
        lines.append(f"n{i},n{i}.pt,small_cnn,clean")
    (networks / "networks.csv").write_text(
        "\n".join([*lines, "fresh,-,small_cnn,impostor:fresh"]) + "\n"
    )
    run(*ALL, "--methods", "none", "-s", 3)
    loads.clear()
    run("misc/ground_truth.py", "results/all", "networks.csv", *ON_DIGITS)
    assert [name.seed for name in loads] == [None] * 4 + [3]


# ---- Costs


def test_a_file_is_hashed_once(networks, monkeypatch):
    reads, read = [], Path.read_bytes
    train("f", 100)
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read(path))
    (networks / "link.pt").symlink_to("f.pt")
    for _ in range(64):
        assert (
            NetworkName("f.pt", "small_cnn").identity
            == NetworkName("link.pt", "small_cnn").identity
        )
    assert len(reads) == 1
