"""Copies of values that a user's code gets and gives.

The code of the suite changes no tensor that it was given. Code of others may change whatever it
gets, and may reuse its own memory later, so it shares none with the suite:

* A user's function (a closed form, an objective, a measure) is called by `call_on_copies`: what
  it changes is a copy, and what it returns is copied.
* Of the batches of a user's loader, `datasets.iterated` keeps copies: loaders reuse their buffers.
* What `Cache` keeps of a network has memory of its own (`in_own_memory`), which is what it counts:
  an activation may be a view of a tensor many times as large.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor


def call_on_copies(function: Callable[..., Any], *values: Any) -> Any:
    """Call a user's function on copies of values; return a copy of what it returns.

    Args:
        values: tensors, or tuples of them. Gradients go through the copies.
    """
    return _copied(function(*_copied(values)))


def in_own_memory(values: Tensor) -> Tensor:
    """Return a tensor that fills its memory: a copy of a part of a larger one, or of an expanded one."""
    if values.untyped_storage().nbytes() == values.nbytes:
        return values
    return values.clone()


def _copied(value: Any) -> Any:
    """Return a copy of a tensor or array, or a tuple or list with copies of those in it."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if hasattr(value, "_fields"):  # a named tuple
        return type(value)(*map(_copied, value))
    if isinstance(value, tuple | list):
        return type(value)(map(_copied, value))
    return value
