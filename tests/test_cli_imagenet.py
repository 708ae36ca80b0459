"""The scripts on images that are decoded from disk."""

import os
import signal
import time

import pytest

from tests.commands import read_csv, run, start
from tests.tiny_datasets import write_imagenet


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    write_imagenet(root)
    return root


def options(root, *, name="imagenet", n_workers=2):
    return ["-d", name, "-data", root, "-gpu", "-1", "-b", "4", "-workers", n_workers, "-prefetch", "2"]


def test_training_evaluation_and_stitching(root, in_tmp_path):
    for name, n_workers in (("imagenet", 2), ("imagenet_mem", 0)):
        given = options(root, name=name, n_workers=n_workers)
        run("exec_train.py", "small_cnn", *given, "-e", "1", "-dir", name)
    ours, same = ((in_tmp_path / name / "model_1.pt").read_bytes() for name in ("imagenet", "imagenet_mem"))
    assert ours == same  # wherever the files lie and whoever decodes them
    model = "imagenet/model_1.pt"
    accuracy = run("exec_eval.py", model, "small_cnn", *options(root)).out.split()[-1]
    assert accuracy == f"{float(read_csv('imagenet/training_logs.csv')[-1]['val_acc']):.2%}"
    pair = [model, model, "small_cnn", "small_cnn", "pool3", "pool3", "rc2c_pre"]
    matched = ["-e", "1", "-i", "pinv", "-pinv-samples", "6", "--mod-only-stitch"]
    run("exec_stitch.py", *pair, *options(root), *matched)
    assert len(list((in_tmp_path / "results").iterdir())) == 1


@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interruption_is_answered_by_the_main_process_alone(signum, root, tmp_path):
    """Ctrl-C, `timeout`, containers and Slurm signal all processes: workers leave it to the main one, and end."""
    arguments = ["small_cnn", *options(root), "-e", "100000", "-dir", "m"]
    process = start("exec_train.py", *arguments, cwd=tmp_path, start_new_session=True)
    for _ in range(4):  # the workers of both sets are there
        process.stdout.readline()
    os.killpg(process.pid, signum)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 128 + signum
    _, line = err.splitlines()  # behind the warning of few classes
    assert f"interrupted by {signum.name}" in line
    with pytest.raises(ProcessLookupError):  # the workers have ended, too, and are collected by init
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
