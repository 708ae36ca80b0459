"""`--amp` and `--tf32`: how exactly networks compute, on the CPU here and on a GPU where there is
one."""

import torch
from torch import nn

from src.ground.runtime import full_precision, precision
from src.ood import energy
from src.training import Classification, Settings, classification_losses, train
from tests.tiny_datasets import few_grey_images


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


def test_weights_follow_training_under_bf16():
    """A cast of the weights that were kept from step to step would never learn."""
    images = few_grey_images(20, 2, n_classes=2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with precision(gpu=-1, amp="bf16", tf32=False):
        *_, (history, _) = train(
            Classification(model), images, images, Settings(20, 20, learning_rate=0.1)
        )
    losses = [logs["the network"].train.loss for logs in history]
    assert losses[-1] < losses[0] - 0.01 and model[1].weight.dtype == torch.float32
