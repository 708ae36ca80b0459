"""Results know the images they were made with: a file of images that is replaced, images without a
record, and dots of another seed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from src import __version__
from src.datasets import load_dataset
from src.figures import pages
from src.ground import console
from src.ground.runtime import seeded
from src.models import build_model
from src.results import stitch_runs as runs
from src.results.checkpoints import save_state
from src.results.network_names import SHORT
from tests.commands import error_line, names_in, read_csv, read_json, run, says, stitch_rows
from tests.tables import blank
from tests.tiny_datasets import random_images, write_mnist

DATA = ["-d", "dd.npz", "-gpu", -1, "-b", 64]
SMALL = ["f.pt", "g.pt", "small_cnn", "small_cnn"]
LAYERS = ["pool2,pool4", "pool4", "rc2c_pre", *DATA]
MATCH = ["-e", 0, "-i", "pinv", "--mod-only-stitch", "-dir", "r"]
STITCH = ["exec_stitch.py", *SMALL, *LAYERS, *MATCH]
EVALUATE = ["exec_eval_stitcher_ood.py", "results/r", *DATA, "--detector", "mahalanobis"]
PROBE = ["exec_probe.py", "f.pt", "small_cnn", "-l", "pool4", *DATA, "-e", 1, "-o", "probes.csv"]
COMPARE = ["exec_compute_low_rank_sim_metrics.py", *SMALL, "pool4", "pool4", *DATA, "-n", 40]
TRAIN = ["exec_train.py", "small_cnn", *DATA, "-dir", "m"]
ALL = ["misc/all_pairs.py", "networks.csv", "pool2,pool4", "rc2c_pre", *DATA, "-dir", "all", "-n", 40,
       "--methods", "pinv", "--metrics", "cka_debiased", "--no-verdict"]  # fmt: skip
TEST, TRAINING = "test inputs of", "training inputs of"


@pytest.fixture(autouse=True)
def networks(in_tmp_path):
    """A folder with two networks, and their images. No figures are drawn."""
    for seed, name in enumerate("fg"):
        with seeded(seed):
            network = build_model("small_cnn", n_classes=3, n_channels=1, image_shape=(1, 8, 8))
        save_state(Path(f"{name}.pt"), network.state_dict())
    write_images()
    with pages.left_out():
        yield in_tmp_path


def write_images(*, train: int = 0, test: int = 1, name: str = "dd.npz") -> None:
    """Write images drawn by two seeds, over what was there."""
    np.savez(
        name,
        x_train=random_images(96, 8, 8, seed=train),
        y_train=np.arange(96) % 3,
        x_test=random_images(60, 8, 8, seed=test),
        y_test=np.arange(60) % 3,
    )


def digest(*, train: bool) -> str:
    """The fingerprint of the images that are in the file now."""
    return load_dataset(str(Path("dd.npz").absolute()), "", train=train).fingerprint


def run_anew(script: str, *arguments):
    """Run a script that gives its warnings as in a process of its own."""
    console._said.clear()
    return run(script, *arguments)


def forget(pattern: str) -> None:
    """Make results those of the public code: without fingerprints."""
    for path in Path().glob(pattern):
        options = read_json(path)
        kept = {name: value for name, value in options.items() if "images_sha256" not in name}
        assert kept != options
        path.write_text(json.dumps(kept))
        for table in path.parent.glob("grid.csv"):
            blank(table, "train_images", "test_images")


def test_runs_and_tables_record_the_images():
    run(*STITCH)
    run(*EVALUATE)
    run(*PROBE)
    run(*COMPARE, "-o", "sim.csv")
    run(*TRAIN, "-e", 1)
    train, test = digest(train=True), digest(train=False)
    evaluated = "results/r/ood_evaluation_mahalanobis"
    configs = [*Path("results/r").glob("*/config.txt"), f"{evaluated}.config.txt"]
    for config in (*configs, "probes.config.txt", "m/config.txt"):
        options = read_json(config)
        images = (options["train_images_sha256"], options["test_images_sha256"])
        assert images == (train, test), config
    assert read_json("sim.config.txt")["test_images_sha256"] == test
    for rows in (stitch_rows("results/r"), read_csv(f"{evaluated}.csv"), read_csv("probes.csv")):
        for row in rows:
            assert (row["train_images"], row["test_images"]) == (train[:SHORT], test[:SHORT])
    assert {row["test_images"] for row in read_csv("sim.csv")} == {test[:SHORT]}
    config = str(next(Path("results/r").glob("*/config.txt")))
    run("exec_stitch.py", "--config", config, "-dir", "again")  # which knows no such option


def test_a_verdict_says_by_which_limits_and_version_and_on_which_images_it_was_given():
    """In files beside its table, and in its sentences."""
    run(*STITCH)
    run("misc/verdict.py", "results/r", "--tolerance", 7, "-o", "out/v.csv")
    options, made_with = read_json("out/v.config.txt"), read_json("out/v.run.json")
    assert (options["tolerance"], options["skill"], options["pairwise"]) == (7, 0.33, False)
    name = str(Path("dd.npz").absolute())
    train, test = digest(train=True), digest(train=False)
    assert options["train_images_sha256"] == {name: [train]}
    assert options["test_images_sha256"] == {name: [test]}
    assert made_with["suite"] == __version__ and "--tolerance 7" in made_with["command"]
    *_, made, command, _ = Path("out/v.md").read_text().split("\n")
    assert made.startswith(f"Given by version {__version__}")
    assert says(made, "test inputs", f"{name} ({test[:SHORT]})")
    assert made_with["command"] in command

    again = Path("out/v.csv").read_bytes()
    run("misc/verdict.py", "--config", "out/v.config.txt")
    assert Path("out/v.csv").read_bytes() == again
    forget("results/r/*/config.txt")
    run("misc/verdict.py", "results/r")
    assert read_json("verdict.config.txt")["test_images_sha256"] == {name: []}
    assert says(Path("verdict.md").read_text(), f"{name} (", "without a fingerprint")


@pytest.mark.parametrize("changed", [{"test": 7}, {"train": 7}], ids=["test", "train"])
def test_images_that_were_replaced_are_refused_where_work_goes_on(changed):
    run(*STITCH)
    run(*PROBE)
    run(*TRAIN, "-e", 1)
    write_images(**changed)
    titles = f"{TEST if 'test' in changed else TRAINING} {Path('dd.npz').absolute()}"
    line = error_line(*STITCH, "--resume")
    assert says(line, "results/r", f"earlier {titles};")
    for command, where in ((PROBE, "probes.config.txt"), ([*TRAIN, "-e", 1], "m/config.txt")):
        line = error_line(*command, "--resume")
        assert says(line, where, f"earlier {titles};")
    refused = error_line(*TRAIN, "-e", 1)  # a finished run of other images is not replaced
    assert "give --overwrite" in refused
    write_images()
    assert "2 of 2 stitches are finished" in run(*STITCH, "--resume").err
    assert "nothing is left to do" in run(*PROBE, "--resume").err


def test_a_network_knows_its_training_images():
    run(*TRAIN, "-e", 1)
    words = [*STITCH[:1], "m/model_1.pt", "m/model_1.pt", *STITCH[3:]]
    assert "was trained on" not in run(*words).err
    write_images(test=7)
    assert "was trained on" not in run(*words[:-1], "s").err
    write_images(train=7)
    said = run(*words[:-1], "t").err
    assert said.count(f"other {TRAINING}") == 1 and "m/model_1.pt" in said


def test_images_of_another_root_have_not_changed():
    write_mnist(Path("a"))
    write_mnist(Path("b"), n_train=60, n_test=30)
    here = ["-d", "mnist", "-gpu", -1, "-b", 64, "-data"]
    run("exec_train.py", "small_cnn", *here, "a", "-e", 1, "-dir", "m")
    networks = ["m/model_1.pt", "m/model_1.pt", "small_cnn", "small_cnn"]
    stitch = ["exec_stitch.py", *networks, "pool4", "pool4", "rc2c_pre", *MATCH, *here]
    run(*stitch, "a")
    line = error_line(
        "exec_eval_stitcher_ood.py", "results/r", *here, "b", "--detector", "mahalanobis"
    )
    assert says(line, "1 of 1 runs", "-d mnist -data a", "--other-data")
    assert says(error_line(*stitch, "b", "--resume"), "inputs of mnist;")
    said = run_anew(*stitch, "b", "-dir", "s").err
    assert says(said, "trained on other", "mnist")


def test_an_interrupted_run_of_other_images_is_refused(monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    trained = [*STITCH[:-7], "-e", 2, "--mod-only-stitch", "-dir", "r"]
    with monkeypatch.context() as patch:
        patch.setattr(runs, "report_epoch", stop)
        run(*trained, status=130)
    write_images(train=7)
    assert f"earlier {TRAINING}" in error_line(*trained, "--resume")


def test_an_evaluation_is_on_the_images_that_the_stitches_were_made_on():
    run(*STITCH)
    old, new = "results/r/ood_evaluation_mahalanobis.csv", "results/r/ood_evaluation_energy.csv"
    run(*EVALUATE)
    before = Path(old).read_bytes()
    write_images(test=7)
    line = error_line(*EVALUATE)
    assert says(line, "1 of 1 runs", "other inputs", "changed")
    assert Path(old).read_bytes() == before and not Path(new).exists()
    run(*EVALUATE, "--other-data")
    (row, _) = read_csv("results/r/ood_evaluation_mahalanobis_on_dd.csv")
    assert row["test_images"] == digest(train=False)[:SHORT]
    run(*STITCH)
    assert says(error_line(*EVALUATE), "1 of 2 runs", "other inputs")
    write_images(train=7)
    assert says(error_line(*EVALUATE), "2 of 2 runs", "other inputs")


def test_images_without_a_record_are_accepted():
    run(*STITCH)
    forget("results/r/*/config.txt")
    write_images(test=7)
    assert "2 of 2 stitches are finished" in run(*STITCH, "--resume").err
    run(*EVALUATE)
    (row, _) = read_csv("results/r/ood_evaluation_mahalanobis.csv")
    assert row["test_images"] == digest(train=False)[:SHORT]
    run(*STITCH)  # beside them, with a record
    said = run_anew("misc/verdict.py", "results/r").err
    assert "2 results repeat" in said and "different" not in said
    assert len(read_csv("verdict.csv")) == 2


def test_old_and_new_images_of_one_file_are_two_data_sets_to_readers():
    run_anew(*STITCH)
    run_anew(*EVALUATE)
    run_anew(*COMPARE, "-o", "sim.csv")
    shutil.copytree("results/r", "old")
    before = digest(train=False)[:SHORT]
    write_images(test=7)
    after = digest(train=False)[:SHORT]
    shutil.rmtree("results/r")
    run_anew(*STITCH)
    run_anew(*COMPARE, "-o", "new.csv")

    warning = f"are of different test inputs ({before}, {after}), and count as results of different"
    said = run_anew("misc/verdict.py", "old", "results/r", "-sim", "sim.csv", "new.csv").err
    assert said.count(warning) == 1 and "repeat" not in said
    rows = read_csv("verdict.csv")
    assert len(rows) == 4
    similarity = {row["method"]: row["cka"] for row in rows if row["front_layer"] == "pool4"}
    assert len(set(similarity.values())) == 2
    for file, digits in (("sim.csv", before), ("new.csv", after)):
        (method,) = (method for method in similarity if digits in method)
        assert similarity[method] == read_csv(file)[0]["cka"]

    # An evaluation counts for the runs on its images only
    def has_evaluation(folder: str) -> list[bool]:
        said = run_anew("misc/verdict.py", folder).err
        is_skipped = says(said, "mahalanobis of 2 stitches", "skipped: runs used other data")
        rows = read_csv("verdict.csv")
        return [is_skipped, *(bool(row["skill"]) for row in rows)]

    assert has_evaluation("old") == [False, True, True]
    names = {}
    for path_before, path_after in zip(
        *(sorted(Path(folder).glob("2*")) for folder in ("old", "results/r")), strict=True
    ):
        names[path_before.name] = path_after.name
    for table in ("ood_evaluation_mahalanobis.csv", "skill.csv"):
        text = Path("old", table).read_text()
        for name_before, name_after in names.items():
            text = text.replace(name_before, name_after)
        Path("results/r", table).write_text(text)
    assert has_evaluation("results/r") == [True, False, False]
    Path("results/r/ood_evaluation_mahalanobis.csv").unlink()
    shutil.copytree("old", "results/old")
    said = run_anew("misc/collect_results.py", "results", "-r", "-o", "all.csv")
    assert said.err.count(warning) == 1 and f"[test inputs {before}]" in said.out
    assert {row["test_images"] for row in read_csv("all.csv")} == {before, after}
    accuracies = [row for row in read_csv("all_measurements.csv") if row["measure"] == "accuracy"]
    assert len({row["dataset"] for row in accuracies}) == 2
    said = run_anew("misc/collect_results.py", "old", "results/r").err
    assert says(said, "old and results/r", "different data", before, after)


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
        run_anew("misc/rank_statistics.py", *tables, "probes.csv", "-o", "ranks.csv")
        rows = [row for row in read_csv("ranks.csv") if row["varied"] == "layer1"]
        notes = {row["note"] for row in rows if row["test"] == "sensitivity"}
        assert any(note in text for text in notes), (tables, notes)
        assert len({row["setting"] for row in rows}) == len(tables)


def test_all_pairs_on_images_that_were_replaced(networks):
    lines = "name,path,type,group\na,f.pt,small_cnn,x\nb,g.pt,small_cnn,y\n"
    (networks / "networks.csv").write_text(lines)
    command = [*ALL, "--probes", 1]
    run(*command)
    assert "0 of 5 units" in run(*command).err
    write_images(train=7)
    line = error_line(*command)
    path = Path("dd.npz").absolute()
    assert says(line, "4 of 5 units", f"earlier {TRAINING} {path};", "--redo-changed")
    write_images(test=7)
    assert says(error_line(*command), "5 of 5 units", f"earlier {TEST} {path};")
    kept = names_in(Path("results/all/a to b/pinv"))
    run(*command, "--redo-changed")
    (stale,) = Path("results/all/a to b").glob("stale-*/pinv")
    assert names_in(stale) == kept
    new = digest(train=False)[:SHORT]
    (stitches,) = Path("results/all/a to b/pinv").glob("2*/grid.csv")
    for table in (stitches, "results/all/similarity/a-b.csv", "results/all/probes/a.csv"):
        assert {row["test_images"] for row in read_csv(table)} == {new}
    assert "0 of 5 units" in run(*command).err

    for pattern in ("* to */pinv/*.config.txt", "similarity/*.config.txt", "probes/*.config.txt"):
        forget(f"results/all/{pattern}")
    write_images(test=8)
    assert "0 of 5 units" in run(*command).err  # nothing tells


def test_ground_truth_takes_the_images_of_the_tables(networks):
    lines = "name,path,type,group\na,f.pt,small_cnn,clean\nb,g.pt,small_cnn,clean\n"
    (networks / "networks.csv").write_text(lines)
    run(*ALL)
    write_images(test=7)
    truth = ["misc/ground_truth.py", "results/all", "networks.csv", *DATA]
    assert "other test inputs" in error_line(*truth)
    run(*COMPARE, "-o", "results/all/similarity/a-b.csv")
    assert "different test inputs" in error_line(*truth)


def test_dots_of_another_seed_are_other_images():
    dots = ["--shortcut", 0.5, "--intervention-seed"]
    run(*STITCH, *dots, 0)
    line = error_line(*EVALUATE, *dots, 1)
    assert says(line, "1 of 1 runs", "other inputs")
    assert "--intervention-seed" in line
    run(*EVALUATE, *dots, 0)
    run(*STITCH, "--resume")  # without dots: a further experiment, of images that never changed
    assert len(list(Path("results/r").glob("2*"))) == 2
