"""misc/benchmark.py on tiny networks: every race runs, differing numbers end it; slow."""

import pytest

from tests.commands import run

TINY = ["--network", "small_cnn", "--images", "20"]


@pytest.mark.slow
def test_both_ways_agree(in_tmp_path):
    head, *races = run("misc/benchmark.py", *TINY).out.splitlines()
    assert head.split() == ["small_cnn,", "20", "images", "one", "by", "one", "here"]
    assert [race[:30].rstrip() for race in races] == ["direct matching", "CKA"]
    assert all(race.endswith("x") for race in races)
