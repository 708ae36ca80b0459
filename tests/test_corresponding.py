"""Which layers of two networks correspond: by name, or by relative depth."""

import itertools

import pytest

from src.results.architectures import corresponding_layers
from src.results.corresponding import Correspondence
from src.results.named_networks import NamedNetwork
from src.values import Pair
from tests.result_rows import stitch_row


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
