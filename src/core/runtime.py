"""Seeds, device, precision and memory of a run."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from src.core.errors import UserError

MEMINFO = Path("/proc/meminfo")  # where Linux shows its memory


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor instead of returning it to the system.

    For tensors of more than 32 MiB glibc would map and clear fresh pages each time. On a CPU,
    keeping them halves the time of batches with such activations. Without glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-3, 2**31 - 1)  # M_MMAP_THRESHOLD: larger blocks are mapped separately
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: more free memory than this is returned


def free_memory(device: torch.device | str = "cpu") -> int:
    """Return the free memory of a GPU, or of the machine, in bytes.

    Pages of files that the system can drop count as free. macOS does not report free memory; half
    of all memory is assumed.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") // 2 * os.sysconf("SC_PAGE_SIZE")
    kilobytes = dict(line.split()[:2] for line in lines)
    return 1024 * int(kilobytes["MemAvailable:"])


def device_of(gpu: int) -> torch.device:
    """Return the device of a `-gpu` number (-1: the CPU), after setting it up for this process.

    A GPU becomes the default of all threads; threads that pin memory would otherwise open a context
    on GPU 0. For the CPU, `keep_freed_memory` is called.

    Raises:
        UserError: there is no such GPU. The run does not fall back to the CPU.
    """
    if gpu == -1:
        keep_freed_memory()
        return torch.device("cpu")
    n_gpus = 0
    if torch.cuda.is_available():
        n_gpus = torch.cuda.device_count()
    if not 0 <= gpu < n_gpus:
        gpus = "no GPU"
        if n_gpus:
            gpus = f"GPUs 0 to {n_gpus - 1}"
        raise UserError(
            f"-gpu {gpu}: this machine has {gpus}; choose one that exists, or -gpu -1 for the CPU"
        )
    device = torch.device("cuda", gpu)
    torch.cuda.set_device(device)
    return device


def as_inputs(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Move values to the device of a tensor, and cast floats to its type; integers keep theirs."""
    if values.is_floating_point():
        return values.to(like)
    return values.to(like.device)


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


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators while the block runs, and restore the CPU's at its end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def generator(*key: int) -> torch.Generator:
    """Return a generator on the CPU, seeded by a key such as (seed, epoch)."""
    return torch.Generator().manual_seed(seed_of(*key))


def seed_of(*key: int) -> int:
    """Derive a seed in [0, 2⁶³) from a key of integers, such as (seed, epoch)."""
    # The length is a part of the key, as numpy drops zeros at the end
    sequence = np.random.SeedSequence((len(key), *key))
    state = sequence.generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
