"""The engine that works for every module: hooks that collect or replace the outputs of its modules while it runs."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from src.errors import UserError
from src.models.parts import OUTPUT
from src.models.tracing import buffers_kept, find_layers
from src.models.values import first_tensor, logits_of, with_first


class Hooked:
    """Runs a module up to the last layer that is asked for; `after` a layer, with the output of that replaced.

    A module that is called several times stands for its last call; how often it is called, a first pass tells.

    Args:
        images: (2, C, H, W), with which the module is asked what it calls and what depends on what.

    Attributes:
        layers: names in the order in which they are computed, with the position of their values.
        output_name: the name of the layer whose value is the output.
    """

    def __init__(self, module: nn.Module, images: Tensor):
        self.module, self.images = module, images
        self._calls: Counter[nn.Module] = Counter()
        values: dict[nn.Module, tuple[Tensor, int]] = {}

        def keep(each: nn.Module, inputs: tuple, output: Any) -> None:
            self._calls[each] += 1
            if (tensor := first_tensor(output)) is not None:
                values[each] = tensor, tensor._version  # held, so that no other tensor takes its address

        with steady(module, images), _hooked(module.modules(), keep), torch.no_grad():
            output = logits_of(module, module(images.clone()))
        positions: dict[tuple[int, int], int] = {}
        places = {each: positions.setdefault((id(tensor), version), len(positions))
                  for each, (tensor, version) in values.items()}  # fmt: skip
        self._owners = find_layers(module, places)
        self.layers = {name: places[owner] for name, owner in self._owners.items()}
        last = positions.get((id(output), output._version))
        self.output_name = next((name for name, position in self.layers.items() if position == last), OUTPUT)

    def is_cut(self, name: str) -> bool:
        """Return whether everything behind a layer depends on the images through it alone.

        Then its values of the images in another order give the output in that order, and the output has no gradient
        with respect to the images.
        """
        own, images = self.known([name, OUTPUT]), self.images.clone().requires_grad_()
        output = self.known([OUTPUT], name, own[name].flip(0), images)[OUTPUT]
        is_permuted = self._trains or close(output, own[OUTPUT].flip(0))  # dropout differs between images
        return is_permuted and not _has_gradient(output, images)

    def behind(self, layer: str, names: Sequence[str]) -> list[str]:
        """Return those of the names whose values depend on that of a layer, or are that value."""
        own = self.known(list(dict.fromkeys([layer, *names])))
        start = own[layer].flip(0).requires_grad_(own[layer].is_floating_point())
        new = self.known(names, layer, start)
        computed = [name for name in names if name in new]
        return [name for name in computed if not close(new[name], own[name]) or _has_gradient(new[name], start)]

    def needs_images(self, after: str) -> bool:
        """Return True: the module runs from the images on."""
        return True

    def run(
        self, x: Tensor, names: Sequence[str], after: str | None = None, images: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the values of layers, computed from images, or with `after` from these and the value of that layer.

        Raises:
            UserError: these images do not call a layer as often as the first ones did.
        """
        found = self._pass(x, names, after, images)
        for name in names:
            if name not in found:
                raise UserError(f"layer {name!r} is not called equally often for all images; choose another one")
        return {name: found[name] for name in names}

    def known(
        self, names: Sequence[str], after: str | None = None, x: Tensor | None = None, images: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Run on the images of the first pass, with gradients where an input has them; the module stays as it was."""
        images = self.images if images is None else images
        inputs = [images] if after is None else [x, images]
        with steady(self.module, images), torch.set_grad_enabled(any(each.requires_grad for each in inputs)):
            try:
                return self._pass(inputs[0], names, after, images)
            except RuntimeError:  # NumPy takes no tensors that have gradients
                with torch.no_grad():
                    return self._pass(inputs[0].detach(), names, after, images.detach())

    @property
    def _trains(self) -> bool:
        return any(module.training for module in self.module.modules())

    def _pass(self, x: Tensor, names: Sequence[str], after: str | None, images: Tensor | None) -> dict[str, Tensor]:
        """Return copies of the values that are computed from the time on at which the layer `after` has its own."""
        found: dict[str, Tensor] = {}
        calls: Counter[nn.Module] = Counter()
        start = self._owners.get(after)
        wanted = {name: self._owners[name] for name in names if name in self._owners}
        in_front = contextlib.ExitStack()

        def hook(each: nn.Module, inputs: tuple, output: Any) -> Any:
            calls[each] += 1
            if calls[each] != self._calls[each]:
                return output
            if each is start:
                in_front.close()
                found.clear()
                found.update({name: x.clone() for name in wanted if self.layers[name] == self.layers[after]})
                output = with_first(output, x.clone())
            found.update({name: first_tensor(output).clone() for name, owner in wanted.items() if owner is each})
            if len(found) == len(names):
                raise _Stop
            return output

        with in_front, _hooked({*wanted.values(), *([] if start is None else [start])}, hook):
            if start is not None and self._trains:  # statistics in front of the layer do not move, as in a part
                in_front.enter_context(buffers_kept(self.module))
            try:
                output = logits_of(self.module, self.module((x if after is None else images).clone()))
            except _Stop:
                return found
        if start is not None and calls[start] != self._calls[start]:
            return {}
        return found | {name: output for name in names if name not in wanted}


class _Stop(BaseException):
    """Ends a pass; no `except Exception` of the module catches it."""


class _SteadyRandom(TorchDispatchMode):
    """Each random operation of torch starts from the same seed: it depends on no other one."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.generator = generator

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.generator.manual_seed(0)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def steady(module: nn.Module, images: Tensor) -> Iterator[None]:
    """Leave buffers and random generators as they were; the numbers that are drawn meanwhile are always the same."""
    devices = [images.device] if images.is_cuda else []
    generator = torch.cuda.default_generators[images.device.index] if devices else torch.default_generator
    with torch.random.fork_rng(devices), buffers_kept(module), _SteadyRandom(generator):
        yield


@contextlib.contextmanager
def _hooked(modules: Iterable[nn.Module], hook: Callable[[nn.Module, tuple, Any], Any]) -> Iterator[None]:
    with contextlib.ExitStack() as handles:
        for module in modules:
            handles.callback(module.register_forward_hook(hook).remove)
        yield


def close(value: Tensor | None, expected: Tensor | None) -> bool:
    """Return whether two values differ by no more than rounding."""
    if value is None or expected is None or value.shape != expected.shape or value.dtype != expected.dtype:
        return False
    if not value.is_floating_point():
        return torch.equal(value, expected)
    tolerance = torch.finfo(value.dtype).eps ** 0.5 * expected.nan_to_num(0, 0, 0).abs().amax().item()
    return torch.allclose(value, expected, rtol=0, atol=tolerance, equal_nan=True)


def _has_gradient(value: Tensor, source: Tensor) -> bool:
    if not (value.requires_grad and source.requires_grad):
        return False
    (gradient,) = torch.autograd.grad(value.sum(), source, allow_unused=True, retain_graph=True)
    return gradient is not None
