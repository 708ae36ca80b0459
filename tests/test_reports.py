"""Reports over many networks, on frames whose answers are found by hand."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from src.results import reports
from src.results.tables import GROUPS, NETWORKS, SAME_RUN, UNTRAINED_FRONT
from src.statistics.permutation_tests import END, permutation_test
from tests.frames import NAMES, all_pairs, compared, frame, row, skill


def test_corresponding_layers_are_those_of_equal_names_or_nearest_in_depth():
    rows = frame(row("a", "b", front + end) for front, end in itertools.product("xy", "xyz"))
    rows["end_relative_depth"] = rows.end_layer.map({"x": 0.1, "y": 0.45, "z": 1.0})
    assert reports.corresponding(rows)[["front_layer", "end_layer"]].values.tolist() == [
        ["x", "x"],
        ["y", "y"],
    ]
    of_types = reports.corresponding(rows.assign(end_type="mlp"))
    assert of_types[["front_layer", "end_layer"]].values.tolist() == [["x", "y"], ["y", "z"]]


def test_a_pair_of_networks_counts_by_its_mean_over_the_layers_that_all_pairs_have():
    rows = pd.concat(
        [all_pairs(), frame([row("a", "b", "zz", skill=9.0, front_relative_depth=0.1)])]
    )
    means = reports.network_means(rows.reset_index(drop=True), ["skill", "similar"])
    assert set(means.layers) == {"2 pairs of layers of the same name"} and len(means) == 24
    of_skill = means[means.quantity == "skill"].set_index(NETWORKS)
    for pair in itertools.permutations(NAMES, 2):
        assert of_skill.value[pair] == pytest.approx(skill(*pair) + 0.1)
    assert set(of_skill.pairs_of_layers) == {"x (0.50) → x (0.50); y (1.00) → y (1.00)"}
    assert set(means.value[means.quantity == "similar"]) == {1} and set(means.n_layers) == {2}


def test_a_value_that_is_missing_does_not_count():
    rows = all_pairs()
    rows.loc[(rows.front_network == "a") & (rows.front_layer == "y"), "skill"] = math.nan
    means = reports.network_means(rows, ["skill"]).set_index(NETWORKS)
    assert means.value["a", "b"] == pytest.approx(skill("a", "b")) and means.n_layers["a", "b"] == 1


def test_intervals_leave_out_networks():
    means = reports.network_means(all_pairs(), ["skill"])
    (found,) = reports.over_networks(means, ["method"]).to_dict("records")
    values = np.array(
        [[skill(*pair) + 0.1 for pair in itertools.product([name], NAMES)] for name in NAMES]
    )
    pairs = ~np.eye(4, dtype=bool)
    without = [
        values[np.ix_(kept, kept)][pairs[:3, :3]].mean()
        for kept in itertools.combinations(range(4), 3)
    ]
    of_pairs = [(values[pairs].sum() - value) / 11 for value in values[pairs]]
    variances = 3 * np.var(without), 11 * np.var(of_pairs)
    half_width = student.ppf(0.975, 3) * math.sqrt(max(variances[0] - variances[1], variances[1]))
    assert found["value"] == pytest.approx(values[pairs].mean())
    assert found["value"] - found["low"] == pytest.approx(half_width)
    assert (found["n_networks"], found["n_pairs"]) == (4, 12)
    assert (found["lowest"], found["highest"]) == pytest.approx(
        (values[pairs].min(), values[pairs].max())
    )
    few = reports.over_networks(
        means[means[NETWORKS].isin(["a", "b", "c"]).all(axis=1)], ["method"]
    )
    assert few.low.isna().all()  # of three networks


def test_two_epochs_of_a_network_count_once():
    rows = all_pairs()
    again = rows[rows.front_network == "a"].assign(front_network="a2", skill=9.0)
    means = reports.network_means(pd.concat([rows, again], ignore_index=True), ["skill"])
    (found,) = reports.over_networks(means, ["method"]).to_dict("records")
    assert (found["n_networks"], found["n_pairs"]) == (4, 12) and found["highest"] > 4


def test_groups_are_compared_by_permutations_of_networks():
    means = reports.network_means(all_pairs(), ["skill", "accuracy_drop", "similar"])
    groups = reports.group_means(means).set_index(["quantity", *GROUPS])
    within = [skill("a", "b"), skill("b", "a")]
    assert groups.value["skill", "one", "one"] == pytest.approx(np.mean(within) + 0.1)
    assert (
        groups.n_pairs["skill", "one", "two"] == 4 and groups.n_layers["skill", "one", "two"] == 2
    )
    tests = reports.group_tests(means)
    assert set(tests.quantity) == {"skill"} and len(tests) == 4  # no p of shares
    first = tests.set_index(["within", "across"]).loc[("one → one", "one → two")]
    values = np.array([[skill(front, end) for end in NAMES] for front in NAMES]) + 0.1
    expected = permutation_test(values, np.array([True, True, False, False]), side=END)
    assert (first.p_value, first.difference) == pytest.approx(
        (expected.p_value, expected.difference)
    )
    assert (first.n_networks, first.n_second, first.types) == (2, 2, "")


@pytest.mark.parametrize(("accuracy", "is_named"), [(0.6, True), (0.89, False)])
def test_groups_of_clearly_different_accuracy_are_named(accuracy, is_named):
    """By the mean over the networks of a group, each once."""
    stitches = all_pairs()
    accuracies = {"a": 0.9, "b": 0.92, "c": accuracy, "d": accuracy + 0.02}
    stitches["end_accuracy"] = stitches.end_network.map(accuracies)
    tests = reports.compare_groups(stitches, ["skill"]).tests
    sentence = reports.on_unlike_accuracies(stitches, tests)
    assert ("one 91 %, two 61 %" in sentence) == is_named and bool(sentence) == is_named


def test_a_share_has_two_bounds():
    """What is inconclusive may be similar or not."""
    rows = all_pairs()
    rows["verdict"] = np.where(rows.front_layer == "x", "similar", "inconclusive")
    means = reports.network_means(rows, reports.SHARES)
    shares = reports.over_networks(means, ["quantity"]).set_index("quantity").value
    assert (shares["similar"], shares["at most similar"], shares["not matched"]) == (0.5, 1, 0)


def test_what_cannot_be_tested_says_why():
    rows = all_pairs()
    one = reports.group_tests(
        reports.network_means(rows[rows[NETWORKS].ne("d").all(axis=1)], ["skill"])
    )
    reasons = one.set_index(["within", "across"]).reason
    assert reasons["one → one", "one → two"] == ""
    assert reasons["two → two", "two → one"] == "two has fewer than two networks"
    gap = rows[(rows.front_network != "a") | (rows.end_network != "c")]
    tests = reports.group_tests(reports.network_means(gap, ["skill"]))
    assert set(tests.reason) == {"a pair of networks has no value"} and "p_value" not in tests


def test_a_symmetric_measure_counts_once():
    """In either direction of its table; groups have one question a pair."""
    pairs = [("b", "a"), ("a", "c"), ("d", "a"), ("b", "c"), ("d", "b"), ("d", "c")]
    rows = frame(
        compared(0.1 * number, front=front, end=end) for number, (front, end) in enumerate(pairs)
    )
    means = reports.network_means(rows, ["cka", "skill"])
    groups = reports.group_means(means).set_index(GROUPS)
    assert groups.n_pairs.to_dict() == {("one", "one"): 1, ("one", "two"): 4, ("two", "two"): 1}
    assert groups.value["one", "two"] == pytest.approx(np.mean([0.1, 0.2, 0.3, 0.4]))
    tests = reports.group_tests(means)
    assert tests.across.tolist() == ["one → two", "two → one"] and tests.reason.tolist() == ["", ""]


def test_a_measure_with_a_direction_counts_in_each():
    rows = [
        compared(0.5, pwcca=0.2),
        compared(math.nan, front="b", end="a", pwcca=0.4, is_reversed=True),
    ]
    means = reports.network_means(frame(rows), ["cka", "pwcca"])
    of_networks = means.set_index(["quantity", *NETWORKS]).value.to_dict()
    assert of_networks == {
        ("cka", "a", "b"): 0.5,
        ("pwcca", "a", "b"): 0.2,
        ("pwcca", "b", "a"): 0.4,
    }


def test_only_independent_trained_networks_of_the_list_are_compared():
    rows = [
        row("a", "b"),
        row("a", "a", kind=SAME_RUN),
        row("a", "b", kind=UNTRAINED_FRONT),
        row("a", "b", end_group="not listed"),
        compared(front_rank=2),
    ]
    assert reports.between_networks(frame(rows)).index.tolist() == [0]


def test_curves_are_means_at_each_layer_of_networks_of_one_type():
    unlisted = frame([row("a", "e", end_group="not listed", skill=9.0)])
    off = frame([row("a", "b", "xy", skill=9.0)])
    curve = reports.over_depth(
        pd.concat([all_pairs(), unlisted, off], ignore_index=True), ["skill"]
    )
    line = curve[curve.networks == "one → two"]
    across = np.mean([skill(front, end) for front, end in itertools.product("ab", "cd")])
    assert line.layers.tolist() == ["x", "y"] and line.relative_depth.tolist() == [0.5, 1]
    assert line.value.tolist() == pytest.approx(
        [across, across + 0.2]
    ) and line.n_pairs.tolist() == [4, 4]


def test_curves_of_unlike_networks_have_steps_of_depth_and_0_is_one():
    """Layers at 0 and 0.9 of one type, and at 0.1 and 1 of the other: means of both are 0.05 and 0.95."""
    rows = frame(row("a", "c", layers, skill=value) for layers, value in (("xu", 0.2), ("yv", 0.4)))
    rows = rows.assign(end_type="mlp", front_relative_depth=[0, 0.9], end_relative_depth=[0.1, 1.0])
    assert reports.over_depth(rows, ["skill"]).relative_depth.tolist() == pytest.approx(
        [0.05, 0.95]
    )
    alike = rows.assign(end_relative_depth=[0, 0.9])
    assert reports.over_depth(alike, ["skill"]).relative_depth.tolist() == [0, 0.9]


def test_best_matches_and_their_places_by_hand():
    values = {("x", "x"): 0.4, ("x", "y"): 0.6, ("y", "x"): 0.5, ("y", "y"): 0.5}
    rows = frame(compared(value, layers="".join(layers)) for layers, value in values.items())
    matches = reports.best_matches(rows, ["cka"]).set_index(["front_network", "front_layer"])
    assert matches.end_layer.to_dict() == {
        ("a", "x"): "y",
        ("a", "y"): "x",
        ("b", "x"): "y",
        ("b", "y"): "x",
    }
    assert matches.place["a", "x"] == 2 and matches.corresponding_value["a", "x"] == 0.4
    assert matches.place["a", "y"] == 2  # a tie counts against the corresponding layer
    assert (
        set(matches.n_layers) == {2} and set(matches.chance) == {0.5} and set(matches.side) == {""}
    )
    (share,) = reports.match_shares(matches.reset_index()).to_dict("records")
    assert (share["value"], share["chance"], share["place"], share["quantity"]) == (
        0,
        0.5,
        2,
        "cka",
    )


def test_of_a_distance_the_smallest_is_the_best_match_and_stitches_have_sides():
    rows = frame([compared(None, procrustes=1.0), compared(None, layers="xy", procrustes=0.5)])
    matches = reports.best_matches(rows, ["procrustes"]).set_index(["front_network", "front_layer"])
    assert matches.end_layer["a", "x"] == "y" and matches.place["a", "x"] == 2
    stitched = reports.best_matches(
        frame([row("a", "b"), row("a", "b", "xy", skill=0.6)]), ["skill"]
    )
    assert stitched[["side", "front_network", "front_layer", "end_layer"]].values.tolist() == [
        ["front", "a", "x", "y"],
        ["end", "b", "x", "x"],
        ["end", "b", "y", "x"],
    ]


def test_a_matrix_has_layers_in_the_order_of_depth():
    rows = frame(
        row("a", "b", layers, skill=value) for layers, value in (("yx", 1), ("xx", 2), ("xy", 3))
    )
    table = reports.matrix(rows, "skill")
    assert table.index.tolist() == table.columns.tolist() == ["x", "y"]
    np.testing.assert_array_equal(table, [[2, 3], [1, np.nan]])
    shares = reports.matrix(all_pairs(), "similar", "front_network", "end_network")
    assert (
        shares.index.tolist() == list(NAMES)
        and shares.loc["a", "b"] == 1
        and math.isnan(shares.loc["a", "a"])
    )


def test_agreement_is_the_rank_correlation_with_known_differences():
    """Skill that falls with the difference agrees with it; the accuracy drop that falls with it does not."""
    rows = frame(
        row(*pair, skill=-skill(*pair), accuracy_drop=-skill(*pair))
        for pair in itertools.permutations("abcde"[:4], 2)
    )
    pairs = itertools.combinations(NAMES, 2)
    truth = pd.DataFrame(
        [(*pair, abs(ord(pair[0]) - ord(pair[1]))) for pair in pairs], columns=[*NETWORKS, "value"]
    )
    found = reports.agreement(rows, truth).set_index("quantity")
    assert found.value["skill"] == pytest.approx(1) and found.value[
        "accuracy_drop"
    ] == pytest.approx(-1)
    assert found.p_value["skill"] == pytest.approx(
        2 / 24, abs=0.02
    )  # the order and its mirror image
    assert found.p_value["accuracy_drop"] > 0.5 and set(found.n_pairs) == {6}
    missing = reports.agreement(rows, truth[1:]).set_index("quantity")
    assert "no value" in missing.reason["skill"] and math.isnan(missing.value["skill"])


def test_shares_have_possible_limits_and_other_values_have_not():
    """Of four networks, one of which has no similar pair with any other."""
    rows = all_pairs()
    is_alone = rows[NETWORKS].eq("a").any(axis=1)
    rows["verdict"] = np.where(is_alone, "not matched", "similar")
    rows["accuracy_drop"] = is_alone.astype(float)
    means = reports.over_networks(
        reports.network_means(rows, ["similar", "accuracy_drop"]), ["quantity"]
    )
    found = means.set_index("quantity")
    assert found.value.tolist() == [0.5, 0.5]
    assert (found.low["similar"], found.high["similar"]) == (0, 1)
    assert found.low["accuracy_drop"] < 0 and found.high["accuracy_drop"] > 1


def test_networks_without_common_layers_are_compared_at_all():
    rows = frame([row("a", "b", "xu"), row("b", "a", "ux")])
    assert set(reports.network_means(rows, ["skill"]).layers) == {"all pairs of layers"}
    common = frame(row(*pair, layers) for pair in ("ab", "ba") for layers in ("xy", "yx"))
    assert set(reports.network_means(common, ["skill"]).layers) == {"2 pairs of layers"}


@pytest.mark.parametrize(
    ("n_shallow", "n_deep"), [(1, 2), (2, 3), (3, 8), (4, 15), (8, 9), (15, 16)]
)
def test_each_layer_of_the_network_with_fewer_has_a_partner_of_its_own(n_shallow, n_deep):
    """Whichever network comes first; the last layers correspond."""
    deep = {f"l{place}": place / n_deep for place in range(1, n_deep + 1)}
    shallow = {f"s{place}": place / n_shallow for place in range(1, n_shallow + 1)}
    rows = []
    for front, end in itertools.product(deep, shallow):
        columns = {"end_type": "mlp", "front_layer": front, "end_layer": end}
        depths = {"front_relative_depth": deep[front], "end_relative_depth": shallow[end]}
        rows.append(row("a", "c") | columns | depths)
    pairs = reports.corresponding(frame(rows))
    assert set(pairs.end_layer) == set(shallow) and pairs.front_layer.is_unique
    assert (f"l{n_deep}", f"s{n_shallow}") in set(
        zip(pairs.front_layer, pairs.end_layer, strict=True)
    )
    turned = reports.corresponding(reports.swapped(frame(rows)))
    assert turned.index.tolist() == pairs.index.tolist()


def test_types_with_equal_layers_are_one_architecture_and_files_of_features_are_not():
    rows = all_pairs()
    assert reports.have_equal_layers(rows)
    other = rows.assign(end_type=np.where(rows.end_group == "two", "mlp", "cnn"))
    other["front_type"] = np.where(rows.front_group == "two", "mlp", "cnn")
    assert reports.have_equal_layers(other)
    deeper = other.assign(end_relative_depth=np.where(other.end_type == "mlp", 0.75, 0.5))
    assert not reports.have_equal_layers(deeper)
    files = rows.assign(front_type="features", end_type="features")
    moved = files.assign(front_relative_depth=np.where(files.front_network == "a", 0.1, 0.5))
    assert reports.have_equal_layers(files) and not reports.have_equal_layers(moved)
