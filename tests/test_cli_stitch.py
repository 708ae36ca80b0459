"""exec_stitch.py as a user runs it."""

import re

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from src.results.checkpoints import load_state
from src.results.scoring import load_stitch
from src.stitching import Pair, StitchedModel, build_stitching_layer
from tests.commands import (
    MODEL,
    ON_DIGITS,
    digit_images,
    digit_network,
    names_in,
    pair_of,
    parse_matrix,
    read_csv,
    read_json,
    read_metrics,
    run,
    save_network,
    says,
    stitch_rows,
)
from tests.conftest import few_images
from tests.goldens import DATA

pytestmark = pytest.mark.usefixtures("few")

COMMON = [*ON_DIGITS, "--mod-only-stitch"]
DM = [*COMMON, "-i", "pinv", "-e", "0"]
TRAINED = [*COMMON, "-e", "1", "-b", "64", "-lr", "1e-2"]
N_TEST = 60  # images


@pytest.fixture(scope="module")
def few():
    """Scripts take 128 training images, and few test images."""
    with few_images(128, n_test=N_TEST):
        yield


def test_layout_of_a_run_is_that_of_the_public_code(digit_networks, tmp_path):
    pair = [*digit_networks, MODEL, MODEL, "layer3.0", "layer2.0", "rc2c_pre"]
    out = run("exec_stitch.py", *pair, *DM, "-dir", "a", cwd=tmp_path).out
    (folder,) = (tmp_path / "results" / "a").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.\d{6}", folder.name)
    written = "config.txt summary.txt final_model.pt grid.csv predictions.npz run.json"
    assert names_in(folder) == {*written.split()}

    public = DATA / "public_runs" / "det" / "2026-11-24_22-47-07.024491"
    pattern = re.escape((public / "summary.txt").read_text())
    ours = {
        "models/det0\\.pt": digit_networks[0],
        "models/det1\\.pt": digit_networks[1],
        "layer3\\.1": "layer3.0",
    }
    for theirs, given in ours.items():
        pattern = pattern.replace(theirs, re.escape(str(given)), 1)
    pattern = re.sub(r"Command:\\ .*", "Command: .*exec_stitch.py .*", pattern)
    pattern = re.sub(r"(\d+)\\\.(\d{5,})", r"\\d+\\.\\d+(e-\\d+)?", pattern)  # sparsities
    pattern = re.sub(r": ?\\ \d\\\.(\d{4})", r":\\ \\d\\.\\d{4}", pattern)  # the other numbers
    summary = (folder / "summary.txt").read_text()
    assert re.fullmatch(pattern, summary), summary
    config, theirs = (read_json(path / "config.txt") for path in (folder, public))
    assert theirs.keys() <= config.keys() and config["front_layer"] == "layer3.0"
    accuracy = read_metrics(folder)["accuracy"]
    assert out == f"Clean accuracy: {accuracy:.2%}\n"
    assert f"Clean accuracy: {accuracy:.4f} \n" in summary
    shapes = {key: (*value.shape,) for key, value in load_state(folder / "final_model.pt").items()}
    assert shapes == {"transform.weight": (64, 64, 1, 1), "transform.bias": (64,)}


