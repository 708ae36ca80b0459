"""The parts of a traced network: sub-graphs from one layer, or from the images, to others."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from src.models.tracing import IN_PLACE, Node, Trace, is_shape_read

FRESH = {torch.cat, torch.add, *filter(None, IN_PLACE.values())}  # functions that always make a new tensor


class Part(NamedTuple):
    """A sub-graph as a module, which gives a tuple; its parameters and buffers are the network's own."""

    module: fx.GraphModule
    start: Node | None  # what its first input stands for; None: the images, and it has no other input
    needs_images: bool
    shapes: tuple[Node, ...]  # reads of shapes in front of the start: inputs behind the images
    follows: bool  # whether all outputs depend on the start


class Parts:
    """The parts of a trace that were asked for so far."""

    def __init__(self, trace: Trace):
        self.trace = trace
        self._made: dict[tuple[Node | None, ...], Part] = {}
        self._known_shapes: dict[tuple, tuple] = {}

    def between(self, start: Node | None, wanted: Sequence[Node]) -> Part:
        """Return the part from a node (None: the images) to others, with just the nodes that its outputs need.

        Where these depend on the images past the start, the images become a second input, and reads of shapes in
        front of the start further ones.
        """
        key = (start, *wanted)
        if key not in self._made:
            self._made[key] = self._make(start, wanted)
        return self._made[key]

    def run(self, part: Part, x: Tensor, images: Tensor | None = None) -> tuple[Any, ...]:
        """Run a part; the modes of its modules are those of the network."""
        if part.start is None:
            return part.module(x)
        return part.module(x, images, *(self._shapes(part.shapes, images) if part.shapes else ()))

    def _make(self, start: Node | None, wanted: Sequence[Node]) -> Part:
        trace = self.trace
        data = trace.reached(wanted, start)
        needed, shapes, open_nodes = set(), {}, list(wanted)
        while open_nodes:
            node = open_nodes.pop()
            if node in needed or node is start:
                continue
            if start is not None and is_shape_read(node) and node.args[0] in trace.data - data:
                shapes[node] = True
                continue
            needed.add(node)
            open_nodes += node.all_input_nodes
        module = fx.GraphModule(trace.root, self._graph(start, needed, shapes, wanted))
        needs_images = start is not None and bool(trace.images in needed or shapes)
        follows = start is None or all(start in trace.reached([node], start) for node in wanted)
        return Part(module, start, needs_images, tuple(shapes), follows)

    def _graph(self, start: Node | None, needed: set[Node], shapes: Sequence[Node], wanted: Sequence[Node]) -> fx.Graph:
        graph, images = fx.Graph(), self.trace.images
        env = {} if start is None else {start: graph.placeholder("x")}
        env[images] = graph.placeholder("images")
        env.update({node: graph.placeholder(f"shape_{i}") for i, node in enumerate(shapes)})
        kept, copied = {*wanted, start, images}, set()  # what nothing may change; what is changed in a copy of it
        for node in sorted(needed - {images}, key=self.trace.position.__getitem__):
            copy = graph.node_copy(node, env.__getitem__)
            if "changes" in node.meta and self._must_copy(node, kept, copied):
                with graph.inserting_before(copy):
                    copy.args = (graph.call_method("clone", (copy.args[0],)), *copy.args[1:])
                copied.add(node)
            env[node] = copy
        graph.output(tuple(env[node] for node in wanted))
        return graph

    def _must_copy(self, write: Node, kept: set[Node | None], copied: set[Node]) -> bool:
        """Return whether an in-place operation may change what is kept: its input, or another view of that memory."""
        if any(node is not None and self.trace.is_overwritten(node, write) for node in kept):
            return True
        return not kept.isdisjoint(self._may_share_memory(write.args[0], copied))

    def _may_share_memory(self, node: Node, copied: set[Node]) -> Iterator[Node]:
        """Yield the node and those that it may be a view of: a module with parameters is sure to make a new tensor."""
        yield node
        if node in copied or node.target in FRESH or (node.op == "call_module" and self._has_parameters(node.target)):
            return
        sources = node.args[:1] if "changes" in node.meta else node.all_input_nodes
        for source in self.trace.data.intersection(sources):
            yield from self._may_share_memory(source, copied)

    def _has_parameters(self, name: str) -> bool:
        return any(True for _ in self.trace.root.get_submodule(name).parameters())

    def _shapes(self, reads: tuple[Node, ...], images: Tensor) -> tuple[Any, ...]:
        """Compute what reads of shapes give for images of this shape, once, on tensors without values."""
        key = (reads, images.shape, images.dtype, images.device)
        if key not in self._known_shapes:
            part = self.between(None, reads)
            try:
                with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
                    self._known_shapes[key] = self.run(part, mode.from_tensor(images))
            except RuntimeError:  # a function given to torch.fx.wrap looks at values
                with torch.no_grad():
                    self._known_shapes[key] = self.run(part, images)
        return self._known_shapes[key]
