"""exec_stitch.py and misc/collect_results.py as a user runs them."""

import csv
import importlib.util
import json
import math
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

import exec_stitch
from src.checkpoints import load_model, load_state, save_state
from src.datasets import load_dataset
from src.models import build_model
from src.runs import Run
from src.stitching import Pair, StitchedModel, build_stitching_layer
from tests.conftest import ROOT
from tests.goldens import DATA
from tests.run_content import grid_rows

pytestmark = pytest.mark.usefixtures("few_test_images")

MODEL = "resnet18_samewidth"
COMMON = ["-d", "digits", "-gpu", "-1", "--mod-only-stitch"]
DM = [*COMMON, "-i", "pinv", "-e", "0"]


@pytest.fixture
def stitch(digit_networks, tmp_path, monkeypatch, capsys):
    """Run exec_stitch.py in an empty folder; returns the run folders, in the order of their names, and stdout."""
    monkeypatch.chdir(tmp_path)

    def run(front: str, end: str, *arguments: str, kind: str = "rc2c_pre"):
        paths = [str(path) for path in digit_networks]
        assert exec_stitch.main([*paths, MODEL, MODEL, front, end, kind, *arguments]) == 0, capsys.readouterr().err
        folders = sorted(path for path in tmp_path.glob("results/**/2*") if path.is_dir())
        return folders, capsys.readouterr().out

    return run


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_layout_of_a_run_is_that_of_the_public_code(run_script, digit_networks, tmp_path):
    arguments = [*digit_networks, MODEL, MODEL, "layer3.0", "layer2.0", "rc2c_pre", *DM, "-dir", "a"]
    out = run_script("exec_stitch.py", *arguments)
    (folder,) = (tmp_path / "results" / "a").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.\d{6}", folder.name)
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.txt", "summary.txt", "final_model.pt", "metrics.json", "predictions.npz", "run.json"}

    public = DATA / "public_runs" / "det" / "2026-11-24_22-47-07.024491"
    summary = (folder / "summary.txt").read_text()
    pattern = re.escape((public / "summary.txt").read_text())
    pattern = pattern.replace("models/det0\\.pt", re.escape(str(digit_networks[0])), 1)
    pattern = pattern.replace("models/det1\\.pt", re.escape(str(digit_networks[1])), 1).replace(
        "layer3\\.1", "layer3\\.0", 1
    )
    pattern = re.sub(r"Command:\\ .*", "Command: .*exec_stitch.py .*", pattern)
    pattern = re.sub(r"(\d+)\\\.(\d{5,})", r"\\d+\\.\\d+(e-\\d+)?", pattern)  # sparsities
    pattern = re.sub(r": ?\\ \d\\\.(\d{4})", r":\\ \\d\\.\\d{4}", pattern)  # accuracy and differences
    assert re.fullmatch(pattern, summary), summary
    ours, theirs = (json.loads((path / "config.txt").read_text()) for path in (folder, public))
    assert theirs.keys() <= ours.keys()
    assert ours["front_layer"] == "layer3.0" and ours["dataset"] == "digits" and ours["l1_coef"] == 0

    accuracy = metrics(folder)["accuracy"]
    assert out == f"Clean accuracy: {accuracy:.2%}\n" and f"Clean accuracy: {accuracy:.4f} \n" in summary
    state = load_state(folder / "final_model.pt")
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        "transform.weight": (64, 64, 1, 1),
        "transform.bias": (64,),
    }


