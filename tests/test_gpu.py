"""Every script gives on a GPU what it gives on the CPU.

Where there is no GPU these tests are skipped; `TEST_GPU=-1 pytest tests/test_gpu.py` compares the CPU with itself, to
try the tests themselves.
"""

import os
import re

import numpy as np
import pytest
import torch

from tests.commands import MODEL, PAIR, read_csv, read_metrics, run_process

GPU = os.environ.get("TEST_GPU", "0")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available() and GPU != "-1", reason="no GPU")

DIGITS = ["-d", "digits"]
DEVICES = {"cpu": "-1", "gpu": GPU}
CLASSIFIER = ["-m", "repr_cls_resnet18", *DIGITS, "-ftidd", "digits", "-ftoodd", "photo_patches", "-b", "256"]


@pytest.fixture
def both(network_folder):
    """Runs a script on both devices, in a folder for each; returns what it printed and the folders."""
    folders = {device: network_folder(device) for device in DEVICES}

    def run(script: str, *arguments: str):
        printed = [run_process(script, *arguments, "-gpu", DEVICES[name], cwd=folders[name]).out for name in DEVICES]
        return printed, list(folders.values())

    return run


def table(path) -> list[list[float]]:
    """The numbers of a CSV."""
    number = re.compile(r"-?[\d.]+(e-?\d+)?")
    return [[float(value) for value in row.values() if number.fullmatch(value)] for row in read_csv(path)]


def the_only(folder, pattern: str):
    (path,) = folder.glob(pattern)
    return path


def test_training(both):
    _, folders = both("exec_train.py", MODEL, *DIGITS, "-e", "1", "-lr", "1e-4", "-dir", "m")
    cpu, gpu = (np.array(table(folder / "m" / "training_logs.csv")) for folder in folders)
    np.testing.assert_allclose(gpu, cpu, rtol=0.05, atol=0.02)


def test_evaluation(both):
    (cpu, gpu), _ = both("exec_eval.py", "f.pt", MODEL, *DIGITS)
    accuracies = [float(text.split()[-1].rstrip("%")) for text in (cpu, gpu)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.6)


@pytest.mark.parametrize("rank", [[], ["--front-stitch-rank", "4"]], ids=["full", "rank 4"])
def test_direct_matching(both, rank):
    networks = [*PAIR, "layer3.0", "layer2.1", "rc2c_pre"]
    _, folders = both("exec_stitch.py", *networks, *DIGITS, "-e", "0", "-i", "pinv", "--mod-only-stitch", *rank)
    cpu, gpu = (read_metrics(the_only(folder, "results/2*")) for folder in folders)
    for name in ("matching_error", "representation_difference"):
        assert gpu[name] == pytest.approx(cpu[name], rel=1e-3), name
    for name in ("accuracy", "front_accuracy", "end_accuracy"):
        assert gpu[name] == pytest.approx(cpu[name], abs=0.01), name
    states = [torch.load(the_only(folder, "results/*/final_model.pt")) for folder in folders]
    torch.testing.assert_close(*states, rtol=1e-2, atol=1e-2)


def test_task_loss_matching_of_a_grid(both):
    networks = [*PAIR, "layer2.0,layer3.0", "layer2.1,layer4.1", "rc2c_pre"]
    _, folders = both("exec_stitch.py", *networks, *DIGITS, "-e", "1", "-lr", "1e-4", "--mod-only-stitch", "-dir", "g")
    cpu, gpu = (table(folder / "results" / "g" / "grid.csv") for folder in folders)
    np.testing.assert_allclose(np.array(gpu), np.array(cpu), rtol=0.05, atol=0.03)


def test_detectors_and_their_evaluation(both):
    options = [*CLASSIFIER, "-e", "0", "-fe", "1", "-lr", "1e-4", "-dir", "d", "-fdir", "store"]
    _, folders = both("exec_train_representation_classifier.py", "g.pt", MODEL, "layer4.0", *options)
    cpu, gpu = (np.array(table(folder / "d" / "ft_logs.csv")) for folder in folders)
    np.testing.assert_allclose(gpu, cpu, rtol=0.1, atol=0.05)
    networks = [*PAIR, "layer3.0", "layer4.0", "rc2c_pre"]
    both("exec_stitch.py", *networks, *DIGITS, "-e", "0", "-i", "pinv", "--mod-only-stitch", "-dir", "dm")
    both("exec_eval_stitcher_ood.py", "results/dm", *DIGITS, "-detectors", "store", "-scd", "photo_patches")
    cpu, gpu = (np.load(folder / "results" / "dm" / "energies" / "layer4.0" / "layer3.0.npy") for folder in folders)
    np.testing.assert_allclose(gpu.mean(), cpu.mean(), rtol=0.1, atol=0.1)


def test_probes(both):
    arguments = ["f.pt", MODEL, "-l", "layer2.0", "layer4.1", *DIGITS, "-e", "2", "-ranks", "16", "2", "-o", "p.csv"]
    _, folders = both("exec_probe.py", *arguments)
    cpu, gpu = (np.array(table(folder / "p.csv")) for folder in folders)
    np.testing.assert_allclose(gpu, cpu, rtol=0.02, atol=0.02)


def test_similarity(both):
    arguments = [*PAIR, "layer3.0", "layer3.1", *DIGITS, "-m1r", "32", "4", "-o", "s.csv"]
    _, folders = both("exec_compute_low_rank_sim_metrics.py", *arguments, "-n", "300")
    cpu, gpu = (np.array(table(folder / "s.csv")) for folder in folders)
    np.testing.assert_allclose(gpu, cpu, rtol=1e-3, atol=1e-3)


def test_training_on_imagenet(both):
    options = ["--dummy", "--dummy-size", "50", "--epochs", "1", "-b", "25", "--learning-rate", "1e-3", "-dir", "m"]
    _, folders = both("misc/imagenet_train_main.py", "-a", "small_cnn", *options)
    cpu, gpu = (np.array(table(folder / "m" / "training_logs.csv")) for folder in folders)
    np.testing.assert_allclose(gpu, cpu, rtol=0.01, atol=0.02)
