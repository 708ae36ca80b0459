"""A module as a graph, found by torch.fx: which nodes are the outputs of its modules, and where it can be cut."""

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph import inplace_methods

from src.errors import UserError

Node = fx.Node
IN_PLACE = {getattr(operator, name): getattr(operator, name[1:], None) for name in inplace_methods}  # iadd: add
SHAPE_METHODS = {"size", "dim", "numel", "ndimension", "stride", "is_contiguous"}
SHAPE_ATTRIBUTES = {"shape", "ndim", "dtype", "device", "layout", "is_cuda", "itemsize"}
# What may return the memory of its input.
VIEWS = {"view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "ravel", "transpose", "swapaxes",
         "swapdims", "permute", "t", "movedim", "moveaxis", "unsqueeze", "squeeze", "expand", "expand_as",
         "broadcast_to", "narrow", "select", "unfold", "diagonal", "getitem", "contiguous", "to", "type_as", "float",
         "double", "half", "bfloat16", "detach", "dropout", "stochastic_depth"}  # fmt: skip
VIEW_ATTRIBUTES = {"T", "mT", "H", "mH", "data", "real"}
SPLITS = {"chunk", "split", "tensor_split", "split_with_sizes", "unbind"}  # whose items share no memory
VIEW_MODULES = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)
WRAPPED = "the wrapped module"  # the name of an attribute that no child can have
NOT_LAYERS = ("torch.nn.modules.module", "torch.nn.modules.container")


class Trace:
    """The graph of a module in the mode in which it is.

    What is changed in place is read by all that follows from the node that changes it, whose `meta` has "changes".

    Attributes:
        layers: by name, in the order in which they are computed, the nodes that are the outputs of modules: of the
            last call where there are several, of the last child where a container is not called itself.
        data: the nodes that depend on the images by more than their shape.
    Raises:
        UserError: torch.fx cannot trace it, it draws random numbers that a trace would freeze, or it returns no logits.
    """

    def __init__(self, module: nn.Module):
        self.root, tracer = _Root(module), _Tracer()
        random = torch.get_rng_state()
        try:
            self.graph = tracer.trace(self.root)
        except Exception as error:  # whatever the module does with a stand-in for its images
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{type(module).__name__} cannot be traced to find its layers ({reason[:300]}); let its control flow "
                "depend on no data, or put what does into a function that is given to torch.fx.wrap"
            ) from error
        if not torch.equal(random, torch.get_rng_state()):
            torch.set_rng_state(random)
            raise UserError(
                f"{type(module).__name__} draws random tensors in its forward, which a trace would freeze; draw them "
                "like a tensor that depends on the images (torch.rand_like), or in a function given to torch.fx.wrap"
            )
        nodes = list(self.graph.nodes)
        self.images, self.data = nodes[0], tracer.data
        output = nodes[-1].args[0]
        if isinstance(output, Node) and isinstance(output.target, type) and issubclass(output.target, tuple):
            output = tuple(output.args)  # a NamedTuple, such as GoogLeNet's in training
        self.output = logits_of(output, Node, module)
        self.position = {node: i for i, node in enumerate(nodes)}
        self._writes = tracer.changed
        self._memory = self._find_memory()
        self._refuse_shared_writes(type(module).__name__)
        named = {name: _value(each, tracer.values) for name, each in module.named_modules(remove_duplicate=False)}
        layers = [(name, node) for name, node in named.items() if name and node is not None]
        self.layers = dict(sorted(layers, key=lambda item: self.position[item[1]]))

    def _refuse_shared_writes(self, name: str) -> None:
        """Refuse what edges do not show: a tensor is changed in place, and another one in its memory is read later."""
        sharing: dict[Node, list[Node]] = {}
        for node, (maker, *_) in self._memory.items():
            sharing.setdefault(maker, []).append(node)
        for tensor, write in self._writes.items():
            for node in sharing[self._memory[tensor][0]]:
                place = self.position[write]
                is_read = any(self.position[user] > place and not is_shape_read(user) for user in node.users)
                if is_read and node is not tensor and self.is_overwritten(node, write):
                    raise UserError(
                        f"{name} changes a tensor in place ({write.format_node()}) and later reads another one that "
                        f"shares its memory ({node.name}), which a trace cannot follow; compute a new tensor instead"
                    )

    def is_overwritten(self, node: Node, write: Node) -> bool:
        """Return whether an operation changes, in place, memory that an earlier node may share."""
        pairs = zip(self._memory[node], self._memory[write.args[0]], strict=False)
        return self.position[node] < self.position[write] and all(one is other for one, other in pairs)

    def _find_memory(self) -> dict[Node, tuple[Node, ...]]:
        """Return for each node the one that made the memory it may share, and the items of splits that led to it."""
        memory, writes = {}, set(self._writes.values())
        for node in self.graph.nodes:
            name, sources = getattr(node.target, "__name__", node.target), node.all_input_nodes
            if node.op == "call_module":
                is_view = isinstance(self.root.get_submodule(node.target), VIEW_MODULES)
            else:
                is_view = name in VIEWS | SPLITS or (name == "getattr" and node.args[1] in VIEW_ATTRIBUTES)
            if node in writes:
                memory[node] = memory[node.args[0]]
            elif is_view and sources:
                split = getattr(sources[0].target, "__name__", sources[0].target) in SPLITS
                memory[node] = (*memory[sources[0]], node) if split else memory[sources[0]]
            else:
                memory[node] = (node,)
        return memory

    def reached(self, wanted: Iterable[Node], after: Node | None) -> set[Node]:
        """Collect the data nodes that the wanted ones are computed from, back to `after` (included if reached)."""
        reached, open_nodes = set(), [node for node in wanted if node in self.data]
        while open_nodes:
            node = open_nodes.pop()
            if node not in reached:
                reached.add(node)
                open_nodes += [] if node is after else self.data.intersection(node.all_input_nodes)
        return reached

    def cuts(self) -> list[Node]:
        """Return the nodes that no edge between data nodes jumps over, in order.

        What lies behind a cut depends on the images through it alone (or by their shape).
        """
        live = self.reached([self.output], None)
        cuts, reach = [], 0
        for node in sorted(live, key=self.position.__getitem__):
            if node is not self.images and reach <= self.position[node]:
                cuts.append(node)
            reach = max([reach, *(self.position[user] for user in live.intersection(node.users))])
        return cuts


