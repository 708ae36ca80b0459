"""Tests between groups of networks: by hand, under the null hypothesis, and whatever the order of
the networks."""

import itertools

import numpy as np
import pytest

from src.verdict import permutations
from src.verdict.permutations import END, FRONT, permutation_test

IN_GROUP = np.array([True, True, False])


def test_three_networks_by_hand():
    """Of networks a, b | c there are three labelings, with differences 9, -1.5 and -7.5."""
    values = np.array([[np.nan, 10.0, 2.0], [12.0, np.nan, 2.0], [8.0, 3.0, np.nan]])
    test = permutation_test(values, IN_GROUP, side=END)
    assert (test.mean_within, test.mean_across, test.difference) == (11, 2, 9)
    assert (test.n_labelings, test.is_exact) == (3, True)
    assert test.p_value == test.lowest_p == pytest.approx(1 / 3)
    within_and_across = [
        ((10 + 12) / 2, (2 + 2) / 2),
        ((2 + 8) / 2, (10 + 3) / 2),
        ((2 + 3) / 2, (12 + 8) / 2),
    ]
    found = permutations.means(values, permutations.all_labelings(3, 2))
    np.testing.assert_allclose(np.stack(found, 1), within_and_across)
    test = permutation_test(values, IN_GROUP, side=FRONT)  # c -> a and c -> b
    assert (test.mean_within, test.mean_across) == (11, 5.5)


def test_the_order_of_the_networks_and_the_unit_do_not_matter(rng):
    values = rng.normal(size=(7, 7))
    in_group = np.arange(7) < 3
    test = permutation_test(values, in_group, side=END)
    order = rng.permutation(7)
    shuffled = permutation_test(values[np.ix_(order, order)], in_group[order], side=END)
    assert shuffled == pytest.approx(test)
    scaled = permutation_test(100 - 10 * values, in_group, side=END)
    assert scaled.p_value == test.p_value and test.n_labelings == 35
    assert permutation_test(values.T, in_group, side=FRONT) == pytest.approx(test)


def test_exactly_so_many_labelings_are_rejected_under_the_null(rng):
    """Over all labelings of one matrix, at most the share α has a p-value of at most α, and every
    labeling counts once."""
    values = rng.normal(size=(6, 6))
    p_values = [
        permutation_test(values, labeling, side=END).p_value
        for labeling in permutations.all_labelings(6, 3)
    ]
    assert sorted(p_values) == pytest.approx(np.arange(1, 21) / 20)


def test_pairs_that_share_networks_reject_no_more_than_the_level(rng, monkeypatch):
    """Networks differ in quality, as fronts and as ends, so that pairs depend on each other; the
    test of 300 true null hypotheses rejects about 5 % of them, one that permutes pairs many more."""
    in_group = np.arange(8) < 4
    p_values, of_pairs = [], []
    for _ in range(300):
        quality = rng.normal(size=(8, 1)) + 2 * rng.normal(size=(1, 8))
        values = quality + 0.3 * rng.normal(size=(8, 8))
        p_values.append(permutation_test(values, in_group, side=END).p_value)
        within = [values[i, j] for i, j in itertools.permutations(range(4), 2)]
        across = values[:4, 4:].ravel()
        of_pairs.append(naive_p(within, across, rng))
    assert 0.015 < np.mean(np.array(p_values) <= 0.05) < 0.09
    assert np.mean(np.array(of_pairs) <= 0.05) > 0.3


def naive_p(within, across, rng) -> float:
    """The p-value of a permutation of pairs."""
    pairs = np.concatenate([within, across])
    observed = abs(np.mean(within) - np.mean(across))
    drawn = rng.permuted(np.tile(pairs, (199, 1)), axis=1)
    differences = drawn[:, : len(within)].mean(1) - drawn[:, len(within) :].mean(1)
    return float((1 + (np.abs(differences) >= observed).sum()) / 200)


def test_of_many_networks_random_labelings_are_drawn(rng, monkeypatch):
    monkeypatch.setattr(permutations, "MAX_EXACT", 1000)
    values = rng.normal(size=(16, 16))
    in_group = np.arange(16) < 8
    test = permutation_test(values, in_group, side=END)
    assert (test.n_labelings, test.is_exact, test.lowest_p) == (1000, False, 0.001)
    assert test.p_value >= test.lowest_p
    values[:8, :8] += 9
    assert permutation_test(values, in_group, side=END).p_value == 0.001
    monkeypatch.setattr(permutations, "MAX_EXACT", 20_000)
    exact = permutation_test(values - 9 * np.outer(in_group, in_group), in_group, side=END)
    assert exact.is_exact and exact.p_value == pytest.approx(test.p_value, abs=0.06)
