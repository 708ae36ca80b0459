"""A session: the networks and data sets that the experiments of a process share."""

from collections import Counter
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from src.datasets import load_dataset
from src.datasets.base import BaseImageSet
from src.ground.errors import UserError
from src.ground.images import ImageSpec
from src.models import Network
from src.models.kept import KeptActivations
from src.results.checkpoints import load_model, weights_of
from src.results.network_names import NetworkName

if TYPE_CHECKING:  # most scripts evaluate no stitches, and compare no networks
    from src.ood.reference import EvaluationOptions, Reference
    from src.similarity.passes import KeptFeatures
    from src.stitching.eigenvectors import Eigh


class Session:
    """Loads every network and data set once, and keeps it.

    Experiments share the loaded networks: they take views and copies and change nothing.

    Attributes:
        kept: activations of networks that are loaded next, on images that pass again; None: keep none.
        features: of networks that are compared again; None: keep none.
        max_bytes_of_images: memory for the decoded images of each set that is loaded next.
        warnings: of the experiments that leave them to the session, with their numbers.
        eigh: decomposes symmetric matrices; `KeptEigenvectors` serve networks that are matched again.
    """

    def __init__(self) -> None:
        self._networks: dict[Hashable, Network] = {}
        self._weights: dict[NetworkName, str] = {}  # SHA-256 of the loaded weights
        self._datasets: dict[Hashable, BaseImageSet] = {}
        self.max_bytes_of_images = 0
        self.kept: KeptActivations | None = None
        self.features: KeptFeatures | None = None
        self.warnings: Counter[str] = Counter()
        self.eigh: Eigh = torch.linalg.eigh
        self._reference: tuple[tuple, Reference] | None = None  # behind what it was made of

    def network(
        self,
        name: NetworkName,
        images: ImageSpec,
        *,
        device: torch.device | str,
        encoder: bool = False,
    ) -> Network:
        """Return a network, loaded by `load_model`; equal arguments return the same object.

        Raises:
            UserError: as `load_model`; or the checkpoint was changed while it was read.
        """
        key = (name, images, str(device))
        if key not in self._networks:
            self._load(key, name, images, device=device, encoder=encoder)
        network = self._networks[key]
        if not encoder and network.is_encoder:
            return load_model(name, images, device=device)  # raises the error about encoders
        return network

    def _load(
        self,
        key: Hashable,
        name: NetworkName,
        images: ImageSpec,
        *,
        device: torch.device | str,
        encoder: bool,
    ) -> None:
        content_before = None
        if Path(name.path).is_file():
            content_before = name.content
        network = load_model(name, images, device=device, encoder=encoder)
        network.kept = self.kept
        content = weights_of(name, network)
        self._networks[key] = network
        self._weights[name] = content
        if content_before not in (None, content):
            raise UserError(f"{name.path} was written while it was read; give the command again")

    def weights(self, name: NetworkName, images: ImageSpec, *, device: torch.device | str) -> str:
        """Return the SHA-256 of the weights of a network.

        Weights that come with a type (DEFAULT) are loaded for it; a checkpoint is not.
        """
        if name not in self._weights and name.is_given:
            self.network(name, images, device=device, encoder=True)
        if name in self._weights:
            return self._weights[name]
        return name.content

    def dataset(self, name: str, root: str | Path, **options: Any) -> BaseImageSet:
        """Return a split of a data set, loaded by `load_dataset` with these options.

        Equal arguments return the same object.
        """
        interventions = options.get("interventions") or {}
        hashable = options | {"interventions": tuple(interventions.items())}
        key = (name, str(root), *sorted(hashable.items()))
        if key not in self._datasets:
            images = load_dataset(name, root, **options)
            images.max_bytes_kept = self.max_bytes_of_images
            self._datasets[key] = images
        return self._datasets[key]

    def reference(
        self,
        end: NetworkName,
        store: Path,
        options: "EvaluationOptions",
        make: "Callable[[], Reference]",
    ) -> "Reference":
        """Return the reference of an evaluation: the last one if its arguments were equal, else a
        new one.

        Args:
            end: the end network.
            store: the folder of the trained detectors.
            make: makes a reference with these options.
        """
        key = (end, store, options)
        if self._reference is None or self._reference[0] != key:
            self._reference = None  # frees its memory before the new one is made
            self._reference = (key, make())
        return self._reference[1]
