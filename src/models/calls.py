"""The calls of modules in a pass of a network: their order, which lie inside which, and what
depends on what."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from src.models.outputs import is_activation, logits_of, tensors_of

OUTPUT = "output"  # names the output of a network, beside the name of the module that ends there
Call = tuple[nn.Module, int]  # a module, and the number of its call
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
Value = tuple[
    Any, int
]  # a tensor in the graph of gradients: the node that made it, and the number of its output


class Seen(NamedTuple):
    """The output of a call when it ended: its tensors with their versions, which in-place
    operations raise."""

    tensors: list[tuple[Tensor, int]]  # held, so that no other tensor takes their addresses
    value: Value | None  # of the first one, None without gradients

    @classmethod
    def of(cls, output: Any) -> Seen:
        tensors = [(tensor, tensor._version) for tensor in tensors_of(output)]
        maker = tensors[0][0].grad_fn if tensors else None
        return cls(tensors, None if maker is None else (maker, tensors[0][0].output_nr))

    @property
    def place(self) -> tuple[int, int]:
        tensor, version = self.tensors[0]
        return id(tensor), version

    @property
    def has_changed(self) -> bool:
        return any(tensor._version != version for tensor, version in self.tensors)


class Calls:
    """What a first pass over random images tells of a module.

    Attributes:
        ended: the calls in the order in which they end, each with the calls that it lies inside of.
        inside: how often each module is called inside of a call.
        owners: by layer the call whose output it is: the last one of its module.
        layers: names in the order in which they are computed, with the positions of their values. Layers have the same
            position where one returns the value of the other, unchanged.
        shapes: of one activation of each layer whose first axis is that of the images.
        output_shape: of the output for one image.
        output_name: the name of the layer whose value is the output.
        changed: the calls whose outputs are changed in place after they end; None among them stands for the images.
    """

    def __init__(self, module: nn.Module, images: Tensor):
        self.module = module
        try:
            self._take(images.clone().requires_grad_())
        except RuntimeError:  # with gradients torch refuses NumPy, and to change chunks in place
            self._take(images)

    def _take(self, images: Tensor) -> None:
        self.ended: dict[Call, tuple[Call, ...]] = {}
        stack, number, seen = [], Counter(), {}

        def enter(each: nn.Module, inputs: tuple) -> None:
            stack.append((each, number[each]))
            number[each] += 1

        def leave(each: nn.Module, inputs: tuple, output: Any) -> None:
            call = stack.pop()
            self.ended[call] = tuple(stack)
            seen[call] = Seen.of(output)

        with steady(self.module, images), contextlib.ExitStack() as hooks:
            for each in list(self.module.modules())[1:]:
                hooks.callback(each.register_forward_pre_hook(enter).remove)
                hooks.callback(each.register_forward_hook(leave).remove)
            hooks.enter_context(torch.set_grad_enabled(images.requires_grad))
            given = images.clone()
            seen[None] = Seen.of(given)
            output = Seen.of(logits_of(self.module(given)))
        self.inside = {call: Counter() for call in self.ended}
        for (each, _), above in self.ended.items():
            for call in above:
                self.inside[call][each] += 1
        self.changed = {call for call, each in seen.items() if each.has_changed}
        self._name_layers({call: seen[call] for call in self.ended if seen[call].tensors}, output)
        values = {name: seen[call].value for name, call in self.owners.items()} | {
            OUTPUT: output.value
        }
        self._number, self._sources = _graph(seen[None].value, values)
        self._has_graph = 0 in self._computed_from(OUTPUT)

    def _name_layers(self, seen: dict[Call, Seen], output: Seen) -> None:
        last: dict[nn.Module, Call] = {}
        for call in seen:
            last.pop(call[0], None)  # the order is that of the last calls
            last[call[0]] = call
        positions: dict[Any, int] = {}
        places = {
            each: positions.setdefault(seen[call].place, len(positions))
            for each, call in last.items()
        }
        modules = dict(self.module.named_modules(remove_duplicate=False))
        named = sorted((name for name, each in modules.items() if name and each in last),
                       key=lambda name: places[modules[name]])  # fmt: skip
        self.owners = {name: last[modules[name]] for name in named}
        self.layers = {name: places[modules[name]] for name in named}
        ends = (name for name in named if self.layers[name] == positions.get(output.place))
        self.output_name = next(ends, OUTPUT)
        (logits, _), *_ = output.tensors
        self.output_shape = tuple(logits.shape[1:])
        firsts = {name: seen[call].tensors[0][0] for name, call in self.owners.items()}
        self.shapes = {
            name: tuple(each.shape[1:])
            for name, each in firsts.items()
            if is_activation(each, len(logits))
        }

    def depends(self, name: str, on: str) -> bool:
        """Return whether the value of a layer is computed from that of another one, or is that
        value.

        Where gradients do not tell, all that is computed later may be.
        """
        if name in self._number and on in self._number:
            return self._number[on] in self._computed_from(name)
        end = len(self.layers)
        return self.layers.get(name, end) >= self.layers.get(on, end)

    def is_bottleneck(self, on: str, name: str = OUTPUT) -> bool:
        """Return whether gradients of a layer reach the images through another one alone, or not at
        all."""
        return not self._has_graph or (
            on in self._number and 0 not in self._computed_from(name, self._number[on])
        )

    def is_sequence(self, name: str) -> bool:
        """Return whether activations (T, D) of a layer are the steps of a recurrent one, or
        computed from them."""
        shape = self.output_shape if name == OUTPUT else self.shapes.get(name, ())
        recurrent = [layer for layer, call in self.owners.items() if isinstance(call[0], RECURRENT)]
        return len(shape) == 2 and any(self.depends(name, layer) for layer in recurrent)

    def in_front(self, layer: str) -> set[Call]:
        """Return the outermost calls that end before that of a layer, and are not inside of it."""
        ended, call = list(self.ended), self.owners[layer]
        before = {each for each in ended[: ended.index(call)] if call not in self.ended[each]}
        return {each for each in before if before.isdisjoint(self.ended[each])}

    def _computed_from(self, name: str, end: int | None = None) -> set[int]:
        """Collect the values that one is computed from, back to another one; 0 is that of the
        images."""
        found, to_do = set(), [self._number[name]] if name in self._number else []
        while to_do:
            value = to_do.pop()
            if value not in found:
                found.add(value)
                to_do += [] if value == end else self._sources[value]
        return found


def _graph(
    start: Value | None, values: dict[str, Value | None]
) -> tuple[dict[str, int], list[list[int]]]:
    """Number the values in the graph of gradients: those of layers by name, and what each value is
    computed from.

    The images are 0. The nodes themselves, which hold all activations, are not kept.
    """
    named = {name: value for name, value in values.items() if value is not None}
    order = list(dict.fromkeys([start, *named.values()]))
    number, sources = {value: i for i, value in enumerate(order)}, []
    for value in order:  # it grows meanwhile
        made_from = (
            []
            if value == start
            else [source for source in value[0].next_functions if source[0] is not None]
        )
        for source in made_from:
            if source not in number:
                number[source] = len(order)
                order.append(source)
        sources.append([number[source] for source in made_from])
    return {name: number[value] for name, value in named.items()}, sources


@contextlib.contextmanager
def steady(module: nn.Module, images: Tensor) -> Iterator[None]:
    """Leave buffers and random generators as they were; random numbers start from a fixed seed
    meanwhile."""
    devices = [images.device] if images.is_cuda else []
    generator = (
        torch.cuda.default_generators[images.device.index] if devices else torch.default_generator
    )
    with torch.random.fork_rng(devices), buffers_kept(module):
        generator.manual_seed(0)
        yield


@contextlib.contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Leave the buffers of a module as they were."""
    buffers = [(each, each.clone()) for each in module.buffers()]
    try:
        yield
    finally:
        for buffer, before in buffers:
            buffer.data.copy_(before)
