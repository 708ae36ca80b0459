"""For each layer the most similar layer of another network, and how often it is the corresponding
one."""

import itertools
import math

import numpy as np
import pytest

from src.results.best_matches import (
    NO_CHOICE,
    best_matches,
    match_shares,
    tables_of_layers,
    tables_of_shares,
)
from src.results.corresponding import correspondence_of
from src.results.measurements import measurements_of
from src.results.named_networks import NamedNetwork
from tests.commands import error_line, read_csv, run, says
from tests.result_rows import similarity_row
from tests.tables import SIMILARITY, write_table
from tests.written_runs import write_run

SCRIPT = "misc/compare_layers.py"
DEEP = {f"d{i}": i / 4 for i in range(1, 5)}
SHALLOW = {"s1": 0.5, "s2": 1.0}


def matched(measure: str, values, reversed_values=None):
    """The best matches by a measure whose values are a matrix (deep layers, shallow layers)."""
    rows = []
    for (i, (layer1, depth1)), (j, (layer2, depth2)) in itertools.product(
        enumerate(DEEP.items()), enumerate(SHALLOW.items())
    ):
        columns = {measure: values[i][j]}
        if reversed_values:
            columns[f"{measure}_reversed"] = reversed_values[i][j]
        rows.append(
            similarity_row(
                layer1=layer1,
                layer2=layer2,
                relative_depth1=depth1,
                relative_depth2=depth2,
                model2_type="resnet34",
                values=columns,
            )
        )
    names = {
        key: NamedNetwork(name, "", training=name, type=key[1])
        for key, name in zip(rows[0].network_keys, ("deep", "shallow"), strict=True)
    }
    measured = measurements_of([], rows, names)
    return best_matches(measured, correspondence_of(measured))


def records(matches):
    """The rows of best matches."""
    return [match.record for match in matches]


def test_the_best_match_is_the_most_similar_layer_from_either_network():
    rows = matched("cka", [[0.1, 0.2], [0.9, 0.3], [0.8, 0.8], [0.4, 0.5]])
    found = {
        (row["network"], row["layer"]): (row["best_layer"], row["corresponding"], row["place"])
        for row in records(rows)
    }
    assert found == {
        ("deep", "d1"): ("s2", "s1", 2),
        ("deep", "d2"): ("s1", "s1", 1),
        ("deep", "d3"): ("s1", "s1;s2", 1),  # equally near: either is right
        ("deep", "d4"): ("s2", "s2", 1),
        ("shallow", "s1"): ("d2", "d2", 1),
        ("shallow", "s2"): ("d3", "d4", 2),
    }
    shares = {row.networks: (row.value, row.chance, row.place) for row in match_shares(rows)}
    assert len(shares) == 1  # both networks have no group
    deep, shallow = match_shares(rows[:4])[0], match_shares(rows[4:])[0]
    assert (deep.value, deep.chance, deep.place) == (0.75, (3 / 2 + 1) / 4, 5 / 4)
    assert (shallow.value, shallow.chance, shallow.n_layers) == (0.5, 1 / 4, 4)
    assert math.isnan(deep.low) and deep.n_pairs == 1


def test_each_measure_stands_beside_its_own_chance_and_one_without_a_choice_has_none():
    rows = matched("cka", [[0.1, 0.2], [0.9, 0.3], [0.8, 0.8], [0.4, 0.5]])
    alone = [[math.nan] * 2, [0.5, math.nan], [math.nan] * 2, [math.nan] * 2]
    (table,) = tables_of_shares([*rows, *matched("procrustes", alone)]).values()
    cka, procrustes = match_shares([*rows, *matched("procrustes", alone)])
    assert procrustes.chance == 1 and 0 < cka.chance < 1
    assert table.columns[1] == table.columns[3] == "chance"
    assert table.values == [[cka.value, cka.chance, NO_CHOICE, ""]]


def test_of_a_distance_the_smallest_counts_and_ties_count_against_the_corresponding_layer():
    rows = matched("procrustes", [[1.0, 0.5], [0.5, 0.5], [0.1, 1.0], [math.nan, 0.2]])
    found = {
        row["layer"]: (row["best_layer"], row["place"], row["n_layers"]) for row in records(rows)
    }
    assert found["d1"] == ("s2", 2, 2) and found["d2"] == ("s1", 2, 2)
    assert found["d4"] == ("s2", 1, 1)  # a value of NaN is none
    assert found["s1"] == ("d3", 2, 3) and found["s2"] == ("d4", 1, 4)


