"""Activations that stand in the place of a network."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from src.core.activations import at_least_single


class StoredActivations(NamedTuple):
    """The activations (N, ...) of N images by layer, in the place of a network."""

    values: Mapping[str, Tensor | NDArray]

    def first(self, n_images: int, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the activations of the first images, in single precision unless they are
        double."""
        activations = {}
        for name in names:
            values = self.values[name][:n_images]
            if not isinstance(values, Tensor):
                values = torch.tensor(values)  # a copy, as arrays in files are read-only
            if not values.is_floating_point():
                values = values.float()
            activations[name] = at_least_single(values)
        return activations
