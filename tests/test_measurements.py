"""Laws of the table of measurements: directions, groups, pivots, and means over networks."""

import itertools
import math

import numpy as np
import pytest

from src.results.best_matches import END, FRONT, best_matches
from src.results.corresponding import correspondence_of
from src.results.matrices import array_of
from src.results.measurements import (
    COLUMNS,
    Measurement,
    NetworkLayer,
    between_networks,
    measurements_of,
)
from src.results.named_networks import NamedNetwork
from src.results.network_means import averaged, mean_over_networks, means_by
from tests.result_rows import similarity_row


def values(trainings: dict[str, str], layers: str = "xy") -> list[Measurement]:
    """A value of each pair of layers of each pair of networks, by training of the network."""
    rng = np.random.default_rng(0)
    networks = [NamedNetwork(name, "g", training) for name, training in trainings.items()]
    return [
        Measurement("dm", "skill", NetworkLayer(front, one), NetworkLayer(end, two), rng.random())
        for front, end in itertools.permutations(networks, 2)
        for one, two in itertools.product(layers, repeat=2)
    ]


def test_a_similarity_counts_in_either_direction_and_once_of_a_layer_with_itself():
    columns = {"cka": 0.5, "pwcca": 0.25, "pwcca_reversed": 0.75, "pwcca_calibrated": 0.125}
    row = similarity_row(rank1=4, values=columns)
    same = similarity_row(model2="a.pt", layer2="x", values={"cka": 1.0})
    names = {key: NamedNetwork(key[0], "g", key[0]) for key in row.network_keys}
    rows = measurements_of([], [row, same], names)
    found = {(*each.pair, each.quantity, each.part): each.value for each in rows}
    assert found["x", "y", "pwcca", ""] == 0.25 and found["y", "x", "pwcca", ""] == 0.75
    assert found["x", "y", "cka", ""] == found["y", "x", "cka", ""] == 0.5
    assert ("y", "x", "pwcca", "calibrated") not in found and len(found) == len(rows) == 6
    assert {(each.pair[0], each.front.rank) for each in rows} == {
        ("x", 4),
        ("y", None),
        ("x", None),
    }
    assert not between_networks(rows)  # at reduced ranks, or of one network
    for each in rows:
        assert each.swapped.swapped == each and tuple(each.record) == COLUMNS


def test_means_of_groups_are_means_of_the_pivot():
    rows = values({name: name for name in "abc"})
    cells = {(*row.networks, *row.pair): row.value for row in rows}
    networks = list(dict.fromkeys(row.front.network for row in rows))
    array = array_of(cells, networks, networks, "xy", "xy")
    assert np.isnan(array).sum() == 3 * 4  # a network and itself
    for (front, end), mean in means_by(rows, lambda row: row.networks).items():
        place = (networks.index(front), networks.index(end))
        assert mean == pytest.approx(array[place].mean())
    by_pair = means_by(rows, lambda row: row.pair)
    means = np.array(list(by_pair.values())).reshape(2, 2)
    assert means == pytest.approx(np.nanmean(array, axis=(0, 1)))


def test_an_average_is_its_own_average_and_leaves_nan_out():
    rows = values({name: name for name in "abc"})
    rows[0] = rows[0]._replace(value=math.nan)
    means = averaged(rows, lambda row: row.pair)
    assert averaged(means, lambda row: row.pair) == means and len(means) == 4
    mean_of = {row.pair: row.value for row in means}
    defined = [row.value for row in rows[1:] if row.pair == rows[0].pair]
    assert mean_of[rows[0].pair] == pytest.approx(np.mean(defined))
    assert averaged(rows[:1], lambda row: row.pair) == []


def test_a_mean_over_networks_has_no_order_and_counts_each_pair_of_networks_once():
    rows = values({name: name for name in "abcd"})
    mean = mean_over_networks(rows)
    swapped = mean_over_networks([row.swapped for row in reversed(rows)])
    assert vars(mean) == pytest.approx(vars(swapped))
    more = [*rows, *(row for row in rows if row.networks == rows[0].networks)]
    assert vars(mean_over_networks(more)) == pytest.approx(vars(mean))
    assert mean.n_pairs == 12 and mean.low < mean.value < mean.high


def test_the_best_match_of_an_end_layer_is_that_of_a_front_layer_swapped():
    rows = values({name: name for name in "ab"})
    matches = best_matches(rows, correspondence_of(rows))
    swapped = [row.swapped for row in rows]
    of_swapped = best_matches(swapped, correspondence_of(swapped))
    for side, other in ((FRONT, END), (END, FRONT)):
        found = {match.best: match.place for match in matches if match.side == side}
        assert found == {match.best: match.place for match in of_swapped if match.side == other}


def test_an_interval_is_over_trainings_whatever_the_epochs():
    """Two epochs of equal values are as one."""
    once = values({name: name for name in "abcd"})
    twice = []
    for row in once:
        front, end = (
            side._replace(network=side.network._replace(name=f"{side.network.name}2"))
            for side in (row.front, row.end)
        )
        twice += [row, row._replace(front=front, end=end), row._replace(front=front)]
    means = [mean_over_networks(rows) for rows in (once, twice)]
    assert vars(means[0]) == pytest.approx(vars(means[1]))
    assert (means[0].n_networks, means[0].n_pairs) == (4, 12) and means[0].low < means[0].value