def test_each_network_is_the_first_one_of_a_measure_that_is_not_symmetric():
    far, near = [[0.9, 0.9]] * 4, [[0.9, 0.9], [0.9, 0.9], [0.9, 0.9], [0.1, 0.9]]
    rows = {row["layer"]: row for row in records(matched("pwcca", far, near))}
    assert rows["s1"]["best_layer"] == "d4" and rows["s1"]["value"] == 0.1
    assert rows["d4"]["value"] == 0.9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two networks of each of two types. Similarity and accuracy of two layers fall with the
    distance of their relative depths, but for a pair of networks that shows all at the last layer."""
    folder = tmp_path_factory.mktemp("matches")
    layers = {"resnet18": DEEP, "resnet34": SHALLOW}
    types = {"a": "resnet18", "b": "resnet18", "c": "resnet34", "d": "resnet34"}
    for name in types:
        (folder / f"{name}.pt").write_text(name)
    usual = SIMILARITY | {"relative_depth1": "", "relative_depth2": ""}
    (folder / "all" / "similarity").mkdir(parents=True)
    for front, end in itertools.permutations(types, 2):
        places = itertools.product(layers[types[front]].items(), layers[types[end]].items())
        rows = []
        for number, ((layer1, depth1), (layer2, depth2)) in enumerate(places):
            similarity = 1 - abs(depth1 - depth2)
            if (front, end) == ("a", "c"):
                similarity = depth1 * depth2
            write_run(
                folder / "all" / f"{front}-{end}",
                f"{number}",
                n_right=round(900 * similarity),
                metrics={"front_relative_depth": depth1, "end_relative_depth": depth2},
                front_model_path=f"{front}.pt",
                end_model_path=f"{end}.pt",
                front_model_type=types[front],
                end_model_type=types[end],
                front_layer=layer1,
                end_layer=layer2,
            )
            rows.append(
                {"model1": f"{front}.pt", "model2": f"{end}.pt", "model1_type": types[front],
                 "model2_type": types[end], "layer1": layer1, "layer2": layer2, "cka": similarity,
                 "relative_depth1": depth1, "relative_depth2": depth2, "pwcca": ""}
            )  # fmt: skip
        if front < end:
            write_table(folder / "all" / "similarity" / f"{front}-{end}.csv", usual, *rows)
    return folder


def test_the_command_prints_and_writes_best_matches(folder):
    out, _ = run(SCRIPT, "all", "--best-matches", cwd=folder)
    rows = read_csv(folder / "all" / "best_matches.csv")
    assert {(row["method"], row["side"]) for row in rows} == {
        ("direct matching", "front"),
        ("direct matching", "end"),
        ("similarity", ""),
    }
    by_pair = {
        (row["network"], row["other_network"], row["layer"]): row["best_layer"]
        for row in rows
        if row["measure"] == "cka"
    }
    assert by_pair["b.pt", "c.pt", "d2"] == "s1" and by_pair["a.pt", "c.pt", "d2"] == "s2"
    assert by_pair["c.pt", "a.pt", "s1"] == "d4" and by_pair["a.pt", "b.pt", "d3"] == "d3"
    shares = {
        (row["layers"].split()[1], row["networks"]): float(row["value"])
        for row in read_csv(folder / "all" / "best_matches_shares.csv")
        if row["quantity"] == "accuracy"
    }
    assert shares["front", "resnet34 → resnet18"] == shares["end", "resnet34 → resnet18"] == 1
    # Of a → c, only the last layers of three are right, and d3, to which both are equally near
    assert shares["front", "resnet18 → resnet34"] == pytest.approx(np.mean([0.5, 1, 1, 1]))
    assert shares["end", "resnet18 → resnet34"] == pytest.approx(np.mean([0.5, 1, 1, 1]))

    lines = out.splitlines()
    start = lines.index("best match in resnet34 for each layer of resnet18, similarity, digits")
    assert [line.split() for line in lines[start + 1 : start + 4]] == [
        ["corresponding", "linear", "CKA"],
        ["d1", "s1", "s1", "(3/4)"],
        ["d2", "s1", "s1", "(3/4)"],
    ]
    title = "best match: how often it is the corresponding layer, similarity, digits"
    start = lines.index(title)
    of_cka = filter(None, lines[start + 2 :])
    shares_of_cka = {line.split("(")[0].strip(): line.split()[-2] for line in of_cka}
    assert shares_of_cka["resnet18 → resnet34"] == "0.8750"


def test_a_table_of_layers_is_of_one_data_set_and_one_architecture():
    """Files of features are of one type, whatever their networks. The networks of a table may lack
    a layer that corresponds in others."""
    (first, *_) = matched("cka", [[0.9, 0.1]] * 4)
    rows = []
    for name, kind, dataset, layers in (
        ("a", "resnet18", "digits", ()),
        ("b", "resnet18", "digits", ("s1",)),
        ("c", "resnet18", "svhn", ("s2",)),
        ("d", "features", "digits", ("s1",)),
        ("e", "features", "digits", ("s2",)),
    ):
        network = first.best.front.network._replace(name=name, type=kind)
        front = first.best.front._replace(network=network)
        best = first.best._replace(front=front, dataset=dataset)
        corresponding = [best._replace(end=best.end._replace(layer=layer)) for layer in layers]
        rows.append(first._replace(best=best, corresponding=tuple(corresponding)))
    title = "best match in resnet34 for each layer of {}, similarity, {}"
    assert {name: matrix.values for name, matrix in tables_of_layers(rows).items()} == {
        title.format("resnet18", "digits"): [["s1", "s1 (2/2)"]],
        title.format("resnet18", "svhn"): [["s2", "s1 (1/1)"]],
        title.format("d", "digits"): [["s1", "s1 (1/1)"]],
        title.format("e", "digits"): [["s2", "s1 (1/1)"]],
    }


def test_quantities_choose_what_is_printed(folder):
    out, _ = run(SCRIPT, "all", "--best-matches", "--quantities", "cka", "-o", "m.csv", cwd=folder)
    assert "linear CKA" in out and "direct matching" not in out
    assert {row["measure"] for row in read_csv(folder / "m.csv")} == {"cka", "accuracy"}
    line = error_line(SCRIPT, "all", "--best-matches", "--quantities", "x", cwd=folder)
    assert says(line, "--quantities x", "accuracy, direct matching", "cka, similarity")


def test_untrained_networks_have_no_best_match(tmp_path):
    write_run(tmp_path / "all", "0", n_right=500, front_model_path="-")
    line = error_line(SCRIPT, "all", "--best-matches", cwd=tmp_path)
    assert says(line, "all has no stitches", "two trained networks", "similarity")
