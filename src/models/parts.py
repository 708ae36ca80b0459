"""The engine that computes just what lies between two layers: sub-graphs of a traced module."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, fx, nn

from src.models.tracing import Node, Trace, is_shape_read

OUTPUT = "output"  # names the output of a network, beside the name of the module that ends there


class Part(NamedTuple):
    """A sub-graph as a module, which gives a tuple; its parameters and buffers are the network's own."""

    module: fx.GraphModule
    needs_images: bool


class Traced:
    """Runs the parts of a trace, made on demand and kept.

    Attributes:
        layers: names in the order in which they are computed, with the position of their values.
    Raises:
        Untraceable: the module has no trace.
    """

    def __init__(self, module: nn.Module):
        self.trace = Trace(module)
        self.layers = {name: self.trace.position[node] for name, node in self.trace.layers.items()}
        self._cuts = set(self.trace.cuts())
        self._parts: dict[tuple[Node | None, ...], Part] = {}

    @property
    def output_name(self) -> str:
        """The name of the layer whose value is the output."""
        return next((name for name, node in self.trace.layers.items() if node is self.trace.output), OUTPUT)

    def is_cut(self, name: str) -> bool:
        """Return whether everything behind a layer depends on the images through it alone."""
        return self._node(name) in self._cuts

    def behind(self, layer: str, names: Sequence[str]) -> list[str]:
        """Return those of the names whose values depend on another value, that of a layer."""
        start = self._node(layer)
        nodes = {name: self._node(name) for name in names}
        return [n for n, node in nodes.items() if node is not start and start in self.trace.reached([node], start)]

    def needs_images(self, after: str) -> bool:
        """Return whether the output needs the images besides a layer, for the rest of its block or for a shape."""
        return self._between(self._node(after), [self.trace.output]).needs_images

    def run(
        self, x: Tensor, names: Sequence[str], after: str | None = None, images: Tensor | None = None
    ) -> dict[str, Any]:
        """Return the values of layers, computed from images, or with `after` from the value of that layer."""
        part = self._between(None if after is None else self._node(after), [self._node(name) for name in names])
        return dict(zip(names, part.module(*([x] if after is None else [x, images])), strict=True))

    def _node(self, name: str) -> Node:
        return self.trace.layers.get(name, self.trace.output)

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
            module = fx.GraphModule(self.trace.root, self._graph(start, needed, wanted))
            self._parts[key] = Part(module, start is not None and self.trace.images in needed)
        return self._parts[key]

    def _graph(self, start: Node | None, needed: set[Node], wanted: Sequence[Node]) -> fx.Graph:
        graph, images = fx.Graph(), self.trace.images
        env = {} if start is None else {start: graph.placeholder("x")}
        env[images] = graph.placeholder("images")
        for node in sorted(needed - {images}, key=self.trace.position.__getitem__):
            copy = graph.node_copy(node, env.__getitem__)
            if node in self.trace.writes and (node.args[0] in {*wanted, start} or not self._is_free(node, needed)):
                with graph.inserting_before(copy):
                    copy.args = (graph.call_method("clone", (copy.args[0],)), *copy.args[1:])
            env[node] = copy
        graph.output(tuple(env[node] for node in wanted))
        return graph

    def _is_free(self, write: Node, needed: set[Node]) -> bool:
        """Return whether an in-place operation may overwrite its input: a new tensor that nothing else reads."""
        source = write.args[0]
        readers = {node for node in needed.intersection(source.users) if not is_shape_read(node)}
        maker = self.trace.root.get_submodule(source.target) if source.op == "call_module" else nn.Identity()
        is_new = source in self.trace.writes or any(True for _ in maker.parameters())
        return readers == {write} and is_new
