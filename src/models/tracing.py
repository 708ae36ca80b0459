"""A module as a graph, read by torch.fx: which nodes depend on the images, and which are the outputs of modules."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from src.models.values import first_tensor, logits_of

Node = fx.Node
SHAPE_METHODS = {"size", "dim", "numel", "ndimension", "stride", "is_contiguous"}
SHAPE_ATTRIBUTES = {"shape", "ndim", "dtype", "device", "layout", "is_cuda", "itemsize"}
TUPLES = (nn.RNNBase, nn.LSTMCell, nn.MultiheadAttention)  # modules of torch that return two values
WRAPPED = "the wrapped module"  # the name of an attribute that no child can have
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


def value_of(module: nn.Module, values: dict[nn.Module, Any]) -> Any:
    """Return the value of a module, for a container that is not called that of its last child; None: it has none."""
    if module in values:
        return values[module]
    of_children = [value_of(child, values) for child in module.children()]
    return next((value for value in reversed(of_children) if value is not None), None)


def _reason(error: Exception) -> str:
    """Return the line at which tracing failed, and why."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(HIDDEN)]
    place = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: " if frames else ""
    return f"{place}{' '.join(str(error).split())[:160] or type(error).__name__}"


class _Root(nn.Module):
    """The children, parameters and buffers of a module, whose forward takes images alone."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self._modules, self._parameters, self._buffers = module._modules, module._parameters, module._buffers
        self.__dict__[WRAPPED] = module  # no child: that would put a prefix in front of all names

    def forward(self, images: Tensor) -> Any:
        module = self.__dict__[WRAPPED]
        return logits_of(module, module.forward(images), fx.Proxy)


class Tracer(fx.Tracer):
    """Keeps the value of the last call of each module, and lets nodes behind an in-place operation read its result.

    Attributes:
        values: by module the node that is its output, or None if that has no tensor.
        data: the nodes that depend on the images by more than their shape.
        results: of in-place operations, by the nodes that these overwrite.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[nn.Module, Node | None] = {}
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
                return self.trace(_Root(module))
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
        first = first_tensor(output, fx.Proxy)
        self.values[m] = None if first is None else self._now(first.node)
        return output

    def create_node(self, kind: str, target: Any, args: tuple, kwargs: dict[str, Any], *rest: Any, **more: Any) -> Node:
        """Record an operation on the latest values of its arguments, and whether it changes the first in place."""
        args, kwargs = fx.node.map_arg((args, kwargs), self._now)
        node = super().create_node(kind, target, args, kwargs, *rest, **more)
        if kind == "placeholder" or not (is_shape_read(node) or self.data.isdisjoint(node.all_input_nodes)):
            self.data.add(node)
        if node.all_input_nodes and self._is_in_place(node):
            self.results[node.all_input_nodes[0]] = node
        return node

    def _now(self, node: Node) -> Node:
        while node in self.results:
            node = self.results[node]
        return node

    def _is_in_place(self, node: Node) -> bool:
        """Return whether an operation overwrites its first argument; `x += y` is traced as `x = x + y`."""
        if node.op == "call_module":
            return bool(getattr(self.root.get_submodule(node.target), "inplace", False))
        name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
        return bool(node.kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__"))
