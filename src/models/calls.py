"""Calls of the modules of a network in a forward pass over two inputs, with their order and dependencies."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from src.models.outputs import logits_of, map_tensors, tensors_of
from src.models.restored import repeatable

OUTPUT = "output"  # names the output of the network; all further layers have names of modules

# A tensor in the graph of gradients: the node that made it, and the number of the node's output
GraphValue = tuple[Node, int]


class Snapshot(NamedTuple):
    """The output of a call at the moment when the call ended."""

    # Tensors with their versions, which in-place operations raise. The tensors are held, so that no
    # later tensor takes their addresses.
    tensors: list[tuple[Tensor, int]]
    graph_value: GraphValue | None  # of the first tensor; None without gradients

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


class Observation(NamedTuple):
    """The calls and outputs of modules in a pass over two inputs."""

    n_calls: Counter[nn.Module]
    snapshots: dict[nn.Module, Snapshot]  # of last calls, in the order in which these end
    inputs: Snapshot
    output: Snapshot  # of the whole module


class Calls:
    """The calls of the modules in a network, observed in a pass over two inputs.

    The value of a layer is the first tensor that the last call of its module returns.

    Args:
        images: (3, C, H, W), random; the pass is over the first two.

    Attributes:
        module_of: by layer, its module; that of `OUTPUT` is the whole module.
        n_calls: by module, the number of its calls.
        positions: by layer, in the order in which values are computed, the position in that order.
            Two layers have the same position where one returns the value of the other, unchanged.
        shapes: by layer, the shape of the value for one input. Layers whose first axis is not that
            of the inputs are left out. `OUTPUT` is the last one.
        time_first: the layers with values (T, B, D), whose second axis is that of the inputs.
        output_shape: the shape of the output for one input.
        output_name: the layer whose value is the output; `OUTPUT` if there is none.
        changed: modules whose last output is changed in place after the call ended.
        changes_inputs: whether the module changes its inputs in place.
    """

    def __init__(self, module: nn.Module, images: Tensor):
        try:
            seen = _observed(module, images[:2], with_gradients=True)
        except RuntimeError:  # with gradients torch refuses NumPy and in-place changes of chunks
            seen = _observed(module, images[:2], with_gradients=False)
        self.module = module
        self.n_calls = seen.n_calls
        self.changed = {part for part, snapshot in seen.snapshots.items() if snapshot.has_changed}
        self.changes_inputs = seen.inputs.has_changed
        self._name_layers(seen.snapshots, seen.output)
        self._correct_time_first(images)

        # Dependencies between values
        graph_values = {
            name: seen.snapshots[self.module_of[name]].graph_value for name in self.positions
        }
        graph_values[OUTPUT] = seen.output.graph_value
        self._numbers, self._sources = _graph(seen.inputs.graph_value, graph_values)
        self._has_graph = 0 in self._computed_from(OUTPUT)

    def _name_layers(self, snapshots: dict[nn.Module, Snapshot], output: Snapshot) -> None:
        """Set `module_of`, `positions`, `shapes`, `time_first`, `output_shape` and `output_name`."""
        # Positions of values
        values = dict.fromkeys(snapshot.identity for snapshot in snapshots.values())
        position_of_value = {value: position for position, value in enumerate(values)}
        position_of_module = {
            module: position_of_value[snapshot.identity] for module, snapshot in snapshots.items()
        }

        # Names; a module may have several
        modules = dict(self.module.named_modules(remove_duplicate=False))
        names = [name for name, module in modules.items() if name and module in snapshots]
        names.sort(key=lambda name: position_of_module[modules[name]])
        self.module_of = {name: modules[name] for name in names} | {OUTPUT: self.module}
        self.positions = {name: position_of_module[modules[name]] for name in names}

        # Shapes and the output
        self.output_shape = tuple(output.first.shape[1:])
        n_images = len(output.first)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.time_first: set[str] = set()
        for name in names:
            value = snapshots[modules[name]].first
            if is_activation(value, n_images):
                self.shapes[name] = tuple(value.shape[1:])
            elif value.ndim == 3 and value.shape[1] == n_images:
                self.time_first.add(name)
        self.shapes[OUTPUT] = self.output_shape
        output_position = position_of_value.get(output.identity)
        equal_to_output = (name for name in names if self.positions[name] == output_position)
        self.output_name = next(equal_to_output, OUTPUT)

    def _correct_time_first(self, images: Tensor) -> None:
        """Find layers (T, B, D) with two time steps, which look like two images, in a pass over three."""
        unclear = [name for name, shape in self.shapes.items() if shape[:-1] == (2,)]
        if unclear:
            of_three = _observed(self.module, images, with_gradients=False).snapshots
            for name in set(unclear) & self.positions.keys():
                if len(of_three[self.module_of[name]].first) != len(images):
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

    def _computed_from(self, layer: str, *, stop: int | None = None) -> set[int]:
        """Return the numbers of all values that a layer is computed from, up to `stop`."""
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


def _graph(
    images: GraphValue | None, values: dict[str, GraphValue | None]
) -> tuple[dict[str, int], list[list[int]]]:
    """Number values in the graph of gradients, the images by 0; return numbers by layer, and their sources."""
    if images is None:
        return {}, []
    # The nodes of the graph hold all activations, and are not kept
    named = {name: value for name, value in values.items() if value is not None}
    order = list(dict.fromkeys([images, *named.values()]))
    numbers = {value: i for i, value in enumerate(order)}
    sources: list[list[int]] = []
    for node, _ in order:  # the list grows meanwhile
        made_from: list[GraphValue] = []
        if sources:  # the images come first; what these are made of does not count
            made_from = [(maker, n) for maker, n in node.next_functions if maker is not None]
        for source in made_from:
            if source not in numbers:
                numbers[source] = len(order)
                order.append(source)
        sources.append([numbers[source] for source in made_from])
    return {name: numbers[value] for name, value in named.items()}, sources


def is_activation(output: object, n_images: int) -> bool:
    """Return whether an output is a tensor (n_images, …) of two axes or more."""
    return isinstance(output, Tensor) and output.ndim > 1 and len(output) == n_images


def _observed(module: nn.Module, images: Tensor, *, with_gradients: bool) -> Observation:
    """Run a module on images and return its calls."""
    n_calls = Counter({module: 1})
    snapshots: dict[nn.Module, Snapshot] = {}

    def leave(part: nn.Module, inputs: tuple, output: object) -> object:
        n_calls[part] += 1
        if are_numbers and with_gradients and not any(part.children()):
            output = _with_source(output, inputs, source)
        snapshots.pop(part, None)  # the order is the one of the last calls
        snapshot = _snapshot(output)
        if snapshot.tensors:
            snapshots[part] = snapshot
        return output

    # Integers have no gradients. The gradient of a zero shows what is computed from them: it is added to
    # the output of each module without parts, such as an embedding, that takes integers
    are_numbers = not images.is_floating_point()
    source = images
    if are_numbers:
        source = torch.zeros((), device=images.device)
    with repeatable(module, images), contextlib.ExitStack() as hooks:
        for part in list(module.modules())[1:]:
            hooks.callback(part.register_forward_hook(leave).remove)
        hooks.enter_context(torch.set_grad_enabled(with_gradients))
        source = source.clone().requires_grad_(with_gradients).clone()
        taken_images = source
        if are_numbers:
            taken_images = images.clone()
        seen_inputs = _snapshot(taken_images)._replace(graph_value=_snapshot(source).graph_value)
        output = _snapshot(logits_of(module(taken_images)))
    return Observation(n_calls, snapshots, seen_inputs, output)


def _with_source(output: object, inputs: tuple, zero: Tensor) -> object:
    """Add a zero to the tensors that a module makes of integers, one row an input."""
    numbers = [tensor for tensor in tensors_of(inputs) if not tensor.is_floating_point()]
    if not any(is_activation(tensor, 2) for tensor in numbers):
        return output
    return map_tensors(output, lambda tensor: tensor + zero.to(tensor.dtype))


def _snapshot(output: object) -> Snapshot:
    """Take a snapshot of an output."""
    tensors = list(tensors_of(output))
    graph_value = None
    if tensors and tensors[0].grad_fn is not None:
        graph_value = (tensors[0].grad_fn, tensors[0].output_nr)
    return Snapshot([(tensor, tensor._version) for tensor in tensors], graph_value)