def test_numbers_are_those_of_the_saved_layer(stitch, digit_networks):
    (folder,), _ = stitch("layer3.1", "layer1.0", *DM, "-pinv-samples", "64", "-b", "100")
    images = {"n_classes": 10, "image_shape": (1, 8, 8)}
    front, end = (load_model(path, MODEL, **images) for path in digit_networks)
    layer = build_stitching_layer("rc2c_pre", (64, 2, 2), (64, 8, 8))
    layer.load_state_dict(load_state(folder / "final_model.pt"))
    test_set, train_set = (load_dataset("digits", "", train=train) for train in (False, True))
    ((x, labels),) = test_set.batches(len(test_set))
    model = StitchedModel(front, end, layer, Pair("layer3.1", "layer1.0"))
    found = metrics(folder)
    with torch.no_grad():
        stitched, target = layer(front(x, until="layer3.1")), end(x, until="layer1.0")
        assert found["accuracy"] == (model(x).argmax(1) == labels).double().mean().item()
        assert found["front_accuracy"] == (front(x).argmax(1) == labels).double().mean().item()
        assert found["end_accuracy"] == (end(x).argmax(1) == labels).double().mean().item()
        difference = (stitched - target).square().sum() / target.square().sum()
        assert found["representation_difference"] == pytest.approx(difference.item(), rel=1e-5)
        ((x, _),) = train_set.batches(64, indices=train_set.permutation(0)[:64])
        stitched, target = layer(front(x, until="layer3.1")), end(x, until="layer1.0")
        error = (stitched - target).square().sum() / target.square().sum()
        assert found["matching_error"] == pytest.approx(error.item(), rel=1e-4)
    values = torch.cat([layer.transform.weight.flatten(), layer.transform.bias]).abs()
    assert found["sparsity"]["1e-2"] == pytest.approx((values <= 1e-2).double().mean().item())


def test_predictions_are_those_that_the_metrics_count(stitch):
    folders, _ = stitch("layer2.0,layer4.1", "layer3.0", *DM, "-dir", "p")
    for folder in folders:
        with np.load(folder / "predictions.npz") as arrays:
            kept = dict(arrays)
        found = metrics(folder)
        for name, key in (("accuracy", "stitched"), ("front_accuracy", "front"), ("end_accuracy", "end")):
            assert found[name] == (kept[key] == kept["labels"]).mean() and kept[key].shape == (120,)
        assert found["agreement"] == (kept["stitched"] == kept["end"]).mean()
        assert found["kappa"] == pytest.approx(cohen_kappa_score(kept["stitched"], kept["end"]))
    rows = grid_rows(folders[0].parent)
    assert [row.kappa for row in rows] == [metrics(folder)["kappa"] for folder in folders]


def test_runs_without_predictions_agree_all_the_same(stitch):
    (folder,), _ = stitch("layer4.1", "layer4.1", *DM, "--no-predictions")
    assert not (folder / "predictions.npz").exists() and 0 < metrics(folder)["agreement"] <= 1


def test_collecting_gives_each_experiment_a_matrix_of_its_own(stitch, tmp_path, capsys):
    stitch("layer4.0,layer4.1", "layer4.1", *DM, "-dir", "x")
    stitch("layer4.1", "layer4.1", *COMMON, "-e", "1", "-i", "pinv", "-b", "512", "--objective", "hint", "-dir", "x")
    assert collect(tmp_path / "results" / "x") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "objective=task, n_epochs=0" and lines[4] == "objective=hint, n_epochs=1"
    rows = {(row.objective, row.front_layer): row for row in grid_rows(tmp_path / "results" / "x")}
    for line, key in ((2, ("task", "layer4.0")), (3, ("task", "layer4.1")), (6, ("hint", "layer4.1"))):
        assert lines[line].split() == [key[1], f"{rows[key].accuracy:.4f}"]
    assert len(lines) == 7 and rows["task", "layer4.0"].dataset == "digits" and rows["hint", "layer4.1"].n_epochs == 1
    with open(tmp_path / "results" / "x" / "grid_intervals.csv") as file:
        table = list(csv.DictReader(file))
    assert {row["method"] for row in table} == {"direct matching", "hint matching"} and len(table) == 3
    for row in table:  # near those of the binomial distribution
        accuracy, low, high = (float(row[f"accuracy{end}"]) for end in ("", "_images_low", "_images_high"))
        assert high - low == pytest.approx(2 * 1.96 * (accuracy * (1 - accuracy) / 120) ** 0.5, abs=0.015)
        assert float(row["penalty_images_low"]) <= float(row["penalty"]) <= float(row["penalty_images_high"])
        assert low <= accuracy <= high and row["accuracy_runs_low"] == ""  # one run has no interval over runs


