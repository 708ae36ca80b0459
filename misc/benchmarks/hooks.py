"""Look into a module while it runs, through forward hooks that never outlive their `with` block."""

import contextlib
from collections.abc import Iterator, Mapping

from torch import Tensor, nn


@contextlib.contextmanager
def captured(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of `modules` while the block runs, under the names given here.

    Of a module that is called several times, the last output is kept. Outputs are copied, so that operations
    which work in place behind the module (ReLU, the residual addition) do not change what was captured.
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
    """Let `module` put out `output` (a copy of it) while the block runs, whatever it computes.

    A module that is called several times does so in the calls whose own output has that shape.

    Raises:
        ValueError: there was no such call.
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
