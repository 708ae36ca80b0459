"""The precision of networks and of sums."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def precision(*, gpu: int, amp: str) -> Iterator[None]:
    """Choose the precision of networks while the block runs; float32 never becomes TF32.

    Args:
        gpu: number of the GPU that the networks run on; -1: the CPU.
        amp: `bf16`: convolutions and matrix products use bfloat16 (autocast), but measures still
            sum in float32 and float64. `none`: everything uses float32.
    """
    device_type = "cpu" if gpu == -1 else "cuda"
    # Casts of weights are not cached, as training changes the weights within the block
    autocast = torch.autocast(
        device_type, dtype=torch.bfloat16, enabled=amp != "none", cache_enabled=False
    )
    with _full_products(), autocast:
        yield


@contextlib.contextmanager
def full_precision(device: torch.device | str) -> Iterator[None]:
    """Use full float32 for products and convolutions while the block runs.

    This overrules an outer `precision`.
    """
    autocast = torch.autocast(torch.device(device).type, enabled=False)
    with _full_products(), autocast:
        yield


@contextlib.contextmanager
def _full_products() -> Iterator[None]:
    """Let torch compute float32 matrix products and convolutions without TF32 while the block runs."""
    precision_before = torch.get_float32_matmul_precision()
    tf32_before = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision_before)
        torch.backends.cudnn.allow_tf32 = tf32_before
