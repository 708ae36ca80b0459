"""`--amp` and `--tf32`: how exactly networks compute, on the CPU here and on a GPU where there is one."""

from itertools import pairwise

import pytest
import torch

from src.checkpoints import load_state
from src.ood import energy
from src.runtime import full_precision, precision
from src.training import classification_losses
from tests.commands import ON_DIGITS, read_csv, read_metrics, run
from tests.conftest import few_images


def test_bf16_holds_inside_of_the_block_alone():
    weights = torch.randn(8, 8)
    with precision(gpu=-1, amp="bf16", tf32=False):
        assert (weights @ weights).dtype == torch.bfloat16
        assert (weights.double() @ weights.double()).dtype == torch.float64
    assert (weights @ weights).dtype == torch.float32


def test_tf32_is_off_unless_asked_for():
    def allowed():
        return torch.get_float32_matmul_precision() != "highest", torch.backends.cudnn.allow_tf32

    with precision(gpu=-1, amp="none", tf32=False):
        assert allowed() == (False, False)
    with precision(gpu=-1, amp="none", tf32=True):
        assert allowed() == (True, True)
        with full_precision("cpu"):
            assert allowed() == (False, False)
    assert allowed() == (False, False)


def test_what_is_measured_is_summed_in_single_precision():
    logits = torch.randn(1, 300, 10, dtype=torch.bfloat16)
    group = classification_losses(logits, torch.zeros(300, dtype=torch.long))
    exact = classification_losses(logits.float(), torch.zeros(300, dtype=torch.long))
    assert torch.equal(group.losses, exact.losses)
    assert torch.equal(energy(logits[0]), energy(logits[0].float()))


def test_weights_follow_training_under_bf16(tmp_path):
    """A cast of the weights that were kept from step to step would never learn."""
    options = ["--amp", "bf16", "-e", "3", "-b", "16", "-lr", "1e-2", "-sf", "1", "-dir", tmp_path]
    with few_images(256):
        run("exec_train.py", "small_cnn", *ON_DIGITS, *options)
    states = [load_state(tmp_path / f"model_{epoch}.pt") for epoch in (1, 2, 3)]
    assert not any(torch.equal(before[name], after[name]) for before, after in pairwise(states) for name in before
                   if name.endswith("weight"))  # fmt: skip
    first, _, last = (float(row["train_loss"]) for row in read_csv(tmp_path / "training_logs.csv"))
    assert last < first - 0.05  # it would stay within 0.01
    assert all(value.dtype in (torch.float32, torch.int64) for value in states[-1].values())


def test_stitches_under_bf16_are_near_those_in_single_precision(stitch):
    options = [*ON_DIGITS, "-e", "0", "-i", "pinv", "--mod-only-stitch"]
    exact, near = (
        read_metrics(stitch("layer2.0", "layer2.1", *options, "--amp", amp).newest) for amp in ("none", "bf16")
    )
    assert near["representation_difference"] != exact["representation_difference"]
    assert near["representation_difference"] == pytest.approx(exact["representation_difference"], rel=0.05)
    assert near["accuracy"] == pytest.approx(exact["accuracy"], abs=0.05)
