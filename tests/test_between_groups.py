"""Tests between groups of networks: by hand, against other implementations, under the null
hypothesis, and whatever the order of the networks."""

import numpy as np
import pytest
from scipy.stats import ttest_ind

from src.statistics import permutation_tests
from src.statistics.permutation_tests import END, FRONT, permutation_test

IN_GROUP = np.array([True, True, False])


def test_three_networks_by_hand():
    """Of networks a, b | c there are three labelings. A second group of one network shows no spread,
    so that the largest difference in terms of the spread of the group is that of the observed one."""
    values = np.array([[np.nan, 10.0, 2.0], [12.0, np.nan, 2.0], [8.0, 3.0, np.nan]])
    test = permutation_test(values, IN_GROUP, side=END)
    assert (test.mean_within, test.mean_across, test.difference) == (11, 2, 9)
    assert (test.n_labelings, test.is_exact) == (3, True)
    assert test.p_value == test.lowest_p == pytest.approx(1 / 3)
    test = permutation_test(values, IN_GROUP, side=FRONT)  # c -> a and c -> b
    assert (test.mean_within, test.mean_across) == (11, 5.5)


def test_effects_are_those_of_least_squares(rng):
    """Of a layout of two ways without a diagonal; their difference is that of the means of pairs."""
    values = rng.normal(size=(6, 6))
    for n_in_group in (2, 3, 5):
        labelings = permutation_tests.all_labelings(6, n_in_group)
        found = permutation_tests.effects(values, labelings)
        for effects, in_group in zip(found, labelings, strict=True):
            pairs = [(i, j) for i in np.flatnonzero(in_group) for j in range(6) if i != j]
            design = np.array([[*np.eye(6)[i], *np.eye(6)[j]] for i, j in pairs])
            solution = np.linalg.lstsq(design, [values[pair] for pair in pairs], rcond=None)[0]
            fitted = solution[6:] + solution[:6][in_group].mean()
            np.testing.assert_allclose(effects, fitted, atol=1e-12)
            test = permutation_test(values, in_group, side=END)
            difference = effects[in_group].mean() - effects[~in_group].mean()
            assert difference == pytest.approx(test.difference)


def test_welch_p_values_are_those_of_scipy(rng):
    samples = rng.normal(size=(20, 9)) * np.arange(1, 10)
    labelings = permutation_tests.all_labelings(9, 3)[:20]
    found = permutation_tests.welch_p(samples, labelings)
    for p_value, sample, in_group in zip(found, samples, labelings, strict=True):
        expected = ttest_ind(sample[in_group], sample[~in_group], equal_var=False).pvalue
        assert p_value == pytest.approx(expected)
    equal = np.array([[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    halves = np.array([[True, True, False, False]] * 2)
    assert permutation_tests.welch_p(equal, halves).tolist() == [0, 1]


def test_networks_without_spread_differ_or_do_not():
    """0.1 + 0.2 and 0.3 are equal up to rounding."""
    in_group = np.arange(6) < 3
    values = np.where(in_group, 0.1 + 0.2, 0.3) * np.ones((6, 1))
    assert permutation_test(values, in_group, side=END).p_value == 1
    values = np.where(in_group, 0.4, 0.3) * np.ones((6, 1))
    assert permutation_test(values, in_group, side=END).p_value == 2 / 20  # and the mirrored labels


@pytest.mark.parametrize("n", [2, 3, 5])
def test_groups_that_separate_perfectly_have_the_smallest_p_of_two_labelings(n):
    """Shares of 1 within and 0 across have no spread, whatever the labels of two groups."""
    in_group = np.arange(2 * n) < n
    values = np.equal.outer(in_group, in_group).astype(float)
    found = permutation_test(values, in_group, side=END)
    assert found.difference == 1 and found.p_value == pytest.approx(2 * found.lowest_p)


def test_the_other_side_of_a_pair_has_no_influence(rng):
    """Networks that are better as fronts do not change a test of ends."""
    values, in_group = rng.normal(size=(7, 7)), np.arange(7) < 3
    test = permutation_test(values, in_group, side=END)
    as_fronts = 5 * rng.normal(size=(7, 1)) + 20 * in_group[:, None]
    other = permutation_test(values + as_fronts, in_group, side=END)
    assert (other.p_value, other.difference) == pytest.approx((test.p_value, test.difference))


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
        for labeling in permutation_tests.all_labelings(6, 3)
    ]
    assert sorted(p_values) == pytest.approx(np.arange(1, 21) / 20)


def test_pairs_that_share_networks_reject_no_more_than_the_level(rng):
    """Networks differ in quality, as fronts and as ends, so that pairs depend on each other; the
    test of 300 true null hypotheses rejects about 5 % of them."""
    in_group = np.arange(8) < 4
    p_values = []
    for _ in range(300):
        quality = rng.normal(size=(8, 1)) + 2 * rng.normal(size=(1, 8))
        values = quality + 0.3 * rng.normal(size=(8, 8))
        p_values.append(permutation_test(values, in_group, side=END).p_value)
    assert 0.015 < np.mean(np.array(p_values) <= 0.05) < 0.09


@pytest.mark.parametrize("n_in_group,n_second", [(2, 8), (9, 3)])
def test_groups_of_different_sizes_and_spreads(n_in_group, n_second, rng):
    """The networks of the smaller group vary three times as much, and means are equal. A test that
    permutes differences of means would reject three to five times as often as its level."""
    in_group = np.arange(n_in_group + n_second) < n_in_group
    is_smaller = in_group == (n_in_group < n_second)
    p_values = []
    for _ in range(400):
        as_front, as_end = rng.normal(size=(2, len(in_group))) * np.where(is_smaller, 3, 1)
        values = as_front[:, None] + as_end + 0.3 * rng.normal(size=2 * in_group.shape)
        p_values.append(permutation_test(values, in_group, side=END).p_value)
    assert np.mean(np.array(p_values) <= 0.05) < 0.14


def test_of_many_networks_random_labelings_are_drawn(rng, monkeypatch):
    monkeypatch.setattr(permutation_tests, "MAX_EXACT", 1000)
    values = rng.normal(size=(16, 16))
    in_group = np.arange(16) < 8
    test = permutation_test(values, in_group, side=END)
    assert (test.n_labelings, test.is_exact, test.lowest_p) == (1000, False, 0.001)
    assert test.p_value >= test.lowest_p
    values[:8, :8] += 9
    assert permutation_test(values, in_group, side=END).p_value == 0.001
    monkeypatch.setattr(permutation_tests, "MAX_EXACT", 20_000)
    exact = permutation_test(values - 9 * np.outer(in_group, in_group), in_group, side=END)
    assert exact.is_exact and exact.p_value == pytest.approx(test.p_value, abs=0.06)
