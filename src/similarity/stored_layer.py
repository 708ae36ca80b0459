"""A layer whose features are on disk, and the names of their files."""

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.networks import NetworkName
from src.similarity.arrays import has_array, read_array
from src.similarity.features import Features, rows_of
from src.similarity.grams import Grams
from src.similarity.samples import Undefined

CONTENTS = {
    "gram": "(n, n): products of the flattened activations of two images, less their mean over the images",
    "offsets": "(n,): gram[i, j] + offsets[i] + offsets[j] is the product of the activations that are not centred",
    "pooled": "(n, C): averages of the channels over positions or tokens",
    "axes": "(C, C): principal axes of the positions, in columns, the largest variance first",
    "variances": "(C,): sums of squares of the positions along the axes, about their mean",
}


def at_width(array: str, width: int, n_channels: int) -> str:
    """Return the name of an array of Gram matrices; that of the full rank has no rank in it."""
    return array if width >= n_channels else f"{array}_rank{width}"


class Source(NamedTuple):
    """A network, and whatever else its activations of given images depend on."""

    network: NetworkName
    code_sha256: str | None = None  # of the user's file that the type names
    channels_last: bool = False
    amp: str = "none"
    tf32: bool = False

    def description(self) -> dict[str, Any]:
        """Return what tells this source from others, by name: the checkpoint by its content."""
        parts = {"type": Path(self.network.type).name, "checkpoint_sha256": self.network.identity, **self._asdict()}
        del parts["network"]
        return parts

    @property
    def folder(self) -> str:
        """The name of its folder: the type and a hash."""
        key = hashlib.sha256(json.dumps(self.description(), sort_keys=True).encode()).hexdigest()
        return f"{re.sub(r'[^0-9A-Za-z._-]+', '.', Path(self.network.type).name)}-{key[:16]}"


class StoredLayer(Features):
    """A layer whose features are on disk; they are mapped when they are first needed."""

    def __init__(self, name: str, folder: Path, description: dict[str, Any]):
        super().__init__(name)
        self.folder, self.n_seen = folder, description["n_images"]
        self.shape = tuple(description["activation_shape"])
        self.dtype = getattr(torch, description["activation_dtype"])
        self.keep_sums = has_array(folder, "variances")
        self.sum = torch.zeros(self.n_channels, dtype=torch.float64)

    def add(self, activation: Tensor) -> Tensor:
        """Return the rows of a batch less the mean; see `Features.add`."""
        exact = rows_of(activation).flatten(0, 1).double()
        exact = exact - self.mean.to(exact.device)
        self.sum = self.sum.to(exact.device) + exact.sum(0)
        return exact

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """See `Features.spectrum`."""
        variances, axes = self._array("variances"), self._array("axes")
        if not variances.isfinite().all():
            raise Undefined(f"{self.name} has values that are not finite")
        return variances, axes

    @cached_property
    def pooled(self) -> Tensor:
        """Averages over positions (n, C)."""
        return self._array("pooled")

    @cached_property
    def mean(self) -> Tensor:
        """Averages over positions and images (C,)."""
        return self.pooled.mean(0)

    def grams(self, widths: Sequence[int], *, device: torch.device | str) -> Grams:
        """Read the Gram matrices; see `Features.grams`."""
        arrays = (self._at_widths(array, widths).to(device) for array in ("gram", "offsets"))
        return Grams(*arrays)

    def _at_widths(self, array: str, widths: Sequence[int]) -> Tensor:
        values = [self._array(at_width(array, width, self.n_channels)) for width in widths]
        return torch.stack(values) if len(values) > 1 else values[0][None]  # which copies nothing

    def _array(self, name: str) -> Tensor:
        return torch.from_numpy(read_array(self.folder, name))