def is_shape_read(node: Node) -> bool:
    """Return whether a node reads the shape of a tensor, its type or its device: no data."""
    if node.op == "call_method":
        return node.target in SHAPE_METHODS
    return node.op == "call_function" and node.target is getattr and node.args[1] in SHAPE_ATTRIBUTES


def logits_of(output: Any, kind: type, module: nn.Module) -> Any:
    """Return the logits among the outputs: the first of a tuple, as GoogLeNet and Inception give in training.

    Raises:
        UserError: that is not of the kind (a tensor, or a node that stands for one).
    """
    first = output[0] if isinstance(output, tuple) and output else output
    if not isinstance(first, kind):
        given = type(output).__name__.removeprefix("immutable_")  # as torch.fx calls it
        raise UserError(f"{type(module).__name__} returns a {given}; let its forward return the logits")
    return first


def _value(module: nn.Module, values: dict[nn.Module, Node | None]) -> Node | None:
    if module in values:
        return values[module]
    of_children = [_value(child, values) for child in module.children()]
    return next((node for node in reversed(of_children) if node is not None), None)


class _Root(nn.Module):
    """The children, parameters and buffers of a module, whose forward takes images alone."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self._modules, self._parameters, self._buffers = module._modules, module._parameters, module._buffers
        self.__dict__[WRAPPED] = module  # no child: that would put a prefix in front of all names

    def forward(self, images: Tensor) -> Any:
        return self.__dict__[WRAPPED].forward(images)


class _Proxy(fx.Proxy):
    """A value in a trace; in-place operators are recorded as such (torch.fx would take `x += y` for `x = x + y`)."""


def _in_place(name: str):
    def method(self: _Proxy, *others: Any) -> _Proxy:
        return self.tracer.create_proxy("call_function", getattr(operator, name), (self, *others), {})

    return method


for _name in inplace_methods:
    setattr(_Proxy, f"__{_name}__", _in_place(_name))


class _Tracer(fx.Tracer):
    """Keeps the value of the last call of each module, and lets what follows an in-place operation read its result."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[nn.Module, Node | None] = {}  # None: not a single tensor
        self.data: set[Node] = set()
        self.changed: dict[Node, Node] = {}  # by what an in-place operation changes: its result

    def proxy(self, node: Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        """Layers of torch, and classes derived from them, in which there are no names."""
        bases = [base.__module__ for base in type(module).__mro__]
        is_layer = any(base.startswith("torch.nn.modules.") and base not in NOT_LAYERS for base in bases)
        return super().is_leaf_module(module, module_qualified_name) or (is_layer and not any(module.children()))

    def call_module(self, m: nn.Module, forward: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        if type(m) is nn.TransformerEncoder and len(args) == 1 and not kwargs:  # its forward looks at shapes
            (output,) = args
            for layer in (*m.layers, *([] if m.norm is None else [m.norm])):
                output = layer(output)
        else:
            output = super().call_module(m, forward, args, kwargs)
        self.values[m] = self._now(output.node) if isinstance(output, fx.Proxy) else None
        return output

    def create_node(self, kind: str, target: Any, args: tuple, kwargs: dict[str, Any], *rest: Any, **more: Any) -> Node:
        """Record an operation on the latest values of its arguments, and what it changes in place."""
        args, kwargs = fx.node.map_arg(args, self._now), fx.node.map_arg(kwargs, self._now)
        is_in_place = self._is_in_place(kind, target, kwargs)
        if is_in_place and not args and isinstance(kwargs.get("input"), Node):
            args, kwargs = (kwargs["input"],), {key: value for key, value in kwargs.items() if key != "input"}
        changed = args[0] if is_in_place and args and isinstance(args[0], Node) else None
        if changed is not None and changed not in self.data and IN_PLACE.get(target) is not None:
            target, changed = IN_PLACE[target], None  # a number, such as a size
        if kwargs.get("inplace"):
            kwargs = kwargs | {"inplace": False}
        node = super().create_node(kind, target, args, kwargs, *rest, **more)
        if kind == "placeholder" or not (is_shape_read(node) or self.data.isdisjoint(node.all_input_nodes)):
            self.data.add(node)
        if changed is not None:
            self.changed[changed] = node
            if "inplace" not in kwargs:
                node.meta["changes"] = True
        return node

    def _now(self, node: Node) -> Node:
        while node in self.changed:
            node = self.changed[node]
        return node

    def _is_in_place(self, kind: str, target: Any, kwargs: dict[str, Any]) -> bool:
        """Return whether an operation overwrites its first argument."""
        if kind == "call_module":
            return bool(getattr(self.root.get_submodule(target), "inplace", False))
        if kind not in ("call_function", "call_method"):
            return False
        name = target if kind == "call_method" else getattr(target, "__name__", "")
        return bool(kwargs.get("inplace")) or target in IN_PLACE or (name.endswith("_") and not name.endswith("__"))
