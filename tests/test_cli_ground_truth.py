"""misc/ground_truth.py: tables, figure and dots, from planted tables; and test images
with dots."""

import itertools
import math
import shutil

import numpy as np
import pytest
import torch

from src.figures.truth import write_scores
from src.models import build_model
from src.results.checkpoints import save_state
from src.results.truth_rows import TruthRow
from tests.commands import (
    ON_DIGITS,
    caption_of,
    error_line,
    read_csv,
    run,
    says,
    stitch_rows,
)
from tests.conftest import few_images
from tests.tables import PROBE, SIMILARITY, write_table
from tests.written_runs import N, skill, write_run, write_skill

SCRIPT = "misc/ground_truth.py"
LAYERS = ("pool2", "pool3")
GROUPS = {f"n{i}": f"label_noise:{i // 4}" + " clean" * (i < 5) for i in range(12)}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Twelve random networks in three groups. CKA knows the groups; stitches are wrong, but to both
    sides alike."""
    folder, rng = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
    (folder / "all" / "similarity").mkdir(parents=True)
    (folder / "all" / "probes").mkdir()
    for seed, name in enumerate(GROUPS):
        torch.manual_seed(seed)
        save_state(
            folder / f"{name}.pt", build_model("small_cnn", n_classes=10, n_channels=1).state_dict()
        )
        usual = {
            "model": f"{name}.pt",
            "model_type": "small_cnn",
            "accuracy": int(GROUPS[name][12]) / 4,
        }
        rows = [usual | {"layer": layer} for layer in LAYERS]
        write_table(folder / "all" / "probes" / f"{name}.csv", PROBE, *rows)
    lines = [f"{name},{name}.pt,small_cnn,{group}" for name, group in GROUPS.items()]
    (folder / "networks.csv").write_text("\n".join(["name,path,type,group", *lines]) + "\n")
    for a, b in itertools.permutations(GROUPS, 2):
        is_same = GROUPS[a][:13] == GROUPS[b][:13]
        write_stitches(folder / "all", (a, b), 0.5 + 0.1 * is_same + (0.2 if a < b else -0.2))
        if a < b:
            rows = [
                {
                    **{"model1": f"{a}.pt", "model1_type": "small_cnn"},
                    **{"model2": f"{b}.pt", "model2_type": "small_cnn"},
                    "layer1": one,
                    "layer2": two,
                    "cka": is_same + rng.random() / 2,
                    "mutual_knn": rng.random(),
                }
                for one, two in itertools.product(LAYERS, repeat=2)
            ]
            write_table(folder / "all" / "similarity" / f"{a}-{b}.csv", SIMILARITY, *rows)
    said = run(SCRIPT, "all", "networks.csv", "-d", "digits", "-gpu", "-1", cwd=folder).out
    (folder / "said").write_text(said)
    return folder


def write_stitches(folder, names: tuple[str, str], agreement: float) -> None:
    """Write a stitch of two networks with its predictions, and its evaluation."""
    options = {"front_layer": "pool2", "end_layer": "pool2"}
    for side, name in zip(("front", "end"), names, strict=True):
        options |= {f"{side}_model_path": f"{name}.pt", f"{side}_model_type": "small_cnn"}
    n = round(N * agreement)
    folder = folder / " to ".join(names) / "pinv"
    write_run(folder, "1", n_right=n, n_end_right=N, metrics={"agreement": agreement}, **options)
    write_skill(folder, {"1": skill(agreement, agreement)})


def rows_of(
    folder, measure: str, table: str = "scores.csv"
) -> dict[tuple[str, str, str], dict[str, str]]:
    return {
        (r["test"], r["score"], r["layer"]): r
        for r in read_csv(folder / table)
        if r["measure"] == measure
    }


def test_measures_of_all_tables_are_scored(planted):
    stitching = ("pinv agreement", "pinv skill", "pinv skill at the end layer")
    for measure in ("cka", "probe", *stitching):
        row = rows_of(planted, measure)["label_noise", "auprc", ""]
        assert float(row["value"]) == pytest.approx(1) and row["is_above_chance"] == "True", measure
        assert float(row["p"]) == 1 / 200 and row["n_networks"] == "12"
        assert row["both_directions"] == str(measure.startswith("pinv"))
    assert {layer for test, _, layer in rows_of(planted, "cka") if test == "label_noise"} == {
        "",
        *LAYERS,
    }
    stitched_layers = {
        layer for test, _, layer in rows_of(planted, "pinv skill") if test == "label_noise"
    }
    assert stitched_layers == {"", "pool2"}
    assert ("disagreement", "partial", "") in rows_of(planted, "cka")
    baselines = {
        row["measure"] for row in read_csv(planted / "scores.csv") if row["is_baseline"] == "True"
    }
    kinds = ("accuracy", "effective rank", "mean norm")
    assert baselines == {f"{kind} difference" for kind in kinds}
    table = (planted / "scores.md").read_text()
    assert "| cka | 1.00*†" in table and table.strip() in (planted / "said").read_text()


def truth_row(
    measure: str, value: float, family: str = "", *, is_baseline: bool = False
) -> TruthRow:
    return TruthRow(
        "label_noise", "auprc", measure, None, value, math.nan, math.nan, 0.25, 0.01, True,
        not is_baseline, is_baseline, 6, False, family=family or measure,
    )  # fmt: skip


def test_figure_and_table_have_the_best_of_each_family_and_the_csv_has_all(tmp_path, drawn_figures):
    rows = [
        truth_row("cka", 0.5),
        truth_row("cka calibrated in classes", 0.625, "cka"),
        truth_row("pinv penalty", 0.75, "penalty"),
        truth_row("task2 penalty", 0.5, "penalty"),
        truth_row("pinv AUROC of knn", 0.4, "AUROC"),
        truth_row("repair AUROC of mahalanobis", 0.45, "AUROC"),
        truth_row("accuracy difference", 0.25, is_baseline=True),
        truth_row("mean norm difference", 0.4, is_baseline=True),
    ]
    write_scores(tmp_path / "s.csv", rows)
    assert len(read_csv(tmp_path / "s.csv")) == len(rows)
    (measures,) = drawn_figures["s.png"].axes
    names = ["pinv penalty", "cka calibrated in classes", "repair AUROC of mahalanobis"]
    assert [text.get_text() for text in measures.get_yticklabels()] == names
    _, baseline, *dots = measures.lines  # chance, and the best baseline
    assert baseline.get_xdata()[0] == pytest.approx(0.2)
    scores = [dot.get_xdata()[0] for dot in dots]
    assert scores == pytest.approx([2 / 3, 0.5, (0.45 - 0.25) / 0.75])
    assert says(caption_of(drawn_figures["s.png"]), "pinv penalty", "0.67")
    lines = (tmp_path / "s.md").read_text().splitlines()[3:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[:5]] == [
        *names,
        "mean norm difference",
        "accuracy difference",
    ]


def test_user_errors(planted):
    data = ["-d", "digits", "-gpu", "-1"]
    lines = (planted / "networks.csv").read_text().replace("label_noise:", "").splitlines()
    (planted / "plain.csv").write_text("\n".join(line.replace(" clean", "") for line in lines))
    unnamed = error_line(SCRIPT, "all", "plain.csv", *data, cwd=planted)
    assert says(unnamed, "plain.csv: no groups are named like a test (clean", "it has 0, 1, 2")
    lines = [f"{line},{number // 2}" for number, line in enumerate(lines)]
    (planted / "epochs.csv").write_text("\n".join(lines).replace("group,0", "group,training"))
    repeated = error_line(SCRIPT, "all", "epochs.csv", *data, cwd=planted)
    assert says(repeated, "n1 and n2 are checkpoints of one training")
    (planted / "half" / "probes").mkdir(parents=True)
    for name in ("n0", "n1"):
        shutil.copy(planted / "all" / "probes" / f"{name}.csv", planted / "half" / "probes")
    unfinished = error_line(SCRIPT, "half", "networks.csv", *data, cwd=planted)
    assert "no test has all pairs" in unfinished


# Dots


@pytest.fixture(scope="module")
def dotted(tmp_path_factory):
    """Networks that learned a dot, and some that could not; all pairs on plain images and on images
    with dots."""
    folder = tmp_path_factory.mktemp("dotted")
    lines = ["name,path,type,group"]
    with few_images(400, n_test=100):
        for seed in range(4):
            share = seed // 2
            run("exec_train.py", "small_cnn", *ON_DIGITS, "-lr", "0.01", "-e", "6", "-s", seed, "--intervention-seed",
                seed, "--shortcut", share, "-dir", f"n{seed}", cwd=folder)  # fmt: skip
            lines.append(f"n{seed},n{seed}/model_6.pt,small_cnn,shortcut:{share}")
        (folder / "networks.csv").write_text("\n".join(lines))
        for name, options in {"plain": [], "dots": ["--shortcut", "0"]}.items():
            run("misc/all_pairs.py", "networks.csv", "pool3,pool4", "rc2c_pre", *ON_DIGITS, "--methods", "covariance",
                "--alignment", "pool", "--no-verdict", "--probes", "1", "-dir", name, *options, cwd=folder)  # fmt: skip
        sources = ["results/plain", "results/dots"]
        said = run(
            SCRIPT,
            *sources,
            "networks.csv",
            "-d",
            "digits",
            "-gpu",
            "-1",
            "--freeze",
            "frozen",
            cwd=folder,
        ).out
    return folder, said


def test_tables_say_that_test_images_had_dots(dotted):
    folder, _ = dotted
    tables = (
        "n0 to n1/covariance/2*/grid.csv",
        "similarity/n0-n1.csv",
        "probes/n0.csv",
    )
    for table in tables:
        found = [folder.glob(f"results/{name}/{table}") for name in ("plain", "dots")]
        plain, dots = (read_csv(path) for (path,) in found)
        assert {row["shortcut"] for row in plain} == {""} and {row["shortcut"] for row in dots} == {
            "0.0"
        }, table
    with few_images(400, n_test=100):
        refused = error_line(
            "exec_eval_stitcher_ood.py",
            "results/dots/n0 to n1/covariance",
            *ON_DIGITS,
            "--detector",
            "mahalanobis",
            cwd=folder,
        )
    assert says(refused, "other inputs", "--shortcut 0.0")
    grids = [
        stitch_rows(folder / "results" / name / "n2 to n3" / "covariance")
        for name in ("plain", "dots")
    ]
    assert grids[0][0]["end_accuracy"] != grids[1][0]["end_accuracy"]
    assert {row["test"] for row in read_csv(folder / "scores.csv")} == {"shortcut", "shortcut_dots"}


def test_what_networks_learned_of_the_dot_is_shown_before_the_scores(dotted):
    folder, said = dotted
    rows = {
        row["network"]: {name: float(row[name]) for name in ("true", "absent", "drawn")}
        for row in read_csv(folder / "scores_dots.csv")
    }
    assert rows.keys() == {"n0", "n1", "n2", "n3"}
    for name in ("n2", "n3"):
        assert rows[name]["true"] - rows[name]["drawn"] > 0.2
    lines = said.splitlines()
    assert lines[0].startswith("shortcut:0: accuracy ") and "2 of 2 networks rely" in lines[1]
    assert lines[-1].startswith("No star in the test of shortcut, shortcut_dots: 4 networks")


def test_another_measure_scores_on_frozen_features_what_it_scores_in_a_run(dotted):
    """Those of the suite, and a function that computes one of them; without networks and images."""
    folder, _ = dotted
    (folder / "mine.py").write_text(
        "from src.similarity import linear_cka\n\n\ndef own(x, y):\n    return linear_cka(x, y)\n"
    )
    measures = "cka,pwcca,procrustes,mine.py:own"
    run(SCRIPT, "--score", measures, "frozen", "-o", "frozen.csv", cwd=folder)
    for measure in ("cka", "pwcca", "procrustes", "own"):
        found = rows_of(folder, measure, "frozen.csv")
        expected = rows_of(folder, measure.replace("own", "cka"))
        assert found.keys() == expected.keys()
        for key, row in expected.items():
            assert float(found[key]["value"]) == pytest.approx(float(row["value"]))
            ends = [float(found[key]["low"]), float(row["low"])]
            assert ends[0] == pytest.approx(ends[1], nan_ok=True)
            assert found[key]["is_above_baselines"] == row["is_above_baselines"]
