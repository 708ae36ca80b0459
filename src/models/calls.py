"""The calls of modules in a pass of a network: their order, nesting, outputs and dependencies.

An output is a tensor, or a tuple, list, dict or dataclass of outputs. `steady` makes passes that can be
compared, and that leave random generators and buffers as they were.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from src.ground.errors import UserError

OUTPUT = "output"  # names the output of the network; all further layers have names of modules
RECURRENT = (nn.RNNBase, nn.RNNCellBase)

# A tensor in the graph of gradients: the node that made it, and the number of the node's output
GraphValue = tuple[Node, int]


class Call(NamedTuple):
    """A call of a module in a pass."""

    module: nn.Module
    number: int  # 0 for the first call of the module in the pass


class Snapshot(NamedTuple):
    """The output of a call at the moment when the call ended."""

    # Tensors with their versions, which in-place operations raise. The tensors are held, so that no
    # later tensor takes their addresses.
    tensors: list[tuple[Tensor, int]]
    graph_value: GraphValue | None  # of the first tensor; None without gradients

    @classmethod
    def of(cls, output: object) -> Snapshot:
        """Take a snapshot of an output."""
        tensors = [(tensor, tensor._version) for tensor in tensors_of(output)]
        if not tensors:
            return cls([], None)
        first, _ = tensors[0]
        if first.grad_fn is None:
            return cls(tensors, None)
        return cls(tensors, (first.grad_fn, first.output_nr))

    @property
    def first(self) -> Tensor:
        """The first tensor, which is the value of a layer."""
        return self.tensors[0][0]

    @property
    def identity(self) -> tuple[int, int]:
        """Address and version; outputs share it if a module returns a tensor unchanged."""
        tensor, version = self.tensors[0]
        return id(tensor), version

    @property
    def has_changed(self) -> bool:
        """Whether an in-place operation changed a tensor after the snapshot."""
        return any(tensor._version != version for tensor, version in self.tensors)


class Calls:
    """The calls of the modules in a network, recorded in a pass over two random images.

    The value of a layer is the first tensor that the last call of its module returns.

    Args:
        images: (3, C, H, W), random. The third image tells axes of two time steps from the batch.

    Attributes:
        containers: the calls in the order in which they end, each with the calls that contain it.
        n_inside: by call, how often each module is called inside of it.
        call_of: by layer, the call that returns its value.
        positions: by layer, in the order in which values are computed, the position in that order.
            Two layers have the same position where one returns the value of the other, unchanged.
        shapes: by layer, the shape of the value for one image. Layers whose first axis is not that
            of the images are left out. `OUTPUT` is the last one.
        time_first: the layers with values (T, B, D), whose second axis is that of the images.
        output_shape: the shape of the output for one image.
        output_name: the layer whose value is the output; `OUTPUT` if there is none.
        changed: calls whose outputs are changed in place after the call ended. None stands for the
            images.
    """

    def __init__(self, module: nn.Module, images: Tensor):
        self.module = module
        two_images = images[:2]
        try:
            self._record(two_images.clone().requires_grad_())
        except RuntimeError:  # with gradients torch refuses NumPy and in-place changes of chunks
            self._record(two_images)
        self._check_two_steps(images)
        self.shapes[OUTPUT] = self.output_shape

    def _record(self, images: Tensor) -> None:
        """Run the module on images, and set all attributes."""
        self.containers: dict[Call, tuple[Call, ...]] = {}
        open_calls: list[Call] = []
        n_calls: Counter[nn.Module] = Counter()
        snapshots: dict[Call, Snapshot] = {}

        def enter(module: nn.Module, inputs: tuple) -> None:
            open_calls.append(Call(module, n_calls[module]))
            n_calls[module] += 1

        def leave(module: nn.Module, inputs: tuple, output: object) -> None:
            call = open_calls.pop()
            self.containers[call] = tuple(open_calls)
            snapshots[call] = Snapshot.of(output)

        # Run the module
        with steady(self.module, images), contextlib.ExitStack() as hooks:
            for part in list(self.module.modules())[1:]:
                hooks.callback(part.register_forward_pre_hook(enter).remove)
                hooks.callback(part.register_forward_hook(leave).remove)
            hooks.enter_context(torch.set_grad_enabled(images.requires_grad))
            taken_images = images.clone()
            image_snapshot = Snapshot.of(taken_images)
            output = Snapshot.of(logits_of(self.module(taken_images)))

        # Nesting, and changes in place
        self.n_inside: dict[Call, Counter[nn.Module]] = {
            call: Counter() for call in self.containers
        }
        for call, containers in self.containers.items():
            for container in containers:
                self.n_inside[container][call.module] += 1
        self.changed: set[Call | None] = {
            call for call, snapshot in snapshots.items() if snapshot.has_changed
        }
        if image_snapshot.has_changed:
            self.changed.add(None)

        # Layers, and dependencies between their values
        self._name_layers(snapshots, output)
        graph_values = {name: snapshots[call].graph_value for name, call in self.call_of.items()}
        graph_values[OUTPUT] = output.graph_value
        self._numbers, self._sources = _graph(image_snapshot.graph_value, graph_values)
        self._has_graph = 0 in self._computed_from(OUTPUT)

    def _name_layers(self, snapshots: dict[Call, Snapshot], output: Snapshot) -> None:
        """Set `call_of`, `positions`, `shapes`, `time_first`, `output_shape` and `output_name`."""
        last_calls: dict[nn.Module, Call] = {}
        for call in self.containers:
            if snapshots[call].tensors:
                last_calls.pop(call.module, None)  # the order is the one of the last calls
                last_calls[call.module] = call

        # Positions of values
        position_of_value: dict[tuple[int, int], int] = {}
        position_of_module: dict[nn.Module, int] = {}
        for module, call in last_calls.items():
            identity = snapshots[call].identity
            position_of_module[module] = position_of_value.setdefault(
                identity, len(position_of_value)
            )

        # Names; a module may have several
        modules = dict(self.module.named_modules(remove_duplicate=False))
        names = [name for name, module in modules.items() if name and module in last_calls]
        names.sort(key=lambda name: position_of_module[modules[name]])
        self.call_of = {name: last_calls[modules[name]] for name in names}
        self.positions = {name: position_of_module[modules[name]] for name in names}

        # Shapes and the output
        self.output_shape = tuple(output.first.shape[1:])
        n_images = len(output.first)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.time_first: set[str] = set()
        for name, call in self.call_of.items():
            value = snapshots[call].first
            if is_activation(value, n_images):
                self.shapes[name] = tuple(value.shape[1:])
            elif value.ndim == 3 and value.shape[1] == n_images:
                self.time_first.add(name)
        output_position = position_of_value.get(output.identity)
        equal_to_output = (name for name in names if self.positions[name] == output_position)
        self.output_name = next(equal_to_output, OUTPUT)

    def _check_two_steps(self, images: Tensor) -> None:
        """Move layers with two time steps in front of the images from `shapes` to `time_first`.

        Two images and two steps look the same; a pass over three images tells.
        """
        unclear = [name for name, shape in self.shapes.items() if len(shape) == 2 and shape[0] == 2]
        if not unclear:
            return
        n_rows: dict[nn.Module, int] = {}

        def leave(module: nn.Module, inputs: tuple, output: object) -> None:
            value = first_tensor(output)
            n_rows[module] = 0 if value is None else len(value)

        modules = {name: self.call_of[name].module for name in unclear}
        with steady(self.module, images), torch.no_grad(), contextlib.ExitStack() as hooks:
            for module in modules.values():
                hooks.callback(module.register_forward_hook(leave).remove)
            self.module(images.clone())
        for name, module in modules.items():
            if n_rows[module] != len(images):
                del self.shapes[name]
                self.time_first.add(name)

    def depends(self, layer: str, source: str) -> bool:
        """Return whether the value of `layer` is computed from the value of `source`, or equals it.

        Without gradients between the two, every layer that is not in front of `source` counts.
        """
        if layer in self._numbers and source in self._numbers:
            return self._numbers[source] in self._computed_from(layer)
        end = len(self.positions)
        return self.positions.get(layer, end) >= self.positions.get(source, end)

    def is_bottleneck(self, layer: str, target: str = OUTPUT) -> bool:
        """Return whether the value of `target` depends on the images only through that of `layer`.

        Also true where `target` does not depend on the images at all, and where the module has no
        gradients with respect to the images.
        """
        if not self._has_graph:
            return True
        if layer not in self._numbers:
            return False
        return 0 not in self._computed_from(target, stop=self._numbers[layer])

    def bottlenecks(self) -> tuple[str, ...]:
        """Return the layers that are bottlenecks of the output, in order."""
        return tuple(name for name in self.positions if self.is_bottleneck(name))

    def behind(self, layer: str, names: Sequence[str]) -> list[str]:
        """Return those of some layers that are computed from a layer and are not its own value.

        Args:
            names: of modules; those that are never called are left out.
        """
        position = self.positions.get(layer)
        called = [name for name in names if name in self.positions]
        computed = [name for name in called if self.depends(name, layer)]
        return [name for name in computed if self.positions[name] != position]

    @property
    def token_counts(self) -> set[int]:
        """The numbers of tokens T of all layers with tokens (T, D)."""
        return {shape[0] for shape in self.shapes.values() if len(shape) == 2}

    def is_sequence(self, layer: str) -> bool:
        """Return whether tokens (T, D) of a layer are steps of a recurrent layer, or follow it."""
        if len(self.shapes.get(layer, ())) != 2:
            return False
        recurrent = [
            name for name, call in self.call_of.items() if isinstance(call.module, RECURRENT)
        ]
        return any(self.depends(layer, name) for name in recurrent)

    def in_front(self, layer: str) -> set[Call]:
        """Return the calls that end before the call of a layer, outside of it.

        Of nested calls only the outermost one is returned.
        """
        layer_call = self.call_of[layer]
        calls = list(self.containers)
        earlier = calls[: calls.index(layer_call)]
        outside = {call for call in earlier if layer_call not in self.containers[call]}
        return {call for call in outside if outside.isdisjoint(self.containers[call])}

    def _computed_from(self, layer: str, *, stop: int | None = None) -> set[int]:
        """Return the numbers of all values that the value of a layer is computed from, and its own.

        The images are 0.

        Args:
            stop: number of a value; the search does not go in front of it.
        """
        numbers: set[int] = set()
        to_visit = []
        if layer in self._numbers:
            to_visit.append(self._numbers[layer])
        while to_visit:
            number = to_visit.pop()
            if number in numbers:
                continue
            numbers.add(number)
            if number != stop:
                to_visit += self._sources[number]
        return numbers


@contextlib.contextmanager
def steady(module: nn.Module, images: Tensor, *, seed: int = 0) -> Iterator[None]:
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
    with torch.random.fork_rng(devices), buffers_kept(module):
        generator.manual_seed(seed)
        yield


@contextlib.contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Restore the buffers of a module, such as BatchNorm statistics, after the block."""
    copies = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, copy in copies:
            buffer.data.copy_(copy)


