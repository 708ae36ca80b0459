"""Outputs of modules: a tensor, or a tuple, list, dict or dataclass of outputs."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from src.core.errors import UserError


def tensors_of(output: object) -> Iterator[Tensor]:
    """Yield the tensors of an output, in order."""
    if isinstance(output, Tensor):
        yield output
    for item in entries_of(output).values():
        yield from tensors_of(item)


def first_tensor(output: object) -> Tensor | None:
    """Return the first tensor of an output; None if it has no tensor."""
    return next(tensors_of(output), None)


def logits_of(output: object) -> Tensor:
    """Return the logits in the output of a network, or the features in the output of an encoder.

    They are the first tensor, of the entry `logits` if there is one.

    Raises:
        UserError: there is no tensor.
    """
    logits = first_tensor(entries_of(output).get("logits", output))
    if logits is None:
        raise UserError(
            f"the network returns a {type(output).__name__}; let its forward return the logits"
        )
    return logits


def entries_of(output: object) -> dict[Any, object]:
    """Return the parts of an output by key, index or field; {} if it has no parts."""
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, (tuple, list)):
        return dict(enumerate(output))
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return {}


def map_tensors(output: object, change: Callable[[Tensor], Tensor]) -> object:
    """Return a copy of an output in which each tensor t is replaced by `change(t)`, in order."""
    if isinstance(output, Tensor):
        return change(output)
    items = {key: map_tensors(item, change) for key, item in entries_of(output).items()}
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
