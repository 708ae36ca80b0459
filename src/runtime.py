"""Seeds, device, precision and provenance of a run."""

import contextlib
import ctypes
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from src.errors import UserError

STARTED = datetime.now()  # this module is among the first that a script imports


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor instead of returning it to the system.

    For tensors of more than 32 MiB glibc would map and clear fresh pages each time. On a CPU, keeping them halves the
    time of batches with such activations. Without glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-3, 2**31 - 1)  # M_MMAP_THRESHOLD: larger blocks are mapped separately
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: more free memory than this is returned


def device_of(gpu: int) -> torch.device:
    """Return the device of a `-gpu` number: -1 is the CPU, which also calls `keep_freed_memory`.

    Raises:
        UserError: there is no such GPU; the run does not fall back to the CPU.
    """
    if gpu == -1:
        keep_freed_memory()
        return torch.device("cpu")
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not 0 <= gpu < n_gpus:
        gpus = f"GPUs 0 to {n_gpus - 1}" if n_gpus else "no GPU"
        raise UserError(f"-gpu {gpu}: this machine has {gpus}; choose one that exists, or -gpu -1 for the CPU")
    return torch.device("cuda", gpu)


@contextlib.contextmanager
def precision(*, gpu: int, amp: str, tf32: bool) -> Iterator[None]:
    """Choose the precision of networks while the block runs.

    Args:
        amp: `bf16`: convolutions and matrix products use bfloat16 (autocast), measures still sum in float32 and
            float64. `none`: everything uses float32.
        tf32: let float32 matrix products use TF32 on GPUs that have it; otherwise torch's default holds.
    """
    with contextlib.ExitStack() as chosen:
        if tf32:
            chosen.enter_context(_products("high"))
        if amp != "none":  # casts of weights are not cached, as training changes the weights within the block
            chosen.enter_context(torch.autocast(device_of(gpu).type, torch.bfloat16, cache_enabled=False))
        yield


@contextlib.contextmanager
def full_precision(device: torch.device | str) -> Iterator[None]:
    """Use full float32 for matrix products while the block runs, whatever `precision` has chosen."""
    with _products("highest"), torch.autocast(torch.device(device).type, enabled=False):
        yield


@contextlib.contextmanager
def _products(precision: str) -> Iterator[None]:
    """Set torch's precision of float32 matrix products while the block runs."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def at_least_single(values: torch.Tensor) -> torch.Tensor:
    """Cast values of less than float32 precision to float32, so that sums and norms are exact enough."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators while the block runs; afterwards that of the CPU is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def generator(*key: int) -> torch.Generator:
    """Make the generator of a key, such as (seed, epoch); its numbers depend on the key alone."""
    return torch.Generator().manual_seed(seed_of(*key))


def seed_of(*key: int) -> int:
    """Derive a seed from a key; keys of different lengths have different seeds."""
    state = np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)  # numpy drops zeros at the end
    return int(state[0] >> np.uint64(1))


def provenance(*, gpu: int) -> dict[str, str | None]:
    """Record command line, versions, device, git commit (None outside of a repository) and times of a run."""
    packages = {name: version(name) for name in ("torch", "torchvision", "numpy", "scipy")}
    device = "CPU" if gpu == -1 else torch.cuda.get_device_name(gpu)
    times = {"start": STARTED.isoformat(), "end": datetime.now().isoformat()}
    made_with = {"command": " ".join(sys.argv), "python": platform.python_version(), **packages, "device": device}
    return {**made_with, "commit": _commit(), **times}


@cache  # a grid writes many run folders
def _commit() -> str | None:
    root = Path(__file__).parents[1]
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
