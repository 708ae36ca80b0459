"""The calls of modules in one pass of a network: their order, which lie inside which, and what depends on what."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from src.models.outputs import is_activation, logits_of, tensors_of

OUTPUT = "output"  # names the output of a network, beside the name of the module that ends there
Call = tuple[nn.Module, int]  # a module, and the number of its call
Value = tuple[Any, int]  # a tensor in the graph of gradients: the node that made it, and the number of its output
N_IMAGES = 2


class Seen(NamedTuple):
    """The output of a call when it ended: its tensors with their versions, which in-place operations raise."""

    tensors: list[tuple[Tensor, int]]  # held, so that no other tensor takes their addresses
    value: Value | None  # of the first tensor, None without gradients

    @classmethod
    def of(cls, output: Any) -> Seen:
        tensors = [(tensor, tensor._version) for tensor in tensors_of(output)]
        made_by = tensors[0][0].grad_fn if tensors else None
        return cls(tensors, None if made_by is None else (made_by, tensors[0][0].output_nr))

    @property
    def first(self) -> Tensor | None:
        return self.tensors[0][0] if self.tensors else None

    @property
    def place(self) -> tuple[int, int]:
        tensor, version = self.tensors[0]
        return id(tensor), version

    def has_changed(self) -> bool:
        return any(tensor._version != version for tensor, version in self.tensors)


class Calls:
    """What a first pass over two images tells of a module.

    Attributes:
        ended: all calls in the order in which they end, each with the calls that it lies inside of.
        owners: by layer the call whose output it is: the last one of its module. A container that gives no tensor, or
            is not called, stands for its last child.
        layers: names in the order in which they are computed, with the positions of their values; two layers have one
            position where one returns the unchanged value of the other.
        shapes: of one activation of each layer whose first axis is that of the images.
        output_shape: of the output for one image.
        output_name: the name of the layer whose value is the output.
        repeaters: layers that return what another module has made, such as identities.
        changed: the calls whose output is changed in place after they end; None among them stands for the images.
        is_random: whether random numbers are drawn.
    """

    def __init__(self, module: nn.Module, images: Tensor):
        self.module, self.images = module, images
        try:
            self._take(images.clone().requires_grad_())
        except RuntimeError:  # NumPy takes no tensors that have gradients
            self._take(images)

    def _take(self, images: Tensor) -> None:
        self.ended: list[tuple[Call, tuple[Call, ...]]] = []
        stack, number, seen = [], Counter(), {}

        def enter(each: nn.Module, inputs: tuple) -> None:
            stack.append((each, number[each]))
            number[each] += 1

        def leave(each: nn.Module, inputs: tuple, output: Any) -> None:
            call = stack.pop()
            self.ended.append((call, tuple(stack)))
            seen[call] = Seen.of(output)

        with steady(self.module, images) as random, torch.set_grad_enabled(images.requires_grad):
            given = images.clone()
            seen[None] = Seen.of(given)
            with hooked(list(self.module.modules())[1:], leave, enter):
                output = Seen.of(logits_of(self.module, self.module(given)))
        self.is_random = random.has_drawn
        self.changed = {call for call, each in seen.items() if each.has_changed()}
        self._name_layers({call: seen[call] for call, _ in self.ended if seen[call].first is not None}, output)
        self.output_shape = tuple(output.first.shape[1:])
        values = {name: seen[call].value for name, call in self.owners.items()} | {OUTPUT: output.value}
        self._number, self._sources = _graph(seen[None].value, values)
        self.has_graph = 0 in self._computed_from(OUTPUT)

    def _name_layers(self, seen: dict[Call, Seen], output: Seen) -> None:
        last: dict[nn.Module, Call] = {}
        for call in seen:
            last.pop(call[0], None)  # the order is that of the last calls
            last[call[0]] = call
        positions: dict[Any, int] = {}
        places = {each: positions.setdefault(seen[call].place, len(positions)) for each, call in last.items()}
        modules = dict(self.module.named_modules(remove_duplicate=False))
        owners = {name: owner for name, each in modules.items() if name and (owner := _owner(each, places)) is not None}
        named = sorted(owners, key=lambda name: places[owners[name]])
        self.owners = {name: last[owners[name]] for name in named}
        self.layers = {name: places[owners[name]] for name in named}
        ends = (name for name in named if self.layers[name] == positions.get(output.place))
        self.output_name = next(ends, OUTPUT)
        makers: dict[Any, Call] = {}
        for call, each in seen.items():
            makers.setdefault(each.place, call)
        within = dict(self.ended)
        self.repeaters = {name for name, call in self.owners.items()
                          if (maker := makers[seen[call].place]) != call and call not in within[maker]}  # fmt: skip
        firsts = {name: seen[call].first for name, call in self.owners.items()}
        self.shapes = {name: tuple(each.shape[1:]) for name, each in firsts.items() if is_activation(each, N_IMAGES)}

    def depends(self, name: str, on: str) -> bool:
        """Return whether the value of a layer is computed from that of another one, or is that value.

        Where no gradient tells, all that is computed later may be.
        """
        if name in self._number and on in self._number:
            return self._number[on] in self._computed_from(name)
        end = len(self.layers)
        return self.layers.get(name, end) >= self.layers.get(on, end)

    def is_bottleneck(self, on: str, name: str = OUTPUT) -> bool:
        """Return whether all gradients from a layer to the images go through another one; True if there are none."""
        if not self.has_graph:
            return True
        return on in self._number and 0 not in self._computed_from(name, self._number[on])

    def in_front(self, layer: str) -> set[Call]:
        """Return the outermost calls that end before that of a layer, and are not inside of it."""
        call = self.owners[layer]
        end = next(i for i, (each, _) in enumerate(self.ended) if each == call)
        before = {each: above for each, above in self.ended[:end] if call not in above}
        return {each for each, above in before.items() if before.keys().isdisjoint(above)}

    def made_beside(self, answered: set[Call]) -> dict[nn.Module, list[int]]:
        """Return which calls of each module are made where some calls are answered, so that nothing inside runs."""
        made: dict[nn.Module, list[int]] = {}
        for (each, number), above in self.ended:
            if answered.isdisjoint(above):
                made.setdefault(each, []).append(number)
        return {each: sorted(numbers) for each, numbers in made.items()}

    def _computed_from(self, name: str, end: int | None = None) -> set[int]:
        """Collect the values that one is computed from, back to another one; 0 stands for the images."""
        found, to_do = set(), [self._number[name]] if name in self._number else []
        while to_do:
            value = to_do.pop()
            if value not in found:
                found.add(value)
                to_do += [] if value == end else self._sources[value]
        return found


def _owner(each: nn.Module, known: Iterable[nn.Module]) -> nn.Module | None:
    if each in known:
        return each
    return next((owner for child in reversed(list(each.children())) if (owner := _owner(child, known))), None)


def _graph(start: Value | None, values: dict[str, Value | None]) -> tuple[dict[str, int], list[list[int]]]:
    """Number the values in the graph of gradients: those of layers by name, and what each value is computed from.

    The images are 0. The nodes themselves, which hold all activations, are not kept.
    """
    named = {name: value for name, value in values.items() if value is not None}
    order = list(dict.fromkeys([start, *named.values()]))
    number, sources = {value: i for i, value in enumerate(order)}, []
    for value in order:  # it grows meanwhile
        made_from = [] if value == start else [source for source in value[0].next_functions if source[0] is not None]
        for source in made_from:
            if source not in number:
                number[source] = len(order)
                order.append(source)
        sources.append([number[source] for source in made_from])
    return {name: number[value] for name, value in named.items()}, sources


class SteadyRandom(TorchDispatchMode):
    """Each random operation of torch starts from the same seed, so that it depends on no other one.

    Attributes:
        has_drawn: whether one has taken random numbers; attention without dropout, for example, takes none.
    """

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.generator, self.has_drawn = generator, False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **(kwargs or {}))
        seeded = self.generator.manual_seed(0).get_state()
        output = func(*args, **(kwargs or {}))
        self.has_drawn |= not torch.equal(self.generator.get_state(), seeded)
        return output


@contextlib.contextmanager
def steady(module: nn.Module, images: Tensor) -> Iterator[SteadyRandom]:
    """Leave buffers and random generators as they were; the numbers that are drawn meanwhile are always the same."""
    devices = [images.device] if images.is_cuda else []
    generator = torch.cuda.default_generators[images.device.index] if devices else torch.default_generator
    with torch.random.fork_rng(devices), buffers_kept(module), SteadyRandom(generator) as random:
        yield random


@contextlib.contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Leave the buffers of a module as they were."""
    buffers = [(each, each.clone()) for each in module.buffers()]
    try:
        yield
    finally:
        for buffer, before in buffers:
            buffer.data.copy_(before)


@contextlib.contextmanager
def hooked(modules: Iterable[nn.Module], leave: Callable, enter: Callable | None = None) -> Iterator[None]:
    """Register hooks that see calls of modules end, and begin, while the block runs."""
    with contextlib.ExitStack() as handles:
        for each in modules:
            handles.callback(each.register_forward_hook(leave).remove)
            if enter is not None:
                handles.callback(each.register_forward_pre_hook(enter).remove)
        yield
