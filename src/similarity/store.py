"""The feature store: Gram matrices and pooled features of layers on disk, so that each network is run once.

    STORE/digits-360/images.json                                  the images, their checksum, their labels
    STORE/digits-360/small_cnn-1c0ffee1c0ffee1c/pool3/gram.npy    an array of a layer, gram.json beside it

`misc/docs/methods.md` describes the format for other readers.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import torch
from torch import Tensor

from src.console import note, progress
from src.datasets.registry import DATASETS, dataset_label
from src.errors import UserError
from src.files import locked, read_json, write_json
from src.results.tables import Rank
from src.similarity.arrays import has_array, read_description, write_array
from src.similarity.grams import Grams
from src.similarity.registry import CANONICAL, GRAMS, MEASURES, SAMPLES, take_any
from src.similarity.samples import Undefined
from src.similarity.statistics import Layer
from src.similarity.statistics import alignment as alignment_of
from src.similarity.stored_layer import CONTENTS, Source, StoredLayer, at_width

if TYPE_CHECKING:
    from src.datasets.base import BaseImageSet
    from src.models import Network


class Side(NamedTuple):
    """One network of a comparison."""

    source: Source
    network: "Network"  # frozen
    layers: Sequence[str]
    ranks: Sequence[Rank] = (None,)  # numbers of principal components that are kept


class FeatureStore:
    """Features of layers for the first images of a data set; several processes may fill it at the same time.

    Args:
        folder: made if need be. It may have features of other data sets as well.
        dataset: name of the data set.
        images: its test images.
        n_images: how many of them are used.
    Raises:
        UserError: the store has features of other images by this name, or of these in another order; or it cannot be
            written.
    """

    def __init__(self, folder: str | Path, dataset: str, images: "BaseImageSet", *, n_images: int, batch_size: int):
        self.images, self.n_images, self.batch_size = images, n_images, batch_size
        self._described: dict[Path, dict[str, Any]] = {}  # layers by their folders
        label = dataset_label(dataset)
        if dataset not in DATASETS:  # a path: others may end in the same name
            label = f"{quote(label, safe='')}-{hashlib.sha256(dataset.encode()).hexdigest()[:8]}"
        self.folder = Path(folder) / f"{label}-{n_images}"
        self.order = {"dataset": dataset, "n_images": n_images, "images_sha256": self._checksum()}
        path = self.folder / "images.json"
        with locked(self.folder / ".lock"):
            if not path.exists():
                write_json(path, {**self.order, "labels": self.images.labels[:n_images].tolist()})
        found = read_json(path).get("images_sha256")
        if found != self.order["images_sha256"]:
            raise UserError(
                f"{self.folder} is of other images of that name, or of these in another order (SHA-256 "
                f"{str(found)[:12]}…, not {self.order['images_sha256'][:12]}…); choose another --store, or remove it"
            )

    def pair(
        self, first: Side, second: Side, *, metrics: Sequence[str], device: torch.device | str
    ) -> tuple[dict[str, StoredLayer], dict[str, StoredLayer]]:
        """Return the layers of two networks, of which what is missing is stored first; see `fill`."""
        if first.source == second.source:
            self.fill(_both(first, second), metrics=metrics, device=device)
        else:
            for side in (first, second):
                self.fill(side, metrics=metrics, device=device)
        return self.layers(first, name="model 1"), self.layers(second, name="model 2")

    def fill(self, side: Side, *, metrics: Sequence[str], device: torch.device | str) -> None:
        """Store what measures need of layers: one pass of the network for all that is missing, if anything is.

        Args:
            metrics: names in `MEASURES`: some need Gram matrices, others pooled features.
            device: of the images, and where Gram matrices are computed.
        """
        source, ranks = side.source, side.ranks
        keep = {
            "keep_activations": take_any(metrics, GRAMS),
            "keep_sums": take_any(metrics, SAMPLES, CANONICAL) or set(ranks) != {None},
        }
        folder = self.folder / source.folder
        with locked(folder / ".lock"):  # another process may be making the same ones
            missing = [name for name in side.layers if self._lacks(folder / quote(name), ranks, **keep)]
            if not missing:
                return
            note(f"{source.network.path}: passes over {self.n_images} images, {len(missing)} layers go to {folder}")
            network = side.network.for_inference(side.layers)
            added = {name: Layer(name, self.n_images, **keep) for name in missing}
            for images, _ in progress(self._batches(), "features", -(-self.n_images // self.batch_size)):
                activations = network.activations(images, missing)
                for name, layer in added.items():
                    layer.add(activations.pop(name))
            for name in missing:
                self._write(folder / quote(name), source, added.pop(name), ranks, device)

    def layers(self, side: Side, *, name: str) -> dict[str, StoredLayer]:
        """Return layers that `fill` has stored.

        Args:
            name: of the network, for messages, such as "model 1".
        Raises:
            UserError: files are missing or damaged.
        """
        folders = {layer: self.folder / side.source.folder / quote(layer) for layer in side.layers}
        return {
            layer: StoredLayer(f"{layer} of {name}", folder, self._about(folder)) for layer, folder in folders.items()
        }

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.images.batches(self.batch_size, indices=torch.arange(self.n_images))

    def _checksum(self) -> str:
        """The SHA-256 of images and labels in their order, as the networks take them."""
        digest = hashlib.sha256()
        for images, _ in self._batches():
            digest.update(images.float().cpu().contiguous().numpy().data)
        digest.update(self.images.labels[: self.n_images].long().cpu().numpy().data)
        return digest.hexdigest()

    def _about(self, folder: Path) -> dict[str, Any]:
        """Read the description of one array of a layer; {} if there is none."""
        if folder in self._described:
            return self._described[folder]
        names = [path.stem for path in sorted(folder.glob("*.json"))]
        name = next((name for name in names if has_array(folder, name)), None)
        about = read_description(folder, name) if name else {}
        if about and about.get("images_sha256") != self.order["images_sha256"]:
            raise UserError(f"{folder} is of other images than {self.folder}/images.json says; remove it")
        if about:
            self._described[folder] = about
        return about

    def _lacks(self, folder: Path, ranks: Sequence[Rank], *, keep_activations: bool, keep_sums: bool) -> bool:
        about = self._about(folder)
        if not about:
            return True
        layer = StoredLayer("", folder, about)
        names = ["pooled", "axes", "variances"] if keep_sums else []
        if keep_activations:
            widths = layer.widths(ranks)
            names += [at_width(array, width, layer.n_channels) for array in ("gram", "offsets") for width in widths]
        return not all(has_array(folder, name) for name in names)

    def _write(self, folder: Path, source: Source, layer: Layer, ranks: Sequence[Rank], device) -> None:
        """Write the arrays of a layer; where values are not finite, the arrays that cannot be computed are NaN."""
        n, n_channels = layer.n_seen, layer.n_channels
        arrays: dict[str, Tensor] = {}
        if layer.keep_sums:
            arrays["pooled"] = layer.pooled + layer.shift
            try:
                arrays["variances"], arrays["axes"] = layer.spectrum
            except Undefined:
                arrays["variances"] = torch.full((n_channels,), torch.nan, dtype=torch.float64)
                arrays["axes"] = torch.full((n_channels, n_channels), torch.nan, dtype=torch.float64)
        if layer.keep_activations:
            widths = layer.widths(ranks)
            try:
                grams = layer.grams(widths, device=device)
            except Undefined:
                grams = Grams(*(torch.full((len(widths), *shape), torch.nan).double() for shape in ((n, n), (n,))))
            for width, gram, offsets in zip(widths, *grams, strict=True):
                arrays[at_width("gram", width, n_channels)] = gram
                arrays[at_width("offsets", width, n_channels)] = offsets
        for name, values in arrays.items():
            kind, _, rank = name.partition("_rank")
            about = {
                "contents": CONTENTS[kind], "layer": layer.name, "rank": int(rank) if rank else None,
                "activation_shape": list(layer.shape), "activation_dtype": str(layer.dtype).removeprefix("torch."),
                **self.order, "checkpoint": source.network.path, **source.description(),
            }  # fmt: skip
            write_array(folder, name, values.cpu().numpy(), about)


def _both(first: Side, second: Side) -> Side:
    """Return all layers and ranks of two sides that are the same network."""
    layers, ranks = ([*dict.fromkeys([*getattr(first, of), *getattr(second, of)])] for of in ("layers", "ranks"))
    return first._replace(layers=layers, ranks=ranks)


def needs_positions(first: Side, second: Side, image: Tensor, *, metrics: Sequence[str], alignment: str) -> bool:
    """Return whether some measure needs positions of both networks at once, which no store has; a note says which.

    Args:
        image: (1, C, H, W), for the shapes of the activations.
        alignment: see `statistics.alignment`.
    Raises:
        UserError: nothing else is asked for.
    """
    names = ", ".join(name for name in metrics if MEASURES[name].of != GRAMS)
    if not names or alignment == "pool":
        return False
    activations = [side.network.activations(image, side.layers) for side in (first, second)]
    shapes = product(*([tuple(each.shape[1:]) for each in of_side.values()] for of_side in activations))
    positions = [alignment_of(*pair, alignment).by_position for pair in shapes]
    if not any(positions):
        return False
    said = f"{names} of {sum(positions)} pairs of layers need positions of both networks, which a store does not have"
    if all(positions) and not take_any(metrics, GRAMS):
        raise UserError(f"{said}; give --alignment pool, or leave out --store")
    note(f"{said}: both pass over the images")
    return True
