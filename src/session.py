"""A session: networks and data sets that the experiments of one process share; each is loaded
once."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import torch

from src.checkpoints import load_model, weights_of
from src.datasets import load_dataset
from src.datasets.base import BaseImageSet
from src.errors import UserError
from src.images import ImageSpec
from src.models import Network
from src.network_names import NetworkName


class Session:
    """Keeps what it has loaded. Users of a network take views and copies of it and leave it as it
    is."""

    def __init__(self) -> None:
        self._networks: dict[Hashable, Network] = {}
        self._weights: dict[NetworkName, str] = {}  # the SHA-256 of those that were loaded
        self._datasets: dict[Hashable, BaseImageSet] = {}
        self.features: Any = None  # of networks that are compared again: a `KeptFeatures`
        self.reference: Any = (
            None  # of the last evaluation of stitches, for the next one into the same network
        )

    def network(
        self,
        name: NetworkName,
        images: ImageSpec,
        *,
        device: torch.device | str,
        encoder: bool = False,
    ) -> Network:
        """Return a network as `load_model` loads it; the same object for the same arguments."""
        key = (name, images, str(device))
        if key not in self._networks:
            content = name.content if name.is_file and Path(name.path).is_file() else ""
            self._networks[key] = load_model(name, images, device=device, encoder=encoder)
            self._weights[name] = weights_of(name, self._networks[key])
            if content and content != self._weights[name]:
                raise UserError(
                    f"{name.path} was written while it was read; give the command again"
                )
        if self._networks[key].is_encoder and not encoder:
            return load_model(name, images, device=device)  # refuses it
        return self._networks[key]

    def weights(self, name: NetworkName, images: ImageSpec, *, device: torch.device | str) -> str:
        """Return the SHA-256 of the weights of a network as it was loaded; of a file it is not
        loaded for that."""
        if name.is_given:
            self.network(name, images, device=device, encoder=True)
        return self._weights.get(name) or name.content

    def dataset(self, name: str, root: str | Path, **options: Any) -> BaseImageSet:
        """Return one split of a data set as `load_dataset` loads it; the same object for the same
        arguments."""
        changes = tuple((options.get("interventions") or {}).items())
        key = (name, str(root), *sorted((options | {"interventions": changes}).items()))
        if key not in self._datasets:
            self._datasets[key] = load_dataset(name, root, **options)
        return self._datasets[key]
