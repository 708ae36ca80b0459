"""The detector store: a folder with one checkpoint for each detector, and `meta.json`, which says what they are for."""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.checkpoints import freeze, is_entry, load_network, save_state
from src.console import warn
from src.errors import UserError, unknown_name
from src.files import locked, read_json, write_json
from src.models import MODEL_NAMES, Network, build_model

Entry = dict[str, Any]
KEYS = ("model_type", "source_model_type", "source_model_path", "source_layer", "id_dataset", "orig_input_shape",
        "required_input_shape", "training_loc")  # fmt: skip
DIFFERENCES = ("model_type", "id_dataset", "finetune_id_dataset", "finetune_ood_dataset", "score", "training_loc")


class Stored(NamedTuple):
    """A detector from the store, and what `meta.json` says of it."""

    network: Network
    entry: Entry


class Source(NamedTuple):
    """The network that a detector is for."""

    path: str
    sha256: str


def source_of(path: str | Path, name: str = "", *, seed: int | None = None) -> Source:
    """Identify a checkpoint by its path and its content.

    Args:
        name: of the network; with `seed`, it tells fresh weights and weights of torchvision apart, which are no file.
    Raises:
        UserError: it cannot be read.
    """
    if path == "-" or is_entry(path):
        return Source(str(path), hashlib.sha256(f"{path} {name} {seed}".encode()).hexdigest())
    try:
        return Source(str(path), hashlib.sha256(Path(path).read_bytes()).hexdigest())
    except OSError as error:
        raise UserError(f"cannot read checkpoint {path}: {error.strerror or error}; check the path") from error


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
            raise UserError(f"no detectors in {self.folder}: there is no meta.json; train some, or give -detectors")
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

    def layers(self, source: Source) -> list[str]:
        """Return the layers of a network that have a detector, each once."""
        return list(dict.fromkeys(entry["source_layer"] for _, entry in self._of(source)))

    def _of(self, source: Source) -> list[tuple[str, Entry]]:
        """List the detectors of a network, name and entry; its checkpoint's content counts, its path as fallback."""
        entries = []
        for name, entry in self.entries().items():
            sha256 = entry.get("source_sha256")
            if source.sha256 == sha256 if sha256 else _same_path(source.path, entry["source_model_path"]):
                entries.append((name, entry))
        return entries

    def find(self, source: Source, layer: str) -> tuple[str, Entry]:
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
            several = f"{len(entries)} detectors for {layer} of {source.path}"
            warn(f"{several}{_differences([entry for _, entry in entries])}; the newest is used, {entries[-1][0]}")
        return entries[-1]

    def load(
        self, source: Source, layer: str, *, n_classes: int, image_shape: tuple[int, int, int], device: torch.device
    ) -> Network:
        """Load the newest detector for a layer of a network, frozen and in evaluation mode.

        Args:
            image_shape: (C, H, W) of the images that the network takes.
        Raises:
            UserError: as `find`, or it is for images of another shape, or its checkpoint is missing, damaged or of
                another shape.
        """
        image = {"n_classes": n_classes, "image_shape": image_shape, "device": device}
        return self._load(*self.find(source, layer), **image)

    def _load(
        self, name: str, entry: Entry, *, n_classes: int, image_shape: tuple[int, int, int], device: torch.device
    ) -> Network:
        def build() -> Network:
            """Build the detector that the entry describes."""
            kind, shapes = str(entry["model_type"]), (tuple(entry["orig_input_shape"]), tuple(image_shape))
            if kind not in MODEL_NAMES:
                raise unknown_name(f"detector in {self.meta}", kind, MODEL_NAMES)
            if shapes[0] != shapes[1]:
                given = " pixels, not ".join("×".join(map(str, shape)) for shape in shapes)
                raise UserError(f"detector {name} for {entry['source_layer']} is for images of {given}")
            shape = tuple(entry["required_input_shape"])
            return build_model(kind, n_classes=n_classes, representation_shape=shape, image_shape=image_shape)

        wanted = f"the detector {entry['model_type']} for {entry['source_layer']}"
        try:
            detector = load_network(self.folder / name, build, wanted=wanted)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{self.meta}: entry {name!r} is damaged ({error}); restore or remove it") from error
        return freeze(detector, device)

    def load_all(
        self,
        source: Source,
        layers: Sequence[str],
        *,
        n_classes: int,
        image_shape: tuple[int, int, int],
        device: torch.device,
    ) -> tuple[dict[str, Stored], list[str]]:
        """Load the detectors for several layers; arguments as in `load`.

        Returns:
            Detectors by layer, and why those that are not among them are missing.
        Raises:
            UserError: there is no store in the folder, or its `meta.json` is damaged.
        """
        self.entries()
        network = {"n_classes": n_classes, "image_shape": image_shape, "device": device}
        detectors, missing = {}, []
        for layer in layers:
            try:
                name, entry = self.find(source, layer)
                detectors[layer] = Stored(self._load(name, entry, **network), entry)
            except UserError as error:
                missing.append(str(error))
        return detectors, missing


def _differences(entries: Sequence[Entry]) -> str:
    """Describe how several detectors for one layer differ; empty if they do not."""
    values = {key: list(dict.fromkeys(str(entry.get(key)) for entry in entries)) for key in DIFFERENCES}
    parts = [f"{key}: {', '.join(different)}" for key, different in values.items() if len(different) > 1]
    return f" (they differ in {'; '.join(parts)})" if parts else ""


def _same_path(one: str, other: str) -> bool:
    return one == other or Path(one).resolve() == Path(other).resolve()