def test_grid_gives_each_pair_what_it_gets_alone(stitch, tmp_path):
    fronts, ends = ["layer2.0", "layer4.1"], ["layer1.1", "layer3.0"]
    folders, out = stitch(",".join(fronts), ",".join(ends), *DM, "-dir", "g")
    assert [json.loads((folder / "config.txt").read_text())["front_layer"] for folder in folders] == [
        "layer2.0", "layer2.0", "layer4.1", "layer4.1",
    ]  # fmt: skip
    assert "layer4.1 -> layer3.0: Clean accuracy: " in out
    with open(tmp_path / "results" / "g" / "grid.csv") as file:
        rows = {(row["front_layer"], row["end_layer"]): row for row in csv.DictReader(file)}
    assert len(rows) == 4 and (tmp_path / "results" / "g" / "grid.png").read_bytes()[:4] == b"\x89PNG"
    for (front, end), row in rows.items():
        *_, alone = stitch(front, end, *DM, "-dir", "h")[0]
        assert float(row["accuracy"]) == metrics(alone)["accuracy"]
        for name in ("matching_error", "representation_difference"):
            assert float(row[name]) == pytest.approx(metrics(alone)[name], rel=1e-6)
        ours = load_state(tmp_path / "results" / "g" / row["folder"] / "final_model.pt")
        theirs = load_state(alone / "final_model.pt")
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_matchings_do_not_depend_on_what_else_is_in_the_grid(stitch, tmp_path):
    """Not even on a layer for which BatchNorm cannot be folded into convolutions."""
    (alone,), _ = stitch("layer2.0", "layer1.1", *DM)
    folders, _ = stitch("layer2.0,layer4.1.conv2", "layer1.1,layer2", *DM, "-dir", "g")
    (together,) = (
        path for path in folders if path.parent.name == "g" and metrics_of_pair(path) == ("layer2.0", "layer1.1")
    )
    one, other = (load_state(path / "final_model.pt") for path in (alone, together))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def metrics_of_pair(folder) -> tuple[str, str]:
    options = json.loads((folder / "config.txt").read_text())
    return options["front_layer"], options["end_layer"]


