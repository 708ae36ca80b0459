"""Which layers of two networks correspond, by name or by relative depth; for each layer the most similar
layer of another network, and how often it is the corresponding one."""

import itertools
import math

import numpy as np
import pytest

from src.results.architectures import architecture_pairs, corresponding_layers
from src.results.best_matches import NO_CHOICE, best_matches, match_shares, tables_of_shares
from src.results.corresponding import Correspondence, correspondence_of
from src.results.measurements import measurements_of
from src.results.named_networks import NamedNetwork
from src.values import Pair
from tests.commands import error_line, read_csv, run, says
from tests.result_rows import similarity_row, stitch_row
from tests.tables import SIMILARITY, write_table
from tests.written_runs import write_list, write_pairs, write_run


def network(name: str, kind: str) -> NamedNetwork:
    return NamedNetwork(name, "", training=name, type=kind)


def even(n_layers: int, start: str = "l") -> dict[str, float]:
    """Layers at equal distances."""
    return {f"{start}{i}": i / n_layers for i in range(1, n_layers + 1)}


A, B = network("a", "deep"), network("b", "deep")
SHALLOW = network("s", "shallow")


def test_layers_of_one_type_correspond_by_name():
    by_name = Correspondence({A: {"x": 0.1, "y": 0.9}, B: {"x": 0.1, "z": 1.0}})
    assert by_name.of("x", (A, B)) == ["x"] and by_name.of("y", (A, B)) == []
    assert by_name.holds(Pair("x", "x"), (A, B)) and not by_name.holds(Pair("y", "z"), (A, B))
    assert by_name.is_by_name


@pytest.mark.parametrize(
    ("n_shallow", "n_deep"), [(1, 2), (2, 3), (3, 8), (4, 15), (8, 9), (9, 15), (15, 16)]
)
def test_each_layer_of_the_network_with_fewer_has_a_partner_of_its_own(n_shallow, n_deep):
    """Whichever network comes first, up to ties; the last layers correspond."""
    depths = {A: even(n_deep), SHALLOW: even(n_shallow, "s")}
    nearest = Correspondence(depths)
    pairs = {
        pair
        for pair in itertools.starmap(Pair, itertools.product(depths[A], depths[SHALLOW]))
        if nearest.holds(pair, (A, SHALLOW))
    }
    assert {pair.end_layer for pair in pairs} == set(depths[SHALLOW])
    assert len({pair.front_layer for pair in pairs}) == len(pairs)
    for front, end in pairs:
        assert nearest.holds(Pair(end, front), (SHALLOW, A))
        assert abs(depths[A][front] - depths[SHALLOW][end]) <= 1 / (2 * n_deep) + 1e-9
    assert Pair(f"l{n_deep}", f"s{n_shallow}") in pairs
    assert not nearest.is_by_name


def test_equally_near_layers_both_correspond():
    nearest = Correspondence({A: even(4), SHALLOW: {"s1": 0.375, "s2": 1.0}})
    assert nearest.of("s1", (SHALLOW, A)) == ["l1", "l2"]
    assert nearest.of("l1", (A, SHALLOW)) == ["s1"]


def test_types_with_equal_layers_are_one_architecture_and_files_of_features_are_not():
    other = network("o", "other")
    assert Correspondence({A: even(3), other: even(3)}).is_by_name
    assert Correspondence({A: even(3), B: {"l1": 1 / 3}}).is_by_name
    assert not Correspondence({A: even(3), other: {**even(3), "l1": 0.2}}).is_by_name
    files = network("f", "features"), network("g", "features")
    stored = Correspondence({files[0]: even(2), files[1]: even(4)})
    assert stored.of("l2", files) == ["l4"] and not stored.is_by_name


