"""misc/benchmark.py on tiny networks: every comparison runs, and both ways give the same numbers;
slow."""

import pytest

from misc.benchmark import RACES
from tests.commands import run


@pytest.mark.slow
@pytest.mark.parametrize("name", RACES)
def test_both_ways_agree(name, in_tmp_path):
    tiny = ["--network", "small_cnn", "--images", "20"]
    title, race = run("misc/benchmark.py", name, *tiny).out.splitlines()
    assert (
        title.startswith("small_cnn, 20 images")
        and race.startswith(RACES[name][0])
        and race.endswith("x")
    )
