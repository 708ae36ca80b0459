"""The study of training against attacks: its page, its tests, its networks, and its command."""

import math
import os
import re
import subprocess
import sys
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind

from misc.paper import study, study_networks, study_singles
from misc.paper.study_report import MEASURES, StudyRow, table_of
from misc.paper.study_statistics import (
    adjusted_h1,
    answer,
    difference_of_h1,
    difference_of_h2,
    holm,
    means_of_groups,
    more_alike_p,
    reading,
)
from src.models import Network
from src.models.building import build_model
from src.runs.checkpoints import save_state
from src.tables.tables import read_table, write_table
from tests.commands import ROOT, error_line, read_csv, run, says

PAGE = (ROOT / "misc/docs/study.md").read_text()
TABLE = ROOT / "misc/docs/study.csv"


def symmetric(n: int, seed: int = 0) -> np.ndarray:
    """Random values of pairs of n networks."""
    values = np.random.default_rng(seed).normal(size=(n, n))
    return values + values.T


def first_of(n: int, n_robust: int) -> np.ndarray:
    """Labels of n networks, the first of which are robust."""
    return np.arange(n) < n_robust


# The page


@pytest.mark.skipif(not TABLE.exists(), reason="the study has no results yet")
def test_the_table_of_the_page_is_that_of_its_csv():
    assert table_of(read_table(TABLE, StudyRow)) in PAGE


def test_the_layers_of_the_plan_are_those_of_the_networks():
    rows = re.findall(r"^\| (`.*) \| (\d+) \| (\S+) \| (\S+) \| (\S+) \|$", PAGE, re.MULTILINE)
    types = {name: row for names, *row in rows for name in re.findall(r"`(\w+)`", names)}
    assert len(types) == 10
    for name, (n_blocks, *layers) in types.items():
        network = Network(getattr(study_networks, name)(10).eval(), image_shape=(3, 32, 32))
        assert len(network.block_names) == int(n_blocks)
        assert study_singles.layers_of_parts(network.block_names) == layers


# The tests of hypotheses


def test_the_p_value_counts_all_labelings():
    """By brute force, with Welch's t of the networks' means over their own group."""
    values = symmetric(7)

    def t(group: tuple[int, ...]) -> float:
        others = [i for i in range(7) if i not in group]
        means = []
        for members in (group, others):
            means.append([np.mean([values[i, j] for j in members if j != i]) for i in members])
        return ttest_ind(*means, equal_var=False).pvalue

    observed = t((0, 1, 2))
    p_values = [t(group) for group in combinations(range(7), 3)]
    expected = np.mean([p <= observed * (1 + 1e-9) for p in p_values])
    assert more_alike_p(values, first_of(7, 3)) == pytest.approx(expected)


def test_a_difference_of_groups_is_found_in_its_direction():
    is_robust = first_of(9, 4)
    values = 0.01 * symmetric(9)
    values[np.outer(is_robust, is_robust)] += 1.0
    for difference in (difference_of_h1(values, is_robust), difference_of_h2(values, is_robust)):
        assert difference.value == pytest.approx(1, abs=0.1)
        assert difference.low < difference.value < difference.high
        assert difference.p_value == pytest.approx(1 / math.comb(9, 4))
    assert difference_of_h1(values, ~is_robust).value < 0


def test_the_order_of_networks_says_nothing():
    is_robust = first_of(8, 3)
    values = symmetric(8)
    order = np.random.default_rng(1).permutation(8)
    turned = difference_of_h1(values[np.ix_(order, order)], is_robust[order])
    assert turned == pytest.approx(difference_of_h1(values, is_robust))


def test_pairs_without_a_value_are_left_out():
    values = symmetric(6)
    values[0, 1] = values[1, 0] = math.nan
    means = means_of_groups(values, first_of(6, 3))
    assert means.robust == pytest.approx((values[0, 2] + values[1, 2]) / 2)
    assert math.isnan(more_alike_p(values, first_of(6, 3)))


def test_a_covariate_explains_a_difference():
    """Values that are a function of the covariate leave nothing to the groups."""
    is_robust = first_of(8, 4)
    covariate = symmetric(8)
    covariate[np.outer(is_robust, is_robust)] += 3.0
    noise = 0.01 * symmetric(8, seed=1)
    assert abs(adjusted_h1(covariate + noise, is_robust, [covariate]).value) < 0.05
    assert difference_of_h1(covariate + noise, is_robust).value > 1


def test_holm():
    assert holm([0.01, math.nan, 0.04, 0.03]) == pytest.approx(
        [0.03, math.nan, 0.06, 0.06], nan_ok=True
    )


