"""exec_train_representation_classifier.py and exec_eval_stitcher_ood.py as a user runs them."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from src.core.choices.scores import SCORES
from src.core.tensors import load_tensors, save_tensors
from src.core.values import Pair
from src.models import Network, build_model
from src.ood import energy, make_detector, ood_metrics
from src.results.checkpoints import load_state
from src.results.scoring import load_stitch
from src.results.stitches import STITCHES
from src.skill.within_class import skill_score, within_class_correlation
from src.stitching import build_stitching_layer
from tests.commands import (
    ON_DIGITS,
    Output,
    digit_images,
    digit_network,
    names_in,
    pair_of,
    panels_of,
    parse_matrix,
    read_csv,
    read_json,
    read_metrics,
    run,
    save_network,
    says,
    stitch_rows,
)
from tests.conftest import few_images, small_networks

TRAIN, EVALUATE = "exec_train_representation_classifier.py", "exec_eval_stitcher_ood.py"
CLASSIFIER = [
    "-m",
    "repr_cls_resnet18",
    *ON_DIGITS,
    "-ftidd",
    "digits",
    "-ftoodd",
    "photo_patches",
    "-b",
    "512",
]
N_TEST = 60  # images
MODEL, FRONTS, ENDS = "small_cnn", ["pool1", "pool2", "pool4"], ["pool1", "pool3"]
TITLES = {"accuracy": "STITCHING ACCURACY"} | {
    name.lower(): f"STITCHING OOD Detection {name} (energy)" for name in ("AUROC", "AUPR", "FPR95")
}


@pytest.fixture(scope="module", autouse=True)
def small():
    """All scripts of this file see few images, and train small detectors."""
    detectors = small_networks("repr_cls_resnet18", "repr_cls_vit_tiny")
    with few_images(300, n_test=N_TEST), detectors:
        yield


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Two `small_cnn` of two thirds accuracy: their checkpoints."""
    folder, recipe = tmp_path_factory.mktemp("small"), ["-e", "8", "-b", "32", "-lr", "0.003"]
    for seed in ("0", "1"):
        run("exec_train.py", MODEL, *ON_DIGITS, *recipe, "-s", seed, "-dir", folder / seed)
    return [folder / seed / "model_8.pt" for seed in ("0", "1")]


