"""The memory of this machine and of its GPUs."""

import contextlib
import ctypes
import os
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")  # where Linux shows its memory


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
