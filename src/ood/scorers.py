"""What scores the activations of a network's layers: trained detectors from a store, or fitted ones."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.models import Network
from src.ood.detectors import DetectorStore, Source
from src.ood.losses import energy
from src.ood.scores import make_detector
from src.stitching.results import natural_order

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


def stored_scorers(
    store: DetectorStore,
    source: Source,
    layers: Sequence[str],
    *,
    others: bool,
    n_classes: int,
    image_shape: tuple[int, int, int],
    device: torch.device,
) -> tuple[dict[str, Scorer], list[str]]:
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
    name: str, network: Network, layers: Sequence[str], batches: Batches, *, id_data: str
) -> tuple[dict[str, Scorer], list[str]]:
    """Fit a detector of `SCORES` for each layer in one pass over training images.

    Args:
        batches: labelled training images, shuffled and not augmented.
        id_data: their name.
    Returns:
        Scorers by layer, and why some are missing.
    """
    network, detectors = network.for_inference(list(layers)), {layer: make_detector(name) for layer in layers}
    for images, labels in batches:
        for layer, activations in network.activations(images, list(layers)).items():
            detectors[layer].add(activations, labels)
    scorers, missing = {}, []
    for layer, detector in detectors.items():
        try:
            detector.fit()
        except ValueError as error:
            missing.append(f"no {name} for {layer}: {error}")
        else:
            scorers[layer] = Scorer(detector.score, id_data, "")
    return scorers, missing
