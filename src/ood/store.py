"""The detector store: a folder with one checkpoint for each detector, and `meta.json`, which says what they are for."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.checkpoints import freeze, load_weights, save_state
from src.console import warn
from src.errors import UserError, unknown_name
from src.files import locked, read_json, write_json
from src.images import ImageSpec
from src.models import MODEL_NAMES, Network, build_model
from src.network_names import NetworkName
from src.ood.detectors import EnergyDetector

Entry = dict[str, Any]
KEYS = ("model_type", "source_model_type", "source_model_path", "source_layer", "id_dataset", "orig_input_shape",
        "required_input_shape", "training_loc")  # fmt: skip


class DetectorStore:
    """Detectors in a folder; several processes may add to it at the same time.

    Args:
        folder: created when the first detector is added.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.meta = self.folder / "meta.json"

    def entries(self) -> dict[str, Entry]:
        """Read the entries of `meta.json` by file name, oldest first.

        Raises:
            UserError: there is none, or it is damaged; says what is wrong where.
        """
        if not self.meta.is_file():
            raise UserError(
                f"no detectors in {self.folder}: there is no meta.json; train some, give -detectors, or --detector "
                "mahalanobis, which needs no training"
            )
        entries = read_json(self.meta)
        if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
            raise UserError(f"{self.meta} is no table of detectors; restore it or move it away")
        for name, entry in entries.items():
            missing = [key for key in KEYS if key not in entry]
            if missing:
                raise UserError(
                    f"{self.meta}: entry {name!r} lacks {', '.join(missing)}; restore it or remove the entry"
                )
        return entries

    def check(self) -> None:
        """Check `meta.json`, if there is one, before training starts.

        Raises:
            UserError: it is damaged.
        """
        if self.meta.exists():
            self.entries()

    @staticmethod
    def new_name() -> str:
        """Make up a file name that no other detector has."""
        return f"{uuid.uuid4().hex}.pt"

    def add(self, state: Mapping[str, Tensor], entry: Entry, *, name: str | None = None) -> str:
        """Save a detector and enter it into `meta.json`; returns its file name.

        Args:
            name: what `new_name` gave, so that adding a detector again changes nothing; None for a new one.
        Raises:
            UserError: `meta.json` is damaged (nothing is overwritten), or the folder cannot be written.
        """
        name = name or self.new_name()
        save_state(self.folder / name, state)
        with locked(self.folder / ".meta.lock"):
            entries = self.entries() if self.meta.exists() else {}
            write_json(self.meta, entries | {name: entry})
        return name

    def layers(self, source: NetworkName) -> list[str]:
        """Return the layers of a network that have a detector, each once."""
        return list(dict.fromkeys(entry["source_layer"] for _, entry in self._of(source)))

    def _of(self, source: NetworkName) -> list[tuple[str, Entry]]:
        """List the detectors of a network, name and entry; its checkpoint's content counts, its path as fallback."""
        identity, entries = source.identity, []
        for name, entry in self.entries().items():
            sha256 = entry.get("source_sha256")
            if identity == sha256 if sha256 else _same_path(source.path, entry["source_model_path"]):
                entries.append((name, entry))
        return entries

    def find(self, source: NetworkName, layer: str) -> tuple[str, Entry]:
        """Return the newest detector for a layer of a network.

        Raises:
            UserError: there is none; lists the layers that have one.
        """
        entries = [(name, entry) for name, entry in self._of(source) if entry["source_layer"] == layer]
        if not entries:
            layers = self.layers(source)
            others = f"; the store has detectors for {', '.join(layers)}" if layers else ""
            raise UserError(f"no detector for {layer} of {source.path} in {self.folder}{others}")
        if len(entries) > 1:
            warn(f"{len(entries)} detectors for {layer} of {source.path}; the newest is used, {entries[-1][0]}")
        return entries[-1]

    def load(self, source: NetworkName, layer: str, images: ImageSpec, *, device: torch.device) -> EnergyDetector:
        """Load the newest detector for a layer of a network, frozen and in evaluation mode.

        Args:
            images: that the network takes.
        Raises:
            UserError: as `find`, or it is for images of another shape, or its checkpoint is missing, damaged or of
                another shape.
        """
        name, entry = self.find(source, layer)

        def build() -> Network:
            """Build the detector that the entry describes."""
            kind, shapes = str(entry["model_type"]), (tuple(entry["orig_input_shape"]), tuple(images.shape))
            if kind not in MODEL_NAMES:
                raise unknown_name(f"detector in {self.meta}", kind, MODEL_NAMES)
            if shapes[0] != shapes[1]:
                given = " pixels, not ".join("×".join(map(str, shape)) for shape in shapes)
                raise UserError(f"detector {name} for {entry['source_layer']} is for images of {given}")
            shape = tuple(entry["required_input_shape"])
            return build_model(
                kind, n_classes=images.n_classes, representation_shape=shape, image_shape=tuple(images.shape)
            )

        wanted = f"the detector {entry['model_type']} for {entry['source_layer']}"
        try:
            detector = EnergyDetector(freeze(load_weights(build(), self.folder / name, wanted=wanted), device))
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{self.meta}: entry {name!r} is damaged ({error}); restore or remove it") from error
        detector.id_data = str(entry.get("finetune_id_dataset", entry["id_dataset"]))
        detector.ood_data = str(entry.get("finetune_ood_dataset", ""))
        return detector


def _same_path(one: str, other: str) -> bool:
    return one == other or Path(one).resolve() == Path(other).resolve()
