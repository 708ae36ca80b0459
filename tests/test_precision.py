"""`--amp` and `--tf32`: how exactly networks compute, on the CPU here and on a GPU where there is
one."""

import torch

from src.ground.runtime import full_precision, precision
from src.ood import energy
from src.training import classification_losses


def test_tf32_is_off_unless_asked_for():
    def allowed():
        return torch.get_float32_matmul_precision() != "highest", torch.backends.cudnn.allow_tf32

    before = allowed()
    with precision(gpu=-1, amp="none", tf32=False):
        assert allowed() == (False, False)
    with precision(gpu=-1, amp="none", tf32=True):
        assert allowed() == (True, True)
        with full_precision("cpu"):
            assert allowed() == (False, False)
    assert allowed() == before


def test_what_is_measured_is_summed_in_single_precision():
    logits = torch.randn(1, 300, 10, dtype=torch.bfloat16)
    group = classification_losses(logits, torch.zeros(300, dtype=torch.long))
    exact = classification_losses(logits.float(), torch.zeros(300, dtype=torch.long))
    assert torch.equal(group.losses, exact.losses)
    assert torch.equal(energy(logits[0]), energy(logits[0].float()))
