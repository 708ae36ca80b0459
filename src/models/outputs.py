"""Tensors in the outputs of modules: alone, or in tuples, lists, dicts and dataclasses, nested at
will."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from src.errors import UserError


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of a value, in order."""
    if isinstance(value, Tensor):
        yield value
    for item in _items(value).values():
        yield from tensors_of(item)


def first_tensor(value: Any) -> Tensor | None:
    """Return the first tensor of a value, which stands for it; None where there is none."""
    return next(tensors_of(value), None)


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a value like the given one, with each of its tensors changed, in order."""
    if isinstance(value, Tensor):
        return change(value)
    items = {key: map_tensors(item, change) for key, item in _items(value).items()}
    if isinstance(value, tuple):
        return (
            type(value)(*items.values())
            if hasattr(value, "_fields")
            else type(value)(items.values())
        )
    changed = copy.copy(value) if items else value
    for key, item in items.items():
        if isinstance(value, (list, Mapping)):
            changed[key] = item
        else:
            object.__setattr__(changed, key, item)  # the dataclass may be frozen
    return changed


def with_first(value: Any, tensor: Tensor) -> Any:
    """Return a value like the given one, whose first tensor is another one."""
    first = iter([tensor])
    return map_tensors(value, lambda old: next(first, old))


def is_activation(value: Any, n: int) -> bool:
    """Return whether a value is a tensor with a row for each of n images."""
    return isinstance(value, Tensor) and value.ndim > 1 and len(value) == n


def logits_of(output: Any) -> Tensor:
    """Return the logits among the outputs of a network, or the features of an encoder.

    That is `logits` of a dict or dataclass, else the first tensor of what is returned.

    Raises:
        UserError: there is no tensor.
    """
    first = first_tensor(_items(output).get("logits", output))
    if first is None:
        raise UserError(
            f"the network returns a {type(output).__name__}; let its forward return the logits"
        )
    return first


def _items(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {}
