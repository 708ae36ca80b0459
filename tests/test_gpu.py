"""Every script gives on a GPU what it gives on the CPU, and no step waits for the GPU more often
than it has to; importing the suite changes nothing global.

Shown on a GPU that is pretended (see `pretended_gpu`), which refuses what CUDA refuses, and counts
waits and copies; and on a real one where there is one. `TEST_GPU=-1 pytest tests/test_gpu.py`
compares the CPU with itself, to try the tests themselves."""

import json
import os

import numpy as np
import pytest
import torch

from src.stitching.grid import SHARE_OF_FREE, SHARE_OF_GPU, Fitting
from tests.commands import run_module

REAL = os.environ.get("TEST_GPU", "0")
# How often the host may wait for the GPU in a training step, and for a batch that is evaluated.
STEP, BATCH = 1, 1
MORE = {
    "interventions": (2, 1),  # each moves what it drew for the batch
    "probes at ranks": (4, 4),  # each batch of the layer is decomposed
}


def fresh_process(folder, gpu: str) -> dict:
    """What a process of its own finds; see `fresh_process`."""
    run_module("fresh_process", "answers.json", gpu, cwd=folder)
    return json.loads((folder / "answers.json").read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return fresh_process(tmp_path_factory.mktemp("devices"), "pretended")


@pytest.fixture
def answers(found):
    if "differs" in found:
        pytest.skip(f"this torch does not take a pretended GPU: {found['differs']}")
    return found


def test_importing_changes_nothing_global(found):
    assert found["changed by imports"] == []


def compare(answers: dict, **tolerance: float) -> None:
    """Compare all numbers that commands wrote on both devices."""
    cpu, gpu = answers["cpu"], answers["gpu"]
    assert cpu.keys() == gpu.keys() and len(cpu) > 20
    for name, expected in cpu.items():
        np.testing.assert_allclose(gpu[name], expected, err_msg=name, **tolerance)


def test_tables_are_those_of_the_cpu(answers):
    compare(answers, rtol=1e-6, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available() and REAL != "-1", reason="no GPU")
def test_tables_of_a_real_gpu_are_near_those_of_the_cpu(tmp_path):
    compare(fresh_process(tmp_path, REAL), rtol=0.05, atol=0.05)


def test_images_have_the_fingerprint_that_they_have_on_the_cpu(answers):
    on_cpu, on_gpu = answers["images"]
    assert on_cpu == on_gpu and len(on_cpu) == 64


def test_a_step_waits_no_more_than_it_has_to(answers):
    for name, waits in answers["waits"].items():
        step, batch = MORE.get(name, (STEP, BATCH))
        assert waits.get("step", 0) <= step, (name, waits, answers["lines"][name])
        assert waits.get("batch", 0) <= batch, (name, waits, answers["lines"][name])


def test_a_run_records_the_gpu_and_its_software(answers):
    recorded = answers["run.json"]
    assert recorded["device"] == "pretended GPU" and "cuda" in recorded
    assert answers["chosen"]  # for all threads, such as those that pin memory


def test_as_many_stitches_run_at_once_as_fit_into_the_memory(monkeypatch):
    memory = {
        "memory_allocated": 1000,
        "memory_reserved": 3000,
        "max_memory_allocated": 1000 + 10 * 200,
    }
    for name, value in memory.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5000, 80000))
    fitting = Fitting(torch.device("cuda", 1))
    assert fitting.rows("train") == 1  # nothing is known yet
    with fitting.measured("train", 10):
        pass
    n = SHARE_OF_FREE * (5000 + 2000) / 200  # 28 rows of 200 bytes
    assert fitting.rows("train") == 16 <= n < 32 and fitting.rows("evaluate") == 1
    n = SHARE_OF_GPU * 80000 / 200  # whatever else is on a GPU that has enough
    for free in (30000, 79000):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 80000))
        assert fitting.rows("train") == 64 <= n < 128


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_a_device_without_cuda_takes_groups_of_one_size(device):
    fitting = Fitting(torch.device(device))
    with fitting.measured("train", 10):
        pass
    assert fitting.rows("train") == 256
