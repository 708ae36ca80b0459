"""The device of a run."""

import torch

from src.core.errors import UserError
from src.core.memory import keep_freed_memory


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
        gpus = f"GPUs 0 to {n_gpus - 1}" if n_gpus else "no GPU"
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
