"""Scripts that read images from files run on another system than Linux, whatever way Python starts
processes there."""

import ctypes
import multiprocessing
import os
from pathlib import Path

import pytest

from src.core import device
from tests.commands import names_in, run
from tests.tiny_datasets import write_folder

OF_LINUX = ("sched_getaffinity", "sched_setaffinity", "pipe2", "fdatasync", "getrandom", "memfd_create", "eventfd",
            "pidfd_open", "posix_fadvise", "posix_fallocate", "copy_file_range", "splice", "getxattr")  # fmt: skip
DATA = ["-d", "own", "-gpu", "-1", "-b", "8"]  # one batch, and so one worker
MODEL = ["m/model_1.pt", "small_cnn"]


@pytest.fixture
def without_linux(monkeypatch):
    """What Linux alone has is away, for the Python code of this process."""

    class Library(ctypes.CDLL):
        def __init__(self, name, *args, **kwargs):
            if str(name).startswith("libc.so"):
                raise OSError(f"{name}: cannot open shared object file")
            super().__init__(name, *args, **kwargs)

    for name in OF_LINUX:
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(ctypes, "CDLL", Library)
    monkeypatch.setattr(device, "MEMINFO", Path("/nowhere/meminfo"))


@pytest.fixture
def start_method(request):
    """The way of starting processes, for a test; then the usual one."""
    multiprocessing.set_start_method(request.param, force=True)
    yield
    multiprocessing.set_start_method(None, force=True)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("forkserver", "spawn")]


@pytest.mark.parametrize("start_method", ["fork", *SLOW], indirect=True)
def test_scripts_run_without_linux(start_method, without_linux, in_tmp_path):
    """On images that are too large to be kept in memory."""
    own = Path("own")
    write_folder(own, n=8, size=66, classes="ab", yaml="size: 66\nchannels: 1\n")
    run("exec_train.py", "small_cnn", *DATA, "-e", "1", "-dir", "m")
    run("exec_eval.py", *MODEL, *DATA)
    run("exec_stitch.py", MODEL[0], *MODEL, MODEL[1], "pool3", "pool3", "rc2c_pre", *DATA, "-e", "0", "-i", "pinv",
        "-pinv-samples", "8", "-dir", "stitch")  # fmt: skip
    run("exec_train.py", "small_cnn", *DATA, "-e", "0", "-s", "1", "-dir", "other")
    Path("networks.csv").write_text(
        f"name,path,type\na,{','.join(MODEL)}\nb,other/model_0.pt,{MODEL[1]}\n"
    )
    for shard in ("1/2", "2/2"):
        run("misc/all_pairs.py", "networks.csv", "pool3", "rc2c_pre", *DATA, "-dir", "all", "--methods", "none",
            "--metrics", "cka", "--no-figures", "--shard", shard)  # fmt: skip
    assert "model_1.pt" in names_in(Path("m"))
    assert len([*Path("results/stitch").glob("*/grid.csv")]) == 1
    assert Path("results/all/similarity/a-b.csv").exists()