def _graph(
    images: GraphValue | None, values: dict[str, GraphValue | None]
) -> tuple[dict[str, int], list[list[int]]]:
    """Number the values in the graph of gradients; the images are 0.

    The nodes of the graph hold all activations, and are not kept.

    Args:
        values: by layer.
    Returns:
        The number of the value of each layer, and for each number the numbers of the values that it
        is computed from. Both are empty without gradients.
    """
    if images is None:
        return {}, []
    named = {name: value for name, value in values.items() if value is not None}
    order = list(dict.fromkeys([images, *named.values()]))
    numbers = {value: i for i, value in enumerate(order)}
    sources: list[list[int]] = []
    for value in order:  # the list grows meanwhile
        made_from: list[GraphValue] = []
        if value != images:
            node, _ = value
            made_from = [(maker, n) for maker, n in node.next_functions if maker is not None]
        for source in made_from:
            if source not in numbers:
                numbers[source] = len(order)
                order.append(source)
        sources.append([numbers[source] for source in made_from])
    return {name: numbers[value] for name, value in named.items()}, sources


def tensors_of(output: object) -> Iterator[Tensor]:
    """Yield the tensors of an output, in order."""
    if isinstance(output, Tensor):
        yield output
    for item in parts_of(output).values():
        yield from tensors_of(item)


def first_tensor(output: object) -> Tensor | None:
    """Return the first tensor of an output; None if it has no tensor."""
    return next(tensors_of(output), None)


def is_activation(output: object, n_images: int) -> bool:
    """Return whether an output is a tensor (n_images, …) of two axes or more."""
    return isinstance(output, Tensor) and output.ndim > 1 and len(output) == n_images


def logits_of(output: object) -> Tensor:
    """Return the logits in the output of a network, or the features in the output of an encoder.

    This is the first tensor of `logits` in a dict or dataclass with that entry, otherwise the first
    tensor of the output.

    Raises:
        UserError: there is no tensor.
    """
    logits = first_tensor(parts_of(output).get("logits", output))
    if logits is None:
        raise UserError(
            f"the network returns a {type(output).__name__}; let its forward return the logits"
        )
    return logits


def parts_of(output: object) -> dict[Any, object]:
    """Return the parts of an output by key, index or field; {} if it has no parts."""
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, (tuple, list)):
        return dict(enumerate(output))
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return {}
