"""The bootstrap over networks: what is drawn, seeds, limits, and how often intervals cover."""

import math

import numpy as np
import pytest

from src.ground_truth import (
    group_score_intervals,
    group_scores,
    layer_score_intervals,
    layer_scores,
    output_correlation,
    output_correlation_interval,
    resamples,
)

GROUPS = np.repeat([2, 0, 1], 5)


def similarities(seed: int, distance: float, dimension: int = 8) -> np.ndarray:
    """Networks are points, whose groups are so far apart."""
    points = np.random.default_rng(seed).normal(size=(15, dimension))
    points[:, 0] += distance * GROUPS
    return -np.linalg.norm(points[:, None] - points[None], axis=2)


def test_networks_are_drawn_within_their_groups_with_replacement():
    groups = np.array([0, 1, 0, 1, 0])
    drawn = np.array(list(resamples(groups, n_resamples=6000, seed=1)))
    assert drawn.shape == (6000, 5) and (groups[drawn] == groups).all()
    for place, own in enumerate(groups):
        members = np.flatnonzero(groups == own)
        shares = [(drawn[:, place] == member).mean() for member in members]
        error = (1 / len(members) * (1 - 1 / len(members)) / 6000) ** 0.5
        assert np.abs(np.array(shares) - 1 / len(members)).max() < 3 * error
    same = (drawn[:, 0] == drawn[:, 2]).mean()  # places are drawn independently
    assert abs(same - 1 / 3) < 3 * (2 / 9 / 6000) ** 0.5
    assert not np.array_equal(drawn, list(resamples(groups, n_resamples=6000, seed=2)))
    assert np.array_equal(drawn[:50], list(resamples(groups, n_resamples=50, seed=1)))


def test_intervals_depend_on_the_seed_alone():
    matrix, other = similarities(0, 1), similarities(1, 1)
    for interval in (
        lambda seed: group_score_intervals(matrix, GROUPS, n_resamples=60, seed=seed),
        lambda seed: (output_correlation_interval(matrix, other, n_resamples=60, seed=seed),),
        lambda seed: layer_score_intervals([matrix, other, -matrix], n_resamples=60, seed=seed),
    ):
        assert interval(0) == interval(0) != interval(1)
        assert all(one.low < one.high for one in interval(0))


def test_intervals_are_percentiles_of_resampled_scores():
    matrix, other = similarities(0, 1), similarities(1, 1)
    draws = list(resamples(GROUPS, n_resamples=80, seed=3))
    chosen = [(np.ix_(drawn, drawn), drawn) for drawn in draws]
    scores = np.array([group_scores(matrix[pairs], GROUPS, networks=drawn) for pairs, drawn in chosen])
    expected = np.nanquantile(scores, [0.025, 0.975], axis=0).T
    assert np.allclose(group_score_intervals(matrix, GROUPS, n_resamples=80, seed=3), expected)
    values = [output_correlation(matrix[pairs], other[pairs], networks=drawn) for pairs, drawn in chosen]
    found = output_correlation_interval(matrix, other, groups=GROUPS, n_resamples=80, seed=3)
    assert np.allclose(found, np.quantile(values, [0.025, 0.975]))


def test_the_truth_has_no_width():
    same = (GROUPS[:, None] == GROUPS).astype(float)
    assert group_score_intervals(same, GROUPS, n_resamples=200) == ((1, 1), (1, 1))
    difference = -similarities(0, 0)
    assert output_correlation_interval(-difference, difference, n_resamples=50) == pytest.approx((-1, -1))
    nearness = -np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    assert layer_score_intervals([nearness] * 3, n_resamples=50) == (pytest.approx((1, 1)),) * 2


def test_resamples_without_a_score_are_left_out():
    """Two groups of two: a group is drawn as one network twice in half of the resamples."""
    matrix, groups = similarities(0, 1)[3:7, 3:7], [0, 0, 1, 1]
    scores = group_scores(matrix, groups)
    assert group_score_intervals(matrix, groups, n_resamples=50) == tuple((score, score) for score in scores)
    spoilt = matrix * math.nan
    assert all(math.isnan(end) for one in group_score_intervals(spoilt, groups, n_resamples=5) for end in one)


def test_the_mean_of_layer_scores_is_resampled_over_networks():
    nearness = -np.abs(np.subtract.outer(np.arange(4), np.arange(4))).astype(float)
    networks = [nearness] * 6 + [-nearness] * 2  # conformity 1 and 0: a share of 6 in 8
    assert [layer_scores(one).conformity for one in networks] == [1] * 6 + [0] * 2
    conformity, spearman = layer_score_intervals(networks, n_resamples=4000)
    assert conformity == (3 / 8, 1) and spearman == pytest.approx((-1 / 4, 1))  # quantiles of a binomial of 8


@pytest.mark.parametrize("distance", [0, 2])
def test_intervals_cover_what_other_networks_would_score(distance):
    expected = np.mean([group_scores(similarities(seed, distance), GROUPS) for seed in range(1000, 1600)], axis=0)
    hits = np.zeros(2)
    for seed in range(60):
        intervals = group_score_intervals(similarities(seed, distance), GROUPS, n_resamples=100, seed=seed)
        hits += [low <= score <= high for score, (low, high) in zip(expected, intervals, strict=True)]
    assert (hits >= 0.85 * 60).all()
