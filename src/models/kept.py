"""Activations of images that pass again, kept in a cache."""

import hashlib
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from src.core.cache import Cache
from src.core.ownership import in_own_memory
from src.core.tensors import bytes_of

if TYPE_CHECKING:
    from src.models.network import Network


class KeptActivations(NamedTuple):
    """The activations of a network in a cache; the network must not change."""

    cache: Cache
    identity: Hashable  # equal for networks with equal weights and equal code

    def of(self, network: "Network", images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Return activations by layer; those that are not kept come from a pass."""
        precision = (
            torch.is_autocast_enabled(images.device.type),
            torch.get_float32_matmul_precision(),
        )
        content = hashlib.sha256(bytes_of(images)).digest()
        batch = (self.identity, content, precision)
        keys = {name: (batch, name, name in network.moved_layers) for name in names}
        activations = {name: self.cache.get(key) for name, key in keys.items()}
        missing = [name for name, values in activations.items() if values is None]
        if missing:
            computed = network.activations(images, missing)
            for name, values in computed.items():
                activations[name] = in_own_memory(values)
                self.cache.keep(keys[name], activations[name], values.nbytes)
        return activations
