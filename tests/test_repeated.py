"""Every script, given back the options that it wrote down, leaves the same bytes once more."""

import shutil
from pathlib import Path

import pytest

from src.results import figures
from tests.commands import MODEL, ON_DIGITS, PAIR, run
from tests.conftest import few_images
from tests.run_content import content

COMMANDS = {  # script: (arguments, where its options are written down)
    "exec_train.py": ([MODEL, *ON_DIGITS, "-e", "1", "-rlre", "1", "--grad-clip", "1", "-dir", "m"], "m/config.txt"),
    "exec_stitch.py": (
        [*PAIR, "layer3.0", "layer4.1", "rc2c_pre", *ON_DIGITS, "-e", "1", "-b", "512", "-i", "pinv", "-l1", "1e-4"],
        "results/*/config.txt",
    ),
    "exec_train_representation_classifier.py": (
        ["g.pt", MODEL, "layer4.0", "-m", "repr_cls_resnet18", *ON_DIGITS, "-b", "512", "-e", "1", "-fe", "1",
         "-ftidd", "digits", "-ftoodd", "photo_patches", "-dir", "d", "-fdir", "store"],
        "d/config.txt",
    ),
    "exec_probe.py": (
        ["f.pt", MODEL, "-l", "layer3.0", "layer4.1", *ON_DIGITS, "-e", "1", "-ranks", "4", "1", "-o", "p.csv"],
        "p.config.txt",
    ),
    "exec_compute_low_rank_sim_metrics.py": (
        [*PAIR, "layer3.0", "layer4.1", *ON_DIGITS, "-m1r", "8", "2", "-n", "100", "-o", "s.csv"],
        "s.config.txt",
    ),
    "misc/imagenet_train_main.py": (
        ["-a", "small_cnn", "--dummy", "--dummy-size", "20", "--epochs", "1", "-b", "10", "--gpu", "-1", "-dir", "m"],
        "m/config.txt",
    ),
}  # fmt: skip


def repeat(script: str, arguments: list[str], pattern: str, first: Path, second: Path) -> None:
    """Run a script, then once more by the options that it wrote."""
    with few_images(), figures.left_out(True):
        printed = run(script, *arguments, cwd=first).out
        (config,) = first.glob(pattern)
        shutil.copy(config, second.parent / "options.json")
        again = run(script, "--config", "../options.json", cwd=second).out
    ours, theirs = content(first), content(second)
    assert ours.keys() == theirs.keys() and len(ours) >= 1
    assert [name for name in ours if ours[name] != theirs[name]] == []
    if script != "exec_probe.py":  # which prints its command line
        assert printed == again


LONG = ("exec_train.py", "exec_train_representation_classifier.py", "misc/imagenet_train_main.py")


@pytest.mark.parametrize(
    "script", [pytest.param(script, marks=pytest.mark.slow) if script in LONG else script for script in COMMANDS]
)
def test_a_run_is_repeated_by_its_config(script, network_folder):
    repeat(script, *COMMANDS[script], network_folder("first"), network_folder("second"))


@pytest.mark.slow
def test_an_evaluation_is_repeated_by_its_config(network_folder):
    first = network_folder("first")
    arguments, _ = COMMANDS["exec_train_representation_classifier.py"]
    run("exec_train_representation_classifier.py", *arguments, "-e", "0", cwd=first)
    stitch = [*PAIR, "layer3.0,layer4.1", "layer4.0", "rc2c_pre", *ON_DIGITS, "-e", "0", "-i", "pinv", "-dir", "dm"]
    run("exec_stitch.py", *stitch, cwd=first)
    second = shutil.copytree(first, first.parent / "second", symlinks=True)
    evaluation = ["results/dm", *ON_DIGITS, "-detectors", "store", "-scd", "photo_patches"]
    options = "results/dm/ood_evaluation.config.txt"
    repeat("exec_eval_stitcher_ood.py", evaluation, options, first, second)