def test_readings_and_answers():
    found = study.statistics.Difference(0.2, 0.1, 0.3)
    assert reading(found, 0.01, 0.1) == "supports"
    assert reading(found, 0.2, 0.1) == "open"
    assert reading(found, 0.01, -0.1) == "open"
    assert reading(found._replace(value=-0.2), 0.01, -0.1) == "contradicts"
    small = study.statistics.Difference(0.01, -0.02, 0.04)
    assert reading(small, 0.5, 0.01) == "no difference worth naming"
    assert answer(["supports"] * 4 + ["open"]) == "it holds"
    assert answer(["supports"] + ["open"] * 4) == "it holds in part"
    assert answer(["supports", "contradicts"] + ["open"] * 3) == "it depends on the measure"
    assert answer(["contradicts"] + ["open"] * 4) == "it is refuted"
    assert answer(["open"] * 5) == "these networks do not tell"


# The single networks


def test_layers_of_parts():
    blocks = [f"b{i}" for i in range(1, 16)]
    assert study_singles.layers_of_parts(blocks[:3]) == ["b1", "b2", "b3"]
    assert study_singles.layers_of_parts(blocks[:2]) == ["b1", "b1", "b2"]
    assert study_singles.layers_of_parts(blocks) == ["b3", "b8", "b13"]


def test_the_attack_on_a_linear_network_is_the_worst_case():
    """Between two classes the loss rises with each pixel in the direction of the difference of
    weights."""
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    images = torch.full((2, 3, 2, 2), 0.5)
    images[1] = 0.01  # at the edge of the allowed values
    attacked = study_singles.projected_gradient(module, images, torch.tensor([0, 1]), 0.1, seed=0)
    weight = module[1].weight.detach()
    worst = torch.stack([weight[1] - weight[0], weight[0] - weight[1]]).sign() * 0.1
    expected = (images + worst.view_as(images)).clamp(0, 1)
    assert torch.allclose(attacked, expected, atol=1e-6)


# The command


@pytest.fixture
def planted(tmp_path):
    """Folders of lists and results of four networks, the first two of which are robust and alike."""
    names = ["r0", "r1", "s0", "s1"]
    singles = []
    for i, name in enumerate(names):
        group = "robust" if i < 2 else "standard"
        accuracy = 0.6 + 0.05 * i
        singles.append(
            study_singles.SingleRow(
                name, group, f"type{i}", 10, 3 + i, "a,b,c", accuracy, 0.5 - 0.1 * i, 0.1, f"{i}"
            )
        )
    write_table(tmp_path / "singles.csv", study_singles.SingleRow, singles)
    labels = np.arange(60) % 3
    columns = {"label": labels} | {
        name: np.where(np.arange(60) % (i + 3) == 0, (labels + 1) % 3, labels)
        for i, name in enumerate(names)
    }
    lines = [
        ",".join(columns),
        *(",".join(map(str, line)) for line in zip(*columns.values(), strict=True)),
    ]
    (tmp_path / "predictions.csv").write_text("\n".join(lines) + "\n")

    header = (
        "method,measure,front_network,front_group,end_network,end_group,front_layer,front_depth,end_layer,"
        "end_depth,front_rank,end_rank,pinv_rank,dataset,seed,value"
    )
    measured = [header]
    verdicts = [
        "method,networks,front_layer,end_layer,verdict,reason,control,n_runs,n_networks,folders,front_depth,"
        "end_depth,front_weights,end_weights,front_group,end_network,end_group,both_ways,same_run,front_network"
    ]
    for front, end in permutations(names, 2):
        value = 0.9 if front[0] == end[0] == "r" else 0.6
        for s, t in np.ndindex(3, 3):
            layers = ["abc"[s], "abc"[t]]
            word = "similar" if value > 0.8 else "not matched"
            for prefix, number in (("", value), ("untrained_", 0.5)):
                cells = [prefix + front, "g", end, "g", layers[0], "1", layers[1], "1", *[""] * 5]
                measured.append(
                    ",".join(["covariance matching", "identification", *cells, str(number)])
                )
                cells[2] = prefix + end
                for measure in ("cka_debiased", "mutual_knn"):
                    measured.append(",".join(["similarity", measure, *cells, str(number)]))
            verdicts.append(
                f"c,{front} → {end},{layers[0]},{layers[1]},{word},r,,1,1,x,1,1,,,g,{end},g,,False,{front}"
            )
    (tmp_path / "grid_measurements.csv").write_text("\n".join(measured) + "\n")
    (tmp_path / "verdict.csv").write_text("\n".join(verdicts) + "\n")
    return tmp_path


