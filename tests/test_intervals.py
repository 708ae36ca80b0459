"""Intervals: scipy and scikit-learn as oracles, and coverage on simulated predictions."""

import numpy as np
import pytest
from scipy import stats

from src.results.rows import Interval
from src.verdict.intervals import (
    are_independent,
    over_images,
    over_runs,
    percentile_interval,
    resample_counts,
    resampled_means,
    wider,
)


def test_counts_are_resamples_of_all_images():
    counts = resample_counts(30, n_resamples=500)
    assert counts.shape == (500, 30) and (counts.sum(1) == 30).all()
    assert np.array_equal(counts, resample_counts(30, n_resamples=500))
    assert not np.array_equal(counts, resample_counts(30, n_resamples=500, seed=1))
    assert counts.mean(0) == pytest.approx(np.ones(30), abs=0.25)
    assert counts.var() == pytest.approx(29 / 30, rel=0.05)  # binomial


def test_means_are_those_of_the_drawn_images():
    values = np.random.default_rng(0).integers(2, size=(3, 30))
    counts = resample_counts(30, n_resamples=50)
    means = resampled_means(values, counts)
    for resample in range(50):
        drawn = np.repeat(np.arange(30), counts[resample].astype(int))
        assert means[:, resample] == pytest.approx(values[:, drawn].mean(1))


def test_the_bootstrap_equals_scipys():
    """Two bootstraps draw differently: both ends agree within the error of 20,000 resamples."""
    rng = np.random.default_rng(0)
    correct, end_correct = rng.random(200) < 0.7, rng.random(200) < 0.9
    difference = end_correct.astype(float) - correct
    found = over_images(difference, resample_counts(200, n_resamples=20_000))
    oracle = stats.bootstrap(
        (difference,), np.mean, n_resamples=20_000, method="percentile", confidence_level=0.95, rng=rng
    ).confidence_interval
    assert found == pytest.approx((oracle.low, oracle.high), abs=0.006)


def test_differences_are_paired():
    """A stitch that errs wherever the end network does, and on five images more."""
    end = np.arange(200) < 150
    stitched = np.arange(200) < 145
    counts = resample_counts(200)
    paired = percentile_interval(resampled_means(end, counts) - resampled_means(stitched, counts))
    assert paired == pytest.approx(over_images(end.astype(int) - stitched, counts))
    assert 0 < paired.low < 0.025 < paired.high and paired.width < over_images(end, counts).width / 2


def test_runs_equal_scipys_t_interval():
    values = [0.5, 0.6, 0.55, 0.7]
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert over_runs(values) == pytest.approx(expected)
    result = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert over_runs(values) == pytest.approx((result.low, result.high))
    assert over_runs([0.5, 0.5, 0.5]) == (0.5, 0.5)
    assert over_runs([0.5, 0.6]) is None


def test_the_wider_interval():
    narrow, wide = Interval(0.1, 0.2), Interval(0.0, 0.15)
    assert wider(narrow, wide) == wider(wide, narrow) == wide
    assert wider(narrow, None) == wider(None, narrow) == narrow
    assert wider(None, None) is None


def test_pairs_that_share_a_network_are_not_independent():
    assert are_independent([("a", "b"), ("c", "d"), ("e", "e")])
    assert not are_independent([("a", "b"), ("b", "c")])
    assert not are_independent([("a", "b"), ("a", "b")])


@pytest.mark.slow
def test_the_bootstrap_covers_the_truth():
    """2,000 simulated test sets of 400 images: the paired interval of a penalty of 0.08 holds it in 93 to 97 %."""
    rng, counts, held = np.random.default_rng(0), resample_counts(400), 0
    for _ in range(2000):
        end = rng.random(400) < 0.9
        stitched = np.where(rng.random(400) < 0.85, end & (rng.random(400) < 0.95), rng.random(400) < 0.7)
        interval = over_images(end.astype(int) - stitched, counts)
        # P(end) = 0.9; P(stitched) = 0.85 · 0.9 · 0.95 + 0.15 · 0.7
        held += interval.low <= 0.9 - (0.85 * 0.9 * 0.95 + 0.15 * 0.7) <= interval.high
    assert 0.93 <= held / 2000 <= 0.97


@pytest.mark.slow
def test_students_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    intervals = [over_runs(rng.normal(0.1, 0.03, size=4)) for _ in range(2000)]
    assert 0.93 <= np.mean([interval.low <= 0.1 <= interval.high for interval in intervals]) <= 0.97
