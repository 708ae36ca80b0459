"""Scripts killed at random moments and started again end with the bytes of a run that was never
killed."""

import multiprocessing
import random
import time
from pathlib import Path

import pytest

from tests.commands import MODEL, ON_DIGITS, PAIR, run
from tests.run_content import content

TRAIN = ["exec_train.py", MODEL, *ON_DIGITS, "-b", "128", "-e", "2", "-sf", "1", "-dir", "m"]
DETECTOR = ["exec_train_representation_classifier.py", "f.pt", MODEL, "layer4.0", "-m", "repr_cls_resnet18", *ON_DIGITS,
            "-b", "256", "-e", "1", "-fe", "2", "-ftidd", "digits", "-ftoodd", "photo_patches", "-dir", "m",
            "-fdir", "store"]  # fmt: skip
TLM = ["exec_stitch.py", *PAIR, "layer3.0,layer4.0", "layer4.0,layer4.1", "rc2c_pre", *ON_DIGITS,
       "-e", "2", "-b", "256", "--mod-only-stitch", "-dir", "grid"]  # fmt: skip
WHOLE = ["exec_stitch.py", *PAIR, "layer3.0,layer4.0", "layer4.0", "rc2c_pre", *ON_DIGITS,
         "-e", "2", "-b", "256", "-dir", "grid"]  # fmt: skip
DM = ["exec_stitch.py", *PAIR, "layer3.0,layer4.0", "all", "rc2c_pre", *ON_DIGITS,
      "-e", "0", "-i", "pinv", "-dir", "grid"]  # fmt: skip


@pytest.fixture(scope="module")
def processes():
    """Start processes that have imported torch already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torchvision", "scipy.stats", "matplotlib"])
    return context


def kill_often(processes, command: list[str], folder: Path, within: float) -> int:
    """Start a command six times and kill it within so many seconds, later each time; returns how
    many kills met a running one."""
    moments, met = random.Random(len(command)), 0
    for share in (0.1, 0.2, 0.4, 0.6, 0.8, 1):
        process = processes.Process(target=run, args=(*command, "--resume"), kwargs={"cwd": folder})
        process.start()
        process.join(timeout=moments.uniform(0.5, 1) * share * within)
        met += process.is_alive()
        process.kill()
        process.join()
    return met


@pytest.fixture
def compare(network_folder):
    """Kills a command, lets it finish, and compares what it left with what it leaves
    undisturbed."""

    def check(command: list[str], kill) -> None:
        """`kill` takes the folder to work in, and the seconds that the whole run takes."""
        whole, killed = network_folder("whole"), network_folder("killed")
        began = time.monotonic()
        run(*command, cwd=whole)
        kill(killed, time.monotonic() - began)
        run(*command, "--resume", cwd=killed)
        expected, left = content(whole), content(killed)
        assert expected.keys() == left.keys()
        assert [name for name in expected if expected[name] != left[name]] == []
        assert "finished" in run(*command, "--resume", cwd=killed).err and content(killed) == left

    return check


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [TRAIN, DETECTOR, TLM, WHOLE, DM], ids=["train", "detector", "tlm", "whole", "dm"]
)
def test_many_kills(command, compare, processes):
    met = []

    def kill(path, seconds):
        met.append(kill_often(processes, command, path, within=1 + seconds * 0.5))

    compare(command, kill)
    assert met[0] >= 2
