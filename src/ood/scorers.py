"""What scores the activations of a network's layers: trained detectors from a store, or fitted ones."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.models import Network
from src.ood.detectors import DetectorStore, Source
from src.ood.losses import energy
from src.ood.scores import make_detector
from src.stitching.results import Run
from src.stitching.rows import natural_order

Batches = Iterable[tuple[Tensor, Tensor]]


class Scorer(NamedTuple):
    """Scores the activations of one layer."""

    score: Callable[[Tensor], Tensor]  # activations -> (B,), high for out of distribution
    id_data: str  # what it has learned to be in distribution
    ood_data: str  # what it has learned to be out of distribution; empty: nothing

    @property
    def data(self) -> dict[str, str]:
        """What it was made with, by columns of `ood_evaluation.csv`."""
        return {"detector_id_data": self.id_data, "detector_ood_data": self.ood_data}


Scorers = dict[str, Scorer]  # by layer


def make_scorers(
    names: Sequence[str],
    store: str,
    source: Source,
    network: Network,
    runs: Iterable[Run],
    batches: Callable[[], Batches],
    *,
    others: bool,
    id_data: str,
    **image: Any,
) -> tuple[dict[str, Scorers], list[str]]:
    """Load the trained detectors of a network's layers, or fit those that need no training.

    Args:
        names: of `SCORES`.
        store: the folder of the trained ones.
        runs: of stitches, whose end layers are scored.
        batches: gives labelled training images, shuffled and not augmented; called where a detector is fitted.
        others: load trained detectors of all other layers, too.
        id_data: the name of the training images.
        image: `n_classes`, `image_shape` and `device`.
    Returns:
        Scorers by detector, but for detectors without any, and why some are missing.
    """
    layers = natural_order(run.row.end_layer for run in runs)
    scorers: dict[str, Scorers] = {}
    missing, fitted = [], [name for name in names if name != "energy"]
    if "energy" in names:
        scorers["energy"], missing = stored_scorers(DetectorStore(store), source, layers, others=others, **image)
    if fitted:
        more, unfit = fitted_scorers(fitted, network, layers, batches(), id_data=id_data)
        scorers, missing = scorers | more, missing + unfit
    return {name: scorers[name] for name in names if scorers[name]}, missing


def stored_scorers(
    store: DetectorStore,
    source: Source,
    layers: Sequence[str],
    *,
    others: bool,
    n_classes: int,
    image_shape: tuple[int, int, int],
    device: torch.device,
) -> tuple[Scorers, list[str]]:
    """Load trained detectors by layer; say why some are missing. Arguments as in `DetectorStore.load_all`.

    Args:
        others: behind those layers, all others that have a detector, too.
    """
    if others:
        layers = [*layers, *natural_order(set(store.layers(source)) - set(layers))]
    image = {"n_classes": n_classes, "image_shape": image_shape, "device": device}
    detectors, missing = store.load_all(source, layers, **image)
    scorers = {}
    for layer, (network, entry) in detectors.items():
        id_data = str(entry.get("finetune_id_dataset", entry["id_dataset"]))
        scorers[layer] = Scorer(_energy_by(network), id_data, str(entry.get("finetune_ood_dataset", "")))
    return scorers, missing


def _energy_by(network: Network) -> Callable[[Tensor], Tensor]:
    return lambda activations: energy(network(activations))


@torch.no_grad()
def fitted_scorers(
    names: Sequence[str], network: Network, layers: Sequence[str], batches: Batches, *, id_data: str
) -> tuple[dict[str, Scorers], list[str]]:
    """Fit detectors of `SCORES` for each layer in one pass over training images.

    Args:
        names: of the detectors.
        batches: labelled training images, shuffled and not augmented.
        id_data: their name.
    Returns:
        Scorers by detector and layer, and why some are missing.
    """
    network = network.for_inference(list(layers))
    detectors = {(name, layer): make_detector(name) for name in names for layer in layers}
    for images, labels in batches:
        activations = network.activations(images, list(layers))
        for (_, layer), detector in detectors.items():
            detector.add(activations[layer], labels)
    scorers: dict[str, Scorers] = {name: {} for name in names}
    missing = []
    for (name, layer), detector in detectors.items():
        try:
            detector.fit()
        except ValueError as error:
            missing.append(f"no {name} for {layer}: {error}")
        else:
            scorers[name][layer] = Scorer(detector.score, id_data, "")
    return scorers, missing
