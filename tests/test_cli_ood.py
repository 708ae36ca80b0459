"""exec_train_representation_classifier.py and exec_eval_stitcher_ood.py as a user runs them."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch

import exec_eval_stitcher_ood
import exec_stitch
import exec_train_representation_classifier as exec_detectors
from src.checkpoints import load_state, save_state
from src.models import build_model
from src.ood import ood_metrics, reporting
from tests.conftest import few_images
from tests.tiny_datasets import random_images

MODEL = "resnet18_samewidth"
DATA = ["-d", "digits", "-gpu", "-1"]
FINETUNING = ["-ftidd", "digits", "-ftoodd", "photo_patches"]
CLASSIFIER = ["-m", "repr_cls_resnet18", *DATA, *FINETUNING, "-b", "512"]


@pytest.fixture(scope="module")
def workplace(digit_networks, tmp_path_factory, request):
    """A folder with two grids of stitches, and detectors for one of their two end layers."""
    folder = tmp_path_factory.mktemp("ood")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        paths = [str(path) for path in digit_networks]
        stitch = [*paths, MODEL, MODEL, "layer3.0,layer4.1", "layer2.0,layer4.0", "rc2c_pre", *DATA, "-e", "0"]
        assert exec_stitch.main([*stitch, "-i", "pinv", "-dir", "dm"]) == 0  # a process evaluates it on all images
        request.getfixturevalue("few_test_images")
        assert exec_stitch.main([*stitch, "-i", "pinv", "-dir", "ranks", "--front-stitch-rank", "2"]) == 0
        train = [paths[1], MODEL, "layer2.0", *CLASSIFIER, "-e", "1", "-fe", "1", "-dir", "d", "-fdir", "store"]
        with few_images(128):
            assert exec_detectors.main(train) == 0
            train[2], train[-3] = "layer3.1", "d31"  # no stitch ends at that layer
            assert exec_detectors.main(train) == 0
    return folder


def evaluate(workplace, name: str, *arguments: str):
    """Run the evaluation of a grid in the workplace; returns its exit status."""
    options = [f"results/{name}", *DATA, "-detectors", "store", *arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        try:
            with few_images(None):
                return exec_eval_stitcher_ood.main(options)
        except SystemExit as stop:
            return stop.code


def test_detector_files_have_the_layout_of_the_public_code(workplace, digit_networks):
    folder = workplace / "d"
    names = {path.name for path in folder.iterdir()}
    assert names == {"model_1.pt", "ft_model_1.pt", "training_logs.csv", "ft_logs.csv", "config.txt", "run.json"}
    assert (folder / "ft_logs.csv").read_text().splitlines()[0] == "ft_loss,ce_loss,train_acc,val_ce_loss,val_acc"
    (name, entry), *_ = json.loads((workplace / "store" / "meta.json").read_text()).items()
    assert entry["source_layer"] == "layer2.0" and entry["required_input_shape"] == [64, 4, 4]
    assert entry["orig_input_shape"] == [1, 8, 8] and entry["training_loc"] == "d"
    assert entry["source_model_path"] == str(digit_networks[1]) and len(entry["source_sha256"]) == 64
    assert (workplace / "store" / name).read_bytes() == (folder / "ft_model_1.pt").read_bytes()


@pytest.mark.slow
def test_fine_tuning_changes_a_checkpoint_it_starts_from(workplace, digit_networks, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begun = ["--resume-from", str(workplace / "d" / "model_1.pt")]
    start = [str(digit_networks[1]), MODEL, "layer2.0", *CLASSIFIER, *begun]
    assert exec_detectors.main([*start, "-e", "0", "-fe", "2", "-dir", "a", "-score", "oe", "-fdir", "s"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 4 and out[0].startswith("FT Epoch #1 FT loss: ") and "CE Loss: " in out[0]
    assert {path.name for path in (tmp_path / "a").glob("*model*")} == {"ft_model_1.pt", "ft_model_2.pt"}
    assert json.loads((tmp_path / "a" / "config.txt").read_text())["score"] == "OE"
    before, after = load_state(workplace / "d" / "model_1.pt"), load_state(tmp_path / "a" / "ft_model_2.pt")
    assert not torch.equal(before["fc.weight"], after["fc.weight"])


def test_a_finished_detector_of_other_options_is_not_written_over(workplace, digit_networks, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    before = (workplace / "d" / "model_1.pt").read_bytes()
    train = [str(digit_networks[1]), MODEL, "layer2.0", *CLASSIFIER, "-e", "1", "-fe", "1", "-dir", "d"]
    train += ["-fdir", "store"]
    assert exec_detectors.main([*train, "-m-in", "-20"]) == 2
    assert "m_in was -25.0, now -20.0); choose another folder, or give --overwrite" in capsys.readouterr().err
    assert exec_detectors.main([*train, "--resume"]) == 0
    assert "nothing is left to do" in capsys.readouterr().err
    assert (workplace / "d" / "model_1.pt").read_bytes() == before
    assert len(json.loads((workplace / "store" / "meta.json").read_text())) == 2


@pytest.mark.slow
def test_the_seed_counts_and_the_same_seed_repeats(digit_networks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train = [str(digit_networks[1]), MODEL, "layer4.1", *CLASSIFIER, "-e", "0", "-fe", "1", "-fdir", "s"]
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert exec_detectors.main([*train, "-dir", name, "-s", seed]) == 0
    one, two, three = ((tmp_path / name / "ft_model_1.pt").read_bytes() for name in "abc")
    assert one == two != three
    assert (tmp_path / "a" / "ft_logs.csv").read_bytes() == (tmp_path / "b" / "ft_logs.csv").read_bytes()


def test_all_layers_get_a_detector_each(tmp_path, monkeypatch, capsys):
    """Of tokens, too: a vision transformer and its classifiers."""
    monkeypatch.chdir(tmp_path)
    vit = build_model("vit_tiny_patch4_32", n_channels=1, image_shape=(1, 8, 8))
    save_state(tmp_path / "vit.pt", vit.state_dict())
    options = ["-m", "repr_cls_vit_tiny", *DATA, *FINETUNING, "-b", "64", "-e", "0", "-fe", "1", "-dir", "d"]
    with few_images(128):
        assert exec_detectors.main(["vit.pt", "vit_tiny_patch4_32", "blocks.0,blocks.11", *options, "-fdir", "s"]) == 0
    assert {path.name for path in (tmp_path / "d").iterdir()} == {"blocks.0", "blocks.11"}
    entries = json.loads((tmp_path / "s" / "meta.json").read_text()).values()
    assert [(entry["source_layer"], entry["required_input_shape"]) for entry in entries] == [
        ("blocks.0", [5, 192]),
        ("blocks.11", [5, 192]),
    ]
    assert json.loads((tmp_path / "d" / "blocks.11" / "config.txt").read_text())["source_layer_name"] == "blocks.11"


def test_evaluation_prints_and_writes_what_it_finds(workplace, run_script, digit_networks):
    out = run_script("exec_eval_stitcher_ood.py", "results/dm", *DATA, "-detectors", "store", "-scd", "photo_patches",
                     cwd=workplace)  # fmt: skip
    lines = out.splitlines()
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    matrices = {}
    for title in reporting.TITLES.values():
        printed = [line.replace("*", "").split() for line in lines]  # of layers whose detector fails
        columns, *matrix = printed[lines.index(title) + 1 : lines.index(title) + 10]
        assert columns == blocks and [row for row, *_ in matrix] == blocks
        matrices[title] = {
            (row, column): value for row, *values in matrix for column, value in zip(blocks, values, strict=True)
        }
        assert list(matrices[title].values()).count("nan") == 62
    heading, columns, layer2, layer3 = lines[-4:]
    assert heading == "OOD detector sanity checks: photo_patches" and columns.split("  ")[-1] == "FPR95"
    assert layer2.split()[0] == "layer2.0" and layer3.split()[0] == "layer3.1"  # no stitch ends there
    assert len(lines) == 4 * 10 + 4

    folder = workplace / "results" / "dm"
    with open(folder / "ood_evaluation.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["front_layer"], row["end_layer"]) for row in rows] == [
        ("layer3.0", "layer2.0"),
        ("layer4.1", "layer2.0"),
    ]
    with open(folder / "grid.csv") as file:
        accuracies = {(row["front_layer"], row["end_layer"]): row["accuracy"] for row in csv.DictReader(file)}
    written = json.loads((folder / "ood_evaluation.json").read_text())
    for row, saved in zip(rows, written["stitches"], strict=True):
        assert row["accuracy"] == accuracies[row["front_layer"], row["end_layer"]] == str(saved["accuracy"])
        pair = row["front_layer"], row["end_layer"]
        assert matrices["STITCHING OOD Detection AUROC"][pair] == f"{saved['auroc']:.4f}"
    assert f"{written['sanity_checks']['layer2.0']['auroc']:.4f}" == layer2.split()[2]
    assert set(written["sanity_checks"]) == {"layer2.0", "layer3.1"}
    assert (folder / "ood_evaluation.png").read_bytes()[:4] == b"\x89PNG"


def test_energies_are_those_of_the_detector(workplace, digit_networks, capsys):
    """Recomputed layer by layer, without the grid and without folding."""
    from src.checkpoints import load_model
    from src.datasets import load_dataset
    from src.ood import energy
    from src.ood.detectors import DetectorStore, source_of
    from src.stitching import build_stitching_layer

    assert evaluate(workplace, "dm", "-scd", "photo_patches") == 0
    images = {"n_classes": 10, "image_shape": (1, 8, 8)}
    front, end = (load_model(path, MODEL, **images) for path in digit_networks)
    store = DetectorStore(workplace / "store")
    network = {"n_classes": 10, "image_shape": (1, 8, 8), "device": torch.device("cpu")}
    detector = store.load(source_of(digit_networks[1]), "layer2.0", **network)
    ((x, _),) = load_dataset("digits", "", train=False).batches(1000)
    with open(workplace / "results" / "dm" / "ood_evaluation.csv") as file:
        row = next(row for row in csv.DictReader(file) if row["front_layer"] == "layer4.1")
    layer = build_stitching_layer("rc2c_pre", (64, 1, 1), (64, 4, 4))
    layer.load_state_dict(load_state(workplace / "results" / "dm" / row["folder"] / "final_model.pt"))
    with torch.no_grad():
        stitched = energy(detector(layer(front(x, until="layer4.1")))).numpy()
        own = energy(detector(end(x, until="layer2.0"))).numpy()
    saved = np.load(workplace / "results" / "dm" / "energies" / "layer2.0" / "layer4.1.npy")
    assert saved.dtype == np.float32
    np.testing.assert_allclose(saved, stitched, rtol=1e-3, atol=1e-3)
    metrics = ood_metrics(own, stitched)
    assert float(row["auroc"]) == pytest.approx(metrics.auroc, abs=1e-3)
    assert (workplace / "results" / "dm" / "energies" / "layer2.0" / "photo_patches.npy").is_file()
    assert (row["detector"], row["detector_id_data"], row["detector_ood_data"]) == ("energy", "digits", "photo_patches")
    assert (row["id_dataset"], row["sanity_dataset"], row["stitching_type"]) == ("digits", "photo_patches", "rc2c_pre")
    assert row["end_model_path"] == str(digit_networks[1]) and row["front_model_type"] == MODEL


def test_detectors_that_need_no_training(workplace, digit_networks, capsys):
    """All end layers, without a store; scores recomputed; correlations with the energies of the same runs."""
    from src.checkpoints import load_model
    from src.datasets import load_dataset
    from src.ood import make_detector
    from src.ood.results import read_evaluations

    shutil.copytree(workplace / "results" / "dm", workplace / "results" / "fitted")
    assert evaluate(workplace, "fitted", "--detector", "knn", "-scd", "photo_patches", "-detectors", "nowhere") == 0
    folder = workplace / "results" / "fitted"
    rows = read_evaluations(folder)["knn"]
    assert [(row.front_layer, row.end_layer) for row in rows] == [
        (front, end) for end in ("layer2.0", "layer4.0") for front in ("layer3.0", "layer4.1")
    ]
    assert {(row.detector, row.detector_id_data, row.detector_ood_data) for row in rows} == {("knn", "digits", "")}
    assert all(0 <= row.auroc <= 1 and 0 <= row.sanity_auroc <= 1 for row in rows)
    assert {row.is_trusted for row in rows} <= {True, False} and rows[0].dataset == rows[0].id_dataset == "digits"
    assert (folder / "ood_evaluation_knn.png").is_file() and (folder / "ood_evaluation_knn.config.txt").is_file()

    end, detector = load_model(digit_networks[1], MODEL, n_classes=10, image_shape=(1, 8, 8)), make_detector("knn")
    ((x, labels),) = load_dataset("digits", "", train=True).batches(2000)
    ((test_x, _),) = load_dataset("digits", "", train=False).batches(1000)
    with torch.no_grad():
        detector.add(end(x, until="layer2.0"), labels)
        detector.fit()
        own = detector.score(end(test_x, until="layer2.0")).numpy()
    assert rows[0].mean_id_energy == pytest.approx(own.mean(), rel=1e-4)
    saved = np.load(folder / "energies_knn" / "layer2.0" / "layer3.0.npy")
    assert rows[0].auroc == pytest.approx(ood_metrics(own, saved).auroc, abs=1e-3)

    capsys.readouterr()
    assert evaluate(workplace, "fitted", "--detector", "residual") == 0
    assert read_evaluations(folder)["residual"][0].is_trusted is None
    assert "rho" not in capsys.readouterr().out  # energy has not been run, or on too few pairs


def test_several_detectors_share_a_pass_and_give_what_each_gives_alone(workplace, tmp_path, capsys):
    from src.ood.results import read_evaluations

    for name in ("together", "apart"):
        shutil.copytree(workplace / "results" / "dm", workplace / "results" / name)
    assert evaluate(workplace, "together", "--detector", "energy,rmd", "-ed", str(tmp_path)) == 0
    captured = capsys.readouterr()
    assert "evaluated 4 stitches; skipped 0 runs and 1 end layers" in captured.err  # energy: into layer2.0 alone
    lines = captured.out.splitlines()
    assert lines[0] == "DETECTOR: energy" and "DETECTOR: rmd" in lines
    for detector in ("energy", "rmd"):
        assert evaluate(workplace, "apart", "--detector", detector) == 0
    together, apart = (read_evaluations(workplace / "results" / name) for name in ("together", "apart"))
    assert {name: len(rows) for name, rows in together.items()} == {"energy": 2, "rmd": 4} and together == apart
    config = json.loads((workplace / "results" / "together" / "ood_evaluation_rmd.config.txt").read_text())
    assert config["detector"] == "rmd"
    assert {path.name for path in tmp_path.iterdir()} == {"energy", "rmd"}
    assert evaluate(workplace, "together", "--detector", "energy,nothing") == 2
    assert "invalid choice: 'nothing' (choose from energy, mahalanobis" in capsys.readouterr().err


def test_every_experiment_of_a_folder_is_evaluated(workplace, drawn_figures, capsys):
    """Two experiments on the same pairs have a matrix each, and rows that say which is which."""
    from src.ood.results import read_evaluations

    folder = workplace / "results" / "both"
    for run in (workplace / "results" / "dm").glob("2*"):
        shutil.copytree(run, folder / run.name)
    for run in (workplace / "results" / "ranks").glob("2*"):
        shutil.copytree(run, folder / run.name)
    assert evaluate(workplace, "both") == 0
    captured = capsys.readouterr()
    titles = [line for line in captured.out.splitlines() if line.startswith("EXPERIMENT")]
    assert titles == ["EXPERIMENT: front_stitch_rank=full", "EXPERIMENT: front_stitch_rank=2"]
    assert "evaluated 4 stitches; skipped 0 runs" in captured.err and "newest" not in captured.err
    panels = [axes.get_title() for axes in drawn_figures["ood_evaluation.png"].axes if axes.images]
    assert panels[:2] == ["accuracy\nfront_stitch_rank=full", "AUROC\nfront_stitch_rank=full"] and len(panels) == 8
    rows = read_evaluations(folder)["energy"]
    assert [(row.front_layer, row.front_stitch_rank) for row in rows] == [
        ("layer3.0", None), ("layer4.1", None), ("layer3.0", 2), ("layer4.1", 2),
    ]  # fmt: skip
    assert {(row.init, row.objective, row.n_epochs, row.seed, row.n_pinv_init_samples) for row in rows} == {
        ("pinv", "task", 0, 0, 100)
    }
    assert {path.name for path in (folder / "energies" / "layer2.0").iterdir()} == {
        f"{row.front_layer} {row.folder}.npy" for row in rows
    }
    assert evaluate(workplace, "ranks") == 0
    assert rows[2:] == read_evaluations(workplace / "results" / "ranks")["energy"]


def test_a_detector_of_other_layers_alone_is_left_out(workplace, capsys):
    """The store has one for layer3.1, which -scd checks, but no stitch ends there or at layer2.0."""
    folder = shutil.copytree(workplace / "results" / "dm", workplace / "results" / "late")
    for config in folder.glob("*/config.txt"):
        if json.loads(config.read_text())["end_layer"] == "layer2.0":
            shutil.rmtree(config.parent)
    for table in folder.glob("ood_evaluation*"):
        table.unlink()
    assert evaluate(workplace, "late", "--detector", "energy,rmd", "-scd", "photo_patches") == 0
    captured = capsys.readouterr()
    assert "evaluated 2 stitches; skipped 0 runs and 1 end layers" in captured.err and "energy" not in captured.out[:20]
    assert {path.name for path in folder.glob("ood_evaluation*.csv")} == {"ood_evaluation_rmd.csv"}


def test_rank_correlations_with_energy(tmp_path, capsys):
    from src.files import write_csv
    from src.ood.results import Row, file_stem, read_evaluations

    for detector, aurocs in (("energy", [0.1, 0.2, 0.3, 0.4]), ("rmd", [0.5, 0.7, 0.6, 0.9]), ("knn", [0.5, 0.6])):
        rows = [Row(f"f{i}", "e", 0.5, v, v, v, 1, 2, f"run{i}", detector) for i, v in enumerate(aurocs)]
        write_csv(tmp_path / f"{file_stem(detector)}.csv", Row._fields, [row._asdict() for row in rows])
    (tmp_path / "ood_evaluation_rmd_old.csv").write_text("kept by the user")
    assert read_evaluations(tmp_path)["rmd"][3] == Row("f3", "e", 0.5, 0.9, 0.9, 0.9, 1.0, 2.0, "run3", "rmd")
    expected = {"rmd": {"n": 4, "spearman": pytest.approx(0.8), "kendall": pytest.approx(2 / 3)}}
    for checks, of_each in (
        ({"energy": {}, "rmd": {}}, {"energy": expected, "rmd": expected}),
        ({"rmd": {}}, {"rmd": expected}),
        ({"knn": {}}, {"knn": {}}),
    ):
        tables = reporting.write_results(tmp_path, checks)
        correlations = {
            k: json.loads(v.with_suffix(".json").read_text())["rank_correlations"] for k, v in tables.items()
        }
        assert correlations == of_each
        line = "AUROC of energy and rmd over 4 stitches: rho 0.8000, tau 0.6667\n"
        assert capsys.readouterr().out == ("" if "knn" in checks else line)
    rows = [row._replace(dataset="mnist") for row in read_evaluations(tmp_path)["energy"]]
    write_csv(tmp_path / "ood_evaluation.csv", Row._fields, [row._asdict() for row in rows])
    reporting.write_results(tmp_path, {"rmd": {}})
    assert capsys.readouterr().out == ""  # of other images
    (tmp_path / "ood_evaluation.csv").write_text("front_layer\nx\n")
    reporting.write_results(tmp_path, {"rmd": {}})
    assert "no rank correlation with energy" in capsys.readouterr().err


def test_a_detector_that_does_not_do_its_job_is_marked(workplace, drawn_figures, capsys):
    """Digits themselves are not out of distribution."""
    from src.ood import results

    assert evaluate(workplace, "dm", "-scd", "digits") == 0
    assert (
        "warning: detectors of layer2.0, layer3.1 (*) do not find digits OOD (AUROC below 0.8)"
        in capsys.readouterr().err
    )
    figure = drawn_figures["ood_evaluation.png"]
    ends = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert "layer2.0*" in ends and "layer4.0" in ends
    below = figure.texts[-1].get_text().replace("\n", " ")
    assert below.endswith("*: the detector does not find digits OOD.")
    assert "Data: digits. Method: direct matching (rc2c_pre, matched on" in below and "Images: 120." in below
    assert "Detector: energy (ID digits, OOD photo_patches)." in below and f"({MODEL})" in below
    panels = {axes.get_title(): axes.images[0] for axes in figure.axes if axes.images}
    assert {name: image.get_cmap().name for name, image in panels.items()} == {
        "accuracy": "viridis", "AUROC": "viridis_r", "AUPR": "viridis_r", "FPR95": "viridis",
    }  # fmt: skip
    assert figure.axes[0].get_gridspec().get_geometry() == (2, 2)
    assert {image.get_clim() for image in panels.values()} == {(0, 1)}
    assert not results.read_evaluations(workplace / "results" / "dm")["energy"][0].is_trusted


def test_the_retained_rank_of_a_run_is_honoured(workplace, capsys):
    assert evaluate(workplace, "ranks") == 0
    for row in csv.DictReader((workplace / "results" / "ranks" / "ood_evaluation.csv").read_text().splitlines()):
        options = json.loads((workplace / "results" / "ranks" / row["folder"] / "config.txt").read_text())
        assert options["front_stitch_rank"] == 2
        # ranks are cut in each batch: the stitching run took batches of 256, so the accuracies are near, not equal
        metrics = json.loads((workplace / "results" / "ranks" / row["folder"] / "metrics.json").read_text())
        assert float(row["accuracy"]) == pytest.approx(metrics["accuracy"], abs=0.06)
    assert evaluate(workplace, "ranks", "-b", "256") == 0
    for row in csv.DictReader((workplace / "results" / "ranks" / "ood_evaluation.csv").read_text().splitlines()):
        metrics = json.loads((workplace / "results" / "ranks" / row["folder"] / "metrics.json").read_text())
        assert float(row["accuracy"]) == metrics["accuracy"]


def test_whole_checkpoints_are_evaluated_too(workplace, digit_networks, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    paths = [str(path) for path in digit_networks]
    stitch = [*paths, MODEL, MODEL, "layer3.0", "layer2.0", "rc2c_pre", *DATA, "-e", "1", "-dir", "whole"]
    assert exec_stitch.main(stitch) == 0
    assert evaluate(workplace, "whole") == 0
    (row,) = csv.DictReader((workplace / "results" / "whole" / "ood_evaluation.csv").read_text().splitlines())
    metrics = json.loads((workplace / "results" / "whole" / row["folder"] / "metrics.json").read_text())
    assert float(row["accuracy"]) == pytest.approx(metrics["accuracy"], abs=0.003)


def test_what_cannot_be_evaluated_is_named_skipped_and_counted(workplace, capsys):
    shutil.copytree(workplace / "results" / "dm", workplace / "results" / "broken")
    one, *_ = sorted(path for path in (workplace / "results" / "broken").iterdir() if path.is_dir())
    (one / "final_model.pt").unlink()
    (workplace / "results" / "broken" / "2020-01-01_00-00-00.000000").mkdir()
    assert evaluate(workplace, "broken") == 0
    err = capsys.readouterr().err
    assert "no detector for layer4.0" in err and "the store has detectors for layer2.0" in err
    assert f"cannot read checkpoint results/broken/{one.name}/final_model.pt" in err and "did not finish" in err
    assert "evaluated 1 stitches; skipped 2 runs and 1 end layers" in err


def test_nothing_to_evaluate_is_exit_code_one(workplace, capsys):
    shutil.copytree(workplace / "results" / "dm", workplace / "results" / "few")
    for folder in (workplace / "results" / "few").iterdir():
        config = folder / "config.txt"
        if config.is_file() and json.loads(config.read_text())["end_layer"] == "layer2.0":
            shutil.rmtree(folder)
    assert evaluate(workplace, "few") in (1, "nothing could be evaluated")


def test_checkpoints_that_moved_are_given_and_recognised(workplace, digit_networks, tmp_path, capsys):
    moved = []
    for number, path in enumerate(digit_networks):
        moved.append(tmp_path / f"{number}.pt")
        moved[-1].write_bytes(path.read_bytes())
    arguments = ["--front-model", str(moved[0]), "--end-model", str(moved[1])]
    assert evaluate(workplace, "dm", *arguments) == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-b", "1"], "-b 1: half of a fine-tuning batch is ID, half OOD; give at least 2"),
        (["-score", "msp"], "argument -score/--ood-score: invalid choice: 'msp'"),
        (["-ftidd", "photo_patches"], "'photo_patches' has no labels"),
        (["-ftoodd", "digits"], "-ftidd and -ftoodd are both digits: no detector tells it from itself"),
        (["-ftoodd", "nowhere"], "unknown dataset 'nowhere'"),
        (["-m", "resnet18"], "argument -m/--model-type: invalid choice: 'resnet18'"),
        (["-m", "repr_cls_vit_tiny"], "this classifier takes activations of shape (tokens, width), not (64, 4, 4)"),
        (["-fdir", "broken"], "cannot read broken/meta.json: "),
        (["--resume-from", "nowhere.pt"], "cannot read checkpoint nowhere.pt"),
    ],
    ids=str,
)
def test_bad_input_to_the_training(arguments, line, digit_networks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "meta.json").write_text("{")
    options = [str(digit_networks[1]), MODEL, "layer2.0", *CLASSIFIER, "-e", "1", "-fe", "1", "-dir", "d", *arguments]
    try:
        status = exec_detectors.main(options)
    except SystemExit as stop:
        status = stop.code
    assert status == 2 and line in capsys.readouterr().err
    assert not (tmp_path / "d").exists() and (tmp_path / "broken" / "meta.json").read_text() == "{"


@pytest.mark.parametrize("missing", ["-m", "-ftidd", "-ftoodd", "-dir"])
def test_required_options_are_required(missing, capsys):
    options = ["m.pt", MODEL, "layer2.0", *CLASSIFIER, "-dir", "d"]
    place = options.index(missing)
    with pytest.raises(SystemExit):
        exec_detectors.main(options[:place] + options[place + 2 :])
    assert f"required: {missing}" in capsys.readouterr().err


def test_bad_input_to_the_evaluation(workplace, tmp_path, capsys):
    assert evaluate(workplace, "nowhere") == 2 and "is no folder" in capsys.readouterr().err
    (workplace / "results" / "empty").mkdir()
    assert evaluate(workplace, "empty") == 2 and "holds no finished stitching run" in capsys.readouterr().err
    assert evaluate(workplace, "dm", "-detectors", "nowhere") == 2
    assert "no detectors in nowhere: there is no meta.json" in capsys.readouterr().err
    np.savez(tmp_path / "other.npz", x_train=random_images(2, 32, 32, 3), x_test=random_images(2, 32, 32, 3))
    for option in ("-scd", "-idd"):
        assert evaluate(workplace, "dm", option, str(tmp_path / "other.npz")) == 2
        assert f"images of {option} are 3×32×32, those of -d 1×8×8" in capsys.readouterr().err
    shutil.copytree(workplace / "results" / "dm", workplace / "results" / "mixed")
    one, *_ = sorted(path for path in (workplace / "results" / "mixed").iterdir() if path.is_dir())
    options = json.loads((one / "config.txt").read_text()) | {"end_model_path": "another.pt"}
    (one / "config.txt").write_text(json.dumps(options))
    assert evaluate(workplace, "mixed") == 2
    assert "the runs differ in end_model_path: " in capsys.readouterr().err
    for seed, config in enumerate((workplace / "results" / "mixed").glob("*/config.txt")):
        fresh = {"end_model_path": "-", "end_model_path_seed": seed}
        config.write_text(json.dumps(json.loads(config.read_text()) | fresh))
    assert evaluate(workplace, "mixed") == 2
    assert "the runs differ in end_model_path_seed: 0, 1" in capsys.readouterr().err
