"""A module as a graph, read by torch.fx: which nodes depend on the images, and which are the outputs of modules."""

import contextlib
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from src.models.values import first_tensor, logits_of

Node = fx.Node
SHAPE_METHODS = {"size", "dim", "numel", "ndimension", "stride", "is_contiguous"}
SHAPE_ATTRIBUTES = {"shape", "ndim", "dtype", "device", "layout", "is_cuda", "itemsize"}
TUPLES = (nn.RNNBase, nn.LSTMCell, nn.MultiheadAttention)  # modules of torch that return two values
NOT_LAYERS = ("torch.nn.modules.module", "torch.nn.modules.container")
HIDDEN = (str(Path(torch.__file__).parent), str(Path(__file__).parent))  # no code of the user's


class Untraceable(Exception):
    """A module has no graph, or one that computes something else; says where and why."""


@contextlib.contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Leave the buffers of a module as they were."""
    buffers = [(each, each.clone()) for each in module.buffers()]
    try:
        yield
    finally:
        for buffer, before in buffers:
            buffer.data.copy_(before)


def is_shape_read(node: Node) -> bool:
    """Return whether a node reads the shape of a tensor, its type or its device: no data."""
    if node.op == "call_method":
        return node.target in SHAPE_METHODS
    return node.op == "call_function" and node.target is getattr and node.args[1] in SHAPE_ATTRIBUTES


def is_in_place(node: Node, root: nn.Module) -> bool:
    """Return whether a node overwrites its first argument; `x += y` is traced as `x = x + y`."""
    if not node.all_input_nodes:
        return False
    if node.op == "call_module":
        return bool(getattr(root.get_submodule(node.target), "inplace", False))
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    return bool(node.kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__"))


def find_layers(module: nn.Module, places: Mapping[nn.Module, int]) -> dict[str, nn.Module]:
    """Return the layers by name in the order of their places: the modules that have one.

    A container that has none, as it is not called or gives no tensor, stands for its last child that has one.
    """

    def owner(each: nn.Module) -> nn.Module | None:
        owners = [each] if each in places else [found for found in map(owner, each.children()) if found is not None]
        return owners[-1] if owners else None

    layers = {name: owner(each) for name, each in module.named_modules(remove_duplicate=False) if name}
    named = [(name, each) for name, each in layers.items() if each is not None]
    return dict(sorted(named, key=lambda layer: places[layer[1]]))


def _reason(error: Exception) -> str:
    """Return the line at which tracing failed, and why."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(HIDDEN)]
    place = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: " if frames else ""
    return f"{place}{' '.join(str(error).split())[:160] or type(error).__name__}"


def _root_of(module: nn.Module) -> nn.Module:
    """Return a module with the children, parameters and buffers of another, whose forward takes images alone."""

    class Root(nn.Module):
        def forward(self, images: Tensor) -> Any:
            return logits_of(module, module.forward(images))

    root = Root()
    root._modules, root._parameters, root._buffers = module._modules, module._parameters, module._buffers
    return root


class Tracer(fx.Tracer):
    """Keeps the value of the last call of each module, and lets nodes behind an in-place operation read its result.

    Attributes:
        values: by module the node that is its output, of those whose output has a tensor.
        data: the nodes that depend on the images by more than their shape.
        results: of in-place operations, by the nodes that these overwrite.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[nn.Module, Node] = {}
        self.data: set[Node] = set()
        self.results: dict[Node, Node] = {}
        self.failed = ""  # the innermost module that could not be traced

    def read(self, module: nn.Module) -> fx.Graph:
        """Return the graph of a module in its current mode, which takes images and gives logits.

        Raises:
            Untraceable: torch.fx cannot trace it.
        """
        attributes = [(each, dict(vars(each))) for each in module.modules()]
        try:
            with buffers_kept(module), torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(1)  # random tensors, which a trace freezes, differ from the hooks'
                return self.trace(_root_of(module))
        except Exception as error:  # whatever the module does with a stand-in for its images
            name = self.failed or type(module).__name__
            raise Untraceable(f"{name} cannot be traced ({_reason(error)})") from error
        finally:
            for each, values in attributes:  # a forward may keep what it computes, here stand-ins
                vars(each).clear()
                vars(each).update(values)

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        """Layers of torch, and classes derived from them, in which there are no names."""
        bases = [base.__module__ for base in type(module).__mro__]
        is_layer = any(base.startswith("torch.nn.modules.") and base not in NOT_LAYERS for base in bases)
        return super().is_leaf_module(module, module_qualified_name) or (is_layer and not any(module.children()))

    def call_module(self, m: nn.Module, forward: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        try:
            if type(m) is nn.TransformerEncoder and len(args) == 1 and not kwargs:  # its forward looks at shapes
                (output,) = args
                for layer in (*m.layers, *([] if m.norm is None else [m.norm])):
                    output = layer(output)
            else:
                output = super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or self.path_of_module(m)
            raise
        if isinstance(m, TUPLES) and isinstance(output, fx.Proxy):
            output = (output[0], output[1])
        if isinstance(first := first_tensor(output), fx.Proxy):
            self.values[m] = self._now(first.node)
        return output

    def create_node(self, kind: str, target: Any, args: tuple, kwargs: dict[str, Any], *rest: Any, **more: Any) -> Node:
        """Record an operation on the latest values of its arguments, and whether it changes the first in place."""
        args, kwargs = fx.node.map_arg((args, kwargs), self._now)
        node = super().create_node(kind, target, args, kwargs, *rest, **more)
        if kind == "placeholder" or not (is_shape_read(node) or self.data.isdisjoint(node.all_input_nodes)):
            self.data.add(node)
        if is_in_place(node, self.root):
            self.results[node.all_input_nodes[0]] = node
        return node

    def _now(self, node: Node) -> Node:
        while node in self.results:
            node = self.results[node]
        return node
