"""The device of a run, and the memory of this machine and of its GPUs."""

import contextlib
import ctypes
import os
from pathlib import Path

import torch

from src.core.errors import UserError

MEMINFO = Path("/proc/meminfo")  # where Linux shows its memory


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


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor instead of returning it to the system.

    For tensors of more than 32 MiB glibc would map and clear fresh pages each time. On a CPU,
    keeping them halves the time of batches with such activations. Without glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-3, 2**31 - 1)  # M_MMAP_THRESHOLD: larger blocks are mapped separately
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: more free memory than this is returned
