"""`run.json`: the command as it can be given again, and the times of the run, not of the
process."""

import shlex
from pathlib import Path

import pytest

from tests.commands import MODEL, ON_DIGITS, ROOT, read_json, run
from tests.conftest import few_images

FEW = [*ON_DIGITS, "-n", "40", "--metrics", "cka"]


@pytest.fixture(autouse=True)
def few():
    with few_images(64, n_test=64):
        yield


def test_a_command_can_be_given_again_as_it_is_recorded(in_tmp_path):
    arguments = ["-", "-", MODEL, MODEL, "layer1.0", "layer2.0", *FEW, "-o", "of two networks.csv"]
    run("exec_compute_low_rank_sim_metrics.py", *arguments)
    script, *words = shlex.split(read_json("of two networks.run.json")["command"])
    assert (script, words) == (str(ROOT / "exec_compute_low_rank_sim_metrics.py"), arguments)
    written = Path("of two networks.csv").read_bytes()
    Path("of two networks.csv").unlink()
    run(str(Path(script).relative_to(ROOT)), *words)
    assert Path("of two networks.csv").read_bytes() == written