def test_pairs_that_cannot_be_stitched_are_left_out_and_named(digit_networks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r.pt"
    save_state(path, build_model("resnet18", n_channels=1).state_dict())
    layers = ["layer1.0,layer2.0", "layer1.1,layer2.1"]
    arguments = [str(path), str(path), "resnet18", "resnet18", *layers, "rc2c_pre", *COMMON, "-i", "eye", "-e", "0"]
    assert exec_stitch.main([*arguments, "-dir", "e"]) == 0
    err = capsys.readouterr().err
    assert "not stitched: layer1.0 -> layer2.1: -i eye needs equal widths, not 64 and 128 channels" in err
    assert (tmp_path / "results" / "e" / "grid.csv").read_text().count("\n") == 3


def test_the_networks_own_accuracies_are_those_without_moved_statistics(stitch, digit_networks, capsys):
    (frozen,), _ = stitch("layer2.0", "layer2.0", *DM, "-dir", "a")
    (moved,) = (
        path for path in stitch("layer2.0", "layer2.0", "-d", "digits", "-gpu", "-1", "-e", "1")[0] if path != frozen
    )
    for name in ("front_accuracy", "end_accuracy"):
        assert metrics(moved)[name] == pytest.approx(metrics(frozen)[name], abs=0.003)


def test_task_loss_matching_trains_the_layer_only(stitch, digit_networks):
    options = [*COMMON, "-e", "2", "-b", "128", "-lr", "1e-2", "-l1", "1e-5", "--grad-clip", "1", "-sched", "cosine"]
    (folder,), out = stitch("layer2.0", "layer2.0", *options)
    header, first, second = (folder / "training_logs.csv").read_text().splitlines()
    assert header == "train_acc,train_loss,val_acc,val_loss"
    assert float(second.split(",")[1]) < float(first.split(",")[1])
    assert out.splitlines()[-2].startswith("Epoch #2 val loss: ") and out.splitlines()[-1].startswith(
        "Clean accuracy: "
    )
    assert load_state(folder / "final_model.pt").keys() == {"transform.weight", "transform.bias"}
    assert metrics(folder)["matching_error"] is None
    assert "Normalized PINV difference: 0.0000\n" in (folder / "summary.txt").read_text()
    assert float(second.split(",")[2]) == metrics(folder)["accuracy"]


def test_without_mod_only_stitch_the_whole_network_is_saved_and_statistics_move(stitch, digit_networks):
    folders, _ = stitch("layer2.0", "layer2.0,layer3.0", "-d", "digits", "-gpu", "-1", "-e", "1", "-b", "256")
    end = load_state(digit_networks[1])
    for folder in folders:
        state = load_state(folder / "final_model.pt")
        moved = state["end_model.model.layer4.1.bn2.running_mean"]
        assert not torch.equal(moved, end["layer4.1.bn2.running_mean"])
        assert torch.equal(state["end_model.model.layer4.1.conv2.weight"], end["layer4.1.conv2.weight"])
        assert torch.equal(
            state["front_model.stitch_from_layer.bn1.weight"], state["front_model.model.layer2.0.bn1.weight"]
        )
        assert "stitching_layer.transform.weight" in state
    # each pair has networks of its own, so the first one's batches did not move the second one's statistics
    counts = [load_state(f / "final_model.pt")["end_model.model.layer4.1.bn2.num_batches_tracked"] for f in folders]
    assert counts[0] == counts[1] == end["layer4.1.bn2.num_batches_tracked"] + 6


def test_no_save_saves_everything_but_the_model(stitch):
    (folder,), _ = stitch("layer4.0", "layer4.0", *DM, "--no-save", "--no-predictions")
    assert {path.name for path in folder.iterdir()} == {"config.txt", "summary.txt", "metrics.json", "run.json"}


def test_identity_within_a_network_changes_nothing(digit_networks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = str(digit_networks[0])
    arguments = [path, path, MODEL, MODEL, "layer2.1", "layer2.1", "rc2c_pre", *COMMON, "-i", "eye", "-e", "0"]
    assert exec_stitch.main(arguments) == 0
    (folder,) = (tmp_path / "results").iterdir()
    found = metrics(folder)
    assert found["accuracy"] == found["front_accuracy"] == found["end_accuracy"]
    assert found["representation_difference"] < 1e-12


def test_ranks_change_the_result_where_they_should(stitch):
    full = metrics(stitch("layer3.0", "layer3.0", *DM, "-dir", "a")[0][-1])
    cut_stitch = metrics(stitch("layer3.0", "layer3.0", *DM, "--front-stitch-rank", "2", "-dir", "b")[0][-1])
    cut_match = metrics(stitch("layer3.0", "layer3.0", *DM, "--front-pinv-rank", "2", "-dir", "c")[0][-1])
    whole = metrics(stitch("layer3.0", "layer3.0", *DM, "--front-stitch-rank", "64", "-dir", "d")[0][-1])
    assert cut_stitch["matching_error"] == full["matching_error"] < cut_match["matching_error"]
    assert cut_stitch["representation_difference"] > full["representation_difference"]
    assert whole == full


def test_the_same_command_twice_makes_the_same_files(stitch):
    options = [*COMMON, "-i", "pinv", "-e", "1", "-b", "512"]
    stitch("layer4.0", "layer4.1", *options)
    (one, two), _ = stitch("layer4.0", "layer4.1", *options)
    for name in ("final_model.pt", "summary.txt", "config.txt", "metrics.json", "training_logs.csv", "predictions.npz"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


@pytest.mark.parametrize(
    ("types", "layers", "kind", "options"),
    [
        (("vit", "vit"), ("blocks.2", "blocks.5"), "t2t", ["-i", "pinv"]),
        (("vit", "cnn"), ("blocks.2", "layer3.0"), "t2c", ["-i", "pinv", "-t2c-cls", "add"]),
        (("vit", "cnn"), ("blocks.2", "layer2.0"), "t2c", ["-i", "rand", "-t2c-cls", "only", "-upsample", "nearest"]),
        (("cnn", "vit"), ("layer3.0", "blocks.2"), "c2t", ["-i", "pinv", "-c2t-cls", "learn"]),
        (("cnn", "vit"), ("layer3.0", "blocks.2"), "c2t", ["-i", "pinv", "-c2t-cls", "pool"]),
        (("cnn", "cnn"), ("layer2.0", "layer2.1"), "c2c", ["-i", "eye"]),
        (("cnn", "cnn"), ("layer3.0", "layer2.1"), "rc2c_post", ["-i", "pinv"]),
        (("cnn", "cnn"), ("layer2", "layer3.0.conv2"), "rc2c_pre", ["-i", "pinv"]),
    ],
    ids=str,
)
def test_all_stitching_types(
    types, layers, kind, options, digit_networks, vit_checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    names = {"vit": ("vit_tiny_patch4_32", vit_checkpoint), "cnn": (MODEL, digit_networks[0])}
    paths, models = [str(names[kind][1]) for kind in types], [names[kind][0] for kind in types]
    assert exec_stitch.main([*paths, *models, *layers, kind, *COMMON, "-e", "1", "-b", "512", *options]) == 0
    (folder,) = (tmp_path / "results").iterdir()
    assert metrics(folder)["representation_difference"] > 0
    assert (metrics(folder)["matching_error"] is not None) == ("pinv" in options)


@pytest.fixture(scope="module")
def vit_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("vit") / "vit.pt"
    save_state(path, build_model("vit_tiny_patch4_32", n_channels=1, image_shape=(1, 8, 8)).state_dict())
    return path


def collect(*arguments) -> int:
    spec = importlib.util.spec_from_file_location("collect_results", ROOT / "misc" / "collect_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(argument) for argument in arguments])


def test_collects_runs_of_the_public_code(run_script, tmp_path):
    out = run_script("misc/collect_results.py", DATA / "public_runs" / "trained", "-o", "all.csv")
    assert [line.split() for line in out.splitlines()] == [
        ["layer1.0", "layer2.0"],
        ["layer2.0", "nan", "0.7600"],
        ["layer3.1", "nan", "0.7700"],
        ["layer4.1", "0.5400", "nan"],
    ]
    with open(tmp_path / "all.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["accuracy"] for row in rows] == ["0.76", "0.77", "0.54"] and rows[0]["front_accuracy"] == "nan"
    assert (tmp_path / "all.png").exists()


def test_two_folders_are_compared(run_here, tmp_path):
    trained = sorted((DATA / "public_runs" / "trained").glob("*/config.txt"))
    for name, n_runs in (("one", 3), ("other", 2)):
        for run in trained[:n_runs]:
            shutil.copytree(run.parent, tmp_path / name / run.parent.name)
    summary = tmp_path / "other" / trained[0].parent.name / "summary.txt"
    summary.write_text(re.sub("Clean accuracy: .*", "Clean accuracy: 0.5000 ", summary.read_text()))
    out = run_here("misc/collect_results.py", "one", "other", "-o", "new/both.pdf", "--title", "Two folders")
    assert (tmp_path / "new" / "both.pdf").read_bytes().startswith(b"%PDF")
    with open(tmp_path / "new" / "both.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and sum(row["accuracy_2"] == "nan" for row in rows) == 1
    for row in rows:
        one, other, difference = (float(row[name]) for name in ("accuracy_1", "accuracy_2", "difference"))
        assert math.isnan(other) or difference == other - one
    assert 0.5 in {float(row["accuracy_2"]) for row in rows}
    lines = out.splitlines()
    assert [lines[i] for i in (0, 5, 10)] == ["one", "other", "other − one"] and len(lines) == 15
    assert not (tmp_path / "one" / "grid.csv").exists() and not (tmp_path / "new" / "both.png").exists()
    assert run_here("misc/collect_results.py", "one", "other") == out  # and writes nothing
    shutil.copytree(tmp_path / "one", tmp_path / "mixed")
    config = tmp_path / "mixed" / trained[0].parent.name / "config.txt"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"seed": 77}))
    error = run_here("misc/collect_results.py", "one", "mixed", status=2)
    assert "mixed holds 2 experiments (seed=77; seed=" in error and "of one experiment each" in error


def test_a_folder_can_be_drawn_as_vectors(run_here, tmp_path):
    run_here("misc/collect_results.py", DATA / "public_runs" / "trained", "-o", "all.pdf", "--title", "All of them")
    assert (tmp_path / "all.pdf").read_bytes().startswith(b"%PDF") and (tmp_path / "all.csv").is_file()
    error = run_here("misc/collect_results.py", "one", "-o", "all.jpg", status=2)
    assert "all.jpg must be a CSV or a figure; give it a name that ends in .csv or .png or .pdf" in error


def test_collects_runs_of_folders_below(run_here, tmp_path):
    run_here("misc/collect_results.py", DATA / "public_runs", "-r", "-o", "all.csv")
    with open(tmp_path / "all.csv") as file:
        found = {row["folder"] for row in csv.DictReader(file)}
    assert found == {path.parent.name for path in (DATA / "public_runs").rglob("config.txt")} and len(found) > 3


def test_collecting_from_below_takes_the_newest_and_writes_all(tmp_path, monkeypatch, capsys):
    run, *_ = sorted((DATA / "public_runs" / "trained").glob("*/config.txt"))
    for name, accuracy in (("a/2026-11-25_10-25-39.5", 0.25), ("b/2026-11-25_10-25-32.5", 0.5)):
        shutil.copytree(run.parent, tmp_path / "n" / name)
        summary = tmp_path / "n" / name / "summary.txt"
        summary.write_text(re.sub("Clean accuracy: .*", f"Clean accuracy: {accuracy} ", summary.read_text()))
    assert collect(tmp_path / "n", "-r") == 0
    out, err = capsys.readouterr()
    assert out.split()[-1] == "0.2500" and "the newest counts, 2026-11-25_10-25-39.5" in err and "skipped" not in err
    with open(tmp_path / "n" / "grid.csv") as file:
        assert [row["accuracy"] for row in csv.DictReader(file)] == ["0.5", "0.25"]
    monkeypatch.chdir(tmp_path / "n" / "a" / "2026-11-25_10-25-39.5")
    assert collect(".", "-r") == 2 and "holds no finished stitching run" in capsys.readouterr().err


def test_a_run_that_goes_on_is_not_taken_over(stitch, tmp_path):
    """A second process finds the state and the folders of a live one: it is refused."""
    options = [*COMMON, "-e", "1", "-dir", "live"]
    folder = tmp_path / "results" / "live"
    stitch("layer4.1", "layer4.1", *options)
    (run,) = (path for path in folder.iterdir() if path.is_dir())
    options_of_run = json.loads((run / "config.txt").read_text())
    (run / "config.txt").unlink()
    Run.in_folder(run, options_of_run).save(folders=[["layer4.1", "layer4.1", run.name]])
    code = f"from src.files import hold; lock = hold('{run}/.resume.pt.lock'); print('held', flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as live:
        assert live.stdout.readline() == "held\n"
        with pytest.raises(AssertionError, match=f"another run is writing to {run.relative_to(tmp_path)}"):
            stitch("layer4.1", "layer4.1", *options, "--resume")
        live.communicate("\n")
    stitch("layer4.1", "layer4.1", *options, "--resume")
    assert (run / "config.txt").exists() and not list(folder.glob("*/resume.pt"))


def test_collecting_takes_the_newest_of_a_pair_and_names_what_it_skips(stitch, tmp_path, capsys):
    stitch("layer4.1", "layer4.1", *DM, "-dir", "x")
    folders, _ = stitch("layer4.1", "layer4.1", *DM, "-lr", "0.1", "-dir", "x")  # which changes nothing
    dead = tmp_path / "results" / "x" / "2020-01-01_00-00-00.000000"
    dead.mkdir()
    assert collect(tmp_path / "results" / "x") == 0
    out, err = capsys.readouterr()
    assert f"layer4.1 -> layer4.1 has 2 runs; the newest counts, {folders[-1].name}" in err
    assert f"skipped: {dead}" in err and "did not finish" in err
    assert f"{metrics(folders[-1])['accuracy']:.4f}" in out.splitlines()[1]
    # once there is a grid.csv, single runs keep it up to date
    stitch("layer4.0", "layer4.1", *DM, "-dir", "x")
    assert (tmp_path / "results" / "x" / "grid.csv").read_text().count("\n") == 4


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_collecting_nothing_is_an_error(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert collect(folder) == 2
    assert ": error: " in capsys.readouterr().err
