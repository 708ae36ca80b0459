"""Tensors inside of what modules return: tensors, tuples, lists, dicts and dataclasses, nested at will."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn

from src.errors import UserError
from src.models.heads import LinearProbe


def first_tensor(value: Any) -> Any:
    """Return the first tensor of a value, or the first stand-in of a trace for one; None where there is neither."""
    if isinstance(value, (Tensor, fx.Proxy)):
        return value
    found = map(first_tensor, _items(value).values())
    return next((tensor for tensor in found if tensor is not None), None)


def is_activation(value: Any, n: int) -> bool:
    """Return whether a value is a tensor with a row for each of n images."""
    return isinstance(value, Tensor) and value.ndim > 1 and len(value) == n


def with_first(value: Any, tensor: Tensor) -> Any:
    """Return a value like the given one, whose first tensor is another one."""
    if isinstance(value, Tensor):
        return tensor
    items = _items(value)
    key = next(key for key, item in items.items() if first_tensor(item) is not None)
    items[key] = with_first(items[key], tensor)
    if isinstance(value, tuple):
        return type(value)(*items.values()) if hasattr(value, "_fields") else type(value)(items.values())
    changed = copy.copy(value)
    if isinstance(value, (list, Mapping)):
        changed[key] = items[key]
    else:
        object.__setattr__(changed, key, items[key])  # the dataclass may be frozen
    return changed


def logits_of(module: nn.Module, output: Any) -> Any:
    """Return the logits among the outputs of a network, or the features of an encoder without a head.

    That is a tensor; `logits` of a dict or dataclass, else the first tensor of what is returned. Where the module has
    a `LinearProbe` named `linear_probe`, that makes the logits of it.

    Raises:
        UserError: there is no tensor.
    """
    first = first_tensor(_items(output).get("logits", output))
    if first is None:
        raise UserError(f"{type(module).__name__} returns a {type(output).__name__}; let its forward return the logits")
    head = module._modules.get(LinearProbe.NAME)
    applies_it = type(module).forward is nn.Sequential.forward  # as its last child
    return head(first) if isinstance(head, LinearProbe) and not applies_it else first


def _items(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {}
