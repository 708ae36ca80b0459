"""The detector store: a folder with one checkpoint for each detector, and `meta.json`, which says
what they are for."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.checkpoints import freeze, load_weights, save_state
from src.console import warn
from src.errors import UserError, unknown_name
from src.files import locked, read_json, readable, write_json
from src.images import ImageSpec
from src.models import MODEL_NAMES, build_model
from src.network_names import SHORT, NetworkName
from src.ood.detectors import EnergyDetector

Entry = dict[str, Any]


def new_name() -> str:
    """Make up a file name that no other detector has."""
    return f"{uuid.uuid4().hex}.pt"


class DetectorStore:
    """Detectors in a folder; several processes may add to it at the same time."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.meta = self.folder / "meta.json"

    def entries(self) -> dict[str, Entry]:
        """Read the entries of `meta.json` by file name, oldest first; none where there is no such
        file."""
        with readable(self.meta, "restore it or move it away"):
            written = read_json(self.meta) if self.meta.exists() else {}
            return {name: dict(entry) for name, entry in written.items()}

    def add(self, name: str, state: Mapping[str, Tensor], entry: Entry) -> None:
        """Save a detector under a name that `new_name` gave, and enter it into `meta.json`; again
        changes nothing."""
        save_state(self.folder / name, state)
        with locked(self.folder / ".meta.lock"):
            write_json(self.meta, self.entries() | {name: entry})

    def of(self, source: NetworkName) -> dict[str, list[str]]:
        """Return the names of the detectors for each layer of a network, oldest first; raises
        UserError of no store.

        The content of the network's checkpoint counts; where an entry has none, its path.
        """
        if not self.meta.exists():
            raise UserError(
                f"no detectors in {self.folder}: there is no meta.json; train some, give -detectors, or --detector "
                "mahalanobis, which needs no training"
            )
        identities = (
            source.identity,
            source._replace(weights="").identity,
        )  # that of DEFAULT was that of its name
        names: dict[str, list[str]] = {}
        for name, entry in self.entries().items():
            sha256, path = entry.get("source_sha256"), Path(str(entry.get("source_model_path")))
            if (
                sha256[:SHORT] in identities
                if sha256
                else path.resolve() == Path(source.path).resolve()
            ):
                names.setdefault(str(entry.get("source_layer")), []).append(name)
        return names

    def load(
        self, source: NetworkName, layer: str, images: ImageSpec, *, device: torch.device
    ) -> EnergyDetector:
        """Load the newest detector for a layer of a network, frozen and in evaluation mode.

        Args:
            images: that the network takes.
        Raises:
            UserError: there is none, or it is for images of another shape, or its checkpoint does not fit.
        """
        names = self.of(source)
        if layer not in names:
            others = f"; the store has detectors for {', '.join(names)}" if names else ""
            raise UserError(f"no detector for {layer} of {source.path} in {self.folder}{others}")
        *older, name = names[layer]
        if older:
            warn(
                f"{len(older) + 1} detectors for {layer} of {source.path}; the newest is used, {name}"
            )
        entry = self.entries()[name]
        with readable(f"{self.meta}, entry {name}", "restore or remove it"):
            kind = entry["model_type"]
            trained_on, shape = (
                tuple(map(int, entry[f"{of}_input_shape"])) for of in ("orig", "required")
            )
        if kind not in MODEL_NAMES:  # a file's code is not run because a folder names it
            raise unknown_name(f"detector in {self.meta}", kind, MODEL_NAMES)
        if trained_on != tuple(images.shape):
            shapes = " pixels, not ".join(
                "×".join(map(str, shape)) for shape in (trained_on, images.shape)
            )
            raise UserError(f"detector {name} for {layer} is for images of {shapes}")
        network = build_model(
            kind, n_classes=images.n_classes, representation_shape=shape, image_shape=trained_on
        )
        load_weights(network, self.folder / name, expected=f"the detector {kind} for {layer}")
        detector = EnergyDetector(freeze(network, device))
        detector.id_data = str(entry.get("finetune_id_dataset", entry.get("id_dataset", "")))
        detector.ood_data = str(entry.get("finetune_ood_dataset", ""))
        return detector
