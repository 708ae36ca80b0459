"""The detector store: a folder with a checkpoint for each trained detector, and `meta.json`.

`meta.json` says for which network and layer each detector was trained, and with which data."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.choices.scores import SCORES
from src.core.console import warn
from src.core.errors import UserError, unknown_name
from src.core.files import locked, readable
from src.core.images import ImageSpec, shape_text
from src.models import MODEL_NAMES, Network, build_model
from src.ood.detectors import Detector, EnergyDetector
from src.ood.reference import ByScore, EvaluationOptions
from src.results.checkpoints import freeze, load_weights, save_state
from src.results.network_names import SHORT, NetworkName
from src.results.public import META, read_meta, write_meta

DetectorEntry = dict[str, Any]


def new_name() -> str:
    """Make up a file name that no detector has yet."""
    return f"{uuid.uuid4().hex}.pt"


class DetectorStore:
    """Detectors in a folder; several processes may add to it at the same time."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.meta = self.folder / META

    def entries(self) -> dict[str, DetectorEntry]:
        """Read the entries of `meta.json` by file name, oldest first; empty without that file."""
        return read_meta(self.folder)

    def add(self, name: str, state: Mapping[str, Tensor], entry: DetectorEntry) -> None:
        """Save a detector, and write its entry into `meta.json`.

        Args:
            name: from `new_name`. Adding a detector again under its name changes nothing.
            state: the state dict of its network.
        """
        save_state(self.folder / name, state)
        with locked(self.folder / ".meta.lock"):
            write_meta(self.folder, self.entries() | {name: entry})

    def names_by_layer(self, source: NetworkName) -> dict[str, list[str]]:
        """Return the file names of a network's detectors by layer, oldest first.

        A detector belongs to the network if the contents of its checkpoint were recorded and are
        equal. Entries of the public code record no contents: there the paths must be equal.

        Raises:
            UserError: there is no `meta.json`.
        """
        if not self.meta.exists():
            raise UserError(
                f"no detectors in {self.folder}: there is no meta.json; train some, give "
                "-detectors, or --detector mahalanobis, which needs no training"
            )
        source_path = Path(source.path).resolve()
        names: dict[str, list[str]] = {}
        for name, entry in self.entries().items():
            sha256 = entry.get("source_sha256")
            if sha256:
                is_of_source = sha256[:SHORT] == source.identity
            else:
                path = Path(str(entry.get("source_model_path")))
                is_of_source = path.resolve() == source_path
            if is_of_source:
                names.setdefault(str(entry.get("source_layer")), []).append(name)
        return names

    def load(
        self, source: NetworkName, layer: str, images: ImageSpec, *, device: torch.device
    ) -> EnergyDetector:
        """Load the newest detector for a layer of a network, frozen and in evaluation mode.

        Args:
            images: the images that the network takes.
        Raises:
            UserError: there is no detector for the layer, the detector is for images of another
                shape, or its checkpoint does not fit.
        """
        name = self._newest_name(source, layer)
        entry = self.entries()[name]
        with readable(f"{self.meta}, entry {name}", "restore or remove it"):
            kind = entry["model_type"]
            image_shape = tuple(map(int, entry["orig_input_shape"]))
            representation_shape = tuple(map(int, entry["required_input_shape"]))
        if kind not in MODEL_NAMES:  # a store never names a file whose code would be run
            raise unknown_name(f"detector in {self.meta}", kind, MODEL_NAMES)
        if image_shape != images.shape:
            trained_on = shape_text(image_shape)
            expected = shape_text(images.shape)
            raise UserError(
                f"detector {name} for {layer} is for images of {trained_on} pixels, not {expected}"
            )
        network = build_model(
            kind,
            n_classes=images.n_classes,
            representation_shape=representation_shape,
            image_shape=images.shape,
        )
        load_weights(network, self.folder / name, expected=f"the detector {kind} for {layer}")
        detector = EnergyDetector(freeze(network, device))
        id_dataset = entry.get("id_dataset", "")
        detector.id_data = str(entry.get("finetune_id_dataset", id_dataset))
        detector.ood_data = str(entry.get("finetune_ood_dataset", ""))
        return detector

    def _newest_name(self, source: NetworkName, layer: str) -> str:
        """Return the file name of the newest detector for a layer; warn if there are several."""
        names_by_layer = self.names_by_layer(source)
        if layer not in names_by_layer:
            message = f"no detector for {layer} of {source.path} in {self.folder}"
            if names_by_layer:
                message += f"; the store has detectors for {', '.join(names_by_layer)}"
            raise UserError(message)
        names = names_by_layer[layer]
        if len(names) > 1:
            warn(
                f"{len(names)} detectors for {layer} of {source.path}; "
                f"the newest is used, {names[-1]}"
            )
        return names[-1]


def load_trained(
    store: DetectorStore, network: Network, name: NetworkName, options: EvaluationOptions
) -> tuple[ByScore[Detector], list[str]]:
    """Load the trained detectors of an evaluation; return a reason for each missing detector too.

    They are those of the end layers. With sanity-check data, they are those of all layers in the
    store.

    Args:
        network: the end network.
        name: of the end network.

    Raises:
        UserError: there is no store.
    """
    detectors: ByScore[Detector] = {}
    missing = []
    for score in options.scores:
        if not SCORES[score].is_trained:
            continue
        layers = list(options.layers)
        stored = store.names_by_layer(name)
        if options.sanity_data is not None:
            layers += sorted(set(stored).difference(layers), key=network.depth)
        for layer in layers:
            try:
                detector = store.load(name, layer, options.test.spec, device=options.test.device)
            except UserError as error:
                missing.append(str(error))
            else:
                detectors.setdefault(score, {})[layer] = detector
    return detectors, missing
