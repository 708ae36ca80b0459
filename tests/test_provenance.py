"""`run.json`: the command as it can be given again, and the times of the run, not of the
process."""

import shlex
from datetime import datetime
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


def test_each_run_of_a_process_has_times_of_its_own(in_tmp_path):
    """Without `--mod-only-stitch`, pairs train one after the other."""
    start = datetime.now()
    networks = ["-", "-", MODEL, MODEL]
    options = ["rc2c_pre", *ON_DIGITS, "-e", "1", "-dir", "s"]
    run("exec_stitch.py", *networks, "layer1.0,layer2.0", "layer2.0", *options)
    run(
        "exec_compute_low_rank_sim_metrics.py",
        *networks,
        "layer1.0",
        "layer2.0",
        *FEW,
        "-o",
        "similarity.csv",
    )
    run("exec_eval_stitcher_ood.py", "results/s", *ON_DIGITS, "--detector", "mahalanobis")
    stitches = sorted(Path("results/s").glob("2*/*/run.json"))
    files = [
        *stitches,
        Path("similarity.run.json"),
        Path("results/s/ood_evaluation_mahalanobis.run.json"),
    ]
    times = [
        [datetime.fromisoformat(read_json(path)[name]) for name in ("start", "end")]
        for path in files
    ]
    assert len(times) == 4 and [start, *sum(times, [])] == sorted([start, *sum(times, [])])
