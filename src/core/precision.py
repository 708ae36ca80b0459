"""The precision of networks and of sums."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch


def precision(*, gpu: int, amp: str) -> AbstractContextManager[None]:
    """Choose the precision of networks while the block runs; float32 never becomes TF32.

    Args:
        gpu: number of the GPU that the networks run on; -1: the CPU.
        amp: `bf16`: convolutions and matrix products use bfloat16 (autocast), but measures still
            sum in float32 and float64. `none`: everything uses float32.
    """
    device_type = "cpu" if gpu == -1 else "cuda"
    return _precision(device_type, uses_bfloat16=amp != "none")


def full_precision(device: torch.device | str) -> AbstractContextManager[None]:
    """Use full float32 for products and convolutions while the block runs.

    This overrules an outer `precision`.
    """
    return _precision(torch.device(device).type, uses_bfloat16=False)


@contextlib.contextmanager
def _precision(device_type: str, *, uses_bfloat16: bool) -> Iterator[None]:
    """Use autocast or not while the block runs, and float32 matrix products and convolutions without TF32."""
    precision_before = torch.get_float32_matmul_precision()
    tf32_before = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        # Casts of weights are not cached, as training changes the weights within the block
        with torch.autocast(device_type, torch.bfloat16, uses_bfloat16, cache_enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision_before)
        torch.backends.cudnn.allow_tf32 = tf32_before
