"""The engine that computes just what lies between two layers: sub-graphs of a traced module."""

import operator
from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, fx, nn

from src.models.tracing import Node, Tracer, find_layers, is_in_place, is_shape_read
from src.models.values import first_tensor

OUTPUT = "output"  # names the output of a network, beside the name of the module that ends there
MAKES_NEW = (operator.add, operator.mul, torch.cat)  # functions whose result shares no memory with another tensor


class Traced:
    """Runs the parts of a trace: sub-graphs as modules, whose parameters and buffers are the network's own.

    They are made on demand and kept.

    Attributes:
        graph: of the whole module.
        layers: names in the order in which they are computed, with the positions of their nodes. A module that is
            called several times stands for its last call.
        output_name: the name of the layer whose value is the output.
    Raises:
        Untraceable: the module has no trace.
    """

    def __init__(self, module: nn.Module):
        self._tracer = Tracer()
        self.graph = self._tracer.read(module)
        self._nodes = list(self.graph.nodes)
        self._images, self._output = self._nodes[0], self._nodes[-1].args[0]
        self._position = {node: position for position, node in enumerate(self._nodes)}
        places = {each: self._position[node] for each, node in self._tracer.values.items()}
        self.layers = {name: places[each] for name, each in find_layers(module, places).items()}
        last = self._position[self._output]
        self.output_name = next((name for name, position in self.layers.items() if position == last), OUTPUT)
        self._cuts = self._find_cuts()
        self._parts: dict[tuple[Node | None, ...], fx.GraphModule] = {}

    def node(self, name: str) -> Node:
        """Return the node whose value is that of a layer."""
        return self._nodes[self.layers[name]] if name in self.layers else self._output

    def is_cut(self, name: str) -> bool:
        """Return whether everything behind a layer depends on the images through it alone."""
        return self.node(name) in self._cuts

    def behind(self, layer: str, names: Sequence[str]) -> list[str]:
        """Return those of the names whose values depend on that of a layer, or are that value."""
        start, data = self.node(layer), self._tracer.data
        return [name for name in names if start in self._sources([self.node(name)], start, within=data)]

    def needs_images(self, after: str) -> bool:
        """Return whether the output needs the images besides a layer, for the rest of its block or for a shape."""
        (images,) = self._part(self.node(after), [self._output]).graph.find_nodes(op="placeholder", target="images")
        return bool(images.users)

    def run(
        self, x: Tensor, names: Sequence[str], after: str | None = None, images: Tensor | None = None
    ) -> dict[str, Tensor | None]:
        """Return the values of layers, computed from images, or with `after` from the value of that layer."""
        part = self._part(None if after is None else self.node(after), [self.node(name) for name in names])
        values = part(x) if after is None else part(x, images)
        return {name: first_tensor(value) for name, value in zip(names, values, strict=True)}

    def _sources(self, wanted: Iterable[Node], after: Node | None, within: Collection[Node]) -> set[Node]:
        """Collect the nodes that the wanted ones are computed from, back to `after` (included if reached)."""
        found, open_nodes = set(), list(wanted)
        while open_nodes:
            node = open_nodes.pop()
            if node in within and node not in found:
                found.add(node)
                open_nodes += [] if node is after else node.all_input_nodes
        return found

    def _find_cuts(self) -> set[Node]:
        """Return the nodes that no edge between data nodes jumps over: what is behind depends on them alone."""
        live = self._sources([self._output], None, within=self._tracer.data)
        cuts, reach = set(), 0
        for node in sorted(live, key=self._position.__getitem__):
            if node is not self._images and reach <= self._position[node]:
                cuts.add(node)
            reach = max([reach, *(self._position[user] for user in live.intersection(node.users))])
        return cuts

    def _part(self, start: Node | None, wanted: Sequence[Node]) -> fx.GraphModule:
        """Return the part from a node (None: the images) to others, with just the nodes that its outputs need.

        Where these depend on the images past the start, the second input is used, the images.
        """
        key = (start, *wanted)
        if key not in self._parts:
            graph, needed = fx.Graph(), self._sources(wanted, start, within=self._position)
            copies = {} if start is None else {start: graph.placeholder("x")}
            copies[self._images] = graph.placeholder("images")
            for node in self._nodes:
                if node in needed and node not in copies:
                    copies[node] = graph.node_copy(node, copies.__getitem__)
            graph.output(tuple(copies[node] for node in wanted))
            self._keep_inputs(graph)
            self._parts[key] = fx.GraphModule(self._tracer.root, graph)
        return self._parts[key]

    def _keep_inputs(self, graph: fx.Graph) -> None:
        """Let operations that are in place work on copies, where another node reads what they overwrite."""
        root = self._tracer.root
        for write in [node for node in graph.nodes if is_in_place(node, root)]:
            source = write.all_input_nodes[0]
            maker = root.get_submodule(source.target) if source.op == "call_module" else nn.Identity()
            is_new = is_in_place(source, root) or source.target in MAKES_NEW or any(True for _ in maker.parameters())
            if not is_new or any(user is not write and not is_shape_read(user) for user in source.users):
                with graph.inserting_before(write):
                    write.replace_input_with(source, graph.call_method("clone", (source,)))
