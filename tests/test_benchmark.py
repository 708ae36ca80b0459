"""misc/benchmark.py on tiny networks: every race runs, differing numbers end it, and all scripts start;
slow."""

import pytest

from misc import benchmark
from tests.commands import ROOT, run

TINY = ["--network", "small_cnn", "--images", "20"]


@pytest.mark.slow
def test_both_ways_agree(in_tmp_path):
    lines = run("misc/benchmark.py", *TINY).out.splitlines()
    head, *races = lines[: lines.index("")]
    assert head.split() == ["small_cnn,", "20", "images", "one", "by", "one", "here"]
    titles = [race[:30].rstrip() for race in races]
    assert titles == ["direct matching", "OOD evaluation", "CKA"]
    assert all(race.endswith("x") for race in races)
    starts = lines[lines.index("") + 2 :]
    assert {f"{start.split()[0]}.py" for start in starts} == {
        path.name for path in ROOT.glob("exec_*.py")
    }
    assert all(start.endswith(" s") for start in starts)


@pytest.mark.slow
def test_different_numbers_are_an_error(in_tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "cka", lambda case, pair: 0.5)
    with pytest.raises(ValueError, match="CKA of .*: 0.5 one by one"):
        benchmark.run_races("small_cnn", 20)