def test_numbers_are_those_of_the_saved_layer(stitch, digit_networks):
    folder = stitch("layer3.1", "layer1.0", *DM, "-pinv-samples", "64", "-b", "100").newest
    front, end = map(digit_network, digit_networks)
    layer = build_stitching_layer("rc2c_pre", (64, 2, 2), (64, 8, 8))
    layer.load_state_dict(load_state(folder / "final_model.pt"))
    test_set, train_set = (digit_images(train=train) for train in (False, True))
    ((x, labels),) = test_set.batches(len(test_set))
    ((matched, _),) = train_set.batches(64, indices=train_set.permutation(0)[:64])
    found = read_metrics(folder)

    def residual_and_target(images):
        target = end(images, until="layer1.0")
        return (layer(front(images, until="layer3.1")) - target).square().sum(), target

    with torch.no_grad():
        logits = StitchedModel(front, end, layer, Pair("layer3.1", "layer1.0"))(x)
        classes = {"stitched": logits, "front": front(x), "end": end(x)}
        residual, target = residual_and_target(x)
        difference = residual / target.square().sum()
        residual, target = residual_and_target(matched)
        error = residual / target.square().sum()
        r2 = 1 - residual / (target - target.mean((0, 2, 3), True)).square().sum()
    assert found["representation_difference"] == pytest.approx(difference.item(), rel=1e-5)
    assert found["matching_error"] == pytest.approx(error.item(), rel=1e-4)
    assert found["r2_fit"] == pytest.approx(r2.item(), abs=1e-5)
    assert found["n_fitting_samples"] == 64 and 0 < found["matching_rank"] <= 65
    with np.load(folder / "predictions.npz") as kept:
        for key, name in (("stitched", ""), ("front", "front_"), ("end", "end_")):
            assert np.array_equal(kept[key], classes[key].argmax(1))
            assert found[f"{name}accuracy"] == (kept[key] == kept["labels"]).mean()
        assert np.array_equal(kept["labels"], labels)
        assert found["agreement"] == (kept["stitched"] == kept["end"]).mean()
        assert found["kappa"] == pytest.approx(cohen_kappa_score(kept["stitched"], kept["end"]))
    values = torch.cat([layer.transform.weight.flatten(), layer.transform.bias]).abs()
    assert found["sparsity"]["1e-2"] == pytest.approx((values <= 1e-2).double().mean().item())


def test_without_model_the_numbers_are_saved(stitch):
    folder = stitch("layer4.0", "layer4.0", *DM, "--no-save").newest
    written = "config.txt summary.txt grid.csv predictions.npz run.json"
    assert names_in(folder) == {*written.split()}
    assert 0 < read_metrics(folder)["agreement"] <= 1


def test_pairs_that_cannot_be_stitched_are_left_out_and_named(stitch, tmp_path):
    networks = [save_network(tmp_path / "r.pt", "resnet18", n_channels=1)] * 2
    layers, more = (
        ["layer1.0,layer2.0", "layer1.1,layer2.1"],
        [*COMMON, "-i", "eye", "-e", "0", "-dir", "e"],
    )
    printed = stitch(*layers, *more, networks=networks, types=["resnet18"] * 2)
    assert says(printed.err, "not stitched: ", "layer1.0 -> layer2.1", "eye", "64 and 128 channels")
    assert len(stitch_rows("results/e")) == 2


def test_without_mod_only_stitch_the_whole_network_is_saved_and_statistics_move(
    stitch, digit_networks
):
    """Each pair has networks of its own, and keeps the accuracies of them as they were."""
    call = stitch("layer2.0", "layer2.0,layer3.0", *ON_DIGITS, "-e", "1", "-b", "64").newest
    frozen = read_metrics(stitch("layer2.0", "layer2.0", *DM).newest)
    end, norm = load_state(digit_networks[1]), "layer4.1.bn2"
    for end_layer in ("layer2.0", "layer3.0"):
        folder = call / f"layer2.0 to {end_layer}"
        for name in ("front_accuracy", "end_accuracy"):
            assert read_metrics(folder)[name] == pytest.approx(frozen[name], abs=0.003)
        state = load_state(folder / "final_model.pt")
        moved = state[f"end_model.model.{norm}.running_mean"]
        assert not torch.equal(moved, end[f"{norm}.running_mean"])
        weight = state["end_model.model.layer4.1.conv2.weight"]
        assert torch.equal(weight, end["layer4.1.conv2.weight"])
        n_batches = f"{norm}.num_batches_tracked"
        assert state[f"end_model.model.{n_batches}"] == end[n_batches] + 2
        assert "stitching_layer.transform.weight" in state


def test_identity_within_a_network_changes_nothing(stitch, digit_networks):
    folder = stitch(
        "layer2.1", "layer2.1", *COMMON, "-i", "eye", "-e", "0", networks=[digit_networks[0]] * 2
    ).newest
    found = read_metrics(folder)
    assert found["accuracy"] == found["front_accuracy"] == found["end_accuracy"]
    assert found["representation_difference"] < 1e-12


def test_ranks_change_the_result_where_they_should(stitch):
    full, cut_stitch, cut_match, whole = (
        read_metrics(stitch("layer3.0", "layer3.0", *DM, *ranks).newest)
        for ranks in (
            [],
            ["--front-stitch-rank", "2"],
            ["--front-pinv-rank", "2"],
            ["--front-stitch-rank", "64"],
        )
    )
    assert cut_stitch["matching_error"] == full["matching_error"] < cut_match["matching_error"]
    assert cut_stitch["representation_difference"] > full["representation_difference"]
    assert whole == full


