"""The tensors in the output of a module.

An output is a tensor, or a tuple, list, dict or dataclass of outputs.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd.graph import Node

from src.ground.errors import UserError

# A tensor in the graph of gradients: the node that made it, and the number of the node's output
GraphValue = tuple[Node, int]


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


def tensors_of(output: object) -> Iterator[Tensor]:
    """Yield the tensors of an output, in order."""
    if isinstance(output, Tensor):
        yield output
    for item in _items(output).values():
        yield from tensors_of(item)


def first_tensor(output: object) -> Tensor | None:
    """Return the first tensor of an output; None if it has no tensor."""
    return next(tensors_of(output), None)


def map_tensors(output: object, change: Callable[[Tensor], Tensor]) -> object:
    """Return a copy of an output in which each tensor t is replaced by `change(t)`, in order."""
    if isinstance(output, Tensor):
        return change(output)
    items = {key: map_tensors(item, change) for key, item in _items(output).items()}
    if isinstance(output, tuple):
        if hasattr(output, "_make"):  # the class of a NamedTuple takes its fields one by one
            return output._make(items.values())
        return type(output)(items.values())
    if not items:
        return output
    changed: Any = copy.copy(output)
    for key, item in items.items():
        if isinstance(output, (list, Mapping)):
            changed[key] = item
        else:
            object.__setattr__(changed, key, item)  # the dataclass may be frozen
    return changed


def with_first(output: object, tensor: Tensor) -> object:
    """Return a copy of an output in which `tensor` takes the place of the first tensor."""
    replacements = iter([tensor])
    return map_tensors(output, lambda old: next(replacements, old))


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
    logits = first_tensor(_items(output).get("logits", output))
    if logits is None:
        raise UserError(
            f"the network returns a {type(output).__name__}; let its forward return the logits"
        )
    return logits


def _items(output: object) -> dict[Any, object]:
    """Return the parts of an output by key, index or field; {} if it has no parts."""
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, (tuple, list)):
        return dict(enumerate(output))
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return {}
