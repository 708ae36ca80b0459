"""The calls of modules in a recorded pass of a network: their order, nesting and dependencies.

`src.models.passes` records the pass; nothing runs here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.autograd.graph import Node

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
    """The calls and outputs of modules in a pass over two random images."""

    containers: dict[Call, tuple[Call, ...]]  # of each call, in the order in which the calls end
    snapshots: dict[Call, Snapshot]
    images: Snapshot
    output: Snapshot  # of the module


class Calls:
    """The calls of the modules in a network, observed in a pass over two random images.

    The value of a layer is the first tensor that the last call of its module returns.

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

    def __init__(self, module: nn.Module, seen: Observation):
        self.module = module
        self.containers = seen.containers

        # Nesting, and changes in place
        self.n_inside: dict[Call, Counter[nn.Module]] = {
            call: Counter() for call in self.containers
        }
        for call, containers in self.containers.items():
            for container in containers:
                self.n_inside[container][call.module] += 1
        self.changed: set[Call | None] = {
            call for call, snapshot in seen.snapshots.items() if snapshot.has_changed
        }
        if seen.images.has_changed:
            self.changed.add(None)

        # Layers, and dependencies between their values
        self._name_layers(seen.snapshots, seen.output)
        graph_values = {
            name: seen.snapshots[call].graph_value for name, call in self.call_of.items()
        }
        graph_values[OUTPUT] = seen.output.graph_value
        self._numbers, self._sources = _graph(seen.images.graph_value, graph_values)
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
        self.shapes[OUTPUT] = self.output_shape
        output_position = position_of_value.get(output.identity)
        equal_to_output = (name for name in names if self.positions[name] == output_position)
        self.output_name = next(equal_to_output, OUTPUT)

    def put_time_first(self, layers: Iterable[str]) -> None:
        """Move layers from `shapes` to `time_first`."""
        for layer in layers:
            del self.shapes[layer]
            self.time_first.add(layer)

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
        """Return the layers of `names` that are computed from `layer` and have a different value.

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
        """Return whether tokens (T, D) of a layer are steps of a recurrent layer, or follow such a layer."""
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


def is_activation(output: object, n_images: int) -> bool:
    """Return whether an output is a tensor (n_images, …) of two axes or more."""
    return isinstance(output, Tensor) and output.ndim > 1 and len(output) == n_images
