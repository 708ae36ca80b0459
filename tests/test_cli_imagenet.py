"""The scripts on images that are decoded from disk."""

import os
import signal
import subprocess
import sys

import pytest

import exec_eval
import exec_stitch
import exec_train
from tests.conftest import ROOT
from tests.test_cli_errors import fails
from tests.tiny_datasets import write_imagenet


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    write_imagenet(root)
    return root


def options(root, *, name="imagenet", n_workers=2):
    return ["-d", name, "-data", str(root), "-gpu", "-1", "-b", "4", "-workers", str(n_workers), "-prefetch", "2"]


def test_training_evaluation_and_stitching(root, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, n_workers in (("imagenet", 2), ("imagenet_mem", 0)):
        arguments = ["small_cnn", *options(root, name=name, n_workers=n_workers), "-e", "1"]
        assert exec_train.main([*arguments, "-dir", name]) == 0
    ours, same = ((tmp_path / name / "model_1.pt").read_bytes() for name in ("imagenet", "imagenet_mem"))
    assert ours == same  # wherever the files lie and whoever decodes them
    model = "imagenet/model_1.pt"
    capsys.readouterr()
    assert exec_eval.main([model, "small_cnn", *options(root)]) == 0
    accuracy = capsys.readouterr().out.split()[-1]
    log = (tmp_path / "imagenet" / "training_logs.csv").read_text().splitlines()[-1]
    assert accuracy == f"{float(log.split(',')[2]):.2%}"
    arguments = [model, model, "small_cnn", "small_cnn", "pool3", "pool3", "rc2c_pre", *options(root)]
    assert exec_stitch.main([*arguments, "-e", "1", "-i", "pinv", "-pinv-samples", "6", "--mod-only-stitch"]) == 0
    assert len(list((tmp_path / "results").iterdir())) == 1


def test_wrong_folders(root, capsys, tmp_path):
    line = fails(exec_eval.main, [tmp_path / "x.pt", "small_cnn", *options(tmp_path)], capsys)
    assert "cannot read checkpoint" in line
    line = fails(exec_train.main, ["small_cnn", *options(tmp_path), "-dir", tmp_path / "m"], capsys)
    assert "training_data" in line and "validation_data" in line


def test_a_damaged_image_ends_a_run_with_one_line(run_script, tmp_path):
    write_imagenet(tmp_path)
    (tmp_path / "training_data" / "n01" / "train_1.JPEG").write_bytes(b"no image")
    line = run_script("exec_train.py", "small_cnn", *options(tmp_path), "-dir", "m", status=2)
    warning, line = line.splitlines()
    assert warning.startswith("warning: ") and line.startswith("exec_train.py: error: ")
    assert "n01/train_1.JPEG cannot be decoded (no image); restore or remove it" in line


@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interruption_is_answered_by_the_main_process_alone(signum, root, tmp_path):
    """Ctrl-C, `timeout`, containers and Slurm signal all processes: workers leave it to the main one, and end."""
    command = [sys.executable, ROOT / "exec_train.py", "small_cnn", *options(root), "-e", "100000", "-dir", "m"]
    process = subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True)  # fmt: skip
    for _ in range(4):  # the workers of both sets are there
        process.stdout.readline()
    os.killpg(process.pid, signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    lines = [line for line in err.splitlines() if not line.startswith("epoch ")]  # what is left of the run
    assert len(lines) == 2 and f"interrupted by {signum.name}" in lines[1], err  # behind the warning of few classes
    with pytest.raises(ProcessLookupError):  # the workers have ended, too
        os.killpg(process.pid, 0)
