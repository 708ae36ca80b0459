"""misc/benchmark.py on tiny networks: every race runs, differing numbers end it; slow."""

import pytest

from misc import benchmark
from tests.commands import run

TINY = ["--network", "small_cnn", "--images", "20"]


@pytest.mark.slow
def test_both_ways_agree(in_tmp_path):
    head, *races = run("misc/benchmark.py", *TINY).out.splitlines()
    assert head.split() == ["small_cnn,", "20", "images", "one", "by", "one", "here"]
    assert [race[:30].rstrip() for race in races] == ["direct matching", "CKA"]
    assert all(race.endswith("x") for race in races)


@pytest.mark.slow
def test_different_numbers_are_an_error(in_tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "cka", lambda *case: 0.5)
    with pytest.raises(ValueError, match="CKA of .*: 0.5 one by one"):
        benchmark.run_races("small_cnn", 20)
