"""Scripts, given back the options that they wrote down, leave the same bytes; of training:
test_cli_train.py."""

import shutil

import pytest

from src.figures import pages
from tests.commands import MODEL, ON_DIGITS, PAIR, run
from tests.conftest import few_images
from tests.run_content import content

COMMANDS = {  # script: (arguments, where its options are written down)
    "exec_stitch.py": (
        [*PAIR, "layer3.0", "layer4.1", "rc2c_pre", *ON_DIGITS, "-e", "1", "-b", "512", "-i", "pinv", "-l1", "1e-4"],
        "results/*/config.txt",
    ),
    "exec_probe.py": (
        ["f.pt", MODEL, "-l", "layer3.0", "layer4.1", *ON_DIGITS, "-e", "1", "-ranks", "4", "1", "-o", "p.csv"],
        "p.config.txt",
    ),
    "exec_compute_low_rank_sim_metrics.py": (
        [*PAIR, "layer3.0", "layer4.1", *ON_DIGITS, "-m1r", "8", "2", "-n", "100", "-o", "s.csv"],
        "s.config.txt",
    ),
}  # fmt: skip


@pytest.mark.parametrize("script", COMMANDS)
def test_a_run_is_repeated_by_its_config(script, network_folder):
    first, second = network_folder("first"), network_folder("second")
    arguments, pattern = COMMANDS[script]
    with few_images(), pages.left_out(True):
        printed = run(script, *arguments, cwd=first).out
        (config,) = first.glob(pattern)
        shutil.copy(config, second.parent / "options.json")
        again = run(script, "--config", "../options.json", cwd=second).out
    assert content(first) == content(second)
    assert printed == again or script == "exec_probe.py"  # which prints its command line
