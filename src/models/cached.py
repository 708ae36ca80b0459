"""Activations of images that pass again, kept in a cache."""

import hashlib
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.core.cache import Cache
from src.core.ownership import in_own_memory
from src.core.tensors import bytes_of

Activations = dict[str, Tensor]  # by layer


class CachedActivations(NamedTuple):
    """The activations of a network in a cache; the network must not change."""

    cache: Cache
    identity: Hashable  # equal for networks with equal weights and equal code
    code: Hashable  # equal for networks with equal code, whatever their weights; None: not known

    def of(
        self,
        images: Tensor,
        names: Sequence[str],
        *,
        compute: Callable[[Tensor, Sequence[str]], Activations],
        moved_layers: Collection[str],
    ) -> Activations:
        """Return the activations of layers.

        Args:
            compute: returns those that are not kept, from a pass.
            moved_layers: as in `Network`.
        """
        precision = (
            torch.is_autocast_enabled(images.device.type),
            torch.get_float32_matmul_precision(),
        )
        content = hashlib.sha256(bytes_of(images)).digest()
        batch = (self.identity, content, precision)
        keys = {name: (batch, name, name in moved_layers) for name in names}
        activations = {name: self.cache.get(key) for name, key in keys.items()}
        missing = [name for name, values in activations.items() if values is None]
        if missing:
            computed = compute(images, missing)
            for name, values in computed.items():
                activations[name] = in_own_memory(values)
                self.cache.keep(keys[name], activations[name], values.nbytes)
        return activations