def test_the_command_tests_what_tables_hold(planted):
    output = run(
        "misc/paper/study.py",
        planted,
        planted,
        "--matched",
        "r0",
        "r1",
        "s0",
        "-o",
        planted / "study.csv",
    )
    rows = read_table(planted / "study.csv", StudyRow)
    table = table_of(rows)
    assert table == (planted / "study.md").read_text() and table in output.out
    tests = {(row.measure, row.quantity): row for row in rows if row.section == "test"}
    assert {measure for measure, _ in tests} == set(MEASURES)
    for measure in ("cka_debiased", "mutual_knn", "identification"):
        assert tests[measure, "H1"].value == pytest.approx(0.3)
        assert tests[measure, "H2"].value == pytest.approx(0.3)
    assert tests["similar", "H1"].value == 1
    assert tests["similar", "H1"].p_value >= 1 / 6  # of two and two networks
    (twins,) = [
        row.value
        for row in rows
        if (row.section, row.measure, row.quantity) == ("control", "identification", "H1, twins")
    ]
    assert twins == 0
    assert (planted / "study_pairs.png").exists() and (planted / "study_dose.png").exists()


def test_single_networks_on_tiny_images(tmp_path, monkeypatch):
    """Untrained networks: lists, twins, images, and what is left out."""
    monkeypatch.chdir(tmp_path)
    digits = np.load(ROOT / "src/datasets/embedded/digits.npz")
    arrays = {}
    for split in ("train", "test"):
        arrays[f"x_{split}"] = digits[f"{split}_images"][:60, 0]
        arrays[f"y_{split}"] = digits[f"{split}_labels"][:60]
    np.savez("digits.npz", **arrays)
    lines = ["name,path,type,group"]
    for i in range(5):
        torch.manual_seed(i % 4)  # the last has the weights of the first
        network = build_model("small_cnn", n_classes=10, n_channels=1)
        save_state(tmp_path / f"{i}.pt", network.module.state_dict())
        lines.append(f"n{i},{i}.pt,small_cnn,{'robust' if i % 2 else 'standard'}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    options = ["-d", "digits.npz", "-gpu", -1, "--least-accuracy", 0, "--compared", 40]
    output = run("misc/paper/study_singles.py", "list.csv", "-dir", "lists", *options)
    assert says(output.err, "n4 is left out", "weights of n0")
    assert [row["name"] for row in read_csv("lists/networks.csv")] == ["n0", "n1", "n2", "n3"]
    twins = read_csv("lists/twins.csv")
    assert twins[0]["name"] == "untrained_n0" and twins[0]["layers"] == "pool1,pool2,pool4"
    weights = [torch.load(row["path"]) for row in twins]
    assert not torch.equal(*(next(iter(state.values())) for state in weights[:2]))
    assert len(np.load("lists/images.npz")["x_test"]) == 40
    assert len(read_csv("lists/predictions.csv")) == 60
    one_group = tmp_path / "one_group.csv"
    one_group.write_text("\n".join(lines[:2] + [lines[3]]))
    line = error_line("misc/paper/study_singles.py", one_group, "-dir", "lists", *options)
    assert "groups have to be" in line
    np.savez("normalised.npz", mean=[0.5], std=[0.5], **arrays)
    line = error_line(
        "misc/paper/study_singles.py",
        "list.csv",
        "-dir",
        "lists",
        "-d",
        "normalised.npz",
        *options[2:],
    )
    assert "has mean and std" in line


@pytest.mark.slow
def test_the_whole_study_on_digits_goes_on_and_repeats(tmp_path):
    digits = np.load(ROOT / "src/datasets/embedded/digits.npz")
    arrays = {}
    for split in ("train", "test"):
        arrays[f"x_{split}"] = digits[f"{split}_images"][:200, 0]
        arrays[f"y_{split}"] = digits[f"{split}_labels"][:200]
    np.savez(tmp_path / "digits.npz", **arrays)
    lines = ["name,path,type,group"]
    for i in range(4):
        torch.manual_seed(i)
        network = build_model("small_cnn", n_classes=10, n_channels=1)
        save_state(tmp_path / f"{i}.pt", network.module.state_dict())
        lines.append(f"n{i},{i}.pt,small_cnn,{'robust' if i % 2 else 'standard'}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    settings = {
        "PYTHON": sys.executable,
        "STUDY_NETWORKS": f"{tmp_path}/list.csv",
        "STUDY_DATA": f"{tmp_path}/digits.npz",
        "STUDY_LEAST_ACCURACY": "0",
        "MODELS": f"{tmp_path}/models",
        "RESULTS": f"{tmp_path}/results",
    }

    def study_of() -> tuple[str, bytes]:
        done = subprocess.run(
            ["bash", ROOT / "misc/paper/study.sh"],
            env={"PATH": os.environ["PATH"]} | settings,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, (tmp_path / "results/study/study.csv").read_bytes()

    _, first = study_of()
    again, second = study_of()
    assert again == "" and first == second
    (tmp_path / "results/study/study.csv").unlink()
    assert study_of()[1] == first
