"""misc/collect_results.py over many networks: curves over depth with intervals, and the table of
all measurements."""

import itertools
import math
import shutil
from collections import defaultdict

import numpy as np
import pytest
from scipy.stats import t as student

from src.results import figures
from tests.commands import PDF, PNG, error_line, read_csv, run
from tests.tables import SIMILARITY, write_table
from tests.written_runs import VALID, write_evaluation, write_run

SCRIPT = "misc/collect_results.py"
NETWORKS = "abcdef"
QUALITY = dict(zip(NETWORKS, (100, 120, 150, 190, 240, 300), strict=True))
GROUPS = {name: "wide" if name < "d" else "narrow" for name in NETWORKS}


def stitch(folder, front, end, layer="blocks.1", other=None, number=0):
    """A stitch that is right on as many images as both networks are good."""
    options = {"front_model_path": f"{front}.pt", "end_model_path": f"{end}.pt"}
    options |= {"front_layer": layer, "end_layer": other or layer}
    depths = {"front_depth": int(layer[7:]), "end_depth": int(options["end_layer"][7:])}
    n_right = QUALITY[front] + QUALITY[end]
    write_run(folder / f"{front}-{end}", f"{number}", n_right=n_right, metrics=depths, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All pairs of six networks at two layers, and a list of them; their similarity is the product
    of qualities."""
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "all" / "similarity").mkdir(parents=True)
    for front, end in itertools.permutations(NETWORKS, 2):
        for number, layer in enumerate(("blocks.10", "blocks.2")):
            stitch(folder / "all", front, end, layer, number=number)
        stitch(folder / "all", front, end, "blocks.2", "blocks.10", number=2)  # off the diagonal
        write_evaluation(folder / "all" / f"{front}-{end}", {"0": 0.5, "1": 0.5})
        if front < end:
            rows = [{"model1": f"{front}.pt", "model2": f"{end}.pt", "layer1": "blocks.2", "layer2": layer,
                     "rank1": rank, "cka": QUALITY[front] * QUALITY[end] if not rank else 0, "procrustes": 1,
                     "pwcca": 0.2, "pwcca_reversed": 0.4}
                    for layer in ("blocks.2", "blocks.10") for rank in ("", 4)]  # fmt: skip
            usual = SIMILARITY | {"pwcca_reversed": ""}
            write_table(folder / "all" / "similarity" / f"{front}-{end}.csv", usual, *rows)
    stitch(folder / "all", "a", "a")  # a control
    for name in NETWORKS:
        (folder / f"{name}.pt").write_text(name)
    lines = [f"{name},{name}.pt,resnet18,{group}" for name, group in GROUPS.items()]
    (folder / "list.csv").write_text("\n".join(["name,path,type,group", *lines]))
    return folder


def test_curves_are_means_over_pairs_with_intervals_over_networks(folder):
    run(SCRIPT, "all", "--curves", cwd=folder)
    rows = {
        (row["quantity"], row["line"], row["layer"]): row
        for row in read_csv(folder / "all" / "curves.csv")
    }
    layers = ("blocks.2", "blocks.10")
    assert list(rows) == [
        *((quantity, "direct matching", layer)
          for quantity in ("accuracy", "density ratio", "recall ratio") for layer in layers),
        ("similarity", "cka", "blocks.2"), ("distance", "pwcca", "blocks.2"), ("distance", "procrustes", "blocks.2"),
    ]  # fmt: skip
    accuracy, cka = (
        rows["accuracy", "direct matching", "blocks.2"],
        rows["similarity", "cka", "blocks.2"],
    )
    pairs = list(itertools.combinations(QUALITY.values(), 2))
    assert float(accuracy["value"]) == pytest.approx(np.mean([sum(pair) for pair in pairs]) / 1000)
    assert float(rows["distance", "pwcca", "blocks.2"]["value"]) == pytest.approx(
        0.3
    )  # the mean of both ways
    assert float(cka["value"]) == pytest.approx(np.mean([math.prod(pair) for pair in pairs]))
    assert (accuracy["n_networks"], accuracy["n_pairs"], cka["n_pairs"]) == ("6", "30", "15")
    ratio = float(rows["density ratio", "direct matching", "blocks.10"]["value"])
    assert ratio == pytest.approx(VALID.density_ratio)
    # Without each network, and without each pair
    products = {pair: math.prod(pair) for pair in pairs}
    without = [
        [value for pair, value in products.items() if each not in pair] for each in QUALITY.values()
    ]
    over_networks = 5 * np.var([np.mean(values) for values in without])
    over_pairs = 14 * np.var(
        [np.mean([value for pair, value in products.items() if pair != each]) for each in pairs]
    )
    half = student.ppf(0.975, 5) * max(over_networks - over_pairs, over_pairs) ** 0.5
    assert [float(cka[end]) for end in ("low", "high")] == pytest.approx(
        [float(cka["value"]) - half, float(cka["value"]) + half]
    )
    assert (folder / "all" / "curves.png").read_bytes().startswith(PNG)


def test_groups_of_a_list_have_a_line_each(folder, drawn_figures):
    run(SCRIPT, "all", "--curves", "--networks", "list.csv", cwd=folder)
    rows = read_csv(folder / "all" / "curves.csv")
    assert {row["networks"] for row in rows if row["quantity"] == "accuracy"} == {
        f"{one} → {other}" for one in ("wide", "narrow") for other in ("wide", "narrow")
    }
    (row,) = (row for row in rows if (row["line"], row["networks"]) == ("cka", "wide → wide"))
    assert (
        float(row["value"]) == pytest.approx(np.mean([100 * 120, 100 * 150, 120 * 150]))
        and row["n_networks"] == "3"
    )
    titles = [axes.get_title() for axes in drawn_figures["curves.png"].axes]
    assert (
        titles[:2] == ["accuracy: direct matching", "density ratio: direct matching"]
        and len(titles) == 6
    )


def test_one_table_has_all_measurements_with_names_and_groups(folder):
    """Its means by group, as a user takes them."""
    with figures.left_out(True):
        run(SCRIPT, "all", "-r", "--networks", "list.csv", cwd=folder)
        run(SCRIPT, "all/a-b", "-r", "-o", "t.csv", cwd=folder)
    rows, values = read_csv(folder / "all" / "grid_measurements.csv"), defaultdict(list)
    for row in rows:
        values[row["method"], row["measure"], row["front_group"], row["end_group"]].append(
            float(row["value"])
        )
    found = {key: np.mean(each) for key, each in values.items()}
    pairs = [(QUALITY[front], QUALITY[end]) for front, end in itertools.product("abc", "def")]
    accuracy, similarity = np.mean(pairs) * 2 / 1000, np.mean([one * other for one, other in pairs])
    expected = {
        "accuracy": accuracy,
        "penalty": 0.95 - accuracy,
        "noise_dose": VALID.noise_dose,
        "auroc_energy": 0.5,
    }
    for measure, value in expected.items():
        assert found["direct matching", measure, "wide", "narrow"] == pytest.approx(value)
    assert found["similarity", "cka", "wide", "narrow"] == pytest.approx(
        similarity / 2
    )  # at rank 4 it is 0
    assert ("similarity", "cka", "narrow", "wide") not in found
    assert {(row["front_network"], row["end_network"]) for row in rows} == {
        *itertools.permutations(NETWORKS, 2), ("a", "a"),
    }  # fmt: skip
    assert {row["front_rank"] for row in rows if row["measure"] == "cka"} == {"", "4"}
    assert all(
        row["end_depth"] == row["end_layer"][7:] for row in rows
    )  # of all measures, as stitches say
    # Without a list, paths are the names
    rows, names = (
        read_csv(folder / "t_measurements.csv"),
        ("front_network", "front_group", "end_network", "end_group"),
    )
    assert {tuple(row[name] for name in names) for row in rows} == {
        ("a.pt", "resnet18", "b.pt", "resnet18")
    }


def test_two_networks_have_no_interval_and_tables_of_similarity_suffice(folder):
    run(SCRIPT, "all/a-b", "--curves", "-o", "two.pdf", cwd=folder)
    rows = read_csv(folder / "two.csv")
    assert {row["n_pairs"] for row in rows} == {"1"} and {row["low"] for row in rows} == {"nan"}
    assert (folder / "two.pdf").read_bytes().startswith(PDF)
    shutil.copytree(folder / "all" / "similarity", folder / "tables" / "similarity")
    for option in ("--curves", "-r"):
        run(SCRIPT, "tables", option, cwd=folder)
    assert {row["quantity"] for row in read_csv(folder / "tables" / "curves.csv")} == {
        "similarity",
        "distance",
    }
    assert {row["method"] for row in read_csv(folder / "tables" / "grid_measurements.csv")} == {
        "similarity"
    }


def test_refusals(folder, tmp_path):
    assert "takes one folder" in error_line(SCRIPT, "all/a-b", "all/b-a", "--curves", cwd=folder)
    stitch(tmp_path / "other", "a", "b", "blocks.1", "blocks.2")
    assert "has neither a stitch of a layer to the same layer" in error_line(
        SCRIPT, "other", "--curves", cwd=tmp_path
    )