# Training


def test_a_grid_logs_and_writes_its_objective(stitch, drawn_figures):
    """Over a single batch of all test images, d² is the representation difference."""
    layers, options = ["layer3.0,layer4.0", "layer3.1,layer4.1"], ["--objective", "hint"]
    folders, out, _ = stitch(*layers, *TRAINED, *options, "-dir", "g")
    rows = {pair_of(row): row for row in stitch_rows("results/g")}
    (drawn,) = [axes.images[0] for axes in drawn_figures["grid.png"].axes if axes.images]
    accuracies = [float(row["accuracy"]) for row in rows.values()]
    assert drawn.get_array().ravel().tolist() == pytest.approx(accuracies)
    matrix = parse_matrix(out, "accuracy of the stitched network")
    assert matrix == {pair: f"{float(row['accuracy']):.4f}" for pair, row in rows.items()}
    (folder,) = folders
    assert len(rows) == 4
    logs = {pair_of(log): log for log in read_csv(folder / "training_logs.csv")}
    columns = ["front_layer", "end_layer", "train_acc", "train_loss", "val_acc", "val_loss"]
    for pair, row in rows.items():
        log = logs[pair]
        assert list(log) == columns and float(log["train_loss"]) > 0
        assert log["train_acc"] == row["matching_error"] == ""  # not measured
        assert float(log["val_acc"]) == float(row["accuracy"]) and row["objective"] == "hint"
        assert load_stitch(folder, Pair(*pair)).keys() == {"transform.weight", "transform.bias"}
        difference = float(row["representation_difference"])
        assert float(log["val_loss"]) ** 2 == pytest.approx(difference, rel=1e-4)


@pytest.fixture(scope="module")
def vit_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("vit") / "vit.pt"
    return save_network(path, "vit_tiny_patch4_32", n_channels=1, image_shape=(1, 8, 8))


@pytest.mark.parametrize(
    ("objective", "types", "layers", "kind", "given"),
    [
        ("soft", "vit vit", ("blocks.2", "blocks.5"), "t2t", ["-i", "ortho", "-l1", "1e-4"]),
        (
            "fula",
            "vit cnn",
            ("blocks.2", "layer3.0"),
            "t2c",
            ["-i", "pinv", "-t2c-cls", "add", "--amp", "bf16"],
        ),
        (
            "task",
            "vit cnn",
            ("blocks.2", "layer2.0"),
            "t2c",
            ["-t2c-cls", "only", "-upsample", "nearest"],
        ),
        (
            "hint",
            "cnn vit",
            ("layer3.0", "blocks.2"),
            "c2t",
            ["-i", "covariance", "-c2t-cls", "learn"],
        ),
        ("task", "cnn vit", ("layer3.0", "blocks.2"), "c2t", ["-i", "pinv", "-c2t-cls", "pool"]),
        (
            "feature",
            "cnn cnn",
            ("layer2.0", "layer2.1"),
            "c2c",
            ["-i", "eye", "--front-stitch-rank", "9"],
        ),
        (
            "fula",
            "cnn cnn",
            ("layer2", "layer3.0.conv2"),
            "rc2c_pre",
            ["-i", "covariance", "--front-pinv-rank", "9"],
        ),
        (
            "hint",
            "cnn cnn",
            ("layer3.0", "layer4.1"),
            "rc2c_post",
            ["--amp", "bf16", "--grad-clip", "1"],
        ),
    ],
    ids=str,
)
def test_every_type_and_start(
    objective, types, layers, kind, given, stitch, digit_networks, vit_checkpoint
):
    known = {"vit": ("vit_tiny_patch4_32", vit_checkpoint), "cnn": (MODEL, digit_networks[0])}
    names, paths = zip(*(known[name] for name in types.split()), strict=True)
    options = [*TRAINED, "--objective", objective, *given]
    folder = stitch(*layers, *options, networks=paths, types=names, kind=kind).newest
    (log,), found = read_csv(folder / "training_logs.csv"), read_metrics(folder)
    assert 0 < float(log["train_loss"]) and found["representation_difference"] > 0
    assert (found["matching_error"] is None) == (not {"ortho", "pinv", "covariance"} & {*given})