@pytest.fixture(scope="module")
def workplace(networks, tmp_path_factory):
    """A folder with two grids of stitches, detectors for one of their two end layers, and other
    images."""
    folder = tmp_path_factory.mktemp("ood")
    images, labels = digit_images(train=True).images[:50, 0], np.arange(50) % 10
    np.savez(folder / "other.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stitch(networks, "dm")
        stitch(networks, "ranks", "--front-stitch-rank", "2")
        with few_images(32):
            run(TRAIN, *detector(networks, "pool1", "d"))
            run(TRAIN, *detector(networks, "pool2", "d2"))  # no stitch ends at that layer
    return folder


def stitch(networks, name: str, *options: str, fronts=FRONTS, ends=ENDS) -> None:
    pair = [*networks, MODEL, MODEL, ",".join(fronts), ",".join(ends), "rc2c_pre"]
    run("exec_stitch.py", *pair, *ON_DIGITS, "-i", "pinv", "-e", "0", "-dir", name, *options)


def detector(networks, layer: str, folder: str) -> list:
    return [
        networks[1],
        MODEL,
        layer,
        *CLASSIFIER,
        "-e",
        "1",
        "-fe",
        "1",
        "-dir",
        folder,
        "-fdir",
        "store",
    ]


def evaluate(workplace, name: str, *arguments, status: int = 0) -> Output:
    """Evaluate a grid of the workplace, by energy if no other detectors are named."""
    given = [f"results/{name}", *ON_DIGITS, "-detectors", "store", *arguments]
    return run(EVALUATE, *given, cwd=workplace, status=status)


@pytest.fixture
def copied(workplace):
    """Copies the stitches of `dm`, without their evaluations, to another folder of results; returns
    it."""

    def copy(name: str) -> Path:
        for run_folder in (workplace / "results" / "dm").glob("2*"):
            shutil.copytree(run_folder, workplace / "results" / name / run_folder.name)
        return workplace / "results" / name

    return copy


def stitched_from_pool4(folder: Path, front: Network, images: torch.Tensor) -> torch.Tensor:
    """The activations at `pool1` that the stitch of a run makes of those at `pool4`."""
    layer = build_stitching_layer("rc2c_pre", (128, 1, 1), (16, 4, 4))
    layer.load_state_dict(load_stitch(folder, Pair("pool4", "pool1")))
    return layer(front(images, until="pool4"))


def rows_of(folder: Path, detector: str = "energy") -> list[dict[str, str]]:
    """The rows that a detector measured, under the names of its columns without its own."""
    rows = []
    others = tuple(f"_{name}" for name in SCORES if name != detector)
    for row in read_csv(folder / "evaluation.csv"):
        if row.get(f"auroc_{detector}"):
            columns = [name for name in row if not name.endswith(others)]
            rows.append({name.removesuffix(f"_{detector}"): row[name] for name in columns})
    return rows


def test_detector_files_have_the_layout_of_the_public_code(workplace, networks):
    folder = workplace / "d"
    models = {"model_1.pt", "ft_model_1.pt"}
    assert names_in(folder) == models | {
        "training_logs.csv",
        "ft_logs.csv",
        "config.txt",
        "run.json",
    }
    assert (folder / "ft_logs.csv").read_text().splitlines()[
        0
    ] == "ft_loss,ce_loss,train_acc,val_ce_loss,val_acc"
    (name, entry), *_ = read_json(workplace / "store" / "meta.json").items()
    assert entry["source_layer"] == "pool1" and entry["required_input_shape"] == [16, 4, 4]
    assert entry["orig_input_shape"] == [1, 8, 8] and entry["training_loc"] == "d"
    assert entry["source_model_path"] == str(networks[1]) and len(entry["source_sha256"]) == 64
    assert (workplace / "store" / name).read_bytes() == (folder / "ft_model_1.pt").read_bytes()


def test_fine_tuning_by_outlier_exposure_changes_the_detector(networks, in_tmp_path):
    given = ["-e", "1", "-fe", "2", "-score", "oe", "-dir", "a", "-fdir", "s"]
    with few_images(32):
        out = run(TRAIN, networks[1], MODEL, "pool1", *CLASSIFIER, *given).out.splitlines()
    tuned = [line for line in out if line.startswith("FT Epoch #")]
    assert len(tuned) == 4 and tuned[0].startswith("FT Epoch #1 FT loss: ")
    assert "CE Loss: " in tuned[0]
    before, after = load_state("a/model_1.pt"), load_state("a/ft_model_2.pt")
    assert not torch.equal(before["fc.weight"], after["fc.weight"])


def test_all_layers_get_a_detector_each(in_tmp_path):
    """Of tokens, too: a vision transformer and its classifiers."""
    save_network(in_tmp_path / "vit.pt", "vit_tiny_patch4_32", n_channels=1, image_shape=(1, 8, 8))
    given = [
        *CLASSIFIER,
        "-m",
        "repr_cls_vit_tiny",
        "-b",
        "16",
        "-e",
        "0",
        "-fe",
        "1",
        "-dir",
        "d",
        "-fdir",
        "s",
    ]
    with few_images(16, n_test=16):
        run(TRAIN, "vit.pt", "vit_tiny_patch4_32", "blocks.0,blocks.1", *given)
    entries = {
        entry["source_layer"]: entry["required_input_shape"]
        for entry in read_json("s/meta.json").values()
    }
    assert entries == dict.fromkeys(["blocks.0", "blocks.1"], [5, 192])
    configs = {
        path.parent.name: read_json(path)["source_layer_name"]
        for path in Path("d").glob("*/config.txt")
    }
    assert configs == {layer: layer for layer in entries}


@torch.no_grad()
def test_an_evaluation_prints_and_writes_the_scores_of_the_detector(
    workplace, networks, drawn_figures
):
    """Energies and AUROC are recomputed layer by layer, without the grid."""
    printed = evaluate(workplace, "dm", "-scd", "photo_patches").out
    folder = workplace / "results" / "dm"
    rows, written = rows_of(folder), read_json(folder / "evaluation.json")["detectors"]["energy"]
    assert [pair_of(row) for row in rows] == [(front, "pool1") for front in FRONTS]
    for column, title in TITLES.items():
        assert parse_matrix(printed, title) == {
            pair_of(row): f"{float(row[column]):.4f}" for row in rows
        }
    drawn = panels_of(drawn_figures["evaluation_energy.png"])["AUROC"].images[0].get_array()
    assert drawn.ravel().tolist() == pytest.approx([float(row["auroc"]) for row in rows])
    assert list(written) == ["pool1", "pool2"]
    assert f"{written['pool1']['sanity_check']['auroc']:.4f}" in printed.splitlines()[-2]

    front, end = (digit_network(path, MODEL) for path in networks)
    options = {"n_classes": 10, "n_channels": 1, "image_shape": (1, 8, 8)}
    classifier = build_model("repr_cls_resnet18", representation_shape=(16, 4, 4), **options).eval()
    classifier.load_state_dict(load_state(workplace / "d" / "ft_model_1.pt"))
    ((x, _),) = digit_images(train=False).batches(1000)
    row = rows[-1]
    stitched = energy(classifier(stitched_from_pool4(folder / row["folder"], front, x)))
    scores = np.load(folder / "energies_energy.npz")
    saved, patches = scores["pool1/pool4"], scores["pool1/photo_patches"]
    np.testing.assert_allclose(saved, stitched.numpy(), rtol=1e-3, atol=1e-3)
    own = energy(classifier(end(x, until="pool1"))).numpy()
    for column, others in (("auroc", saved), ("sanity_auroc", patches)):
        assert float(row[column]) == pytest.approx(ood_metrics(own, others).auroc, abs=1e-3)
    assert float(row["mean_energy"]) == pytest.approx(saved.mean(), rel=1e-5)
    assert float(row["mean_id_energy"]) == pytest.approx(own.mean(), rel=1e-3)
    assert written["pool1"]["id_data"] == "digits"
    assert written["pool1"]["ood_data"] == "photo_patches"


@torch.no_grad()
def test_detectors_that_need_no_training(workplace, copied, networks):
    """All end layers, without a store; scores recomputed, against the end network's activations of the same
    images or of others."""
    folder = copied("fitted")
    ((x, labels),) = digit_images(train=True).batches(2000)
    ((test_images, _),) = digit_images(train=False).batches(2000)
    end, detector = digit_network(networks[1], MODEL), make_detector("mahalanobis")
    detector.add(end(x, until="pool1"), labels)
    detector.fit()
    for options, own_images in (
        (["-scd", "photo_patches"], test_images),
        (["-idd", "other.npz"], x[:50]),
    ):
        given = ["--detector", "mahalanobis", "-detectors", "nowhere", *options]
        evaluate(workplace, "fitted", *given)
        row, *rows = rows_of(folder, "mahalanobis")
        own = detector.score(end(own_images, until="pool1")).numpy()
        saved = np.load(folder / "energies_mahalanobis.npz")[f"pool1/{FRONTS[0]}"]
        assert float(row["mean_id_energy"]) == pytest.approx(own.mean(), rel=1e-4)
        assert float(row["auroc"]) == pytest.approx(ood_metrics(own, saved).auroc, abs=1e-3)
        assert bool(row.get("sanity_auroc")) == ("-scd" in options)
    found = [pair_of(each) for each in (row, *rows)]
    assert found == [(front, end) for end in ENDS for front in FRONTS]
    assert row["id_dataset"].endswith("other.npz") and row["dataset"] == "digits"


def test_a_run_is_evaluated_by_itself_and_found_by_the_verdict_of_its_folder(workplace, copied):
    folder = copied("alone")
    (one,) = folder.glob("2*")
    run(EVALUATE, one, *ON_DIGITS, "--detector", "mahalanobis", cwd=workplace)
    assert names_in(folder) == {one.name}
    run("misc/verdict.py", "results/alone", "-o", "alone.csv", cwd=workplace)
    skills = {pair_of(row): row["skill"] for row in read_csv(one / "evaluation.csv")}
    verdicts = read_csv(workplace / "alone.csv")
    assert {pair_of(row): row["skill"] for row in verdicts} == skills and len(skills) == 6
    evaluate(workplace, "alone", "--detector", "mahalanobis")
    assert rows_of(folder, "mahalanobis") == rows_of(one, "mahalanobis")


@torch.no_grad()
def test_detectors_that_share_a_pass_give_what_each_gives_alone(workplace, copied, tmp_path):
    together, apart = copied("together"), copied("apart")
    printed = evaluate(workplace, "together", "--detector", "energy,mahalanobis", "-ed", tmp_path)
    assert printed.out.count("STITCHING SKILL AT THE OUTPUT\n") == 1
    assert names_in(tmp_path) == {"energy", "mahalanobis"}
    aurocs = {}
    for name in ("energy", "mahalanobis"):
        for row in rows_of(together, name):
            aurocs.setdefault(pair_of(row), []).append(float(row["auroc"]))
    n_differing = sum(max(values) - min(values) > 0.25 for values in aurocs.values())
    lowest, highest = (
        choose(values[0] for values in aurocs.values() if len(values) > 1) for choose in (min, max)
    )
    assert says(printed.err, "AUROC by energy", f": {lowest:.2f} (", f" to {highest:.2f} (")
    assert n_differing and says(printed.err, f"more than 0.25 in the AUROC of {n_differing} of 6")
    for name, n_stitches in (("mahalanobis", 6), ("energy", 3)):  # energy: into pool1 alone
        evaluate(workplace, "apart", "--detector", name)
        rows = rows_of(apart, name)
        assert rows_of(together, name) == rows and len(rows) == n_stitches
        for row in rows:
            assert float(row["auroc_low"]) <= float(row["auroc"]) <= float(row["auroc_high"])


@torch.no_grad()
def test_skill_needs_no_detector(workplace, copied, networks):
    """The within-class correlation is recomputed without the grid."""
    folder = copied("skilled")
    printed = run(EVALUATE, "results/skilled", *ON_DIGITS, "--detector", "none", cwd=workplace)
    assert not list(folder.glob("energies*"))
    rows = read_csv(folder / "evaluation.csv")
    assert not [name for name in rows[0] if "auroc" in name]
    assert [pair_of(row) for row in rows] == [(front, end) for end in ENDS for front in FRONTS]
    shown = parse_matrix(printed.out, "STITCHING SKILL AT THE OUTPUT")
    assert shown == {pair_of(row): f"{float(row['skill']):.4f}" for row in rows}
    for row in rows:
        assert row["n_images"] == str(N_TEST) and row["test_images"]
        for place in ("", "_at_end"):
            correlation, baseline = (
                float(row[f"correlation{place}"]),
                float(row[f"baseline{place}"]),
            )
            assert float(row[f"skill{place}"]) == pytest.approx(skill_score(correlation, baseline))
    (row,) = (row for row in rows if pair_of(row) == ("pool4", "pool1"))
    front, end = (digit_network(path, MODEL) for path in networks)
    ((images, _),) = digit_images(train=False).batches(1000)
    stitched = stitched_from_pool4(folder / row["folder"], front, images)
    logits, of_stitch = end(images), end(stitched, after="pool1")
    classes = logits.argmax(1)
    own = end(images, until="pool1")
    at_end = within_class_correlation(stitched.numpy(), own.numpy(), classes)
    centred = (values - values.mean(1, keepdim=True) for values in (of_stitch, logits))
    output = within_class_correlation(*(values.numpy() for values in centred), classes)
    assert float(row["correlation_at_end"]) == pytest.approx(at_end.value, abs=1e-3)
    assert float(row["correlation"]) == pytest.approx(output.value, abs=1e-3)

    run("misc/verdict.py", "results/skilled", "--tolerance", "50", "-o", "v.csv", cwd=workplace)
    verdicts = read_csv(workplace / "v.csv")
    assert {row["verdict"] for row in verdicts}.isdisjoint({"similar", "accurate only"})


def test_other_data_are_refused_or_kept_apart(workplace, copied):
    folder = copied("elsewhere")
    evaluate(workplace, "elsewhere", "--detector", "mahalanobis")
    before = rows_of(folder, "mahalanobis")
    other = ["--detector", "mahalanobis", "-d", "other.npz"]
    refused = evaluate(workplace, "elsewhere", *other, status=2).err
    assert says(refused, "other.npz", "stitched on other inputs (-d digits", "--other-data")
    evaluate(workplace, "elsewhere", *other, "--other-data")
    rows = read_csv(folder / "evaluation_on_other.csv")
    assert {row["dataset"] for row in rows} == {"other"}
    assert rows_of(folder, "mahalanobis") == before


def test_moved_checkpoints_are_recognised_and_the_retained_rank_of_a_run_is_honoured(
    workplace, networks, tmp_path
):
    """Ranks are cut in each batch: with the stitching run's batches of 256 the accuracies are
    equal."""
    folder = shutil.copytree(workplace / "results" / "ranks", workplace / "results" / "moved")
    moved = [shutil.copy(path, tmp_path / f"{number}.pt") for number, path in enumerate(networks)]
    models = ["--front-model", moved[0], "--end-model", moved[1]]
    evaluate(workplace, "moved", "--detector", "mahalanobis", "-b", "256", *models)
    accuracies = {pair_of(row): row["accuracy"] for row in stitch_rows(folder)}
    for row in rows_of(folder, "mahalanobis"):
        assert row["accuracy"] == accuracies[pair_of(row)]


def test_whole_checkpoints_are_evaluated_too(workplace, networks, monkeypatch):
    monkeypatch.chdir(workplace)
    pair = [*networks, MODEL, MODEL, "pool2", "pool1", "rc2c_pre", *ON_DIGITS]
    run("exec_stitch.py", *pair, "-e", "1", "-dir", "whole")
    evaluate(workplace, "whole", "--detector", "mahalanobis")
    (row,) = rows_of(workplace / "results" / "whole", "mahalanobis")
    metrics = read_metrics(workplace / "results" / "whole" / row["folder"])
    assert float(row["accuracy"]) == pytest.approx(metrics["accuracy"], abs=0.003)


def test_what_cannot_be_evaluated_is_named_skipped_and_counted(
    workplace, copied, networks, monkeypatch
):
    folder = copied("broken")
    (one,) = folder.glob("2*")
    empty = folder / "2020-01-02_00-00-00.000000"
    shutil.copytree(one, empty)
    (empty / "grid.csv").write_text((one / "grid.csv").read_text().splitlines()[0])
    states = load_tensors(one / STITCHES)
    del states["pool2"]["pool1"]
    save_tensors(one / STITCHES, states)
    (folder / "2020-01-01_00-00-00.000000").mkdir()
    err = evaluate(workplace, "broken").err
    assert says(err, "no detector for pool3", "for pool1") and "did not finish" in err
    assert says(err, "01-02_00-00-00.000000/grid.csv is damaged: it has no rows")
    assert says(err, f"results/broken/{one.name}/stitches.pt has no stitch pool2 -> pool1")
    assert says(
        err,
        "evaluated 5 stitches; left out 1 that cannot be rebuilt; left out 2 of unreadable runs",
    )
    # The store has no detector where any stitch ends
    shutil.rmtree(folder)
    monkeypatch.chdir(workplace)
    stitch(networks, "broken", ends=["pool3", "pool4"])
    evaluate(workplace, "broken", "--detector", "energy,mahalanobis", "-scd", "photo_patches")
    assert rows_of(folder, "mahalanobis") and not rows_of(folder)
    err = evaluate(workplace, "broken", status=2).err
    assert says(err, "no detector for pool3, pool4 of") and says(err, "error: ")


def test_a_stitch_that_diverged_has_nan_and_the_rest_is_evaluated(workplace, copied):
    folder, clean = copied("diverged"), copied("clean")
    diverged = ("pool2", "pool1")
    (one,) = folder.glob("2*")
    states = load_tensors(one / STITCHES)
    for values in states["pool2"]["pool1"].values():
        values.fill_(math.nan)
    save_tensors(one / STITCHES, states)
    err = evaluate(workplace, "diverged", "--detector", "mahalanobis").err
    assert says(err, f"{one.name}, pool2 -> pool1", "not finite")
    evaluate(workplace, "clean", "--detector", "mahalanobis")
    undefined = [
        *("accuracy", "auroc", "auroc_low", "aupr", "fpr95", "mean_energy"),
        *("correlation", "skill", "correlation_at_end", "skill_at_end"),
    ]
    rows, expected = (
        {pair_of(row): row for row in rows_of(each, "mahalanobis")} for each in (folder, clean)
    )
    row = rows.pop(diverged)
    assert {row[column] for column in undefined} == {"nan"}
    assert row["baseline"] == expected.pop(diverged)["baseline"] and rows == expected
    scores = np.load(folder / "energies_mahalanobis.npz")
    assert np.isnan(scores["pool1/pool2"]).all() and np.isfinite(scores["pool1/pool4"]).all()


def test_an_evaluation_that_fails_leaves_all_tables_of_the_one_before(
    workplace, copied, monkeypatch
):
    folder = copied("full")
    evaluate(workplace, "full", "--detector", "mahalanobis")

    def full(*_):
        raise OSError(28, "No space left on device")

    names = ["evaluation.csv", "energies_mahalanobis.npz"]
    before = [(folder / name).read_bytes() for name in names]
    monkeypatch.setattr("src.results.scoring.save_scores", full)
    evaluate(workplace, "full", "--detector", "mahalanobis", "-b", "7", status=2)
    assert [(folder / name).read_bytes() for name in names] == before
