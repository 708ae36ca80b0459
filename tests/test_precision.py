"""`--amp` and `--tf32`: how exactly networks compute, on the CPU here and on a GPU where there is one."""

import csv
import json

import pytest
import torch

from src.ood.losses import energy
from src.runtime import precision
from src.training import classification_losses

NETWORK = "resnet18_samewidth"


def test_bf16_holds_inside_of_the_block_alone():
    weights = torch.randn(8, 8)
    with precision(gpu=-1, amp="bf16", tf32=False):
        assert (weights @ weights).dtype == torch.bfloat16
        assert (weights.double() @ weights.double()).dtype == torch.float64
    assert (weights @ weights).dtype == torch.float32


def test_tf32_is_torchs_default_unless_asked_for():
    before = torch.get_float32_matmul_precision()
    with precision(gpu=-1, amp="none", tf32=False):
        assert torch.get_float32_matmul_precision() == before
    with precision(gpu=-1, amp="none", tf32=True):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_what_is_measured_is_summed_in_single_precision():
    logits = torch.randn(1, 300, 10, dtype=torch.bfloat16)
    group = classification_losses([0], logits, torch.zeros(300, dtype=torch.long))
    exact = classification_losses([0], logits.float(), torch.zeros(300, dtype=torch.long))
    assert torch.equal(group.losses, exact.losses)
    assert torch.equal(energy(logits[0]), energy(logits[0].float()))


def test_weights_follow_training_under_bf16(run_here, tmp_path):
    """A cast of the weights that were kept from step to step would never learn."""
    options = ["-d", "digits", "-gpu", "-1", "--amp", "bf16"]
    run_here("exec_train.py", NETWORK, *options, "-e", "2", "-dir", "m")
    rows = list(csv.DictReader(open(tmp_path / "m" / "training_logs.csv")))
    assert float(rows[1]["train_acc"]) > float(rows[0]["train_acc"]) > 0.2
    state = torch.load(tmp_path / "m" / "model_2.pt")
    assert all(value.dtype in (torch.float32, torch.int64) for value in state.values())


def test_stitches_under_bf16_are_near_those_in_single_precision(run_here, tmp_path, digit_networks):
    networks = [*map(str, digit_networks), NETWORK, NETWORK, "layer2.0", "layer2.1", "rc2c_pre"]
    options = ["-d", "digits", "-gpu", "-1", "-e", "0", "-i", "pinv", "--mod-only-stitch"]
    found = {}
    for amp in ("none", "bf16"):
        run_here("exec_stitch.py", *networks, *options, "--amp", amp, "-dir", amp)
        (path,) = (tmp_path / "results" / amp).glob("*/metrics.json")
        found[amp] = json.loads(path.read_text())
    exact, near = found["none"], found["bf16"]
    assert near["representation_difference"] != exact["representation_difference"]
    assert near["representation_difference"] == pytest.approx(exact["representation_difference"], rel=0.05)
    assert near["accuracy"] == pytest.approx(exact["accuracy"], abs=0.05)
