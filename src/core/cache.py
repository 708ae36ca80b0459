"""A cache of computed values within a budget of memory."""

from collections.abc import Hashable
from typing import Any, NamedTuple

import torch

from src.core.console import note_once
from src.core.device import free_memory


class _Kept(NamedTuple):
    value: Any
    n_bytes: int
    unit: int  # in which it was used last


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
        self._unit = 0
        self._values: dict[Hashable, _Kept] = {}  # the one that was used last is last

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
        self._unit += 1

    def get(self, key: Hashable) -> Any:
        """Return a value, or None if it is not kept."""
        if key not in self._values:
            return None
        kept = self._values.pop(key)
        self._values[key] = kept._replace(unit=self._unit)
        return kept.value

    def keep(self, key: Hashable, value: Any, n_bytes: int) -> None:
        """Keep a value, in place of an earlier one that `get` found, if there is room."""
        if key in self._values:
            self.n_bytes -= self._values.pop(key).n_bytes
        n_excess = self.n_bytes + n_bytes - self.max_bytes
        if n_excess > 0:
            note_once(
                f"activations and sums take more than {self.max_bytes / 10**9:.3g} GB (--memory): "
                "some are computed again"
            )
            idle = [key for key, kept in self._values.items() if kept.unit < self._unit - 1]
            if sum(self._values[key].n_bytes for key in idle) < n_excess:
                return
            while self.n_bytes + n_bytes > self.max_bytes:
                self.n_bytes -= self._values.pop(idle.pop()).n_bytes
        self._values[key] = _Kept(value, n_bytes, self._unit)
        self.n_bytes += n_bytes

    def clear(self) -> None:
        """Drop all values."""
        self._values.clear()
        self.n_bytes = 0
