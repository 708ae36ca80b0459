"""Capture or replace the outputs of modules, by forward hooks that are removed at the end of a `with` block."""

import contextlib
from collections.abc import Iterator, Mapping

from torch import Tensor, nn


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
