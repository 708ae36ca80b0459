"""Which layers of two networks are framed; for each layer the most similar layer of another network, and how
often it is the corresponding one."""

import itertools

import numpy as np
import pytest

from src.core.values import Pair
from src.figures.matrices import framed_layers
from tests.commands import error_line, read_csv, run, says
from tests.result_rows import SIMILARITY, stitch, write_table
from tests.written_runs import write_list, write_pairs, write_run


def test_framed_layers_of_one_type_have_one_name():
    layers = [("layer1", "layer1"), ("layer2", "layer3"), ("stem", "stem")]
    rows = [stitch(front_layer=front, end_layer=end) for front, end in layers]
    assert framed_layers(rows) == [Pair("layer1", "layer1"), Pair("stem", "stem")]


@pytest.mark.parametrize(
    ("unit", "framed"), [(0.25, [Pair("b", "x"), Pair("c", "y")]), (None, [])], ids=["known", ""]
)
def test_framed_layers_of_two_types_are_nearest_in_relative_depth(unit, framed):
    """Each to the other; of unknown depths none."""
    rows = []
    for (front, depth), (end, other) in itertools.product(
        {"a": 1, "b": 2, "c": 4}.items(), {"x": 2, "y": 4}.items()
    ):
        depths = {
            "front_relative_depth": unit and unit * depth,
            "end_relative_depth": unit and unit * other,
        }
        rows.append(stitch(front_layer=front, end_layer=end, end_model_type="vit", **depths))
    assert framed_layers(rows) == framed


SCRIPT = "misc/collect_results.py"
MANY = {f"d{i}": i / 4 for i in range(1, 5)}
FEW = {"s1": 0.5, "s2": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two networks of each of two types. Similarity and accuracy of two layers fall with the
    distance of their relative depths, but for a pair of networks that shows all at the last layer."""
    folder = tmp_path_factory.mktemp("matches")
    layers = {"resnet18": MANY, "resnet34": FEW}
    types = {"a": "resnet18", "b": "resnet18", "c": "resnet34", "d": "resnet34"}
    depths = MANY | FEW

    def similarity(front, end, layer1, layer2):
        if (front, end) == ("a", "c"):
            return depths[layer1] * depths[layer2]
        return 1 - abs(depths[layer1] - depths[layer2])

    write_pairs(folder / "all", types, layers, lambda *at: round(900 * similarity(*at)))
    write_list(folder / "list.csv", types)
    usual = SIMILARITY | {"relative_depth1": "", "relative_depth2": "", "pwcca": ""}
    (folder / "all" / "similarity").mkdir()
    for front, end in itertools.combinations(types, 2):
        rows = [
            {"model1": f"{front}.pt", "model2": f"{end}.pt", "model1_type": types[front],
             "model2_type": types[end], "layer1": one, "layer2": two, "cka": similarity(front, end, one, two),
             "relative_depth1": depths[one], "relative_depth2": depths[two]}
            for one, two in itertools.product(layers[types[front]], layers[types[end]])
        ]  # fmt: skip
        write_table(folder / "all" / "similarity" / f"{front}-{end}.csv", usual, *rows)
    return folder


def test_the_command_prints_and_writes_best_matches(folder):
    out, _ = run(SCRIPT, "all", "--best-matches", cwd=folder)
    rows = read_csv(folder / "all" / "collected_best_matches.csv")
    assert {(row["method"], row["side"]) for row in rows} == {
        ("direct matching", "front"),
        ("direct matching", "end"),
        ("similarity", ""),
    }
    by_pair = {
        (row["front_network"], row["end_network"], row["front_layer"]): row["end_layer"]
        for row in rows
        if row["quantity"] == "cka"
    }
    assert by_pair["b.pt", "c.pt", "d2"] == "s1" and by_pair["a.pt", "c.pt", "d2"] == "s2"
    assert by_pair["c.pt", "a.pt", "s1"] == "d4" and by_pair["a.pt", "b.pt", "d3"] == "d3"
    shares = {
        (row["side"], row["networks"]): float(row["value"])
        for row in read_csv(folder / "all" / "collected_means.csv")
        if (row["report"], row["quantity"]) == ("best matches", "accuracy")
    }
    assert shares["front", "resnet34 → resnet18"] == shares["end", "resnet34 → resnet18"] == 1
    # Of a → c, only the last layers of three are right, and d3, to which both are equally near
    assert shares["front", "resnet18 → resnet34"] == pytest.approx(np.mean([0.5, 1, 1, 1]))
    assert shares["end", "resnet18 → resnet34"] == pytest.approx(np.mean([0.5, 1, 1, 1]))
    assert says(out, "best match in resnet34 for each layer of resnet18", "similarity, digits")
    assert says(out, "d1", "s1", "s1 (3/4)")

    chosen = ["--best-matches", "--quantities"]
    out, _ = run(SCRIPT, "all", *chosen, "cka", "-o", "m.csv", cwd=folder)
    tables = out[out.index("best match") :]
    assert "linear CKA" in tables and "direct matching" not in tables
    line = error_line(SCRIPT, "all", *chosen, "x", cwd=folder)
    assert says(line, "--quantities x", "accuracy, direct matching", "cka, similarity")


def test_untrained_networks_have_no_best_match(tmp_path):
    write_run(tmp_path / "all", "0", n_right=500, front_model_path="-")
    line = error_line(SCRIPT, "all", "--best-matches", cwd=tmp_path)
    assert says(line, "all has no stitches", "two trained networks", "similarity")
