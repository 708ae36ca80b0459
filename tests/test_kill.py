"""Scripts killed at random moments and started again end with the bytes of a run that was never
killed."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import MODEL, ON_DIGITS, PAIR, ROOT, run, start
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


def begin(command: list[str], folder: Path) -> subprocess.Popen:
    """Start a command that goes on where it was; stdout has all that it prints."""
    return start(*command, "--resume", cwd=folder, stderr=subprocess.STDOUT)


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


@pytest.mark.slow
def test_two_processes_that_train_together(tmp_path):
    """Killed in the second epoch, then told to end in the third; the next run finishes the work."""
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    script = [
        ROOT / "misc" / "imagenet_train_main.py",
        "--resume",
        "-a",
        "small_cnn",
        "--gpu",
        "-1",
    ]
    options = ["--dummy", "--dummy-size", "200", "--epochs", "3", "-b", "25"]

    def begin(folder: str) -> subprocess.Popen:
        (tmp_path / folder).mkdir(exist_ok=True)
        command = [sys.executable, *launch, *script, *options]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=tmp_path / folder, stdout=pipe, text=True)

    def finish(folder: str) -> None:
        process = begin(folder)
        process.communicate(timeout=300)
        assert process.returncode == 0

    finish("whole")
    for signum, said in ((signal.SIGKILL, "Epoch #1 val"), (signal.SIGTERM, "Epoch #2 val")):
        process = begin("killed")
        assert any(said in line for line in process.stdout), "it ended before"
        children = subprocess.check_output(["pgrep", "-P", str(process.pid)], text=True).split()
        for pid in (process.pid, *map(int, children)):  # torchrun's processes have own sessions
            os.kill(pid, signum)
        process.communicate(timeout=300)
        assert process.returncode != 0
    finish("killed")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
