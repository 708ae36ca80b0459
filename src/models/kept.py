"""Activations of networks, kept for further passes over the same images."""

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.ground.console import note_once


class _Key(NamedTuple):
    """The images and the layer of an activation."""

    images: bytes  # SHA-256 of the batch
    layer: str
    is_turned: bool  # whether its channels were moved in front


class _OfNetwork(NamedTuple):
    """The activations of a network, and the state that they were computed in."""

    state: tuple
    activations: dict[_Key, Tensor]

    @property
    def n_bytes(self) -> int:
        return sum(values.nbytes for values in self.activations.values())


class KeptActivations:
    """Keeps activations of networks, batch by batch.

    The content of a batch is its key, so that an activation is exactly that of another pass over
    the batch. A network whose weights or mode change loses its activations. Where memory is short,
    networks lose all their activations, but for the two that were used last: the front and the end
    at work. The most recently used of the idle networks goes first, as front networks come in turn:
    it is needed again latest of all.

    Args:
        max_bytes: memory for all activations; those that do not fit are computed again.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._n_bytes = 0
        # By network; the one that was used last is last
        self._kept: dict[nn.Module, _OfNetwork] = {}

    def activations(
        self,
        module: nn.Module,
        images: Tensor,
        names: Sequence[str],
        compute: Callable[[Tensor, list[str]], dict[str, Tensor]],
        *,
        turned: Collection[str],
    ) -> dict[str, Tensor]:
        """Return the activations of layers of a network by name.

        Args:
            module: the network.
            images: (B, C, H, W).
            compute: returns the activations of the images by layer, from a pass.
            turned: the layers whose channels it moves in front.
        """
        of_network = self._of(module).activations
        content = images.detach().cpu().contiguous().view(torch.uint8)  # numpy lacks bfloat16
        batch = hashlib.sha256(content.numpy().data).digest()
        keys = {name: _Key(batch, name, name in turned) for name in names}
        activations = {name: of_network[key] for name, key in keys.items() if key in of_network}
        missing = [name for name in names if name not in activations]
        computed = {}
        if missing:
            computed = compute(images, missing)
        n_bytes = sum(values.nbytes for values in computed.values())
        if self._has_room(n_bytes):
            of_network |= {keys[name]: values for name, values in computed.items()}
            self._n_bytes += n_bytes
        return activations | computed

    def _of(self, module: nn.Module) -> _OfNetwork:
        """Return the activations of a network, as the one that was used last."""
        state = _state_of(module)
        of_network = self._kept.pop(module, None)
        if of_network is not None and of_network.state != state:
            self._n_bytes -= of_network.n_bytes
            of_network = None
        if of_network is None:
            of_network = _OfNetwork(state, {})
        self._kept[module] = of_network
        return of_network

    def _has_room(self, n_bytes: int) -> bool:
        """Drop activations of idle networks to make room; return whether `n_bytes` more fit."""
        if self._n_bytes + n_bytes > self.max_bytes:
            note_once(
                "activations of all networks do not fit into memory: some are computed again for each pair"
            )
        idle = list(self._kept)[:-2]  # the last two are the front and the end at work
        while idle and self._n_bytes + n_bytes > self.max_bytes:
            self._n_bytes -= self._kept.pop(idle.pop()).n_bytes
        return self._n_bytes + n_bytes <= self.max_bytes

    def drop_all(self) -> None:
        """Drop all activations."""
        self._kept.clear()
        self._n_bytes = 0


def _state_of(module: nn.Module) -> tuple:
    """Return the state of the weights of a module, and the mode of its parts."""
    modes = [part.training for part in module.modules()]
    return modes, _states_of(itertools.chain(module.parameters(), module.buffers()))


def _states_of(tensors: Iterable[Tensor]) -> list[tuple[int, int]]:
    """Return the address and the version of tensors; an in-place change raises the version.

    A change of the same memory through `.data` is not seen.
    """
    states = []
    for tensor in tensors:
        version = 0  # tensors made in inference mode have none
        if not tensor.is_inference():
            version = tensor._version
        states.append((tensor.data_ptr(), version))
    return states