def test_framed_layers_correspond():
    """They have one name, in networks of one type. A name that two types share has no frame."""
    pairs = {
        Pair("layer4", "blocks.0"): {"end_model_type": "vit"},
        Pair("layer1", "layer1"): {},
        Pair("layer2", "layer3"): {},
        Pair("stem", "stem"): {},
        Pair("norm", "norm"): {"end_model_type": "vit"},
    }
    rows = [stitch_row(**pair._asdict(), **values) for pair, values in pairs.items()]
    assert corresponding_layers(rows) == [Pair("layer1", "layer1"), Pair("stem", "stem")]
    rows.append(stitch_row(front_layer="layer1", end_layer="layer1", end_model_type="resnet50"))
    assert corresponding_layers(rows) == [Pair("stem", "stem")]


def test_framed_layers_of_two_types_are_nearest_in_relative_depth():
    """Each to the other; of unknown depths none."""
    depths = ({"a": 0.25, "b": 0.5, "c": 1.0}, {"x": 0.5, "y": 1.0})
    rows = [
        stitch_row(
            front_layer=front,
            end_layer=end,
            end_model_type="vit",
            front_relative_depth=depth,
            end_relative_depth=other,
        )
        for front, depth in depths[0].items()
        for end, other in depths[1].items()
    ]
    assert corresponding_layers(rows) == [Pair("b", "x"), Pair("c", "y")]
    rows.append(stitch_row(front_layer="d", end_layer="x", end_model_type="vit"))
    assert corresponding_layers(rows) == []


LAYERS = {
    "deep": {"a": 0.25, "b": 0.5, "c": 1.0},
    "flat": {"a": 0.5, "b": 1.0},
    "flat_again": {"a": 0.5, "b": 1.0},
}


def stitches():
    """All pairs of layers of two networks of each type; the accuracy tells the types of a pair."""
    networks = [(kind, f"{kind}{i}.pt") for kind in LAYERS for i in range(2)]
    for number, ((kind1, front), (kind2, end)) in enumerate(itertools.permutations(networks, 2)):
        for layer1, layer2 in itertools.product(LAYERS[kind1], LAYERS[kind2]):
            yield stitch_row(
                front_model_path=front,
                end_model_path=end,
                front_model_type=kind1,
                end_model_type=kind2,
                front_layer=layer1,
                end_layer=layer2,
                front_relative_depth=LAYERS[kind1][layer1],
                end_relative_depth=LAYERS[kind2][layer2],
                accuracy=(1 + (kind1 == "deep") + 2 * (kind2 == "deep")) / 10,
                front_weights=front,
                end_weights=end,
                folder=f"{number}",
            )


def test_types_of_equal_layers_at_equal_depths_are_one_architecture():
    rows = list(stitches())
    flat = "flat, flat_again"
    title_of = {"deep": "deep", "flat": flat, "flat_again": flat}
    for row, title in zip(rows, architecture_pairs(rows), strict=True):
        assert title == f"{title_of[row.front_model_type]} → {title_of[row.end_model_type]}"


SCRIPT = "misc/compare_layers.py"
MANY = {f"d{i}": i / 4 for i in range(1, 5)}
FEW = {"s1": 0.5, "s2": 1.0}


def matched(measure: str, values, reversed_values=None):
    """The best matches by a measure whose values are a matrix (deep layers, shallow layers)."""
    rows = []
    for (i, (layer1, depth1)), (j, (layer2, depth2)) in itertools.product(
        enumerate(MANY.items()), enumerate(FEW.items())
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
    assert says(out, "best match in resnet34 for each layer of resnet18", "similarity, digits")
    assert says(out, "d1", "s1", "s1 (3/4)")

    chosen = ["--best-matches", "--quantities"]
    out, _ = run(SCRIPT, "all", *chosen, "cka", "-o", "m.csv", cwd=folder)
    assert "linear CKA" in out and "direct matching" not in out
    line = error_line(SCRIPT, "all", *chosen, "x", cwd=folder)
    assert says(line, "--quantities x", "accuracy, direct matching", "cka, similarity")


def test_untrained_networks_have_no_best_match(tmp_path):
    write_run(tmp_path / "all", "0", n_right=500, front_model_path="-")
    line = error_line(SCRIPT, "all", "--best-matches", cwd=tmp_path)
    assert says(line, "all has no stitches", "two trained networks", "similarity")
