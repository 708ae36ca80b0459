"""Seeds, device, precision, memory and provenance of a run."""

import contextlib
import ctypes
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Hashable, Iterator
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src import __version__
from src.errors import UserError

MEMORY_SHARE = 0.8  # of the free memory of a GPU that stitches may take
ROWS_OF_CPU = 256  # more at once overrun the caches


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor instead of returning it to the system.

    For tensors of more than 32 MiB glibc would map and clear fresh pages each time. On a CPU,
    keeping them halves the time of batches with such activations. Without glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-3, 2**31 - 1)  # M_MMAP_THRESHOLD: larger blocks are mapped separately
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: more free memory than this is returned


def free_memory() -> int:
    """Return the bytes of memory that are free; half of all memory where the system does not tell
    (macOS)."""
    pages_of = {
        name: os.sysconf(name)
        for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES")
        if name in os.sysconf_names
    }
    n_pages = pages_of.get("SC_AVPHYS_PAGES", pages_of["SC_PHYS_PAGES"] // 2)
    return n_pages * os.sysconf("SC_PAGE_SIZE")


def device_of(gpu: int) -> torch.device:
    """Return the device of a `-gpu` number, and get this process ready for it: -1 is the CPU.

    Every thread then computes on this GPU, and those that pin memory make no context on another
    one. On a CPU freed memory is kept.

    Raises:
        UserError: there is no such GPU; the run does not fall back to the CPU.
    """
    if gpu == -1:
        keep_freed_memory()
        return torch.device("cpu")
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not 0 <= gpu < n_gpus:
        gpus = f"GPUs 0 to {n_gpus - 1}" if n_gpus else "no GPU"
        raise UserError(
            f"-gpu {gpu}: this machine has {gpus}; choose one that exists, or -gpu -1 for the CPU"
        )
    device = torch.device("cuda", gpu)
    torch.cuda.set_device(device)
    return device


@contextlib.contextmanager
def precision(*, gpu: int, amp: str, tf32: bool) -> Iterator[None]:
    """Choose the precision of networks while the block runs.

    Args:
        amp: `bf16`: convolutions and matrix products use bfloat16 (autocast), measures still sum in float32 and
            float64. `none`: everything uses float32.
        tf32: let float32 matrix products and convolutions use TF32 on GPUs that have it; otherwise none does.
    """
    # Casts of weights are not cached, as training changes the weights within the block
    how = {"dtype": torch.bfloat16, "enabled": amp != "none", "cache_enabled": False}
    with (
        _products("high" if tf32 else "highest"),
        torch.autocast("cpu" if gpu == -1 else "cuda", **how),
    ):
        yield


@contextlib.contextmanager
def full_precision(device: torch.device | str) -> Iterator[None]:
    """Use full float32 for products and convolutions while the block runs, whatever `precision` has
    chosen."""
    with _products("highest"), torch.autocast(torch.device(device).type, enabled=False):
        yield


@contextlib.contextmanager
def _products(precision: str) -> Iterator[None]:
    """Set torch's precision of float32 matrix products and convolutions while the block runs."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


class Fitting:
    """Tells how many rows of some kind of work fit into the memory of a device at once.

    On a GPU that follows from what rows of the kind took before and from the memory that is free;
    it is a power of two, so that rounding does not change with every byte. On a CPU it is always
    `ROWS_OF_CPU`."""

    def __init__(self, device: torch.device):
        self.device = device
        self._bytes: dict[Hashable, float] = {}  # that a row took

    def rows(self, kind: Hashable) -> int:
        """Return the number of rows; 1 until some of the kind were measured."""
        if self.device.type == "cpu":
            return ROWS_OF_CPU
        if kind not in self._bytes:
            return 1
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        free = torch.cuda.mem_get_info(self.device)[0] + cached
        return 2 ** (max(1, int(MEMORY_SHARE * free / self._bytes[kind])).bit_length() - 1)

    @contextlib.contextmanager
    def measured(self, kind: Hashable, n_rows: int) -> Iterator[None]:
        """Take the peak of memory while the block runs as what so many rows of the kind take."""
        if self.device.type == "cpu":
            yield
            return
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        yield
        self._bytes[kind] = max(1, torch.cuda.max_memory_allocated(self.device) - before) / n_rows


def at_least_single(values: torch.Tensor) -> torch.Tensor:
    """Cast values of less than float32 precision to float32, so that sums and norms are exact
    enough."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators while the block runs; afterwards that of the CPU is as
    before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def generator(*key: int) -> torch.Generator:
    """Make the generator of a key, such as (seed, epoch); its numbers depend on the key alone."""
    return torch.Generator().manual_seed(seed_of(*key))


def seed_of(*key: int) -> int:
    """Derive a seed from a key; keys of different lengths have different seeds."""
    state = np.random.SeedSequence((len(key), *key)).generate_state(
        1, np.uint64
    )  # numpy drops zeros at the end
    return int(state[0] >> np.uint64(1))


def provenance(*, gpu: int, start: datetime) -> dict[str, Any]:
    """Record command line, versions, git commit (None outside of a repository), device and times of
    a run.

    On a GPU also the versions of CUDA, cuDNN and the driver, and whether TF32 was allowed.

    Args:
        start: of the run, which ends now.
    """
    device = {"device": "CPU"} if gpu == -1 else _gpu_provenance(gpu)
    times = {"start": start.isoformat(), "end": datetime.now().isoformat()}
    versions = {
        "suite": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **_packages(),
    }
    return {"command": shlex.join(sys.argv), **versions, **device, **times}


def _gpu_provenance(gpu: int) -> dict[str, Any]:
    driver = Path("/proc/driver/nvidia/version")
    number = re.search(r"Kernel Module\D*([\d.]+)", driver.read_text()) if driver.exists() else None
    return {
        "device": torch.cuda.get_device_name(gpu),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": number and number[1],
        "tf32": torch.backends.cudnn.allow_tf32,
    }


@cache  # a grid writes many run folders
def _packages() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "torchvision", "numpy", "scipy")}


@cache
def _commit() -> str | None:
    root = Path(__file__).parents[1]
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
