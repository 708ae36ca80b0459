"""Runs the scripts that read images from files, without the calls that Linux alone has and with a
chosen start method.

cd EMPTY_FOLDER; PYTHONPATH=CHECKOUT python -m tests.on_another_system spawn
"""

import multiprocessing
import os
import sys
from pathlib import Path

from PIL import Image

from tests.commands import run
from tests.tiny_datasets import random_images

OF_LINUX = ("sched_getaffinity", "sched_setaffinity", "pipe2", "fdatasync", "getrandom", "memfd_create", "eventfd",
            "pidfd_open", "posix_fadvise", "posix_fallocate", "copy_file_range", "splice", "getxattr")  # fmt: skip
DATA = ["-d", "own", "-gpu", "-1", "-b", "8"]  # one batch, and so one worker
MODEL = ["m/model_1.pt", "small_cnn"]


def leave_linux() -> None:
    """Take away what Linux alone has, for the Python code of this process."""

    def refuse(event, arguments):
        if event == "ctypes.dlopen" and str(arguments[0]).startswith("libc.so"):
            raise OSError(f"{arguments[0]}: cannot open shared object file")
        if event == "open" and str(arguments[0]).startswith("/proc/"):
            raise FileNotFoundError(2, "No such file or directory", arguments[0])

    for name in OF_LINUX:
        if hasattr(os, name):
            delattr(os, name)
    sys.addaudithook(refuse)


def write_images(folder: Path) -> None:
    """Write images of two classes, too large to be kept in memory."""
    for split in ("train", "val"):
        for number, pixels in enumerate(random_images(8, 66, 66)):
            path = folder / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (folder / "dataset.yaml").write_text("size: 66\nchannels: 1\n")


def main(method: str) -> None:
    multiprocessing.set_start_method(method, force=True)
    leave_linux()
    write_images(Path("own"))
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


if __name__ == "__main__":
    main(*sys.argv[1:])
