"""The engine that computes just what lies between two layers: sub-graphs of a traced module."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from src.models.tracing import Node, Tracer, is_shape_read, value_of

OUTPUT = "output"  # names the output of a network, beside the name of the module that ends there
MAKES_NEW = (operator.add, operator.mul, torch.cat)  # functions whose result shares no memory with another tensor


class Part(NamedTuple):
    """A sub-graph as a module, which gives a tuple; its parameters and buffers are the network's own."""

    module: fx.GraphModule
    needs_images: bool


class Traced:
    """Runs the parts of a trace, made on demand and kept.

    Attributes:
        graph: of the whole module.
        nodes: by name, in the order in which they are computed, the outputs of modules: of the last call where there
            are several, of the last child where a container is not called itself.
        layers: the same names with the positions of these nodes.
        output_name: the name of the layer whose value is the output.
    Raises:
        Untraceable: the module has no trace.
    """

    def __init__(self, module: nn.Module):
        self._tracer = Tracer()
        self.graph = self._tracer.read(module)
        nodes = list(self.graph.nodes)
        self._images, self._output, self._position = nodes[0], nodes[-1].args[0], {n: i for i, n in enumerate(nodes)}
        values = {name: value_of(each, self._tracer.values)
                  for name, each in module.named_modules(remove_duplicate=False)}  # fmt: skip
        found = [(name, node) for name, node in values.items() if name and node is not None]
        self.nodes: dict[str, Node] = dict(sorted(found, key=lambda item: self._position[item[1]]))
        self.layers = {name: self._position[node] for name, node in self.nodes.items()}
        self.output_name = next((name for name, node in self.nodes.items() if node is self._output), OUTPUT)
        self._cuts, self._writes = self._find_cuts(), set(self._tracer.results.values())
        self._parts: dict[tuple[Node | None, ...], Part] = {}

    def is_cut(self, name: str) -> bool:
        """Return whether everything behind a layer depends on the images through it alone."""
        return self._node(name) in self._cuts

    def behind(self, layer: str, names: Sequence[str]) -> list[str]:
        """Return those of the names whose values depend on another value, that of a layer."""
        start = self._node(layer)
        nodes = {name: self._node(name) for name in names}
        return [n for n, node in nodes.items() if node is not start and start in self._reached([node], start)]

    def needs_images(self, after: str) -> bool:
        """Return whether the output needs the images besides a layer, for the rest of its block or for a shape."""
        return self._between(self._node(after), [self._output]).needs_images

    def run(
        self, x: Tensor, names: Sequence[str], after: str | None = None, images: Tensor | None = None
    ) -> dict[str, Any]:
        """Return the values of layers, computed from images, or with `after` from the value of that layer."""
        part = self._between(None if after is None else self._node(after), [self._node(name) for name in names])
        return dict(zip(names, part.module(*([x] if after is None else [x, images])), strict=True))

    def _node(self, name: str) -> Node:
        return self.nodes.get(name, self._output)

    def _reached(self, wanted: Iterable[Node], after: Node | None) -> set[Node]:
        """Collect the data nodes that the wanted ones are computed from, back to `after` (included if reached)."""
        data, reached, open_nodes = self._tracer.data, set(), list(wanted)
        while open_nodes:
            node = open_nodes.pop()
            if node in data and node not in reached:
                reached.add(node)
                open_nodes += [] if node is after else node.all_input_nodes
        return reached

    def _find_cuts(self) -> set[Node]:
        """Return the nodes that no edge between data nodes jumps over: what is behind depends on them alone."""
        live = self._reached([self._output], None)
        cuts, reach = set(), 0
        for node in sorted(live, key=self._position.__getitem__):
            if node is not self._images and reach <= self._position[node]:
                cuts.add(node)
            reach = max([reach, *(self._position[user] for user in live.intersection(node.users))])
        return cuts

    def _between(self, start: Node | None, wanted: Sequence[Node]) -> Part:
        """Return the part from a node (None: the images) to others, with just the nodes that its outputs need.

        Where these depend on the images past the start, the images become a second input.
        """
        key = (start, *wanted)
        if key not in self._parts:
            needed, open_nodes = set(), list(wanted)
            while open_nodes:
                node = open_nodes.pop()
                if node not in needed and node is not start:
                    needed.add(node)
                    open_nodes += node.all_input_nodes
            module = fx.GraphModule(self._tracer.root, self._graph(start, needed, wanted))
            self._parts[key] = Part(module, start is not None and self._images in needed)
        return self._parts[key]

    def _graph(self, start: Node | None, needed: set[Node], wanted: Sequence[Node]) -> fx.Graph:
        graph, images = fx.Graph(), self._images
        env = {} if start is None else {start: graph.placeholder("x")}
        env[images] = graph.placeholder("images")
        for node in sorted(needed - {images}, key=self._position.__getitem__):
            copy = graph.node_copy(node, env.__getitem__)
            if node in self._writes and not self._may_overwrite(node, needed, {*wanted, start}):
                source = copy.all_input_nodes[0]
                with graph.inserting_before(copy):
                    copy.replace_input_with(source, graph.call_method("clone", (source,)))
            env[node] = copy
        graph.output(tuple(env[node] for node in wanted))
        return graph

    def _may_overwrite(self, write: Node, needed: set[Node], asked: set[Node | None]) -> bool:
        """Return whether the input of an in-place operation is a new tensor that nothing else reads or asks for."""
        source = write.all_input_nodes[0]
        readers = {node for node in needed.intersection(source.users) if not is_shape_read(node)}
        maker = self._tracer.root.get_submodule(source.target) if source.op == "call_module" else nn.Identity()
        is_new = source in self._writes or source.target in MAKES_NEW or any(True for _ in maker.parameters())
        return is_new and readers == {write} and source not in asked
