"""Contexts that restore the buffers and attributes of a module, and torch's random generators."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def repeatable(module: nn.Module, images: Tensor, *, seed: int = 0) -> Iterator[None]:
    """Run the block with a fixed seed; afterwards restore random generators and buffers.

    Args:
        module: has the buffers, such as BatchNorm statistics.
        images: lie on the device of the module.
    """
    devices = []
    generator = torch.default_generator
    if images.is_cuda:
        devices = [images.device]
        generator = torch.cuda.default_generators[images.device.index]
    with torch.random.fork_rng(devices), buffers_restored(module):
        generator.manual_seed(seed)
        yield


@contextlib.contextmanager
def buffers_restored(module: nn.Module) -> Iterator[None]:
    """Restore the buffers of a module, such as BatchNorm statistics, after the block."""
    copies = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, copy in copies:
            buffer.data.copy_(copy)


@contextlib.contextmanager
def attributes_restored(module: nn.Module) -> Iterator[None]:
    """Restore the values that the block assigns to attributes, parameters and buffers of a
    module's parts."""
    with contextlib.ExitStack() as restored:
        for part in module.modules():
            for attributes in (vars(part), part._parameters, part._buffers):
                restored.callback(attributes.update, dict(attributes))
                restored.callback(attributes.clear)
        yield
