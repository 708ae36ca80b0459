"""Ranks above what activations have are stored as the rank that was used, and untrained probes are no results."""

from pathlib import Path

import pytest

from src.training.probes import used_rank
from tests.commands import ON_DIGITS, error_line, read_csv, run, says, stitch_rows
from tests.conftest import few_images


@pytest.fixture(autouse=True)
def few():
    with few_images(64, n_test=40):
        yield


@pytest.mark.parametrize(
    ("rank", "n_features", "n_samples", "expected"),
    [(None, 8, 99, None), (4, 8, 99, 4), (100, 8, 99, 8), (100, 64, 32, 31), (1, 8, 1, 1)],
)
def test_a_rank_is_at_most_the_features_and_one_less_than_the_samples(
    rank, n_features, n_samples, expected
):
    assert used_rank(rank, n_features, n_samples) == expected


def test_probes(in_tmp_path):
    """fc has vectors of 10 values; a batch of 8 has 7 components."""
    probe = ["exec_probe.py", "-", "small_cnn", "-l", "fc", *ON_DIGITS, "-e", 1]
    said = run(*probe, "-ranks", 2, 50, 100, 0, "-o", "p.csv", "-b", 8).err
    assert says(said, "-ranks 50", "rank 7")
    ranks = [row["rank"] for row in read_csv("p.csv")]
    assert sorted(ranks) == ["", "2", "7"]


def test_similarity_and_stitches(in_tmp_path):
    names = ["-", "-", "small_cnn", "small_cnn", "fc", "fc"]
    measure = ["exec_compute_low_rank_sim_metrics.py", *names, *ON_DIGITS, "-n", 40]
    said = run(*measure, "-m1r", 100, 10, 2, "-o", "s.csv").err
    assert "above the number of channels" in said
    assert {row["rank1"] for row in read_csv("s.csv")} == {"10", "2"}
    layers = ["pool1", "pool1", "rc2c_pre", *ON_DIGITS, "-e", 0, "-i", "pinv"]
    ranks = ["--front-stitch-rank", 999, "--front-pinv-rank", 999, "-dir", "high"]
    run("exec_stitch.py", *names[:4], *layers, *ranks)
    (row,) = stitch_rows(Path("results/high"))
    assert row["front_stitch_rank"] == row["front_pinv_rank"] != "999"


def test_untrained_probes_are_printed_and_not_stored(in_tmp_path):
    probe = ["exec_probe.py", "-", "small_cnn", "-l", "pool4", *ON_DIGITS, "-e", 0]
    printed = run(*probe)
    assert "Rank None: 0." in printed.out and "not trained" in printed.err
    assert says(error_line(*probe, "-o", "q.csv"), "-e 0 trains no probe", "leave out -o")
