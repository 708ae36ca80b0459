"""What all benchmarks share: two networks, timing, agreement, and hooks that capture or replace outputs of modules."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's, as torch.set_num_threads(1) says to torch

import torch
from torch import Tensor, nn

from src.checkpoints import freeze
from src.models import Network, build_model

SHAPE = (3, 32, 32)


def resnets(images: Tensor) -> list[Network]:
    """Make two resnet18, in evaluation mode and without gradients, whose BatchNorm statistics fit the images."""
    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        networks.append(build_model("resnet18"))
        with torch.no_grad():
            networks[-1](images)
        networks[-1].eval().requires_grad_(False)
    return networks


def frozen(network: nn.Module) -> nn.Module:
    """Return a network as the scripts of this suite use it on the CPU."""
    return freeze(network, "cpu")


def timed(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> tuple[float, object]:
    """Return the seconds that a call takes, and its result.

    Args:
        clock: `time.process_time` counts the time of this process alone, which other jobs do not change.
    """
    start = clock()
    value = run()
    return clock() - start, value


def check(what: str, difference: float, tolerance: float) -> None:
    """End the benchmark if the two ways do not agree."""
    if not difference <= tolerance:
        sys.exit(f"the two ways disagree: {what} differ by {difference}")


@contextlib.contextmanager
def captured(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Collect copies of the outputs of `modules` by name while the block runs.

    If a module is called several times, its last output is kept. A copy is not changed by later in-place operations,
    such as ReLU or a residual addition.
    """
    outputs: dict[str, Tensor] = {}

    def keep_as(name: str):
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            outputs[name] = output.clone()

        return hook

    with contextlib.ExitStack() as hooks:
        for name, module in modules.items():
            hooks.callback(module.register_forward_hook(keep_as(name)).remove)
        yield outputs


@contextlib.contextmanager
def replaced(module: nn.Module, output: Tensor) -> Iterator[None]:
    """Replace the output of `module` by a copy of `output` while the block runs.

    If the module is called several times, each output of this shape is replaced.

    Raises:
        ValueError: no output had this shape.
    """
    shapes = []

    def swap(module: nn.Module, inputs: tuple, own: Tensor) -> Tensor:
        shapes.append(tuple(own.shape))
        return output.clone() if own.shape == output.shape else own

    hook = module.register_forward_hook(swap)
    try:
        yield
    finally:
        hook.remove()
    if tuple(output.shape) not in shapes:
        raise ValueError(f"an activation of shape {tuple(output.shape)} cannot stand for one of {shapes}")
