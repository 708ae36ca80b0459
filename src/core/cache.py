"""A cache of computed values within a budget of memory."""

from collections.abc import Hashable
from typing import Any, NamedTuple

import torch

from src.core.console import note_once
from src.core.memory import free_memory


class _Kept(NamedTuple):
    value: Any
    n_bytes: int


class Cache:
    """Keeps values by key.

    Callers give keys with all that a value depends on, such as the SHA-256 of weights and of images.
    So no value is ever stale.

    Work comes in units, such as pairs of networks. Where memory is short, values stay that the
    current unit or the one before has used. Of the others, the one that was used last goes first:
    networks come in turn, so that it is needed again latest of all. A value without room is not kept.

    Args:
        max_bytes: of all values together, wherever they lie.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._current: dict[Hashable, _Kept] = {}  # used in the current unit
        self._before: dict[Hashable, _Kept] = {}  # in the one before
        self._idle: dict[Hashable, _Kept] = {}  # the one that was used last is last

    @classmethod
    def of_device(cls, device: torch.device | str, gigabytes: float | None = None) -> "Cache":
        """Return a cache for values on a device and on the CPU.

        Args:
            gigabytes: the budget; None: a quarter of the memory that is free on both.
        """
        if gigabytes is None:
            return cls(min(free_memory(device), free_memory()) // 4)
        return cls(int(gigabytes * 10**9))

    def begin_unit(self) -> None:
        """Begin a unit of work."""
        self._idle |= self._before
        self._before = self._current
        self._current = {}

    def get(self, key: Hashable) -> Any:
        """Return a value, or None if it is not kept."""
        for values in (self._current, self._before, self._idle):
            if key in values:
                kept = values.pop(key)
                self._current[key] = kept
                return kept.value
        return None

    def keep(self, key: Hashable, value: Any, n_bytes: int) -> None:
        """Keep a value, in place of an earlier one that `get` found, if there is room."""
        if key in self._current:
            self.n_bytes -= self._current.pop(key).n_bytes
        n_excess = self.n_bytes + n_bytes - self.max_bytes
        if n_excess > 0:
            note_once(
                f"activations and sums take more than {self.max_bytes / 10**9:.3g} GB (--memory): "
                "some are computed again"
            )
            if sum(kept.n_bytes for kept in self._idle.values()) < n_excess:
                return
        while self.n_bytes + n_bytes > self.max_bytes:
            _, dropped = self._idle.popitem()
            self.n_bytes -= dropped.n_bytes
        self._current[key] = _Kept(value, n_bytes)
        self.n_bytes += n_bytes

    def clear(self) -> None:
        """Drop all values."""
        for values in (self._current, self._before, self._idle):
            values.clear()
        self.n_bytes = 0
