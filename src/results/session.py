"""A cache of networks and data sets that the experiments of a process share."""

from collections import Counter
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from src.core.cache import Cache
from src.core.console import recorded_warnings
from src.core.errors import UserError
from src.core.inputs import InputSpec
from src.datasets import load_dataset
from src.datasets.base import InputSet
from src.datasets.overlap import share_among
from src.models import Network
from src.results.checkpoints import load_model, weights_of
from src.results.network_names import NamedNetwork
from src.training.doubts import warn_at_chance

if TYPE_CHECKING:  # most scripts evaluate no stitches
    from src.ood.reference import EndReference, EvaluationOptions


class Session:
    """Loads networks and data sets, each once.

    Experiments share the loaded networks: they take views and copies and change nothing.

    Args:
        cache: keeps decoded images, and what is computed of networks, for further experiments; None:
            nothing is kept.

    Attributes:
        warnings: of the experiments that leave them to the session, with their numbers.
        warnings_of: the warnings about a loaded network.
    """

    def __init__(self, cache: Cache | None = None):
        self.cache = cache
        self._networks: dict[Hashable, Network] = {}
        self._weights: dict[NamedNetwork, str] = {}  # SHA-256 of the loaded weights
        self._datasets: dict[Hashable, InputSet] = {}
        self._splits: dict[tuple[str, str], dict[bool, InputSet]] = {}  # the last ones loaded
        self._shares: dict[tuple[str, str], float] = {}
        self.warnings: Counter[str] = Counter()
        self.warnings_of: dict[NamedNetwork, list[str]] = {}  # when the network was loaded
        self._beside_chance: set[NamedNetwork] = set()  # networks that were set against chance
        self._reference: tuple[tuple, EndReference] | None = None  # behind what it was made of

    def network(
        self,
        name: NamedNetwork,
        images: InputSpec,
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
        name: NamedNetwork,
        images: InputSpec,
        *,
        device: torch.device | str,
        encoder: bool,
    ) -> None:
        content_before = None
        if Path(name.path).is_file():
            content_before = name.content
        with recorded_warnings() as texts:
            network = load_model(name, images, device=device, encoder=encoder)
        self.warnings_of[name] = texts
        content = weights_of(name, network)
        if self.cache is not None:
            code = (name.type, images, str(device))
            network = network.keeping(self.cache, (content, *code), code)
        self._networks[key] = network
        self._weights[name] = content
        if content_before not in (None, content):
            raise UserError(f"{name.path} was written while it was read; give the command again")

    def weights(self, name: NamedNetwork, images: InputSpec, *, device: torch.device | str) -> str:
        """Return the SHA-256 of the weights of a network.

        Weights that come with a type (DEFAULT) are loaded for it; a checkpoint is not.
        """
        if name not in self._weights and name.is_given:
            self.network(name, images, device=device, encoder=True)
        if name in self._weights:
            return self._weights[name]
        return name.content

    def warn_at_chance(
        self, name: NamedNetwork, network: Network, images: InputSet, *, is_end: bool = False
    ) -> None:
        """Warn once if a trained classifier is close to chance accuracy on labelled test images."""
        is_classifier = not (name.is_untrained or network.is_encoder)
        if is_classifier and name not in self._beside_chance and (images.labels >= 0).any():
            self._beside_chance.add(name)
            warn_at_chance(network, images, name.title, is_end=is_end)

    def dataset(self, name: str, root: str | Path, **options: Any) -> InputSet:
        """Return a split of a data set, loaded by `load_dataset` with these options.

        Equal arguments return the same object.
        """
        interventions = options.get("interventions") or {}
        hashable = options | {"interventions": tuple(interventions.items())}
        key = (name, str(root), *sorted(hashable.items()))
        if key not in self._datasets:
            images = load_dataset(name, root, **options)
            images.cache = self.cache
            self._datasets[key] = images
        self._splits.setdefault((name, str(root)), {})[options["train"]] = self._datasets[key]
        return self._datasets[key]

    def shared_inputs(self, name: str, root: str | Path) -> float:
        """Return the share of a data set's test inputs that equal training inputs; 0 unless both splits are
        loaded. The inputs are compared once."""
        splits = self._splits.get((name, str(root)), {})
        if len(splits) < 2 or splits[True].image_shape != splits[False].image_shape:
            return 0.0
        key = (name, str(root))
        if key not in self._shares:
            self._shares[key] = share_among(splits[False], splits[True])
        return self._shares[key]

    def reference(
        self,
        end: NamedNetwork,
        store: Path,
        options: "EvaluationOptions",
        make: "Callable[[], EndReference]",
    ) -> "EndReference":
        """Return the reference of an evaluation; the last one is reused for equal arguments.

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
