"""The scripts on images that are decoded from disk."""

import os
import signal
import time

import pytest

from tests.commands import read_csv, run, start
from tests.tiny_datasets import write_imagenet


@pytest.fixture
def options(tmp_path):
    write_imagenet(tmp_path / "imagenet")
    data = ["-d", "imagenet", "-data", tmp_path / "imagenet", "-workers", "2", "-prefetch", "2"]
    return [*data, "-gpu", "-1", "-b", "4"]


def test_training_evaluation_and_stitching(options, in_tmp_path):
    run("exec_train.py", "small_cnn", *options, "-e", "1", "-dir", "m")
    model = "m/model_1.pt"
    accuracy = run("exec_eval.py", model, "small_cnn", *options).out.split()[-1]
    assert accuracy == f"{float(read_csv('m/training_logs.csv')[-1]['val_acc']):.2%}"
    pair = [model, model, "small_cnn", "small_cnn", "pool3", "pool3", "rc2c_pre"]
    matched = ["-e", "1", "-i", "pinv", "-pinv-samples", "6", "--mod-only-stitch"]
    run("exec_stitch.py", *pair, *options, *matched)
    assert len(list((in_tmp_path / "results").iterdir())) == 1


def test_an_interruption_is_answered_by_the_main_process_alone(options, tmp_path):
    """Ctrl-C, `timeout`, containers and Slurm signal all processes: workers leave it to the main one, and end."""
    arguments = ["small_cnn", *options, "-e", "100000", "-dir", "m"]
    process = start("exec_train.py", *arguments, cwd=tmp_path, start_new_session=True)
    for _ in range(4):  # the workers of both sets are there
        process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 128 + signal.SIGINT
    _, line = err.splitlines()  # behind the warning of few classes
    assert "interrupted by SIGINT" in line
    with pytest.raises(ProcessLookupError):  # the workers have ended, too, and are collected by init
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
